using System.ComponentModel.DataAnnotations;
using System.Text;
using System.Text.Json.Serialization;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Ingest;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>An event as it might be published, to try something on.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record SampleEvent
{
    /// <summary>As when publishing; <c>triggers.test</c> when left out.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public string? Type { get; init; }

    /// <summary>As when publishing.</summary>
    public string? Subject { get; init; }

    /// <summary>As when publishing.</summary>
    public string? Source { get; init; }

    /// <summary>As when publishing; null when left out.</summary>
    public RawJson? Data { get; init; }

    /// <summary>As if it had been published.</summary>
    internal StoredEvent? Stored { get; init; }

    public static SampleEvent Of(Fields fields) => new()
    {
        Stored = new StoredEvent(
            TypeId.NewGuid(), fields.Text("type") ?? TestEvents.Genuine, null, fields.Text("source"), fields.Text("subject"), null, "",
            null, Encoding.UTF8.GetBytes(fields.Any("data")?.GetRawText() ?? "null")),
    };
}

/// <summary>What something is tried on: the member <c>event</c> of a body, or the stored one that <c>eventId</c> names.</summary>
internal sealed record Sample(SampleEvent? Event, Guid? EventId)
{
    /// <summary>Reads both members, of which there must be one.</summary>
    public static Sample Read(Fields fields)
    {
        var sample = new Sample(fields.Object("event", SampleEvent.Of), fields.Id("eventId"));
        if (sample.EventId is null == sample.Event is null)
            fields.Refuse("", "Must have either event or eventId.");
        return sample;
    }

    /// <summary>The event.</summary>
    /// <exception cref="ApiException">The caller may not read events, or there is none with this id.</exception>
    public async ValueTask<StoredEvent> FindAsync(
        Caller caller, EventReader events, TimeProvider time, CancellationToken cancellationToken)
    {
        if (EventId is not { } id)
            return Event!.Stored!;
        if (!caller.May(Scopes.EventsRead))
            throw new ApiException(ErrorCodes.Forbidden, $"This needs a key with the scope {Scopes.EventsRead}.");
        var found = await events.FindAsync(caller.TenantId, id, new TimeLimit(time, RequestBudget.Request), cancellationToken)
            ?? throw ApiException.Invalid("/eventId", "There is no such event.");
        return found.Stored;
    }
}
