using Microsoft.Extensions.Options;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Delivery.Dispatch;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Reads the Postgres log in order and writes, in the transaction that advances the position, what follows from each event: its
/// open row, and a delivery for each subscription that wants it. Reading again changes nothing, since the position moved with it.
/// Any process may do it; the lock on the position lets one at a time.
/// </summary>
internal sealed partial class Projector(
    EngineDataSource dataSource,
    Subscribers subscribers,
    Dispatcher dispatcher,
    Lanes lanes,
    WorkerRegistration worker,
    Wakeups wakeups,
    DeliveryMetrics metrics,
    Readiness readiness,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<Projector> logger) : BackgroundService
{
    private const int BatchSize = 500;

    /// <summary>Larger data is not carried through the projection; the claim reads it when its turn comes.</summary>
    private const int MaxCarriedBytes = 64 * 1024;

    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan SomebodyElseReads = TimeSpan.FromMilliseconds(500);

    private enum Outcome
    {
        Empty,
        More,
        Busy,
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await readiness.SchemaIsThere.WaitAsync(stoppingToken);
        await worker.Registered.WaitAsync(stoppingToken);
        var wasAway = false;
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await using var connection = await dataSource.Pool.OpenConnectionAsync(stoppingToken);
                wasAway = false;
                while (true)
                {
                    var outcome = await ProjectAsync(connection, stoppingToken);
                    if (outcome == Outcome.More)
                        continue;
                    // Nobody rang: one cheap question now and then, in case a notification was lost.
                    while (!await wakeups.Projection.WaitAsync(outcome == Outcome.Busy ? SomebodyElseReads : LookInterval, stoppingToken)
                        && !await IsBehindAsync(connection, stoppingToken))
                        outcome = Outcome.Empty;
                }
            }
            catch (Exception e) when (Postgres.IsAway(e) && !stoppingToken.IsCancellationRequested)
            {
                if (!wasAway)
                    Log.Away(logger, e);
                wasAway = true;
                await Task.Delay(TimeSpan.FromMilliseconds(250), time, stoppingToken);
            }
        }
    }

    private async Task<Outcome> ProjectAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var claimedAt = time.GetTimestamp();
        var (events, version, locked) = await ReadAsync(connection, cancellationToken);
        if (!locked)
            return Outcome.Busy;
        if (events.Count == 0)
            return Outcome.Empty;

        await subscribers.RefreshAsync(connection, version, cancellationToken);
        var matches = new Matches(events.Count);
        foreach (var e in events)
            Match(e, claimedAt, matches);

        try
        {
            await WriteAsync(connection, events, matches, cancellationToken);
            await transaction.CommitAsync(cancellationToken);
        }
        catch
        {
            // It may be committed all the same. Then the lease brings back what was to be handed over.
            foreach (var delivery in matches.HandedOver)
                lanes.Release(delivery.SubscriptionId);
            throw;
        }

        metrics.Projected("postgres", events.Count, time.GetElapsedTime(claimedAt));
        DeliveryTraces.Projected("postgres", 0, events.ConvertAll(e => e.Event), time.GetElapsedTime(claimedAt), time.GetUtcNow());
        foreach (var delivery in matches.HandedOver)
            dispatcher.Start(delivery);
        foreach (var lane in matches.LeftDue)
            lanes.DueIn(lane, TimeSpan.Zero);
        if (matches.LeftDue.Count > 0)
            wakeups.Dispatch.Set();
        return events.Count == BatchSize ? Outcome.More : Outcome.Empty;
    }

    private static async Task<bool> IsBehindAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            "SELECT EXISTS (SELECT FROM events WHERE seq >= (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0))", connection);
        return await command.ExecuteScalarAsync(cancellationToken) is true;
    }

    private static async Task<(List<LogRecord> Events, long Version, bool Locked)> ReadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new("SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0 FOR UPDATE SKIP LOCKED"),
                new("SELECT version FROM subscriptions_version"),
                new($"""
                    SELECT e.seq, e.tenant_id, {EventRow.ColumnsUpTo(MaxCarriedBytes)}
                    FROM events e
                    WHERE e.seq >= (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)
                    ORDER BY e.seq LIMIT {BatchSize}
                    """),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var locked = await reader.ReadAsync(cancellationToken);
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var version = reader.GetInt64(0);
        await reader.NextResultAsync(cancellationToken);
        var events = new List<LogRecord>();
        while (locked && await reader.ReadAsync(cancellationToken))
            events.Add(new LogRecord(reader.GetInt64(0), reader.GetGuid(1), EventRow.Read(reader, 2), reader.IsDBNull(10)));
        return (events, version, locked);
    }

    private void Match(LogRecord record, long claimedAt, Matches matches)
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

    private async Task WriteAsync(NpgsqlConnection connection, List<LogRecord> events, Matches matches, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        batch.BatchCommands.Add(new("INSERT INTO open_events (tenant_id, event_id, open) SELECT * FROM unnest(@tenants, @events, @counts)")
        {
            Parameters =
            {
                new("tenants", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = events.ConvertAll(e => e.TenantId) },
                new("events", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = events.ConvertAll(e => e.Event.Id) },
                new("counts", NpgsqlDbType.Integer | NpgsqlDbType.Array) { Value = matches.Counts },
            },
        });
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
        batch.BatchCommands.Add(new("UPDATE log_positions SET next = @next WHERE log = 'postgres' AND partition = 0")
        {
            Parameters = { new("next", NpgsqlDbType.Bigint) { Value = events[^1].Seq + 1 } },
        });
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    private sealed record LogRecord(long Seq, Guid TenantId, EventToSend Event, bool DataLeftOut);

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

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Postgres is away; the projection waits")]
        public static partial void Away(ILogger logger, Exception exception);
    }
}
