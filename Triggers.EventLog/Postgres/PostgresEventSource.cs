using Microsoft.Extensions.Logging;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.EventLog.Postgres;

/// <summary>
/// Reads the Postgres log. Any process may; the lock on the position lets one at a time, and who does not get it reads no events. It runs
/// on both forms: where events are logged in Kafka now, it gives what was accepted before.
/// </summary>
/// <param name="heard">Waits for news of appends, at most so long; false when there were none.</param>
/// <param name="time">The clock.</param>
/// <param name="logger">The log.</param>
internal sealed partial class PostgresEventSource(
    Func<TimeSpan, CancellationToken, Task<bool>> heard, TimeProvider time, ILogger<PostgresEventSource> logger) : IEventSource
{
    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_somebodyElseReads = TimeSpan.FromMilliseconds(500);

    private TimeSpan _pause = TimeSpan.Zero;
    private bool _isBehind;

    /// <summary>What comes next in the transaction; 0 where that is at the position.</summary>
    private long _from;

    private (Guid TenantId, Guid Id) _first;
    private (Guid TenantId, Guid Id)? _refused;
    private string _reason = "";

    public string Name => "postgres";

    public async Task WaitAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // Nobody notified us: one cheap question now and then, in case a notification was lost.
        while (_pause > TimeSpan.Zero && !await heard(_pause, cancellationToken) && !await IsBehindAsync(connection, cancellationToken))
            _pause = s_look;
        (_pause, _from) = (TimeSpan.Zero, 0);
    }

    public async Task<bool> MoreAsync(TimeSpan atMost, CancellationToken cancellationToken) =>
        _isBehind || await heard(atMost, cancellationToken);

    public async Task<EventBatch?> ReadAsync(NpgsqlConnection connection, int limit, CancellationToken cancellationToken)
    {
        // Of the newest partitions first. They have all there is if no number is missing from the position on; where one is, which is when
        // an append was rolled back or is under way, or an id is older, every partition is asked, however many there are.
        var read = await SelectAsync(connection, OfTheseDays(), limit, cancellationToken);
        if (read is { IsComplete: false })
            read = await SelectAsync(connection, "", limit, cancellationToken);
        if (read is not var (events, last, version, _) || events.Count == 0)
        {
            _pause = read is null ? s_somebodyElseReads : s_look;
            _isBehind = false;
            return null;
        }

        _isBehind = events.Count == limit;
        if (_from == 0)
            _first = (events[0].TenantId, events[0].Event.Id);
        _from = last + 1;
        var advance = new NpgsqlBatchCommand("UPDATE log_positions SET next = @next WHERE log = 'postgres' AND partition = 0")
        {
            Parameters = { new("next", last + 1) },
        };
        // Unless another process has dealt with it meanwhile.
        if (_refused != _first || events.Count > 1)
            _refused = null;
        // Nobody gets it but who looks into the inbox, where it can be replayed from. It is in the log still.
        return _refused is { } refused
            ? new EventBatch([], version, SetAside: 1, EventState.Receive([new(refused.TenantId, refused.Id)]), advance)
            : new EventBatch(events, version, SetAside: 0, advance);
    }

    public void Passed()
    {
        _pause = _isBehind ? TimeSpan.Zero : s_look;
        if (_refused is not { } refused)
            return;
        Log.SetAside(logger, TypeId.Format(TypeId.Event, refused.Id), _reason);
        _refused = null;
    }

    public Task SetAsideAsync(PostgresException refusal, CancellationToken cancellationToken)
    {
        if (_refused == _first)
            throw new InvalidOperationException("An event can't be set aside.", refusal);
        // In the transaction that passes it.
        (_refused, _reason) = (_first, $"{refusal.SqlState} {refusal.MessageText}");
        return Task.CompletedTask;
    }

    public void Leave()
    {
    }

    /// <summary>
    /// Events that were appended last have ids of these days, unless a clock is off or nobody has projected for so long. Written out, and
    /// not computed by Postgres: so the plan leaves out the other partitions, which would otherwise be locked at every execution.
    /// </summary>
    private string OfTheseDays()
    {
        var today = new DateTimeOffset(time.GetUtcNow().UtcDateTime.Date, TimeSpan.Zero);
        return $"AND e.id >= '{TypeId.At(today.AddDays(-1))}' AND e.id < '{TypeId.At(today.AddDays(2))}'";
    }

    private static async Task<bool> IsBehindAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand($"SELECT last_value >= {EventState.Position} FROM events_seq", connection);
        return await command.ExecuteScalarAsync(cancellationToken) is true;
    }

    /// <returns>Null when another process has the position. Complete is what misses no number up to the last, or that was given.</returns>
    private async Task<(List<LoggedEvent> Events, long Last, long Version, bool IsComplete)?> SelectAsync(
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
                    SELECT greatest(p.next, @from), e.*
                    FROM position p LEFT JOIN LATERAL (
                        SELECT e.seq, e.tenant_id, octet_length(e.data), {StoredEvent.ColumnsUpTo(LoggedEvent.MaxCarriedBytes)}
                        FROM events e WHERE e.seq >= greatest(p.next, @from) {bounds} ORDER BY e.seq LIMIT {limit}
                    ) e ON true
                    ORDER BY e.seq
                    """)
                {
                    Parameters = { new("from", _from) },
                },
                // After the events: what was subscribed before one of them was accepted is in this version, and a number that is not
                // given yet belongs to none that was there.
                new("SELECT version, (SELECT last_value FROM events_seq) FROM subscriptions_version"),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        if (!await reader.ReadAsync(cancellationToken))
            return null;
        var (next, last) = (reader.GetInt64(0), 0L);
        var events = new List<LoggedEvent>();
        for (var more = !reader.IsDBNull(1); more; more = await reader.ReadAsync(cancellationToken))
        {
            last = reader.GetInt64(1);
            events.Add(new LoggedEvent(reader.GetGuid(2), StoredEvent.Read(reader, 4), reader.GetInt32(3)));
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (events, last, reader.GetInt64(0), events.Count > 0 ? last - next + 1 == events.Count : reader.GetInt64(1) < next);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Error,
            Message = "Event {EventId} was set aside, since Postgres refuses its deliveries: {Reason}. It is in the inbox.")]
        public static partial void SetAside(ILogger logger, string eventId, string reason);
    }
}
