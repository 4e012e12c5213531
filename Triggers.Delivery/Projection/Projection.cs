using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.EventLog;

namespace Triggers.Delivery.Projection;

/// <summary>
/// What follows from accepted events, whichever log they are in: a delivery for each subscription that wants it, or else a place in the
/// inbox. What finds a free place in its lane starts here, without going through the claim.
/// </summary>
internal sealed class Projection(
    Subscribers subscribers, Attempter attempter, Lanes lanes, WorkerRegistration worker, Wakeups wakeups,
    IOptions<DeliveryOptions> options)
{
    /// <summary>
    /// Decides what follows, in the transaction that read the events, and takes the places in lanes for it. Leases begin after
    /// <paramref name="claimedAt"/>, a timestamp from before the transaction.
    /// </summary>
    public async Task<Matches> MatchAsync(
        NpgsqlConnection connection, EventBatch batch, long claimedAt, CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(connection, batch.SubscriptionsVersion, cancellationToken);
        var matches = new Matches(lanes, claimedAt);
        foreach (var (tenantId, e, dataBytes, _) in batch.Events)
        {
            var matching = subscribers.Matching(tenantId, e.Type).ToList();
            if (matching.Count == 0)
                matches.Unmatched.Add((tenantId, e.Id));
            else if (matches.IsFullWith(tenantId, matching.Count))
                matches.Deferred.Add(new FanOut(tenantId, e.Id, dataBytes, Guid.Empty));
            else
                matching.ForEach(subscriber =>
                    matches.Add(tenantId, e.Id, subscriber.Id, dataBytes, dataBytes > LoggedEvent.MaxCarriedBytes ? null : e));
        }
        return matches;
    }

    /// <summary>Writes what follows, and that it is written, and commits; or gives the places back.</summary>
    public async Task CommitAsync(
        NpgsqlTransaction transaction, Matches matches, IReadOnlyList<NpgsqlBatchCommand> advance, CancellationToken cancellationToken)
    {
        try
        {
            await using var batch = new NpgsqlBatch(transaction.Connection);
            if (matches.Unmatched.Count > 0)
                batch.BatchCommands.Add(EventState.Receive(matches.Unmatched));
            if (matches.Deliveries.Count > 0)
                batch.BatchCommands.Add(DeliveryQueue.Enqueue(matches.Deliveries, worker.Number, options.Value.Lease));
            if (matches.Deferred.Count > 0)
                batch.BatchCommands.Add(FanOuts.Defer(matches.Deferred));
            foreach (var command in advance)
                batch.BatchCommands.Add(command);
            await batch.ExecuteNonQueryAsync(cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        catch
        {
            // It may be committed all the same. Then the lease brings back what was to be handed over.
            foreach (var (delivery, _) in matches.HandedOver)
            {
                lanes.ReleaseBytes(delivery.SubscriptionId, delivery.DataBytes);
                lanes.Release(delivery.SubscriptionId);
            }
            throw;
        }
    }

    /// <summary>Starts what was handed over, and wakes who makes the rest. It is committed.</summary>
    public void Start(Matches matches)
    {
        foreach (var (delivery, e) in matches.HandedOver)
            attempter.Start(delivery, lanes, e);
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
        if (matches.Deferred.Count > 0)
            wakeups.FanOuts.Set();
    }
}

/// <summary>What follows from a batch of events.</summary>
internal sealed class Matches(Lanes lanes, long claimedAt)
{
    /// <summary>
    /// Deliveries made by one transaction. What an event that many subscribe to has beyond that is made in portions of as many.
    /// </summary>
    public const int MaxDeliveries = 1_000;

    /// <summary>What a tenant may have in a transaction that is full.</summary>
    private const int MaxOfTenantBeyond = 50;

    private readonly Dictionary<Guid, int> _ofTenants = [];

    /// <summary>Events that nobody wants.</summary>
    public List<(Guid TenantId, Guid EventId)> Unmatched { get; } = [];

    /// <summary>Events of which more would follow than there is room for.</summary>
    public List<FanOut> Deferred { get; } = [];

    public List<NewDelivery> Deliveries { get; } = [];

    /// <summary>Those of them that start here, without going through the claim.</summary>
    public List<(DueDelivery Delivery, StoredEvent Event)> HandedOver { get; } = [];

    public HashSet<Guid> LeftDue { get; } = [];

    /// <summary>Whether so many more are too many. A tenant that has few so far always has room for a few.</summary>
    public bool IsFullWith(Guid tenantId, int more) =>
        Deliveries.Count + more > MaxDeliveries && _ofTenants.GetValueOrDefault(tenantId) + more > MaxOfTenantBeyond;

    public void Add(Guid tenantId, Guid eventId, Guid subscriptionId, int dataBytes, StoredEvent? known)
    {
        var id = TypeId.NewGuid();
        var handOver = known is not null && lanes.TryReserve(subscriptionId, dataBytes);
        Deliveries.Add(new NewDelivery(tenantId, id, eventId, subscriptionId) { DataBytes = dataBytes, Claimed = handOver });
        _ofTenants[tenantId] = _ofTenants.GetValueOrDefault(tenantId) + 1;
        if (handOver)
        {
            HandedOver.Add((
                new DueDelivery(tenantId, id, eventId, subscriptionId, Claim: 1, RetryCount: 0,
                    ReplayOf: null, Test: false, claimedAt, dataBytes), known!));
        }
        else
        {
            LeftDue.Add(subscriptionId);
        }
    }
}
