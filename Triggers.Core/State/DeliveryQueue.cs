using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>A delivery to be made.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Id">UUIDv7.</param>
/// <param name="EventId">What is delivered.</param>
/// <param name="SubscriptionId">To whom.</param>
public sealed record NewDelivery(Guid TenantId, Guid Id, Guid EventId, Guid SubscriptionId)
{
    /// <summary>Length of the event's data; null where the caller has not got it, and it is looked up.</summary>
    public int? DataBytes { get; init; }

    /// <summary>Whether somebody asked for it: it does not make a settled event pending.</summary>
    public bool IsReplay { get; init; }

    /// <summary>The delivery that a replay repeats; null when the event never went there.</summary>
    public Guid? ReplayOf { get; init; }

    /// <summary>One attempt, no dead letter.</summary>
    public bool Test { get; init; }

    /// <summary>Of those of a subscription with the same key only the first is due; null: in no order.</summary>
    public string? OrderKey { get; init; }

    /// <summary>How long it waits at most for others to go with; null: it does not.</summary>
    public TimeSpan? Gathers { get; init; }

    /// <summary>When it is due; null, or what has passed: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>From when on it is not sent; null: it does not expire.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Whether it is claimed as it is written, because its attempt starts right after the commit.</summary>
    public bool Claimed { get; init; }
}

/// <summary>
/// The statements on <c>delivery_queue</c>: what comes into it, who takes what from it, and when. What leaves it is in
/// <see cref="DeliveryResults"/>.
/// </summary>
public static class DeliveryQueue
{
    /// <summary>The condition under which <c>q</c> of the queue is a row that is known already.</summary>
    /// <param name="known">Rows with <c>tenant_id</c> and <c>id</c>.</param>
    internal static string Is(string known) => $"{Equal("q.tenant_id", $"{known}.tenant_id")} AND {Equal("q.id", $"{known}.id")}";

    /// <summary>
    /// That a column has a value of a row that is known already. By <c>=</c> Postgres may join the other way round: begin with the table,
    /// all of it, and it does where it takes the table for empty.
    /// </summary>
    internal static string Equal(string column, string known) => $"{column} = ANY (ARRAY[{known}])";

