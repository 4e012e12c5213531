using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>A delivery to be made.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Id">UUIDv7.</param>
/// <param name="EventId">What is delivered.</param>
/// <param name="SubscriptionId">To whom.</param>
/// <param name="DataBytes">Length of the event's data.</param>
public sealed record NewDelivery(Guid TenantId, Guid Id, Guid EventId, Guid SubscriptionId, int DataBytes)
{
    /// <summary>The delivery it repeats.</summary>
    public Guid? ReplayOf { get; init; }

    /// <summary>One attempt, no dead letter.</summary>
    public bool Test { get; init; }

    /// <summary>Whether it is claimed as it is written, because its attempt starts right after the commit.</summary>
    public bool Claimed { get; init; }
}

/// <summary>
/// The statements on <c>delivery_queue</c>: what comes into it, who takes what from it, and when. What leaves it is in
/// <see cref="DeliveryResults"/>.
/// </summary>
public static class DeliveryQueue
{
    /// <summary>Deliveries are to be made, at once.</summary>
    /// <param name="deliveries">Any number.</param>
    /// <param name="worker">Who has those that are claimed; 0 where none are.</param>
    /// <param name="lease">For how long.</param>
    public static NpgsqlBatchCommand Enqueue(IReadOnlyList<NewDelivery> deliveries, int worker = 0, TimeSpan lease = default)
    {
        var command = new NpgsqlBatchCommand(
            """
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, claim, claimed_by, next_attempt_at, data_bytes, replay_of, test)
            SELECT tenant_id, id, event_id, subscription_id, claimed::int, CASE WHEN claimed THEN @worker END,
                clock_timestamp() + CASE WHEN claimed THEN @lease ELSE interval '0' END, data_bytes, replay_of, test
            FROM unnest(@tenants, @ids, @events, @subscriptions, @claimed, @bytes, @replays, @tests)
                AS d (tenant_id, id, event_id, subscription_id, claimed, data_bytes, replay_of, test)
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, deliveries, d => d.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, deliveries, d => d.Id);
        parameters.AddColumn("events", NpgsqlDbType.Uuid, deliveries, d => d.EventId);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, deliveries, d => d.SubscriptionId);
        parameters.AddColumn("claimed", NpgsqlDbType.Boolean, deliveries, d => d.Claimed);
        parameters.AddColumn("bytes", NpgsqlDbType.Integer, deliveries, d => d.DataBytes);
        parameters.AddColumn("replays", NpgsqlDbType.Uuid, deliveries, d => d.ReplayOf);
        parameters.AddColumn("tests", NpgsqlDbType.Boolean, deliveries, d => d.Test);
        parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    /// <summary>
    /// Takes what is due, of each lane as much as it has places and memory for; a lane with a million due costs no more than one with
    /// ten. Answers id, tenant, event, subscription, claim, retry count, replay of, test, trace parent, bytes of data, and whether a
    /// lease of it has run out, in that order.
    /// </summary>
    /// <remarks>The rows are locked inside a materialized CTE: as a plain join the planner may lock more than the limit lets through.</remarks>
    /// <param name="lanes">Subscriptions, each once.</param>
    /// <param name="places">The most rows of each.</param>
    /// <param name="bytes">The most data of each, together.</param>
    /// <param name="idle">Whether the first row of a lane comes whatever its size, because the lane has nothing else.</param>
    /// <param name="worker">Who takes it.</param>
    /// <param name="lease">For how long.</param>
    public static NpgsqlBatchCommand Claim(
        IReadOnlyList<Guid> lanes, IReadOnlyList<int> places, IReadOnlyList<long> bytes, IReadOnlyList<bool> idle, int worker, TimeSpan lease)
    {
        var command = new NpgsqlBatchCommand(
            """
            WITH due AS MATERIALIZED (
                SELECT q.tenant_id, q.id, q.claimed_by IS NOT NULL AS timed_out,
                    sum(q.data_bytes) OVER lane <= l.bytes OR l.idle AND row_number() OVER lane = 1 AS fits
                FROM unnest(@lanes, @places, @bytes, @idle) AS l (subscription_id, places, bytes, idle)
                CROSS JOIN LATERAL (
                    SELECT tenant_id, id, claimed_by, data_bytes, next_attempt_at FROM delivery_queue
                    WHERE subscription_id = l.subscription_id AND next_attempt_at <= now()
                    ORDER BY next_attempt_at
                    LIMIT l.places
                    FOR UPDATE SKIP LOCKED) q
                WINDOW lane AS (PARTITION BY l.subscription_id ORDER BY q.next_attempt_at, q.id)
            )
            UPDATE delivery_queue q SET claim = q.claim + 1, claimed_by = @worker, next_attempt_at = clock_timestamp() + @lease
            FROM due WHERE q.tenant_id = due.tenant_id AND q.id = due.id AND due.fits
            RETURNING q.id, q.tenant_id, q.event_id, q.subscription_id, q.claim, q.retry_count, q.replay_of, q.test, q.last_trace_parent,
                q.data_bytes, due.timed_out
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("lanes", NpgsqlDbType.Uuid, lanes);
        parameters.AddColumn("places", NpgsqlDbType.Integer, places);
        parameters.AddColumn("bytes", NpgsqlDbType.Bigint, bytes);
        parameters.AddColumn("idle", NpgsqlDbType.Boolean, idle);
        parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    /// <summary>
    /// For every lane its id and in how many seconds something of it is due. A loose index scan: one probe a lane, however much waits in
    /// it.
    /// </summary>
    public const string NextDue =
        $"""
        WITH RECURSIVE {Lanes}
        SELECT subscription_id, greatest(extract(epoch FROM next_attempt_at - clock_timestamp()), 0)::float8 FROM lanes
        """;

    /// <summary>What waits, over all processes; <c>@max</c> bounds each count. Postgres' own log's lag comes with it.</summary>
    public const string Backlog =
        $"""
        WITH RECURSIVE {Lanes},
        due AS MATERIALIZED (
            SELECT l.subscription_id, l.next_attempt_at
            FROM lanes l JOIN subscriptions s ON s.id = l.subscription_id
            WHERE l.next_attempt_at <= now() AND s.enabled
        ),
        behind AS MATERIALIZED (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)
        SELECT
            (SELECT count(*) FROM (SELECT FROM delivery_queue LIMIT @max) x),
            (SELECT count(*) FROM (
                SELECT FROM due l CROSS JOIN LATERAL (
                    SELECT FROM delivery_queue WHERE subscription_id = l.subscription_id AND next_attempt_at <= now()
                    ORDER BY next_attempt_at LIMIT @max) p
                LIMIT @max) x),
            coalesce((SELECT extract(epoch FROM now() - min(next_attempt_at))::float8 FROM due), 0),
            (SELECT count(*) FROM (SELECT FROM dead_letters WHERE state IN ('open', 'replaying') LIMIT @max) x),
            greatest(coalesce((SELECT seq FROM events WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1), 0) + 1 - (SELECT next FROM behind), 0),
            clock_timestamp(),
            (SELECT id FROM events WHERE seq >= (SELECT next FROM behind) ORDER BY seq LIMIT 1)
        """;

    /// <summary>
    /// What workers have that are no more is due at once, and their entries go. What is being completed at this moment needs no rescue,
    /// and is not waited for.
    /// </summary>
    /// <param name="workers">Their numbers.</param>
    public static NpgsqlBatchCommand Rescue(IReadOnlyList<int> workers)
    {
        var command = new NpgsqlBatchCommand(
            """
            WITH gone AS (DELETE FROM workers WHERE number = ANY (@workers)),
            held AS MATERIALIZED (
                SELECT tenant_id, id FROM delivery_queue WHERE claimed_by = ANY (@workers) FOR UPDATE SKIP LOCKED
            )
            UPDATE delivery_queue q SET next_attempt_at = clock_timestamp(), claimed_by = NULL
            FROM held WHERE q.tenant_id = held.tenant_id AND q.id = held.id
            """);
        command.Parameters.AddColumn("workers", NpgsqlDbType.Integer, workers);
        return command;
    }

    private const string Lanes =
        """
        lanes AS (
            (SELECT subscription_id, next_attempt_at FROM delivery_queue ORDER BY subscription_id, next_attempt_at LIMIT 1)
            UNION ALL
            SELECT n.subscription_id, n.next_attempt_at
            FROM lanes l CROSS JOIN LATERAL (
                SELECT subscription_id, next_attempt_at FROM delivery_queue
                WHERE subscription_id > l.subscription_id
                ORDER BY subscription_id, next_attempt_at LIMIT 1) n
        )
        """;
}
