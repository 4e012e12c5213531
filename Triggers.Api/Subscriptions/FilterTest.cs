using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
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
    public FilteredEvent? Event { get; init; }

    public static FilterTestBody Of(Fields fields)
    {
        var body = new FilterTestBody
        {
            Filter = [],
            Read = SubscriptionBody.ReadFilter(fields),
            EventId = fields.Id("eventId"),
            Event = fields.Object("event", FilteredEvent.Of),
        };
        if (body.EventId is null == body.Event is null)
            fields.Refuse("", "Must have either event or eventId.");
        return body;
    }
}

/// <summary>What a filter looks at in an event.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record FilteredEvent
{
    /// <summary>As when publishing.</summary>
    public string? Subject { get; init; }

    /// <summary>As when publishing.</summary>
    public string? Source { get; init; }

    /// <summary>As when publishing; null when left out.</summary>
    public RawJson? Data { get; init; }

    internal JsonElement Value { get; init; }

    public static FilteredEvent Of(Fields fields) => new()
    {
        Subject = fields.Text("subject"),
        Source = fields.Text("source"),
        Value = fields.Any("data")?.Clone() ?? JsonSerializer.SerializeToElement<object?>(null),
    };
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
        if (body.EventId is not { } id)
            return TypedResults.Ok(Explain(body.Read!, body.Event!.Subject, body.Event.Source, body.Event.Value));
        if (!caller.May(Scopes.EventsRead))
            throw new ApiException(ErrorCodes.Forbidden, $"This needs a key with the scope {Scopes.EventsRead}.");
        var stored = await events.FindAsync(caller.TenantId, id, new TimeLimit(time, RequestBudget.Request), cancellationToken)
            ?? throw ApiException.Invalid("/eventId", "There is no such event.");
        using var data = stored.Stored.HoldsJson ? JsonDocument.Parse(stored.Stored.Data) : null;
        return TypedResults.Ok(Explain(body.Read!, stored.Subject, stored.Source, data?.RootElement ?? default));
    }

    private static FilterTestResult Explain(SubscriptionFilter filter, string? subject, string? source, JsonElement data)
    {
        var matches = filter.Explain(subject, source, data, out var conditions);
        return new(matches, [.. conditions.Select(c =>
            new FilterConditionView(c.Path, RawJson.Of(c.Expected)!.Value, c.Found, c.Matches))]);
    }
}