    /// <summary>Deliveries are to be made: at once, at their time, or when they have waited for others to go with.</summary>
    /// <param name="deliveries">Any number.</param>
    /// <param name="worker">Who has those that are claimed; 0 where none are.</param>
    /// <param name="lease">For how long.</param>
    public static NpgsqlBatchCommand Enqueue(IReadOnlyList<NewDelivery> deliveries, int worker = 0, TimeSpan lease = default)
    {
        // Even where nothing is looked up in it, a statement that names events begins with every one of its partitions.
        var lookedUp = deliveries.Any(d => d.DataBytes is null)
            ? "coalesce(data_bytes, (SELECT octet_length(e.data) FROM events e WHERE e.tenant_id = d.tenant_id AND e.id = d.event_id), 0)"
            : "data_bytes";
        var command = new NpgsqlBatchCommand(
            $"""
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, claim, claimed_by, next_attempt_at, data_bytes,
                is_replay, replay_of, test, expires_at, batch_at)
            SELECT tenant_id, id, event_id, subscription_id, claimed::int, CASE WHEN claimed THEN @worker END,
                greatest(deliver_at, clock_timestamp() + CASE WHEN claimed THEN @lease ELSE coalesce(gathers, '0') END),
                {lookedUp}, is_replay, replay_of, test, expires_at, clock_timestamp() + gathers
            FROM unnest(@tenants, @ids, @events, @subscriptions, @claimed, @bytes, @replays, @replayed, @tests, @due, @expiries, @gathers)
                AS d (tenant_id, id, event_id, subscription_id, claimed, data_bytes, is_replay, replay_of, test, deliver_at, expires_at,
                    gathers)
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, deliveries, d => d.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, deliveries, d => d.Id);
        parameters.AddColumn("events", NpgsqlDbType.Uuid, deliveries, d => d.EventId);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, deliveries, d => d.SubscriptionId);
        parameters.AddColumn("claimed", NpgsqlDbType.Boolean, deliveries, d => d.Claimed);
        parameters.AddColumn("bytes", NpgsqlDbType.Integer, deliveries, d => d.DataBytes);
        parameters.AddColumn("replays", NpgsqlDbType.Boolean, deliveries, d => d.IsReplay);
        parameters.AddColumn("replayed", NpgsqlDbType.Uuid, deliveries, d => d.ReplayOf);
        parameters.AddColumn("tests", NpgsqlDbType.Boolean, deliveries, d => d.Test);
        parameters.AddColumn("due", NpgsqlDbType.TimestampTz, deliveries, d => d.DeliverAt?.UtcDateTime);
        parameters.AddColumn("expiries", NpgsqlDbType.TimestampTz, deliveries, d => d.ExpiresAt?.UtcDateTime);
        parameters.AddColumn("gathers", NpgsqlDbType.Interval, deliveries, d => d.Gathers);
        parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    /// <summary>The same, of deliveries of which some have keys: those come after all that their keys have.</summary>
    public static IEnumerable<NpgsqlBatchCommand> EnqueueAll(IReadOnlyList<NewDelivery> deliveries)
    {
        var ordered = deliveries.ToLookup(d => d.OrderKey is not null);
        if (ordered[false].ToList() is { Count: > 0 } others)
            yield return Enqueue(others);
        if (ordered[true].ToList() is not { Count: > 0 } inOrder)
            yield break;
        yield return OrderedQueue.Lock(inOrder.Select(d => d.SubscriptionId));
        yield return OrderedQueue.Enqueue(inOrder);
    }

    /// <summary>
    /// Events are delivered again, under their locks. The unresolved dead letters of what is repeated wait for how it ends. The first
    /// command affects one row for each of those.
    /// </summary>
    /// <param name="replays">At least one; of an event one for each subscription, and none while another is on its way there.</param>
    public static IEnumerable<NpgsqlBatchCommand> Replay(IReadOnlyList<NewDelivery> replays)
    {
        yield return DeadLetterChanges.Replay(replays);
        foreach (var command in EnqueueAll(replays))
            yield return command;
        yield return new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')");
    }

    /// <summary>
    /// Takes what is due, of each lane as much as it has places and memory for; a lane with a million due costs no more than one with
    /// ten. What waits in an inbox is not taken. What a deleted subscription still has is taken whenever it is due, to be cancelled;
    /// what is in flight ends by itself. Answers
    /// id, tenant, event, subscription, claim, retry count, whether it is a replay, of what, test, trace parent, bytes of data,
    /// whether a lease of it has run out, its key, and from when on the next claim of the lane may look, in that order; and of each lane
    /// of which something is due that is too large, only the subscription and the bytes of the first.
    /// </summary>
    /// <remarks>The rows are locked inside a materialized CTE: as a plain join the planner may lock more than the limit lets
    /// through.</remarks>
    /// <param name="tests">Whether to take tests, which have places of their own, or everything else.</param>
    /// <param name="lanes">Subscriptions, each once.</param>
    /// <param name="places">The most rows of each.</param>
    /// <param name="bytes">The most data of each, together.</param>
    /// <param name="idle">Whether the first row of a lane comes whatever its size, because the lane has nothing else.</param>
    /// <param name="from">Of each, from when on to look: what was due before is taken to be claimed, and what it has left in the index,
    /// until that is vacuumed, is not read again.</param>
    /// <param name="worker">Who takes it.</param>
    /// <param name="lease">For how long.</param>
    public static NpgsqlBatchCommand Claim(
        bool tests, IReadOnlyList<Guid> lanes, IReadOnlyList<int> places,
        IReadOnlyList<long> bytes, IReadOnlyList<bool> idle, IReadOnlyList<DateTime> from, int worker, TimeSpan lease)
    {
        var command = new NpgsqlBatchCommand(tests ? ClaimTests : ClaimOthers);
        var parameters = command.Parameters;
        parameters.AddColumn("lanes", NpgsqlDbType.Uuid, lanes);
        parameters.AddColumn("places", NpgsqlDbType.Integer, places);
        parameters.AddColumn("bytes", NpgsqlDbType.Bigint, bytes);
        parameters.AddColumn("idle", NpgsqlDbType.Boolean, idle);
        parameters.AddColumn("from", NpgsqlDbType.TimestampTz, from);
        parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    private static readonly string ClaimOthers = ClaimSql("NOT test");
    private static readonly string ClaimTests = ClaimSql("test");

    private static string ClaimSql(string which) =>
        $"""
        WITH due AS MATERIALIZED (
            SELECT q.tenant_id, q.id, l.subscription_id AS lane, q.claimed_by IS NOT NULL AS timed_out, q.data_bytes,
                q.next_attempt_at, row_number() OVER lane AS place,
                sum(q.data_bytes) OVER lane <= l.bytes OR l.idle AND row_number() OVER lane = 1 AS fits
            FROM unnest(@lanes, @places, @bytes, @idle, @from) AS l (subscription_id, places, bytes, idle, from_at)
            JOIN subscriptions s ON s.id = l.subscription_id AND (s.inbox IS NULL OR s.deleted_at IS NOT NULL)
            CROSS JOIN LATERAL (
                SELECT tenant_id, id, claimed_by, data_bytes, next_attempt_at FROM delivery_queue
                WHERE subscription_id = l.subscription_id AND {which} AND next_attempt_at >= l.from_at
                    AND next_attempt_at <= CASE WHEN s.deleted_at IS NULL THEN now() ELSE 'infinity' END
                    AND (claimed_by IS NULL OR next_attempt_at <= now())
                ORDER BY next_attempt_at
                LIMIT l.places
                FOR UPDATE SKIP LOCKED) q
            WINDOW lane AS (PARTITION BY l.subscription_id ORDER BY q.next_attempt_at, q.id)
        ),
        claimed AS (
            UPDATE delivery_queue q SET claim = q.claim + 1, claimed_by = @worker, next_attempt_at = clock_timestamp() + @lease
            FROM due WHERE {Is("due")} AND due.fits
            RETURNING q.id, q.tenant_id, q.event_id, q.subscription_id, q.claim, q.retry_count, q.is_replay, q.replay_of, q.test,
                q.last_trace_parent, q.data_bytes, due.timed_out, q.order_key,
                least(due.next_attempt_at, now() - interval '1 second') AS from_at
        )
        SELECT * FROM claimed
        UNION ALL
        SELECT NULL::uuid, NULL::uuid, NULL::uuid, lane, NULL::int, NULL::int, NULL::boolean, NULL::uuid, NULL::boolean, NULL,
            (array_agg(data_bytes ORDER BY place))[1], NULL::boolean, NULL, NULL::timestamptz
        FROM due WHERE NOT fits GROUP BY lane
        """;

    /// <summary>
    /// Takes a batch of each lane that has one: what is due or waits for others, and behind the first of a key what waits for that, as much
    /// as may go in one request. It is taken when the first of it is due, or there is as much as may go together. Answers the columns of
    /// <see cref="Claim"/> and whether another of its key goes before it, in the order of the batch; and of each lane of which anything was
    /// seen the subscription, how much of it still waits (deliveries in place of the retry count, and bytes), and last in how many seconds
    /// to ask again, if at all.
    /// </summary>
    /// <remarks>It waits for no row that somebody else has: what comes behind such a one of its key does not go either.</remarks>
    /// <param name="lanes">Subscriptions, each once.</param>
    /// <param name="most">The most rows of each.</param>
    /// <param name="waits">How long something waits for others at most.</param>
    /// <param name="bytes">The most data of each, but for a single row.</param>
    /// <param name="worker">Who takes it.</param>
    /// <param name="lease">For how long.</param>
    public static NpgsqlBatchCommand ClaimBatches(
        IReadOnlyList<Guid> lanes, IReadOnlyList<int> most, IReadOnlyList<TimeSpan> waits, long bytes, int worker, TimeSpan lease)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH heads AS MATERIALIZED (
                SELECT l.subscription_id AS lane, l.most, q.*
                FROM unnest(@lanes, @most, @waits) AS l (subscription_id, most, wait)
                CROSS JOIN LATERAL (
                    SELECT tenant_id, id, order_key, position, next_attempt_at, claimed_by, data_bytes, batch_limit FROM delivery_queue
                    WHERE subscription_id = l.subscription_id AND NOT test AND next_attempt_at <= now() + l.wait
                        AND (next_attempt_at <= now() OR claim = 0 AND batch_at IS NOT NULL)
                    ORDER BY next_attempt_at
                    LIMIT l.most
                    FOR UPDATE SKIP LOCKED) q
            ),
            found AS MATERIALIZED (
                SELECT f.*
                FROM unnest(@lanes, @most) AS l (subscription_id, most)
                CROSS JOIN LATERAL (
                    SELECT h.lane, h.most, h.id AS head, h.next_attempt_at AS due_at, h.claimed_by IS NOT NULL AS timed_out, k.*
                    FROM heads h
                    CROSS JOIN LATERAL (
                        SELECT h.tenant_id, h.id, h.position, h.data_bytes, h.batch_limit
                        UNION ALL
                        (SELECT tenant_id, id, position, data_bytes, batch_limit FROM delivery_queue
                         WHERE subscription_id = h.lane AND order_key = h.order_key AND position > h.position
                            AND next_attempt_at = 'infinity'
                         ORDER BY position LIMIT h.most - 1)) k
                    WHERE h.lane = l.subscription_id
                    LIMIT l.most) f
            ),
            locked AS MATERIALIZED (
                SELECT f.*, f.id = f.head OR q.is_locked IS NOT NULL AS is_free
                FROM found f
                LEFT JOIN LATERAL (
                    SELECT true AS is_locked FROM delivery_queue
                    WHERE f.id <> f.head AND tenant_id = f.tenant_id AND id = f.id LIMIT 1 FOR UPDATE SKIP LOCKED) q ON true
            ),
            placed AS MATERIALIZED (
                SELECT *, row_number() OVER batch AS place,
                    bool_and(is_free) OVER batch AND (row_number() OVER batch = 1
                        OR sum(data_bytes) OVER batch <= @bytes
                            AND row_number() OVER batch <= min(least(batch_limit, most)) OVER batch) AS fits
                FROM locked WINDOW batch AS (PARTITION BY lane ORDER BY due_at, head, position)
            ),
            seen AS MATERIALIZED (
                SELECT lane, count(*) AS seen, sum(data_bytes) AS bytes, min(due_at) AS due_at,
                    count(*) >= min(most) OR NOT bool_and(fits) AS is_full
                FROM placed GROUP BY lane
            ),
            claimed AS (
                UPDATE delivery_queue q SET claim = q.claim + 1, claimed_by = @worker,
                    next_attempt_at = CASE WHEN p.id = p.head THEN clock_timestamp() + @lease ELSE q.next_attempt_at END
                FROM placed p JOIN seen s ON s.lane = p.lane
                WHERE p.fits AND (s.is_full OR s.due_at <= now()) AND {Is("p")}
                RETURNING q.id, q.tenant_id, q.event_id, q.subscription_id, q.claim, q.retry_count, q.is_replay, q.replay_of, q.test,
                    q.last_trace_parent, q.data_bytes, p.timed_out, q.order_key, p.id <> p.head AS is_behind, p.place
            )
            SELECT *, NULL::float8 FROM claimed
            UNION ALL
            SELECT NULL::uuid, NULL::uuid, NULL::uuid, lane, NULL::int, CASE WHEN is_full OR due_at <= now() THEN 0 ELSE seen END::int,
                NULL::boolean, NULL::uuid, NULL::boolean, NULL,
                CASE WHEN is_full OR due_at <= now() THEN 0 ELSE least(bytes, 2147483647) END::int, NULL::boolean, NULL, NULL::boolean, 0,
                CASE WHEN is_full THEN 0 WHEN due_at > now() THEN extract(epoch FROM due_at - now()) END::float8
            FROM seen
            ORDER BY place
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("lanes", NpgsqlDbType.Uuid, lanes);
        parameters.AddColumn("most", NpgsqlDbType.Integer, most);
        parameters.AddColumn("waits", NpgsqlDbType.Interval, waits);
        parameters.Add(new("bytes", NpgsqlDbType.Bigint) { Value = bytes });
        parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    /// <summary>
    /// For every lane its id and in how many seconds something of it is due: at once where the subscription is deleted. Inboxes are no
    /// lanes. What waits in order is due in an hour, or when it is told. A loose index scan: one probe a lane, however much waits in it.
    /// </summary>
    public const string NextDue =
        $"""
        WITH RECURSIVE {Lanes}
        SELECT l.subscription_id,
            CASE WHEN s.deleted_at IS NULL THEN greatest(extract(epoch FROM
                least(l.next_attempt_at, now() + interval '1 hour') - clock_timestamp()), 0)::float8 ELSE 0 END
        FROM lanes l JOIN subscriptions s ON s.id = l.subscription_id
        WHERE s.inbox IS NULL OR s.deleted_at IS NOT NULL
        """;

    /// <summary>The same for tests. There are never many, and an index of their own has them.</summary>
    public const string NextTestsDue =
        """
        SELECT subscription_id, greatest(extract(epoch FROM min(next_attempt_at) - clock_timestamp()), 0)::float8
        FROM delivery_queue WHERE test GROUP BY subscription_id
        """;

    /// <summary>Whether a delivery of the queue is put off, or waits for others to go with, and is not scheduled.</summary>
    public const string WasTried = "(claim > 0 OR batch_at IS NOT NULL)";

    /// <summary>
    /// Makes deliveries due that are scheduled for later, and answers how many. What somebody works on at this moment is not waited for:
    /// it is being sent, or has just been. Nor is what waits in order: its turn comes. Of a subscription's, those that were never tried
    /// keep the time that their events are scheduled for.
    /// </summary>
    /// <param name="tenantId">Whose they are.</param>
    /// <param name="id">One delivery; null for those of a subscription.</param>
    /// <param name="subscriptionId">The subscription.</param>
    /// <param name="most">The most at once.</param>
    public static NpgsqlBatchCommand SendNow(Guid tenantId, Guid? id, Guid? subscriptionId, int most)
    {
        var which = id is null ? $"subscription_id = @id AND {WasTried}" : "id = @id";
        return new NpgsqlBatchCommand(
            $"""
            WITH later AS MATERIALIZED (
                SELECT tenant_id, id FROM delivery_queue
                WHERE tenant_id = @tenant AND {which} AND claimed_by IS NULL AND next_attempt_at > now()
                    AND next_attempt_at < 'infinity'
                ORDER BY next_attempt_at LIMIT @most FOR UPDATE SKIP LOCKED
            ),
            made AS (
                UPDATE delivery_queue q SET next_attempt_at = now() FROM later l
                WHERE {Is("l")}
                RETURNING q.id
            )
            SELECT (SELECT count(*) FROM made)::int, pg_notify('{Notifications.Deliveries}', '')
            """)
        {
            Parameters = { new("tenant", tenantId), new("id", (id ?? subscriptionId)!.Value), new("most", most) },
        };
    }

    /// <summary>What waits, over all processes; <c>@max</c> bounds each count. Postgres' own log's lag comes with it.</summary>
    public const string Backlog =
        $"""
        WITH RECURSIVE {Lanes},
        due AS MATERIALIZED (
            SELECT l.subscription_id, l.next_attempt_at
            FROM lanes l JOIN subscriptions s ON s.id = l.subscription_id
            WHERE l.next_attempt_at <= now() AND s.enabled AND s.inbox IS NULL AND s.rate_requests IS NULL AND s.concurrency IS NULL
                AND NOT EXISTS (SELECT FROM circuits c WHERE c.subscription_id = l.subscription_id)
        ),
        behind AS MATERIALIZED (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)
        SELECT
            (SELECT count(*) FROM (SELECT FROM delivery_queue LIMIT @max) x),
            (SELECT count(*) FROM (
                SELECT FROM due l CROSS JOIN LATERAL (
                    SELECT FROM delivery_queue WHERE NOT test AND subscription_id = l.subscription_id AND next_attempt_at <= now()
                    ORDER BY next_attempt_at LIMIT @max) p
                LIMIT @max) x),
            coalesce((SELECT extract(epoch FROM now() - min(next_attempt_at))::float8 FROM due), 0),
            (SELECT count(*) FROM (SELECT FROM dead_letters WHERE state IN ('open', 'replaying') LIMIT @max) x),
            greatest(coalesce((SELECT seq FROM events WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1), 0) + 1 - (SELECT next
                FROM behind), 0),
            clock_timestamp(),
            (SELECT id FROM events WHERE seq >= (SELECT next FROM behind) ORDER BY seq LIMIT 1),
            (SELECT count(*) FROM (SELECT FROM fan_outs LIMIT @max) x),
            (SELECT count(*) FROM (SELECT FROM circuits LIMIT @max) x),
            (SELECT count(*) FROM (
                SELECT FROM held_keys h JOIN subscriptions s ON s.id = h.subscription_id WHERE s.deleted_at IS NULL LIMIT @max) x)
        """;

    /// <summary>
    /// What workers have that are no more is due at once, and their entries go. What is being completed at this moment needs no rescue,
    /// and is not waited for.
    /// </summary>
    /// <param name="workers">Their numbers.</param>
    public static NpgsqlBatchCommand Rescue(IReadOnlyList<int> workers)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH gone AS (DELETE FROM workers WHERE number = ANY (@workers)),
            held AS MATERIALIZED (
                SELECT tenant_id, id FROM delivery_queue WHERE claimed_by = ANY (@workers) FOR UPDATE SKIP LOCKED
            )
            UPDATE delivery_queue q SET next_attempt_at = {Again}, claimed_by = NULL
            FROM held WHERE {Is("held")}
            """);
        command.Parameters.AddColumn("workers", NpgsqlDbType.Integer, workers);
        return command;
    }

