using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>How many deliveries were made due, and whether there are more.</summary>
internal sealed record SentNow(int Deliveries, bool Remaining);

/// <summary>Sends now what is scheduled for later. The failed attempts still count.</summary>
internal static class SendNow
{
    private const int AtOnce = 500;

    /// <summary><c>POST /deliveries/{id}/send-now</c></summary>
    public static async Task<Accepted<DeliveryView>> OneAsync(
        string id, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        var key = Ids.Delivery(id);
        var delivery = await FindAsync(db, caller, key, cancellationToken);
        await EnsureReachableAsync(db, delivery.SubscriptionId, cancellationToken);
        // What is in flight is being sent now.
        await MakeDueAsync(dataSource, caller.TenantId, key, null, most: 1, cancellationToken);
        delivery = await FindAsync(db, caller, key, cancellationToken);
        if (delivery is { Status: DeliveryStatus.Pending, NextAttemptAt: null })
            throw new ApiException(
                ErrorCodes.WaitsInOrder, "Others of its key come before it, or the key is held: see the subscription's `ordering`.");
        return delivery.Status == DeliveryStatus.Pending
            ? TypedResults.Accepted($"/deliveries/{id}", DeliveryView.Of(delivery))
            : throw new ApiException(ErrorCodes.DeliveryEnded, "It has no attempt ahead of it; replay it instead.");
    }

    /// <summary><c>POST /subscriptions/{id}/send-now</c></summary>
    public static async Task<Accepted<SentNow>> AllAsync(
        string id, HttpContext context, Deadline deadline, Caller caller, TriggersDbContext db,
        NpgsqlDataSource dataSource, RateLimits limits, CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        if (!await db.LivingSubscriptions.AnyAsync(s => s.TenantId == caller.TenantId && s.Id == key, cancellationToken))
            throw ApiException.NotFound("subscription");
        await EnsureReachableAsync(db, key, cancellationToken);
        var (charge, more) = (Charge.Of(context), true);
        do
        {
            var waiting = await CountLaterAsync(dataSource, key, cancellationToken);
            if (waiting == 0)
                return Answer(charge, more: false);
            // A portion is charged before it is made due. What of it was done is not undone for what the quota has no room for.
            if (await limits.TakeEventsAsync(context, charge.EventsAccepted + waiting, bytes: 0) is { } refusal)
                return charge.EventsAccepted > 0 ? Answer(charge, more: true) : throw refusal;
            charge.EventsAccepted += await MakeDueAsync(dataSource, caller.TenantId, null, key, waiting, cancellationToken);
            more = waiting == AtOnce;
        }
        while (more && deadline.Limit.Left > RequestBudget.Portion);
        return Answer(charge, more);
    }

    private static Accepted<SentNow> Answer(Charge charge, bool more) =>
        TypedResults.Accepted((string?)null, new SentNow(charge.EventsAccepted, more));

    private static async Task<int> CountLaterAsync(NpgsqlDataSource dataSource, Guid subscriptionId, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"""
            SELECT count(*)::int FROM (
                SELECT FROM delivery_queue
                WHERE subscription_id = @id AND claimed_by IS NULL AND next_attempt_at > now() AND next_attempt_at < 'infinity'
                    AND {DeliveryQueue.WasTried}
                LIMIT {AtOnce}) later
            """);
        command.Parameters.AddWithValue("id", subscriptionId);
        return (int)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    private static async Task<int> MakeDueAsync(
        NpgsqlDataSource dataSource, Guid tenantId, Guid? id, Guid? subscriptionId, int most, CancellationToken cancellationToken)
    {
        await using var batch = dataSource.CreateBatch();
        batch.BatchCommands.Add(DeliveryQueue.SendNow(tenantId, id, subscriptionId, most));
        return (int)(await batch.ExecuteScalarAsync(cancellationToken))!;
    }

    private static async Task EnsureReachableAsync(TriggersDbContext db, Guid subscriptionId, CancellationToken cancellationToken)
    {
        var subscription = await db.Subscriptions.Where(s => s.Id == subscriptionId)
            .Select(s => new { s.Enabled, Deleted = s.DeletedAt != null || s.ExpiresAt <= TriggersDbContext.Now() })
            .SingleAsync(cancellationToken);
        if (subscription.Deleted)
            throw new ApiException(ErrorCodes.SubscriptionGone, "The subscription was deleted; nothing can be sent to it.");
        if (!subscription.Enabled)
            throw new ApiException(ErrorCodes.SubscriptionDisabled, "Enable the subscription first.");
    }

    private static async Task<Delivery> FindAsync(TriggersDbContext db, Caller caller, Guid id, CancellationToken cancellationToken) =>
        await db.Deliveries.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.Id == id, cancellationToken)
            ?? throw ApiException.NotFound("delivery");
}
