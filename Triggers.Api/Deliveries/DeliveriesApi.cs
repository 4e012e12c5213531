using System.Data;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>Looks deliveries up.</summary>
internal static class DeliveriesApi
{
    private const int MaxSorted = 10_000;

    /// <summary>Maps <c>/deliveries</c>, <c>/events/{id}/deliveries</c> and <c>/subscriptions/{id}/send-now</c>.</summary>
    public static void MapDeliveries(this IEndpointRouteBuilder app)
    {
        app.MapGet("/deliveries", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.List);
        app.MapGet("/deliveries/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.Get);
        app.MapPost("/deliveries/{id}/send-now", SendNow.OneAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(1))
            .WithMetadata(DeliveryDocs.SendNow);
        app.MapPost("/subscriptions/{id}/send-now", SendNow.AllAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(0))
            .WithMetadata(DeliveryDocs.SendAllNow);
        app.MapGet("/events/{id}/deliveries", ListOfEventAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeliveryDocs.ListOfEvent);
    }

    private static async Task<Ok<Page<DeliveryView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
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
        if (from is not null)
            query = query.Where(d => d.Id >= from);
        if (before is not null)
            query = query.Where(d => d.Id < before);
        // What is pending is the queue, and has a next attempt; the rest is the history.
        var queue = query.Where(d => d.NextAttemptAt != null);
        var history = query.Where(d => d.NextAttemptAt == null);
        if (subscriptionId is { } subscription)
        {
            var past = history.Where(d => d.SubscriptionId == subscription);
            return await AnswerAsync(list, db, caller, PageAsync, cancellationToken);

            async Task<(List<Delivery> Rows, Guid? NextAfter)> PageAsync()
            {
                if (status is not null and not DeliveryStatus.Pending)
                    return await list.ScanAsync(past, d => d.Status == status, d => d.Id, cancellationToken);
                var queued = await QueuedAsync(list, queue, subscription, cancellationToken);
                return status is DeliveryStatus.Pending ? queued
                    : list.Merge(queued, await list.Page(past, d => d.Id).ToListAsync(cancellationToken), d => d.Id);
            }
        }
        return status switch
        {
            null => await AnswerAsync(list, db, caller, query, cancellationToken),
            DeliveryStatus.Pending => await AnswerAsync(list, db, caller, queue, cancellationToken),
            _ => await AnswerAsync(
                list, db, caller, () => list.ScanAsync(history, d => d.Status == status, d => d.Id, cancellationToken), cancellationToken),
        };
    }

    /// <summary>
    /// The queue has an index of what is due in a lane, which is not the order of lists, and pays for no other. A lane that is not long is
    /// sorted here; of a long one the page is looked for among the rest of the queue.
    /// </summary>
    private static async Task<(List<Delivery> Rows, Guid? NextAfter)> QueuedAsync(
        ListRequest list, IQueryable<Delivery> queue, Guid subscriptionId, CancellationToken cancellationToken)
    {
        var lane = queue.Where(d => d.SubscriptionId == subscriptionId).OrderBy(d => d.NextAttemptAt);
        // Tests have an index of their own, and each index serves only a query that says which of them it asks for.
        var ids = await lane.Where(d => !d.Test).Select(d => d.Id).Take(MaxSorted + 1).ToListAsync(cancellationToken);
        ids.AddRange(await lane.Where(d => d.Test).Select(d => d.Id).Take(MaxSorted + 1).ToListAsync(cancellationToken));
        if (ids.Count > MaxSorted)
            return await list.ScanAsync(queue, d => d.SubscriptionId == subscriptionId, d => d.Id, cancellationToken);
        var page = list.Sort(ids);
        var rows = await queue.Where(d => page.Contains(d.Id)).ToListAsync(cancellationToken);
        return list.Merge((rows, null), [], d => d.Id);
    }

    private static async Task<Ok<Page<DeliveryView>>> ListOfEventAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Event(id);
        var list = ListRequest.Of(context);
        list.EnsureValid();
        if (!await db.Events.AnyAsync(e => e.TenantId == caller.TenantId && e.Id == key, cancellationToken))
            throw ApiException.NotFound("event");
        return await AnswerAsync(
            list, db, caller, OfEvent(db.Deliveries.Where(d => d.TenantId == caller.TenantId), key), cancellationToken);
    }

    private static async Task<Ok<DeliveryDetail>> GetAsync(
        string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Delivery(id);
        // One snapshot: a delivery that ends between the two reads would be pending beside its successful attempt.
        await using var snapshot = await db.Database.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellationToken);
        var delivery = await db.Deliveries.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.Id == key, cancellationToken)
            ?? throw ApiException.NotFound("delivery");
        await AddExpiriesAsync(db, caller, [delivery], cancellationToken);
        var attempts = await db.Attempts.Where(a => a.DeliveryId == key && a.TenantId == caller.TenantId)
            .OrderBy(a => a.Number).ThenBy(a => a.Claim).ToListAsync(cancellationToken);
        return TypedResults.Ok(new DeliveryDetail(DeliveryView.Of(delivery), [.. attempts.Select(AttemptView.Of)]));
    }

    private static IQueryable<Delivery> OfEvent(IQueryable<Delivery> query, Guid eventId)
    {
        var floor = EventState.FirstDelivery(eventId);
        return query.Where(d => d.EventId == eventId && d.Id >= floor);
    }

    /// <summary>What has ended keeps no time of its own: it is its event's, as long as that is kept.</summary>
    private static async Task AddExpiriesAsync(
        TriggersDbContext db, Caller caller, IReadOnlyCollection<Delivery> deliveries, CancellationToken cancellationToken)
    {
        var ended = deliveries.Where(d => d.Status != DeliveryStatus.Pending).ToLookup(d => d.EventId);
        if (ended.Count == 0)
            return;
        var ids = ended.Select(e => e.Key).ToArray();
        var expiring = await db.Events.Where(e => e.TenantId == caller.TenantId && ids.Contains(e.Id) && e.ExpiresAt != null)
            .Select(e => new { e.Id, e.ExpiresAt }).ToListAsync(cancellationToken);
        foreach (var e in expiring)
        {
            foreach (var delivery in ended[e.Id])
                delivery.ExpiresAt = e.ExpiresAt;
        }
    }

    private static async Task<Ok<Page<DeliveryView>>> AnswerAsync(
        ListRequest list, TriggersDbContext db, Caller caller, Func<Task<(List<Delivery> Rows, Guid? NextAfter)>> page,
        CancellationToken cancellationToken)
    {
        return TypedResults.Ok(await list.AnswerAsync(PageAsync, d => d.Id, DeliveryView.Of, cancellationToken));

        async Task<(List<Delivery> Rows, Guid? NextAfter)> PageAsync()
        {
            // One snapshot of all its reads: what ends between two of them would be missed, or end the list.
            await using var snapshot = await db.Database.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellationToken);
            var found = await page();
            await AddExpiriesAsync(db, caller, found.Rows, cancellationToken);
            return found;
        }
    }

    private static Task<Ok<Page<DeliveryView>>> AnswerAsync(
        ListRequest list, TriggersDbContext db, Caller caller, IQueryable<Delivery> query, CancellationToken cancellationToken) =>
        AnswerAsync(list, db, caller, () => list.ReadAsync(query, d => d.Id, cancellationToken), cancellationToken);
}
