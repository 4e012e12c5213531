using Microsoft.Extensions.Options;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Delivery.Dispatch;

namespace Triggers.Delivery.Projection;

/// <summary>An event that a log gave for the first time.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Event">As it goes out.</param>
/// <param name="DataLeftOut">Its data is too large to be carried along: the claim reads it when its turn comes.</param>
/// <param name="Partition">Of the log; 0 where it has none.</param>
internal sealed record ProjectedEvent(Guid TenantId, EventToSend Event, bool DataLeftOut, int Partition = 0);

/// <summary>
/// What follows from accepted events, whichever log they are in: an open row each, and a delivery for each subscription that wants it.
/// What finds a free place in its lane starts here, without going through the claim.
/// </summary>
internal sealed class Projection(
    Subscribers subscribers,
    Dispatcher dispatcher,
    Lanes lanes,
    WorkerRegistration worker,
    Wakeups wakeups,
    DeliveryMetrics metrics,
    IOptions<DeliveryOptions> options,
    TimeProvider time)
{
    /// <summary>Larger data is not carried through the projection.</summary>
    public const int MaxCarriedBytes = 64 * 1024;

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
        var matches = new Matches(events.Count);
        foreach (var e in events)
            Match(e, claimedAt, matches);

        try
        {
            await InsertAsync(connection, events, matches, advance, cancellationToken);
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
            dispatcher.Start(delivery);
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
    }

    private void Match(ProjectedEvent record, long claimedAt, Matches matches)
    {
        var count = 0;
        foreach (var subscriber in subscribers.Matching(record.TenantId, record.Event.Type))
        {
            var handOver = !record.DataLeftOut && lanes.TryReserve(subscriber.Id);
            var delivery = new DueDelivery(
                record.TenantId, TypeId.NewGuid(), subscriber.Id, Claim: 1, RetryCount: 0, ReplayOf: null, Test: false, claimedAt, record.Event);
            matches.Add(delivery, handOver);
            count++;
        }
        matches.Counts.Add(count);
    }

    private async Task InsertAsync(
        NpgsqlConnection connection, List<ProjectedEvent> events, Matches matches, NpgsqlBatchCommand advance, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        if (events.Count > 0)
        {
            batch.BatchCommands.Add(new("INSERT INTO open_events (tenant_id, event_id, open) SELECT * FROM unnest(@tenants, @events, @counts)")
            {
                Parameters =
                {
                    new("tenants", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = events.ConvertAll(e => e.TenantId) },
                    new("events", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = events.ConvertAll(e => e.Event.Id) },
                    new("counts", NpgsqlDbType.Integer | NpgsqlDbType.Array) { Value = matches.Counts },
                },
            });
        }
        if (matches.Deliveries.Count > 0)
        {
            batch.BatchCommands.Add(new(
                """
                INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, claim, claimed_by, next_attempt_at)
                SELECT tenant_id, id, event_id, subscription_id, handed::int, CASE WHEN handed THEN @worker END,
                    clock_timestamp() + CASE WHEN handed THEN @lease ELSE interval '0' END
                FROM unnest(@tenants, @ids, @events, @subscriptions, @handed) AS d (tenant_id, id, event_id, subscription_id, handed)
                """)
            {
                Parameters =
                {
                    new("worker", NpgsqlDbType.Integer) { Value = worker.Number },
                    new("lease", NpgsqlDbType.Interval) { Value = options.Value.Lease },
                    new("tenants", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = matches.Deliveries.ConvertAll(d => d.TenantId) },
                    new("ids", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = matches.Deliveries.ConvertAll(d => d.Id) },
                    new("events", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = matches.Deliveries.ConvertAll(d => d.Event.Id) },
                    new("subscriptions", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = matches.Deliveries.ConvertAll(d => d.SubscriptionId) },
                    new("handed", NpgsqlDbType.Boolean | NpgsqlDbType.Array) { Value = matches.Handed },
                },
            });
        }
        batch.BatchCommands.Add(advance);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>What follows from a batch.</summary>
    private sealed class Matches(int events)
    {
        /// <summary>How many deliveries each event got.</summary>
        public List<int> Counts { get; } = new(events);

        public List<DueDelivery> Deliveries { get; } = [];

        /// <summary>Whether each delivery starts here, without going through the claim.</summary>
        public List<bool> Handed { get; } = [];

        public List<DueDelivery> HandedOver { get; } = [];

        public HashSet<Guid> LeftDue { get; } = [];

        public void Add(DueDelivery delivery, bool handOver)
        {
            Deliveries.Add(delivery);
            Handed.Add(handOver);
            if (handOver)
                HandedOver.Add(delivery);
            else
                LeftDue.Add(delivery.SubscriptionId);
        }
    }
}
