using System.Diagnostics;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>What came of a test event.</summary>
internal sealed record SubscriptionTestResult(string EventId, string DeliveryId, AttemptView Attempt);

/// <summary><c>POST /subscriptions/{id}/test</c>: sends an event of type <c>triggers.test</c> now, and answers with the attempt.</summary>
internal static class SubscriptionTest
{
    private static readonly TimeSpan MaxWait = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestPause = TimeSpan.FromMilliseconds(250);

    public static async Task<Ok<SubscriptionTestResult>> SendAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, ConcurrencyLimits limits,
        TimeProvider time)
    {
        var key = Ids.Subscription(id);
        if (!await SubscriptionsApi.Living(db, caller).AnyAsync(s => s.Id == key, context.RequestAborted))
            throw ApiException.NotFound("subscription");

        using var place = limits.Test(key);
        var (eventId, deliveryId, attempt) = await AttemptAsync(
            TestEvents.Genuine, key, context, caller, db, dataSource, MaxWait, time);
        return TypedResults.Ok(new SubscriptionTestResult(
            TypeId.Format(TypeId.Event, eventId), TypeId.Format(TypeId.Delivery, deliveryId), AttemptView.Of(attempt)));
    }

    /// <summary>Has one test event sent to a subscription, once, and answers what came of it.</summary>
    /// <param name="type">Which of <see cref="TestEvents"/>.</param>
    /// <param name="key">The subscription.</param>
    /// <param name="context">The request that asks for it.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="db">Where the attempt is looked for.</param>
    /// <param name="dataSource">Where the event is written.</param>
    /// <param name="maxWait">How long the attempt is waited for.</param>
    /// <param name="time">The clock.</param>
    public static async Task<(Guid EventId, Guid DeliveryId, Attempt Attempt)> AttemptAsync(
        string type, Guid key, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, TimeSpan maxWait,
        TimeProvider time)
    {
        var eventId = TypeId.NewGuid();
        var deliveryId = TypeId.NewGuid();
        await InsertAsync(type, dataSource, context, caller.TenantId, key, eventId, deliveryId);
        // Whatever comes of it.
        Charge.Of(context).EventsAccepted++;

        var deadline = Deadline.Of(context);
        var started = time.GetTimestamp();
        for (var pause = FirstPause; time.GetElapsedTime(started) < maxWait; pause = pause * 2 < LongestPause ? pause * 2 : LongestPause)
        {
            deadline.Pause();
            await Task.Delay(pause, time, context.RequestAborted);
            deadline.Restart();
            var attempt = await db.Attempts.Where(a => a.TenantId == caller.TenantId && a.DeliveryId == deliveryId).OrderBy(a => a.Number)
                .FirstOrDefaultAsync(context.RequestAborted);
            if (attempt is not null)
                return (eventId, deliveryId, attempt);
            if (!await db.LivingSubscriptions.AnyAsync(s => s.Id == key, context.RequestAborted))
                throw new ApiException(ErrorCodes.SubscriptionGone, "The subscription was deleted before the test was sent.");
        }
        throw new ApiException(ErrorCodes.TestNotAttempted,
            $"No attempt was made within {maxWait.TotalSeconds:0} s; it may still be: see GET "
                + $"/deliveries/{TypeId.Format(TypeId.Delivery, deliveryId)}.");
    }

    private static async Task InsertAsync(
        string type, NpgsqlDataSource dataSource, HttpContext context, Guid tenantId, Guid subscriptionId, Guid eventId, Guid deliveryId)
    {
        var e = new Event
        {
            TenantId = tenantId,
            Id = eventId,
            Type = type,
            CorrelationId = context.CorrelationId(),
            TraceParent = Activity.Current?.Id,
            Data = "{\"test\":true}"u8.ToArray(),
        };
        await using var connection = await dataSource.OpenConnectionAsync(context.RequestAborted);
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in StoredEvents.Test(e, deliveryId, subscriptionId))
            batch.BatchCommands.Add(command);
        batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')"));
        await batch.ExecuteNonQueryAsync(context.RequestAborted);
    }
}
