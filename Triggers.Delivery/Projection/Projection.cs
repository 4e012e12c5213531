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
    /// <summary>
    /// Deliveries made by one transaction. What an event that many subscribe to has beyond that is made in portions of as many.
    /// </summary>
    private const int MaxDeliveries = 1_000;

    /// <summary>What a tenant may have in a transaction that is full.</summary>
    private const int MaxOfTenantBeyond = 50;

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
        var matches = new Matches(lanes, claimedAt);
        foreach (var (tenantId, e, dataBytes, _) in events)
        {
            var matching = subscribers.Matching(tenantId, e.Type).ToList();
            if (matching.Count == 0)
                matches.Unmatched.Add((tenantId, e.Id));
            else if (matches.IsFullWith(tenantId, matching.Count))
                matches.Deferred.Add(new FanOut(tenantId, e.Id, dataBytes, Guid.Empty));
            else
                matching.ForEach(subscriber =>
                    matches.Add(tenantId, e.Id, subscriber.Id, dataBytes, dataBytes > ProjectedEvent.MaxCarriedBytes ? null : e));
        }
        await CommitAsync(connection, transaction, matches, advance, cancellationToken);

        var duration = time.GetElapsedTime(claimedAt);
        metrics.Projected(log, events.Count, duration);
        DeliveryTraces.Projected(log, events, duration, time.GetUtcNow());
        Start(matches);
        if (matches.Deferred.Count > 0)
            wakeups.FanOuts.Set();
    }

    /// <summary>
    /// Makes a portion of the deliveries that were deferred, and starts them. Any number of processes may do it at once.
    /// </summary>
    /// <returns>Whether there may be more.</returns>
    public async Task<bool> FanOutAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var claimedAt = time.GetTimestamp();
        var (taken, version) = await TakeAsync(connection, cancellationToken);
        if (taken.Count == 0)
            return false;
        await subscribers.RefreshAsync(connection, version, cancellationToken);
        var matches = new Matches(lanes, claimedAt);
        var advanced = new List<(FanOut Event, Guid? After)>();
        foreach (var (e, type) in taken)
        {
            var room = MaxDeliveries - matches.Deliveries.Count;
            if (room <= 0)
                break;
            var waiting = type is null ? [] : subscribers.Matching(e.TenantId, type).Where(s => s.Id.CompareTo(e.After) > 0)
                .OrderBy(s => s.Id).ToList();
            // Left to the claims, which take tenants in turn.
            foreach (var subscriber in waiting.Take(room))
                matches.Add(e.TenantId, e.EventId, subscriber.Id, e.DataBytes, known: null);
            advanced.Add((e, waiting.Count > room ? waiting[room - 1].Id : null));
            // Whoever subscribed to it has gone meanwhile.
            if (type is not null && waiting.Count == 0 && e.After == Guid.Empty)
                matches.Unmatched.Add((e.TenantId, e.EventId));
        }
        await CommitAsync(connection, transaction, matches, FanOuts.Advance(advanced), cancellationToken);
        Start(matches);
        return true;
    }

    private static async Task<(List<(FanOut Event, string? Type)> Taken, long Version)> TakeAsync(
        NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { FanOuts.Take(ofEach: 4, most: 200), new("SELECT version FROM subscriptions_version") },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var taken = new List<(FanOut, string?)>();
        while (await reader.ReadAsync(cancellationToken))
        {
            taken.Add((new FanOut(reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2), reader.GetGuid(3)),
                reader.IsDBNull(4) ? null : reader.GetString(4)));
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (taken, reader.GetInt64(0));
    }

    private async Task CommitAsync(
        NpgsqlConnection connection, NpgsqlTransaction transaction, Matches matches,
        NpgsqlBatchCommand advance, CancellationToken cancellationToken)
    {
        try
        {
            await InsertAsync(connection, matches, advance, cancellationToken);
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

    private void Start(Matches matches)
    {
        foreach (var (delivery, e) in matches.HandedOver)
            attempter.Start(delivery, lanes, e);
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
    }

    private async Task InsertAsync(
        NpgsqlConnection connection, Matches matches, NpgsqlBatchCommand advance, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        if (matches.Unmatched.Count > 0)
            batch.BatchCommands.Add(EventState.Receive(matches.Unmatched));
        if (matches.Deliveries.Count > 0)
            batch.BatchCommands.Add(DeliveryQueue.Enqueue(matches.Deliveries, worker.Number, options.Value.Lease));
        if (matches.Deferred.Count > 0)
            batch.BatchCommands.Add(FanOuts.Defer(matches.Deferred));
        batch.BatchCommands.Add(advance);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    /// <summary>What follows from a batch.</summary>
    private sealed class Matches(Lanes lanes, long claimedAt)
    {
        private readonly Dictionary<Guid, int> _ofTenants = [];

        /// <summary>Events that nobody wants.</summary>
        public List<(Guid TenantId, Guid EventId)> Unmatched { get; } = [];

        /// <summary>Events of which more would follow than there is room for.</summary>
        public List<FanOut> Deferred { get; } = [];

        public List<NewDelivery> Deliveries { get; } = [];

        /// <summary>Those of them that start here, without going through the claim.</summary>
        public List<(DueDelivery Delivery, EventToSend Event)> HandedOver { get; } = [];

        public HashSet<Guid> LeftDue { get; } = [];

        /// <summary>Whether so many more are too many. A tenant that has few so far always has room for a few.</summary>
        public bool IsFullWith(Guid tenantId, int more) =>
            Deliveries.Count + more > MaxDeliveries && _ofTenants.GetValueOrDefault(tenantId) + more > MaxOfTenantBeyond;

        public void Add(Guid tenantId, Guid eventId, Guid subscriptionId, int dataBytes, EventToSend? known)
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
}
