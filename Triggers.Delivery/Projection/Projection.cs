using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;

namespace Triggers.Delivery.Projection;

/// <summary>An event that a log gave for the first time.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Event">As it goes out.</param>
/// <param name="DataBytes">Length of its data.</param>
/// <param name="Partition">Of the log; 0 where it has none.</param>
internal sealed record ProjectedEvent(Guid TenantId, EventToSend Event, int DataBytes, int Partition = 0)
{
    /// <summary>Larger data is not carried through the projection: it is read when its turn comes.</summary>
    public const int MaxCarriedBytes = 64 * 1024;

    /// <summary>Whether its data is not here.</summary>
    public bool DataLeftOut => DataBytes > MaxCarriedBytes;
}

/// <summary>
/// What follows from accepted events, whichever log they are in: a delivery for each subscription that wants it, or else a place in the
/// inbox. What finds a free place in its lane starts here, without going through the claim.
/// </summary>
internal sealed class Projection(
    Subscribers subscribers,
    Attempter attempter,
    Lanes lanes,
    WorkerRegistration worker,
    Wakeups wakeups,
    DeliveryMetrics metrics,
    IOptions<DeliveryOptions> options,
    TimeProvider time)
{
    /// <summary>Writes what follows, commits, and starts what was handed over.</summary>
    /// <param name="log">The log's name, <c>postgres</c> or <c>kafka</c>.</param>
    /// <param name="connection">Of the transaction.</param>
    /// <param name="transaction">In which the log's position is locked.</param>
    /// <param name="events">New to the projection, in the order of the log.</param>
    /// <param name="version">Of the subscriptions, read in the transaction.</param>
    /// <param name="claimedAt">A timestamp from before the transaction: the leases begin after it.</param>
    /// <param name="advance">Moves the log's position.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public async Task WriteAsync(
        string log, NpgsqlConnection connection, NpgsqlTransaction transaction, List<ProjectedEvent> events, long version, long claimedAt,
        NpgsqlBatchCommand advance, CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(connection, version, cancellationToken);
        var matches = new Matches();
        foreach (var e in events)
            Match(e, claimedAt, matches);

        try
        {
            await InsertAsync(connection, matches, advance, cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        catch
        {
            // It may be committed all the same. Then the lease brings back what was to be handed over.
            foreach (var delivery in matches.HandedOver)
                lanes.Release(delivery.SubscriptionId);
            throw;
        }

        var duration = time.GetElapsedTime(claimedAt);
        metrics.Projected(log, events.Count, duration);
        DeliveryTraces.Projected(log, events, duration, time.GetUtcNow());
        foreach (var delivery in matches.HandedOver)
            attempter.Start(delivery, lanes);
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
    }

    private void Match(ProjectedEvent record, long claimedAt, Matches matches)
    {
        var (tenantId, e, dataBytes, _) = record;
        var found = false;
        foreach (var subscriber in subscribers.Matching(tenantId, e.Type))
        {
            found = true;
            var id = TypeId.NewGuid();
            var handOver = !record.DataLeftOut && lanes.TryReserve(subscriber.Id);
            matches.Deliveries.Add(new NewDelivery(tenantId, id, e.Id, subscriber.Id) { DataBytes = dataBytes, Claimed = handOver });
            if (handOver)
                matches.HandedOver.Add(new DueDelivery(tenantId, id, subscriber.Id, Claim: 1, RetryCount: 0, ReplayOf: null, Test: false, claimedAt, e));
            else
                matches.LeftDue.Add(subscriber.Id);
        }
        if (!found)
            matches.Unmatched.Add((tenantId, e.Id));
    }

    private async Task InsertAsync(NpgsqlConnection connection, Matches matches, NpgsqlBatchCommand advance, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        if (matches.Unmatched.Count > 0)
            batch.BatchCommands.Add(EventState.Receive(matches.Unmatched));
        if (matches.Deliveries.Count > 0)
            batch.BatchCommands.Add(DeliveryQueue.Enqueue(matches.Deliveries, worker.Number, options.Value.Lease));
        batch.BatchCommands.Add(advance);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>What follows from a batch.</summary>
    private sealed class Matches
    {
        /// <summary>Events that nobody wants.</summary>
        public List<(Guid TenantId, Guid EventId)> Unmatched { get; } = [];

        public List<NewDelivery> Deliveries { get; } = [];

        /// <summary>Those of them that start here, without going through the claim.</summary>
        public List<DueDelivery> HandedOver { get; } = [];

        public HashSet<Guid> LeftDue { get; } = [];
    }
}