    /// <summary>What is claimed in the name of a worker: ids, with the claims.</summary>
    /// <param name="worker">Its number.</param>
    public static NpgsqlBatchCommand ClaimedBy(int worker) => new("SELECT id, claim FROM delivery_queue WHERE claimed_by = @worker")
    {
        Parameters = { new("worker", NpgsqlDbType.Integer) { Value = worker } },
    };

    /// <summary>
    /// What is claimed by a worker that does not know of it is due at once: of a claim, or a projection, that was committed and whose
    /// answer was lost.
    /// </summary>
    /// <param name="worker">Its number.</param>
    /// <param name="lost">What it does not work on, with the claims.</param>
    public static NpgsqlBatchCommand Free(int worker, IReadOnlyCollection<(Guid Id, int Claim)> lost)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH lost AS MATERIALIZED (
                SELECT q.tenant_id, q.id FROM delivery_queue q
                JOIN unnest(@ids, @claims) AS l (id, claim) ON l.id = q.id AND l.claim = q.claim
                WHERE q.claimed_by = @worker
                FOR UPDATE OF q SKIP LOCKED
            )
            UPDATE delivery_queue q SET next_attempt_at = {Again}, claimed_by = NULL
            FROM lost WHERE {Is("lost")}
            """);
        command.Parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker });
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, [.. lost], l => l.Id);
        command.Parameters.AddColumn("claims", NpgsqlDbType.Integer, [.. lost], l => l.Claim);
        return command;
    }

    /// <summary>What was behind another of its key in a batch still waits for that one.</summary>
    private const string Again = "CASE WHEN q.next_attempt_at = 'infinity' THEN q.next_attempt_at ELSE clock_timestamp() END";

    private const string Lanes =
        """
        lanes AS (
            (SELECT subscription_id, next_attempt_at FROM delivery_queue WHERE NOT test ORDER BY subscription_id, next_attempt_at LIMIT 1)
            UNION ALL
            SELECT n.subscription_id, n.next_attempt_at
            FROM lanes l CROSS JOIN LATERAL (
                SELECT subscription_id, next_attempt_at FROM delivery_queue
                WHERE NOT test AND subscription_id > l.subscription_id
                ORDER BY subscription_id, next_attempt_at LIMIT 1) n
        )
        """;
}
