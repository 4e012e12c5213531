using System.Data;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>Looks deliveries up.</summary>
internal static class DeliveriesApi
{
    /// <summary>Maps <c>/deliveries</c>, <c>/events/{id}/deliveries</c> and <c>/subscriptions/{id}/send-now</c>.</summary>
    public static void MapDeliveries(this IEndpointRouteBuilder app)
    {
        app.MapGet("/deliveries", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.List);
        app.MapGet("/deliveries/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.Get);
        app.MapPost("/deliveries/{id}/send-now", SendNow.OneAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(1)).WithMetadata(DeliveryDocs.SendNow);
        app.MapPost("/subscriptions/{id}/send-now", SendNow.AllAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(0)).WithMetadata(DeliveryDocs.SendAllNow);
        app.MapGet("/events/{id}/deliveries", ListOfEventAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.ListOfEvent);
    }

    private static async Task<IResult> ListAsync(HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var eventId = list.Id("eventId");
        var subscriptionId = list.Id("subscriptionId");
        var status = list.OneOf<DeliveryStatus>("status");
        var from = list.IdAt("createdAfter");
        var before = list.IdAt("createdBefore");
        list.EnsureValid();

        var query = db.Deliveries.Where(d => d.TenantId == caller.TenantId);
        if (eventId is not null)
            query = OfEvent(query, eventId.Value);
        if (subscriptionId is not null)
            query = query.Where(d => d.SubscriptionId == subscriptionId);
        if (status is not null)
            query = query.Where(d => d.Status == status);
        if (from is not null)
            query = query.Where(d => d.Id >= from);
        if (before is not null)
            query = query.Where(d => d.Id < before);
        return await AnswerAsync(list, query, cancellationToken);
    }

    private static async Task<IResult> ListOfEventAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Event(id);
        var list = ListRequest.Of(context);
        list.EnsureValid();
        if (!await db.Events.AnyAsync(e => e.TenantId == caller.TenantId && e.Id == key, cancellationToken))
            throw ApiException.NotFound("event");
        return await AnswerAsync(list, OfEvent(db.Deliveries.Where(d => d.TenantId == caller.TenantId), key), cancellationToken);
    }

    private static async Task<IResult> GetAsync(string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Delivery(id);
        // One snapshot: a delivery that ends between the two reads would be pending beside its successful attempt.
        await using var snapshot = await db.Database.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellationToken);
        var delivery = await db.Deliveries.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.Id == key, cancellationToken)
            ?? throw ApiException.NotFound("delivery");
        var attempts = await db.Attempts.Where(a => a.DeliveryId == key && a.TenantId == caller.TenantId)
            .OrderBy(a => a.Number).ThenBy(a => a.Claim).ToListAsync(cancellationToken);
        return TypedResults.Ok(new DeliveryDetail(DeliveryView.Of(delivery), [.. attempts.Select(AttemptView.Of)]));
    }

    private static IQueryable<Delivery> OfEvent(IQueryable<Delivery> query, Guid eventId)
    {
        var floor = EventReader.DeliveriesFrom(eventId);
        return query.Where(d => d.EventId == eventId && d.Id >= floor);
    }

    private static async Task<IResult> AnswerAsync(ListRequest list, IQueryable<Delivery> query, CancellationToken cancellationToken)
    {
        var rows = await list.Page(query, d => d.Id).ToListAsync(cancellationToken);
        return TypedResults.Ok(list.Answer(rows, DeliveryView.Of, d => d.Id));
    }
}
