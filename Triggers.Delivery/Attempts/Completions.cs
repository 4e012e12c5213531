using System.Text.Json;
using System.Threading.Channels;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Delivery.Dispatch;
using Triggers.Delivery.Retries;

namespace Triggers.Delivery.Attempts;

/// <summary>What became of a claimed delivery, to be written down.</summary>
/// <param name="Delivery">The claim.</param>
/// <param name="Transition">What happens to the delivery.</param>
/// <param name="Result">The attempt; null when none was made.</param>
/// <param name="Number">Of the attempt, 1 for the first.</param>
/// <param name="StartedAt">Timestamp of the TimeProvider.</param>
internal sealed record Completion(DueDelivery Delivery, Transition Transition, AttemptResult? Result, int Number, long StartedAt)
{
    /// <summary>W3C trace context of the attempt, when it failed, is repeated, and is traced.</summary>
    public string? TraceParent { get; init; }

    /// <summary>The subscription's revision that the attempt was made with; null when the result counts whatever became of the subscription.</summary>
    public int? Revision { get; init; }
}

/// <summary>
/// Writes what became of deliveries, many in one statement. While Postgres is away they wait here; a full buffer stops the claiming.
/// </summary>
internal sealed partial class Completions(
    EngineDataSource dataSource, Lanes lanes, Wakeups wakeups, DeliveryMetrics metrics, TimeProvider time, ILogger<Completions> logger) : BackgroundService
{
    private const int Capacity = 4_096;
    private const int MaxBatch = 500;
    private static readonly string Pending = SnakeCase<DeliveryStatus>.Of(DeliveryStatus.Pending);

    private readonly Channel<Completion> _queue =
        Channel.CreateBounded<Completion>(new BoundedChannelOptions(Capacity) { SingleReader = true });

    /// <summary>Whether to claim no more for now.</summary>
    public bool IsFull => _queue.Reader.Count >= Capacity / 2;

    /// <summary>Takes it, when there is room.</summary>
    public ValueTask AddAsync(Completion completion) => _queue.Writer.WriteAsync(completion);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        // Not the host's token: what has been attempted is written, also when the host is stopping. StopAsync ends the loop.
        var batch = new List<Completion>();
        while (await _queue.Reader.WaitToReadAsync(CancellationToken.None))
        {
            Take(batch);
            await WriteUntilDoneAsync(batch, stoppingToken);
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _queue.Writer.TryComplete();
        if (ExecuteTask is { } loop)
            await loop.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await base.StopAsync(cancellationToken);
    }

    /// <summary>A delivery may be in the queue twice, under two claims; one statement must not update a row twice.</summary>
    private void Take(List<Completion> batch)
    {
        batch.Clear();
        var ids = new HashSet<Guid>();
        while (batch.Count < MaxBatch && _queue.Reader.TryPeek(out var next) && ids.Add(next.Delivery.Id))
        {
            _queue.Reader.TryRead(out _);
            batch.Add(next);
        }
        // Always in one order, so that two processes finishing deliveries of the same events don't wait for each other in a circle.
        batch.Sort((a, b) => a.Delivery.Event.Id.CompareTo(b.Delivery.Event.Id) is var byEvent and not 0 ? byEvent : a.Delivery.Id.CompareTo(b.Delivery.Id));
    }

    private async Task WriteUntilDoneAsync(List<Completion> batch, CancellationToken stoppingToken)
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                await WriteAsync(batch);
                return;
            }
            catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.DeadlockDetected or PostgresErrorCodes.SerializationFailure)
            {
            }
            catch (PostgresException e) when (e.SqlState[..2] is "22" or "23")
            {
                dataSource.Refused();
                // One of them can't be written. Alone it harms nobody else: its lease brings it back.
                Log.Refused(logger, e, batch.Count);
                if (batch.Count == 1)
                    return;
                foreach (var completion in batch)
                    await WriteUntilDoneAsync([completion], stoppingToken);
                return;
            }
            catch (Exception e) when (Postgres.IsAway(e))
            {
                if (tries == 0)
                    Log.Away(logger, e, batch.Count);
                // On the way out there is no waiting for Postgres to come back: the leases do.
                if (stoppingToken.IsCancellationRequested && tries > 3)
                    return;
                await Task.Delay(TimeSpan.FromMilliseconds(250), time, CancellationToken.None);
            }
        }
    }

    private async Task WriteAsync(List<Completion> batch)
    {
        var n = batch.Count;
        await using var connection = await dataSource.Pool.OpenConnectionAsync();
        await using var commands = new NpgsqlBatch(connection);
        var gone = batch.Where(c => c.Transition.SubscriptionIsGone).ToArray();
        if (gone.Length > 0)
        {
            // First, since the lock on the subscription keeps its address as it is until the results are written.
            commands.BatchCommands.Add(new NpgsqlBatchCommand(
                """
                UPDATE subscriptions s SET enabled = false, disabled_reason = 'gone', updated_at = now()
                FROM (SELECT DISTINCT id, revision FROM unnest(@gone, @revisions) AS g (id, revision) ORDER BY id) g
                WHERE s.id = g.id AND s.revision = g.revision AND s.enabled
                """)
            {
                Parameters =
                {
                    new("gone", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = Array.ConvertAll(gone, c => c.Delivery.SubscriptionId) },
                    new("revisions", NpgsqlDbType.Integer | NpgsqlDbType.Array) { Value = Array.ConvertAll(gone, c => c.Revision) },
                },
            });
        }
        var command = new NpgsqlBatchCommand(CompleteSql);
        commands.BatchCommands.Add(command);
        Add("tenants", NpgsqlDbType.Uuid, c => c.Delivery.TenantId);
        Add("ids", NpgsqlDbType.Uuid, c => c.Delivery.Id);
        Add("claims", NpgsqlDbType.Integer, c => c.Delivery.Claim);
        Add("statuses", NpgsqlDbType.Text, c => SnakeCase<DeliveryStatus>.Of(c.Transition.Status));
        Add("delays", NpgsqlDbType.Interval, c => c.Transition.Delay);
        Add("failures", NpgsqlDbType.Integer, c => c.Transition.CountsAsFailure ? 1 : 0);
        Add("reasons", NpgsqlDbType.Text, c => c.Transition.Reason);
        Add("attempts", NpgsqlDbType.Uuid, c => c.Result is null ? (Guid?)null : TypeId.NewGuid());
        Add("numbers", NpgsqlDbType.Integer, c => c.Number);
        Add("ages", NpgsqlDbType.Interval, c => time.GetElapsedTime(c.StartedAt));
        Add("durations", NpgsqlDbType.Integer, c => (int)(c.Result?.Duration.TotalMilliseconds ?? 0));
        Add("outcomes", NpgsqlDbType.Text, c => c.Result is { } r ? SnakeCase<AttemptOutcome>.Of(r.Outcome) : null);
        Add("errors", NpgsqlDbType.Text, c => c.Result?.Error?.Replace("\0", "", StringComparison.Ordinal));
        Add("codes", NpgsqlDbType.Integer, c => c.Result?.StatusCode);
        Add("headers", NpgsqlDbType.Text, c => c.Result?.ResponseHeaders is { } h ? JsonSerializer.Serialize(h) : null);
        Add("bodies", NpgsqlDbType.Bytea, c => c.Result?.ResponseBody);
        Add("traces", NpgsqlDbType.Text, c => c.TraceParent);
        Add("subscriptions", NpgsqlDbType.Uuid, c => c.Delivery.SubscriptionId);
        Add("revisions", NpgsqlDbType.Integer, c => c.Revision);
        var finished = new List<(string Status, string? Reason, long Count)>();
        await using (var reader = await commands.ExecuteReaderAsync())
        {
            while (await reader.ReadAsync())
                finished.Add((reader.GetString(0), reader.IsDBNull(1) ? null : reader.GetString(1), reader.GetInt64(2)));
        }
        var stale = finished.Exists(f => f.Status == Pending);
        foreach (var (status, reason, count) in finished.Where(f => f.Status != Pending))
        {
            metrics.Finished(status, count);
            if (reason is not null)
                metrics.DeadLettered(reason, count);
        }
        if (finished.Exists(f => f.Reason is not null))
            wakeups.DeadLetters.Set();

        // Only now: a claim made before the row says so would find nothing, and the lane would wait for the sweep.
        foreach (var again in batch.Where(c => c.Transition.Status == DeliveryStatus.Pending))
            lanes.DueIn(again.Delivery.SubscriptionId, again.Transition.Delay);
        if (stale)
            wakeups.Sweep();
        else
            wakeups.Dispatch.Set();

        void Add<T>(string name, NpgsqlDbType type, Func<Completion, T> value)
        {
            var values = new T[n];
            for (var i = 0; i < n; i++)
                values[i] = value(batch[i]);
            command.Parameters.Add(new(name, type | NpgsqlDbType.Array) { Value = values });
        }
    }

    /// <summary>
    /// One statement, so that a crash leaves all of it or none.
    /// A success applies to any pending row; anything else only under the newest claim (the fence). The attempt is recorded always.
    /// A failure that was obtained with another address, header or secret than the subscription has now decides nothing: due at once.
    /// Then the counts of the event follow, and its row goes when it is settled; that row is locked before it is judged, since
    /// another process may be counting on it at the same moment, and two judgements from old numbers would both be wrong.
    /// A replay that succeeds resolves the dead letter of its event and subscription; one that dies takes its place; one that is
    /// cancelled frees it.
    /// </summary>
    private const string CompleteSql =
        """
        WITH c AS MATERIALIZED (
            SELECT c.*, c.status <> 'succeeded' AND s.revision <> c.revision AND s.deleted_at IS NULL AS stale
            FROM unnest(@tenants, @ids, @claims, @statuses, @delays, @failures, @reasons, @attempts, @numbers, @ages, @durations,
                @outcomes, @errors, @codes, @headers, @bodies, @traces, @subscriptions, @revisions)
                AS c (tenant_id, id, claim, status, delay, failures, reason, attempt_id, number, age, duration, outcome, error, code, headers, body, trace,
                    subscription_id, revision)
            JOIN subscriptions s ON s.id = c.subscription_id
        ),
        recorded AS (
            INSERT INTO attempts (delivery_id, claim, tenant_id, id, number, started_at, duration_ms, outcome, error, status_code, response_headers, response_body)
            SELECT id, claim, tenant_id, attempt_id, number, clock_timestamp() - age, duration, outcome, error, code, headers::jsonb, body
            FROM c WHERE attempt_id IS NOT NULL
            ON CONFLICT DO NOTHING
        ),
        applied AS (
            UPDATE deliveries d SET
                status = CASE WHEN c.stale THEN 'pending' ELSE c.status END,
                claimed_by = NULL,
                retry_count = d.retry_count + CASE WHEN c.stale THEN 0 ELSE c.failures END,
                next_attempt_at = CASE WHEN c.stale THEN clock_timestamp() WHEN c.status = 'pending' THEN clock_timestamp() + c.delay END,
                finalized_at = CASE WHEN NOT coalesce(c.stale, false) AND c.status <> 'pending' THEN clock_timestamp() END,
                last_outcome = coalesce(c.outcome, d.last_outcome),
                last_status_code = CASE WHEN c.outcome IS NULL THEN d.last_status_code ELSE c.code END,
                last_trace_parent = coalesce(c.trace, d.last_trace_parent)
            FROM c
            WHERE d.tenant_id = c.tenant_id AND d.id = c.id AND d.status = 'pending' AND (c.status = 'succeeded' OR d.claim = c.claim)
            RETURNING d.tenant_id, d.id, d.event_id, d.subscription_id, d.status, d.retry_count, d.replay_of, d.last_outcome, d.last_status_code,
                c.stale, CASE WHEN d.status = 'dead_lettered' THEN c.reason END AS reason
        ),
        died AS (
            INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, reason, attempts, last_outcome, last_status_code)
            SELECT tenant_id, id, event_id, subscription_id, reason, retry_count, last_outcome, last_status_code
            FROM applied WHERE status = 'dead_lettered'
            RETURNING tenant_id, event_id, reason
        ),
        answered AS (
            UPDATE dead_letters l SET
                state = CASE a.status WHEN 'succeeded' THEN 'resolved' WHEN 'dead_lettered' THEN 'discarded' ELSE 'open' END,
                closed_at = CASE WHEN a.status IN ('succeeded', 'dead_lettered') THEN clock_timestamp() END
            FROM applied a
            WHERE a.replay_of IS NOT NULL AND l.tenant_id = a.tenant_id AND l.event_id = a.event_id AND l.subscription_id = a.subscription_id
                AND (a.status = 'succeeded' AND l.state IN ('open', 'replaying')
                    OR a.status IN ('dead_lettered', 'cancelled') AND l.state = 'replaying' AND l.replay_delivery_id = a.id)
            RETURNING l.tenant_id, l.event_id, l.closed_at
        ),
        counts AS MATERIALIZED (
            SELECT tenant_id, event_id, sum(ended)::int AS ended, sum(done)::int AS done, sum(dead)::int AS dead
            FROM (
                SELECT tenant_id, event_id, 1 AS ended, (status = 'succeeded')::int AS done, 0 AS dead FROM applied WHERE status <> 'pending'
                UNION ALL SELECT tenant_id, event_id, 0, 0, 1 FROM died
                UNION ALL SELECT tenant_id, event_id, 0, 0, -1 FROM answered WHERE closed_at IS NOT NULL
            ) x
            GROUP BY tenant_id, event_id
            ORDER BY tenant_id, event_id
        ),
        locked AS MATERIALIZED (
            SELECT o.tenant_id, o.event_id, o.open - c.ended AS open, o.done + c.done AS done, o.dead + c.dead AS dead, o.acknowledged_at
            FROM counts c JOIN open_events o ON o.tenant_id = c.tenant_id AND o.event_id = c.event_id
            FOR UPDATE OF o
        ),
        settled AS (
            DELETE FROM open_events o USING locked l
            WHERE o.tenant_id = l.tenant_id AND o.event_id = l.event_id AND l.open = 0 AND l.dead = 0 AND (l.done > 0 OR l.acknowledged_at IS NOT NULL)
        ),
        counted AS (
            UPDATE open_events o SET open = l.open, done = l.done, dead = l.dead FROM locked l
            WHERE o.tenant_id = l.tenant_id AND o.event_id = l.event_id AND NOT (l.open = 0 AND l.dead = 0 AND (l.done > 0 OR l.acknowledged_at IS NOT NULL))
        )
        SELECT status, reason, count(*) FROM applied WHERE status <> 'pending' OR stale GROUP BY status, reason
        """;

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Postgres is away; {Completions} results wait to be written")]
        public static partial void Away(ILogger logger, Exception exception, int completions);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Postgres refused {Completions} results; each is written alone")]
        public static partial void Refused(ILogger logger, Exception exception, int completions);
    }
}
