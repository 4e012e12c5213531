using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>A filter, and the event it is tried on: one of the two.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record FilterTestBody
{
    /// <summary>As when subscribing.</summary>
    public required JsonObject Filter { get; init; }

    /// <summary>What is read of <see cref="Filter"/>.</summary>
    internal SubscriptionFilter? Read { get; init; }

    /// <summary>A stored event; instead of <c>event</c>.</summary>
    [Id(TypeId.Event)]
    public Guid? EventId { get; init; }

    /// <summary>An event as it might be published; instead of <c>eventId</c>.</summary>
    public SampleEvent? Event { get; init; }

    /// <summary>What is read of the two.</summary>
    internal Sample? Sample { get; init; }

    public static FilterTestBody Of(Fields fields) =>
        new() { Filter = [], Read = SubscriptionBody.ReadFilter(fields), Sample = Sample.Read(fields) };
}

/// <summary>What became of it.</summary>
internal sealed record FilterTestResult(bool Matches, IReadOnlyList<FilterConditionView> Conditions);

/// <summary>What became of what is asked of a member of the event.</summary>
/// <param name="Pointer">Where it is in the filter, as a JSON pointer.</param>
/// <param name="Expected">What is asked there; any of it is enough.</param>
/// <param name="Found">The event's value as JSON, its beginning where it is long; null where there is none.</param>
/// <param name="Matches">Whether it holds; of an array, of any element.</param>
internal sealed record FilterConditionView(string Pointer, RawJson Expected, string? Found, bool Matches);

/// <summary><c>POST /subscriptions/filter-test</c>: explains what a filter makes of an event.</summary>
internal static class FilterTest
{
    public static async Task<Ok<FilterTestResult>> RunAsync(
        HttpContext context, Caller caller, EventReader events, TimeProvider time, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, FilterTestBody.Of);
        var e = await body.Sample!.FindAsync(caller, events, time, cancellationToken);
        using var data = e.HoldsJson ? JsonDocument.Parse(e.Data) : null;
        var matches = body.Read!.Explain(e.Subject, e.Source, data?.RootElement ?? default, out var conditions);
        return TypedResults.Ok(new FilterTestResult(matches, [.. conditions.Select(c =>
            new FilterConditionView(c.Path, RawJson.Of(c.Expected)!.Value, c.Found, c.Matches))]));
    }
}
