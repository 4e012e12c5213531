using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Ingest;
using Triggers.Api.Lists;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Events;

/// <summary>One event, with how its deliveries stand.</summary>
internal sealed record EventDetail : EventView
{
    public EventDetail(EventView e, DeliverySummary deliveries) : base(e) => Deliveries = deliveries;

    [JsonPropertyOrder(1)]
    public DeliverySummary Deliveries { get; }
}

/// <summary>Looks events up.</summary>
internal static class EventsApi
{
    /// <summary>Maps <c>GET /events</c>, <c>GET /events/{id}</c> and <c>POST /events/{id}/cancel</c>.</summary>
    public static void MapEvents(this IEndpointRouteBuilder app)
    {
        app.MapGet("/events", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(EventDocs.List);
        app.MapGet("/events/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(EventDocs.Get);
        app.MapPost("/events/{id}/cancel", CancelAsync).RequireScope(Scopes.EventsWrite).WithMetadata(EventDocs.Cancel);
    }

    private static async Task<Ok<Page<EventView>>> ListAsync(
        HttpContext context, Caller caller, EventReader reader, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var type = list.Text("type");
        if (type is not null && !EventTypePattern.IsPattern(type))
            throw ApiException.Invalid("?type", "Must be an event type, or a pattern as in order.*.");
        var externalId = list.Text("externalId");
        var source = list.Text("source");
        var filter = new EventFilter(caller.TenantId, list.Limit)
        {
            Type = type,
            Status = list.OneOf<EventStatus>("status"),
            Source = source,
            Subject = list.Text("subject"),
            CorrelationId = list.Text("correlationId"),
            ExternalKeyHashes = externalId is null ? null
                : source is null ? [Fingerprints.HashOf(externalId)]
                : [Fingerprints.HashOf(externalId), Fingerprints.HashOf(Fingerprints.CloudEventKey(source, externalId))],
            From = list.IdAt("createdAfter"),
            Before = list.IdAt("createdBefore"),
            After = list.After,
            NewestFirst = list.NewestFirst,
        };
        list.EnsureValid();

        var (events, next) = filter.NewestFirst
            ? await reader.ReadPageAsync(filter, cancellationToken)
            : await reader.ReadPageUpwardsAsync(context, filter);
        return TypedResults.Ok(list.Answer(events, next));
    }

    private static async Task<Results<Ok<EventDetail>, FileContentHttpResult>> GetAsync(
        string id, HttpContext context, Deadline deadline, Caller caller, EventReader reader, CancellationToken cancellationToken)
    {
        var key = Ids.Event(id);
        var found = await reader.FindAsync(caller.TenantId, key, deadline.Limit, cancellationToken)
            ?? throw ApiException.NotFound("event");
        if (Accept.Prefers(context, CloudEvent.MediaType))
            return TypedResults.Bytes(CloudEvent.Structured(caller.TenantId, found.Stored).Body, CloudEvent.MediaType);
        return TypedResults.Ok(new EventDetail(found, await reader.CountDeliveriesAsync(caller.TenantId, key, cancellationToken)));
    }

    private static async Task<Ok<AcceptedEvent>> CancelAsync(
        string id, Deadline deadline, Caller caller, EventReader reader, EventCanceller canceller, CancellationToken cancellationToken)
    {
        var key = Ids.Event(id);
        var found = await reader.FindAsync(caller.TenantId, key, deadline.Limit, cancellationToken)
            ?? throw ApiException.NotFound("event");
        await canceller.CancelAsync(caller.TenantId, key, cancellationToken);
        // Without its data: who may publish need not be allowed to read.
        return TypedResults.Ok(new AcceptedEvent(found.Id, found.Type, "cancelled", found.CreatedAt, found.CorrelationId));
    }
}
