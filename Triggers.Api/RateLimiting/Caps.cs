using System.ComponentModel.DataAnnotations;
using System.Data;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Storage;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.RateLimiting;

/// <summary>Settings <c>Limits:*</c>: how many there may be of what tenants make. What exceeds a limit that was lowered stays.</summary>
internal sealed class CapOptions
{
    /// <summary>Tenants in all.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:Tenants must be at least 1.")]
    public int Tenants { get; set; } = 10_000;

    /// <summary>Valid API keys of a tenant; a rotated key counts until it expires.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:KeysPerTenant must be at least 1.")]
    public int KeysPerTenant { get; set; } = 100;

    /// <summary>Subscriptions of a tenant, disabled ones too.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:SubscriptionsPerTenant must be at least 1.")]
    public int SubscriptionsPerTenant { get; set; } = 1_000;

    /// <summary>Those of them that get their deliveries in order.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:OrderedSubscriptionsPerTenant must be at least 1.")]
    public int OrderedSubscriptionsPerTenant { get; set; } = 100;

    /// <summary>Inboxes with a name of a tenant.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:InboxesPerTenant must be at least 1.")]
    public int InboxesPerTenant { get; set; } = 100;

    /// <summary>Event types that a tenant describes.</summary>
    [Range(1, 10_000, ErrorMessage = "Limits:EventTypesPerTenant must be between 1 and 10000.")]
    public int EventTypesPerTenant { get; set; } = 500;

    /// <summary>Patterns of event types of a subscription.</summary>
    [Range(1, 100, ErrorMessage = "Limits:EventTypesPerSubscription must be between 1 and 100.")]
    public int EventTypesPerSubscription { get; set; } = 100;

    /// <summary>Headers of a subscription.</summary>
    [Range(0, 20, ErrorMessage = "Limits:HeadersPerSubscription must be between 0 and 20.")]
    public int HeadersPerSubscription { get; set; } = 20;

    /// <summary>Events of a request to a subscription that gets several at once.</summary>
    [Range(2, Batching.MaxEvents, ErrorMessage = "Limits:EventsPerBatch must be between 2 and 1000.")]
    public int EventsPerBatch { get; set; } = Batching.MaxEvents;

    /// <summary>
    /// How far ahead an event's <c>deliverAt</c> may be. The day of an event that waits is kept, whatever <c>Retention</c> says.
    /// </summary>
    [Range(typeof(TimeSpan), "00:01:00", "366.00:00:00", ErrorMessage = "Limits:DeliverAhead must be between 1 minute and 366 days.")]
    public TimeSpan DeliverAhead { get; set; } = TimeSpan.FromDays(90);

    /// <summary>Requests of a tenant that wait at the inbox at once, in each process.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:WaitingRequestsPerTenant must be at least 1.")]
    public int WaitingRequestsPerTenant { get; set; } = 100;

    /// <summary>Tests of a subscription that are under way at once, in each process.</summary>
    [Range(1, int.MaxValue, ErrorMessage = "Limits:TestsPerSubscription must be at least 1.")]
    public int TestsPerSubscription { get; set; } = 3;
}

/// <summary>Lets in what there is room for, whoever else inserts at the same time.</summary>
internal static class Caps
{
    /// <summary>Begins a transaction in which no other adds something to the tenant.</summary>
    /// <remarks>Not a lock that rows with a foreign key to the tenant wait for.</remarks>
    public static async Task<IDbContextTransaction?> LockTenantAsync(
        this TriggersDbContext db, Guid tenantId, CancellationToken cancellationToken)
    {
        var transaction = await db.BeginUnlessBegunAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync($"SELECT FROM tenants WHERE id = {tenantId} FOR NO KEY UPDATE", cancellationToken);
        return transaction;
    }

    /// <summary>Begins a transaction; null where there is one already, which whoever has begun it ends.</summary>
    public static async Task<IDbContextTransaction?> BeginUnlessBegunAsync(
        this TriggersDbContext db, CancellationToken cancellationToken) =>
        db.Database.CurrentTransaction is null
            ? await db.Database.BeginTransactionAsync(IsolationLevel.ReadCommitted, cancellationToken) : null;

    /// <summary>Refuses one more than there may be; what is counted must be locked.</summary>
    /// <exception cref="ApiException"><c>limit_reached</c></exception>
    public static async Task EnsureRoomAsync<T>(this IQueryable<T> there, int atMost, string what, CancellationToken cancellationToken)
    {
        if (await there.CountAsync(cancellationToken) >= atMost)
            throw new ApiException(ErrorCodes.LimitReached, $"There may be {atMost} {what}.");
    }
}
