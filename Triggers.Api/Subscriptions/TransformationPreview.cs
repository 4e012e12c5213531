using System.Text;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Events;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Core.Transformations;

namespace Triggers.Api.Subscriptions;

/// <summary>A transformation, and the event it is tried on: one of the two.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TransformationPreviewBody
{
    /// <summary>As when subscribing.</summary>
    public required TransformationBody Transformation { get; init; }

    /// <summary>What is read of <see cref="Transformation"/>.</summary>
    internal Transformation? Read { get; init; }

    /// <summary>A stored event; instead of <c>event</c>.</summary>
    [Id(TypeId.Event)]
    public Guid? EventId { get; init; }

    /// <summary>An event as it might be published; instead of <c>eventId</c>.</summary>
    public SampleEvent? Event { get; init; }

    /// <summary>What is read of the two.</summary>
    internal Sample? Sample { get; init; }

    public static TransformationPreviewBody Of(Fields fields) =>
        new() { Transformation = null!, Read = TransformationBody.ReadMember(fields), Sample = Sample.Read(fields) };
}

/// <summary>The request there would be, or why there would be none.</summary>
/// <param name="Method">How it would be sent.</param>
/// <param name="ContentType">Of the body.</param>
/// <param name="Headers">Those of the transformation.</param>
/// <param name="Body">The body, as text.</param>
/// <param name="Error">Why nothing would be sent; then all else is null.</param>
internal sealed record TransformationPreviewResult(
    string? Method, string? ContentType, IReadOnlyDictionary<string, string>? Headers, string? Body, TransformationError? Error);

/// <summary>Where a transformation failed.</summary>
/// <param name="Line">In the template, from 1; null where no line is to blame.</param>
/// <param name="Column">In that line, from 1.</param>
/// <param name="Detail">What is wrong.</param>
internal sealed record TransformationError(int? Line, int? Column, string Detail);

/// <summary><c>POST /subscriptions/transformation-preview</c>: the request that a transformation makes of an event.</summary>
internal static class TransformationPreview
{
    // Each may take a processor for a second.
    private static readonly SemaphoreSlim s_places = new(Math.Max(1, Environment.ProcessorCount / 2));

    public static async Task<Ok<TransformationPreviewResult>> RunAsync(
        HttpContext context, Caller caller, EventReader events, IOptions<TransformationOptions> limits, TimeProvider time,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, TransformationPreviewBody.Of);
        var e = await body.Sample!.FindAsync(caller, events, time, cancellationToken);
        await s_places.WaitAsync(cancellationToken);
        try
        {
            var format = new TransformationFormat(TypeId.NewGuid(), body.Read!, limits.Value);
            return TypedResults.Ok(await RoomyThread.RunAsync(() => Try(format, e)));
        }
        finally
        {
            s_places.Release();
        }
    }

    private static TransformationPreviewResult Try(TransformationFormat format, StoredEvent e)
    {
        try
        {
            var message = format.Transform(e);
            return new(message.Method.Method, message.ContentType!.ToString(), message.Headers.ToDictionary(),
                Encoding.UTF8.GetString(message.Body), null);
        }
        catch (TemplateException mistake)
        {
            return new(null, null, null, null, new TransformationError(
                mistake.Line > 0 ? mistake.Line : null, mistake.Line > 0 ? mistake.Column : null, mistake.Problem));
        }
    }
}
