using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Reads the Postgres log in order, and advances its position in the transaction that writes what follows from it. It runs on both
/// forms: where events are logged in Kafka now, it projects what was accepted before. Any process may do it; the lock on the position
/// lets one at a time.
/// </summary>
internal sealed partial class PostgresProjector(
    EngineDataSource dataSource,
    Projection projection,
    DeliveryMetrics metrics,
    WorkerRegistration worker,
    Wakeups wakeups,
    TimeProvider time,
    ILogger<PostgresProjector> logger) : BackgroundLoop(time, logger)
{
    private const int BatchSize = 500;

    /// <summary>
    /// Events that were appended last have ids of these days, unless a clock is off or nobody has projected for so long.
    /// </summary>
    private const string Recently = "AND e.id >= uuid_at(now() - interval '2 days')";

    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan SomebodyElseReads = TimeSpan.FromMilliseconds(500);

    private int _limit = BatchSize;
    private Guid _first;
    private (Guid Event, string Reason)? _refusal;

    private enum Outcome
    {
        Empty,
        More,
        Busy,
    }

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(stoppingToken);
        while (true)
        {
            Outcome outcome;
            try
            {
                outcome = await ProjectAsync(connection, stoppingToken);
            }
            catch (PostgresException e) when (Storage.IsRefusal(e) && _refusal is null)
            {
                // What follows from one of the events can't be stored. Halving finds it in a few steps, and all others go on. On a fresh
                // connection, which the next round has.
                dataSource.Refused();
                if (_limit == 1)
                    _refusal = (_first, $"{e.SqlState} {e.MessageText}");
                _limit = Math.Max(1, _limit / 2);
                return;
            }
            Recovered();
            _limit = Math.Min(BatchSize, _limit * 2);
            if (outcome == Outcome.More)
                continue;
            // Nobody rang: one cheap question now and then, in case a notification was lost.
            while (!await wakeups.Projection.WaitAsync(outcome == Outcome.Busy ? SomebodyElseReads : LookInterval, stoppingToken)
                && !await IsBehindAsync(connection, stoppingToken))
                outcome = Outcome.Empty;
        }
    }

    private async Task<Outcome> ProjectAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var claimedAt = Time.GetTimestamp();
        // Of the newest partitions first. They have all there is if no number is missing from the position on; where one is, which is when
        // an append was rolled back, or an id is older, every partition is asked, however many there are.
        var (events, lastSeq, version, locked, complete) = await ReadAsync(connection, Recently, _limit, cancellationToken);
        if (locked && !complete)
            (events, lastSeq, version, locked, _) = await ReadAsync(connection, "", _limit, cancellationToken);
        if (!locked)
            return Outcome.Busy;
        if (events.Count == 0)
            return Outcome.Empty;

        var advance = new NpgsqlBatchCommand("UPDATE log_positions SET next = @next WHERE log = 'postgres' AND partition = 0")
        {
            Parameters = { new("next", lastSeq + 1) },
        };
        _first = events[0].Event.Id;
        // Unless another process has dealt with it meanwhile.
        if (_refusal is { } refusal && refusal.Event == _first)
        {
            await SetAsideAsync(connection, transaction, events.Single(), refusal.Reason, advance, cancellationToken);
            _refusal = null;
            return Outcome.More;
        }
        _refusal = null;
        await projection.WriteAsync("postgres", connection, transaction, events, version, claimedAt, advance, cancellationToken);
        return events.Count == _limit ? Outcome.More : Outcome.Empty;
    }

    /// <summary>Nobody gets it but who looks into the inbox, where it can be replayed from. It is in the log still.</summary>
    private async Task SetAsideAsync(
        NpgsqlConnection connection, NpgsqlTransaction transaction, ProjectedEvent refused, string reason, NpgsqlBatchCommand advance,
        CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands = { EventState.Receive([(refused.TenantId, refused.Event.Id)]), advance },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        metrics.SetAside();
        Log.SetAside(Logger, TypeId.Format(TypeId.Event, refused.Event.Id), reason);
    }

    private static async Task<bool> IsBehindAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"SELECT EXISTS (SELECT FROM events WHERE seq >= {EventState.Position})", connection);
        return await command.ExecuteScalarAsync(cancellationToken) is true;
    }

    private static async Task<(List<ProjectedEvent> Events, long LastSeq, long Version, bool Locked, bool Complete)> ReadAsync(
        NpgsqlConnection connection, string bounds, int limit, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                // One statement: who does not get the position reads no events. Who gets it sees one row at least.
                new($"""
                    WITH position AS MATERIALIZED (
                        {EventState.LockPosition}
                    )
                    SELECT p.next, e.*
                    FROM position p LEFT JOIN LATERAL (
                        SELECT e.seq, e.tenant_id, {EventRow.ColumnsUpTo(ProjectedEvent.MaxCarriedBytes)}, octet_length(e.data)
                        FROM events e WHERE e.seq >= p.next {bounds} ORDER BY e.seq LIMIT {limit}
                    ) e ON true
                    ORDER BY e.seq
                    """),
                // After the events: what was subscribed before one of them was accepted is in this version.
                new("SELECT version FROM subscriptions_version"),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var events = new List<ProjectedEvent>();
        var (first, lastSeq) = (0L, 0L);
        var locked = false;
        while (await reader.ReadAsync(cancellationToken))
        {
            locked = true;
            first = reader.GetInt64(0);
            if (reader.IsDBNull(1))
                break;
            lastSeq = reader.GetInt64(1);
            events.Add(new ProjectedEvent(reader.GetGuid(2), EventRow.Read(reader, 3), reader.GetInt32(12)));
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var version = reader.GetInt64(0);
        return (events, lastSeq, version, locked, events.Count > 0 && lastSeq - first + 1 == events.Count);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Error,
            Message = "Event {EventId} was set aside, since Postgres refuses its deliveries: {Reason}. It is in the inbox.")]
        public static partial void SetAside(ILogger logger, string eventId, string reason);
    }
}
