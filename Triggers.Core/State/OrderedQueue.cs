using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>
/// The statements by which the deliveries of a key go one after the other: only the first of a key is ever due, and whoever ends it makes
/// the next one due in the same transaction. The others have no time in the queue but <c>infinity</c>, so that a claim never sees them.
/// </summary>
/// <remarks>
/// Whoever adds to a key, or ends or holds its first, has the lock of its subscription. So places are given in the order in which they can
/// be seen, and nobody misses the one who comes or goes at the same time. docs/decisions/0015-ordering.md says why that is enough.
/// </remarks>
public static class OrderedQueue
{
    /// <summary>Deliveries of a key that are counted at most.</summary>
    public const int MaxCounted = 1_000;

    /// <summary>The key of what a subscription (<c>s</c>) gets, in SQL; null where it gets it in no order.</summary>
    /// <param name="subject">What gives the event's subject.</param>
    public static string KeyOf(string subject) => $"CASE s.ordering WHEN 'strict' THEN '' WHEN 'per_key' THEN {subject} END";

    /// <summary>
    /// The order of these subscriptions is nobody else's until the transaction ends. After the locks of events, and before any row of the
    /// queue.
    /// </summary>
    public static NpgsqlBatchCommand Lock(IEnumerable<Guid> subscriptions)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            SELECT pg_advisory_xact_lock({AdvisoryLocks.OrderClass}, hash)
            FROM (SELECT DISTINCT uuid_hash(id) AS hash FROM unnest(@ordered) AS id ORDER BY 1) x
            """);
        command.Parameters.AddColumn("ordered", NpgsqlDbType.Uuid, [.. subscriptions.Distinct()]);
        return command;
    }

    /// <summary>
    /// Deliveries are to be made, each when all before it of its key have ended. Under the lock of their subscriptions. The lanes of which
    /// something is due now are rows of <c>due_lane</c>.
    /// </summary>
    /// <param name="deliveries">With their keys, in their order.</param>
    public static NpgsqlBatchCommand Enqueue(IReadOnlyList<NewDelivery> deliveries)
    {
        var lookedUp = deliveries.Any(d => d.DataBytes is null)
            ? "coalesce(data_bytes, (SELECT octet_length(e.data) FROM events e WHERE e.tenant_id = d.tenant_id AND e.id = d.event_id), 0)"
            : "data_bytes";
        var command = new NpgsqlBatchCommand(
            $"""
            WITH put AS (
                INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at, data_bytes, is_replay, replay_of,
                    order_key, position, expires_at, batch_at)
                SELECT tenant_id, id, event_id, subscription_id,
                    CASE WHEN waits THEN 'infinity' ELSE clock_timestamp() + coalesce(gathers, '0') END,
                    {lookedUp}, is_replay, replay_of, order_key, nextval('delivery_order'), expires_at, clock_timestamp() + gathers
                FROM (
                    SELECT d.*, row_number() OVER (PARTITION BY d.subscription_id, d.order_key ORDER BY d.ord) > 1
                        OR EXISTS (
                            SELECT FROM delivery_queue q WHERE q.subscription_id = d.subscription_id AND q.order_key = d.order_key)
                        OR EXISTS (SELECT FROM held_keys h WHERE h.subscription_id = d.subscription_id AND h.order_key = d.order_key)
                        AS waits
                    FROM unnest(@tenants, @ids, @events, @subscriptions, @bytes, @replays, @replayed, @keys, @expiries, @gathers)
                        WITH ORDINALITY AS d (tenant_id, id, event_id, subscription_id, data_bytes, is_replay, replay_of, order_key,
                            expires_at, gathers, ord)
                    ORDER BY d.ord) d
                RETURNING subscription_id, next_attempt_at
            )
            SELECT DISTINCT subscription_id AS due_lane FROM put WHERE next_attempt_at < 'infinity'
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, deliveries, d => d.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, deliveries, d => d.Id);
        parameters.AddColumn("events", NpgsqlDbType.Uuid, deliveries, d => d.EventId);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, deliveries, d => d.SubscriptionId);
        parameters.AddColumn("bytes", NpgsqlDbType.Integer, deliveries, d => d.DataBytes);
        parameters.AddColumn("replays", NpgsqlDbType.Boolean, deliveries, d => d.IsReplay);
        parameters.AddColumn("replayed", NpgsqlDbType.Uuid, deliveries, d => d.ReplayOf);
        parameters.AddColumn("keys", NpgsqlDbType.Text, deliveries, d => d.OrderKey);
        parameters.AddColumn("gathers", NpgsqlDbType.Interval, deliveries, d => d.Gathers);
        parameters.AddColumn("expiries", NpgsqlDbType.TimestampTz, deliveries, d => d.ExpiresAt?.UtcDateTime);
        return command;
    }

    /// <summary>
    /// Deliveries whose time has come take their places, each behind all that its key has now; they go on as any other in order. Under the
    /// lock of their subscriptions. The lanes of which something is due now are rows of <c>due_lane</c>.
    /// </summary>
    /// <param name="due">Claimed, in the order in which they are to be.</param>
    public static NpgsqlBatchCommand Join(IReadOnlyList<DeliveryResult> due)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH placed AS MATERIALIZED (
                SELECT d.*, nextval('delivery_order') AS position FROM (
                    SELECT d.*, row_number() OVER (PARTITION BY d.subscription_id, d.order_key ORDER BY d.ord) > 1
                        OR EXISTS (
                            SELECT FROM delivery_queue q WHERE q.subscription_id = d.subscription_id AND q.order_key = d.order_key)
                        OR EXISTS (SELECT FROM held_keys h WHERE h.subscription_id = d.subscription_id AND h.order_key = d.order_key)
                        AS waits
                    FROM unnest(@tenants, @ids, @subscriptions, @claims, @keys) WITH ORDINALITY
                        AS d (tenant_id, id, subscription_id, claim, order_key, ord)
                    ORDER BY d.ord) d
            ),
            joined AS (
                UPDATE delivery_queue q SET order_key = p.order_key, position = p.position, claimed_by = NULL,
                    next_attempt_at = CASE WHEN p.waits THEN 'infinity' ELSE clock_timestamp() END
                FROM placed p WHERE {DeliveryQueue.Is("p")} AND q.claim = p.claim AND q.order_key IS NULL
                RETURNING q.subscription_id, q.next_attempt_at
            )
            SELECT DISTINCT subscription_id AS due_lane FROM joined WHERE next_attempt_at < 'infinity'
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, due, d => d.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, due, d => d.Id);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, due, d => d.SubscriptionId);
        parameters.AddColumn("claims", NpgsqlDbType.Integer, due, d => d.Claim);
        parameters.AddColumn("keys", NpgsqlDbType.Text, due, d => d.OrderKey);
        return command;
    }

    /// <summary>
    /// What has failed for good holds the rest of its key. To be run after <see cref="DeliveryResults"/> has written that, which it does
    /// not where it is stale.
    /// </summary>
    public static NpgsqlBatchCommand Hold(IReadOnlyList<DeliveryResult> failed)
    {
        var command = new NpgsqlBatchCommand(
            """
            INSERT INTO held_keys (subscription_id, order_key, tenant_id, delivery_id, reason)
            SELECT f.subscription_id, f.order_key, f.tenant_id, f.id, f.reason
            FROM unnest(@tenants, @ids, @subscriptions, @keys, @claims, @reasons)
                AS f (tenant_id, id, subscription_id, order_key, claim, reason)
            WHERE EXISTS (SELECT FROM dead_letters l WHERE l.tenant_id = f.tenant_id AND l.delivery_id = f.id)
                OR EXISTS (
                    SELECT FROM delivery_queue q
                    WHERE q.tenant_id = f.tenant_id AND q.id = f.id AND q.claim = f.claim AND q.next_attempt_at = 'infinity')
            ON CONFLICT DO NOTHING
            """);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, failed, f => f.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, failed, f => f.Id);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, failed, f => f.SubscriptionId);
        parameters.AddColumn("keys", NpgsqlDbType.Text, failed, f => f.OrderKey);
        parameters.AddColumn("claims", NpgsqlDbType.Integer, failed, f => f.Claim);
        parameters.AddColumn("reasons", NpgsqlDbType.Text, failed, f => f.Reason);
        return command;
    }

    /// <summary>
    /// The first of each of these keys is due, or has waited for others to go with before long, unless it was before or its key is held.
    /// The lanes of those are rows of <c>due_lane</c>.
    /// </summary>
    public static NpgsqlBatchCommand Advance(IEnumerable<(Guid SubscriptionId, string Key)> keys)
    {
        List<(Guid SubscriptionId, string Key)> each = [.. keys.Distinct()];
        var command = new NpgsqlBatchCommand(
            $"""
            WITH next AS MATERIALIZED (
                SELECT f.tenant_id, f.id
                FROM unnest(@subscriptions, @keys) AS k (subscription_id, order_key)
                CROSS JOIN LATERAL (
                    SELECT tenant_id, id, next_attempt_at FROM delivery_queue
                    WHERE subscription_id = k.subscription_id AND order_key = k.order_key ORDER BY position LIMIT 1) f
                WHERE f.next_attempt_at = 'infinity'
                    AND NOT EXISTS (SELECT FROM held_keys h WHERE h.subscription_id = k.subscription_id AND h.order_key = k.order_key)
                ORDER BY f.tenant_id, f.id
            ),
            due AS (
                UPDATE delivery_queue q SET next_attempt_at = greatest(clock_timestamp(), q.batch_at) FROM next n
                WHERE {DeliveryQueue.Is("n")}
                RETURNING q.subscription_id
            )
            SELECT DISTINCT subscription_id AS due_lane FROM due
            """);
        command.Parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, each, k => k.SubscriptionId);
        command.Parameters.AddColumn("keys", NpgsqlDbType.Text, each, k => k.Key);
        return command;
    }

    /// <summary>
    /// Somebody lets held keys go, the longest held first; a row of each. What failed for good and still heads its key is tried again, as
    /// if it had never been. Under the lock of the subscription; <see cref="Advance"/> is to follow.
    /// </summary>
    /// <param name="subscriptionId">Whose.</param>
    /// <param name="key">One; null for all.</param>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand Release(Guid subscriptionId, string? key, int most) => new(
        $"""
        WITH held AS MATERIALIZED (
            SELECT order_key FROM held_keys WHERE subscription_id = @id {(key is null ? "" : "AND order_key = @key")}
            ORDER BY since LIMIT @most
        ),
        released AS (
            DELETE FROM held_keys k USING held h WHERE k.subscription_id = @id AND k.order_key = h.order_key
            RETURNING k.order_key, k.tenant_id, k.delivery_id
        ),
        anew AS (
            UPDATE delivery_queue q SET retry_count = 0 FROM released r WHERE q.tenant_id = r.tenant_id AND q.id = r.delivery_id
        )
        SELECT order_key FROM released
        """)
    {
        Parameters =
        {
            new("id", subscriptionId), new("key", NpgsqlDbType.Text) { Value = (object?)key ?? DBNull.Value }, new("most", most),
        },
    };

    /// <summary>
    /// The delivery that heads the key of another, locked: rows of id, event, claim, whether it is a replay, key, and whether somebody
    /// works on it. None where the other is not there, or in no order. Under the lock of the subscription.
    /// </summary>
    public static NpgsqlBatchCommand Head(Guid tenantId, Guid subscriptionId, Guid deliveryId) => new(
        """
        SELECT f.id, f.event_id, f.claim, f.is_replay, f.order_key, f.claimed_by IS NOT NULL
        FROM delivery_queue d
        CROSS JOIN LATERAL (
            SELECT * FROM delivery_queue
            WHERE subscription_id = d.subscription_id AND order_key = d.order_key ORDER BY position LIMIT 1 FOR UPDATE) f
        WHERE d.tenant_id = @tenant AND d.id = @id AND d.subscription_id = @subscription
        """)
    {
        Parameters = { new("tenant", tenantId), new("id", deliveryId), new("subscription", subscriptionId) },
    };

    /// <summary>A key is not held by this delivery any more, which somebody gives up.</summary>
    public static NpgsqlBatchCommand Unhold(Guid subscriptionId, string key, Guid deliveryId) => new(
        "DELETE FROM held_keys WHERE subscription_id = @id AND order_key = @key AND delivery_id = @delivery")
    {
        Parameters = { new("id", subscriptionId), new("key", key), new("delivery", deliveryId) },
    };

    /// <summary>
    /// Where the keys of a subscription stand, in the order of their names: rows of key; reason, since and delivery of what holds it; id,
    /// event, failed attempts, whether it is being sent, next attempt, outcome and status code of the delivery that heads it; since when
    /// that fails; and how many there are, counted up to <see cref="MaxCounted"/> and one.
    /// </summary>
    /// <param name="subscriptionId">Whose.</param>
    /// <param name="which">Which of them.</param>
    /// <param name="after">Those after this one; null for the first.</param>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand Keys(Guid subscriptionId, KeyStates which, string? after, int most)
    {
        var beyond = after is null ? "" : "AND order_key > @after";
        var keys = which switch
        {
            KeyStates.Held => $"SELECT order_key FROM held_keys WHERE subscription_id = @id {beyond} ORDER BY order_key LIMIT @most",
            KeyStates.Failing =>
                $"""
                SELECT order_key FROM delivery_queue
                WHERE subscription_id = @id AND NOT test AND next_attempt_at < 'infinity' AND order_key IS NOT NULL AND retry_count > 0
                    {beyond}
                ORDER BY order_key LIMIT @most
                """,
            _ =>
                $"""
                SELECT order_key FROM (
                    WITH RECURSIVE k AS (
                        SELECT {Next(beyond)} AS order_key, 1 AS n
                        UNION ALL
                        SELECT {Next("AND order_key > k.order_key")}, n + 1 FROM k WHERE order_key IS NOT NULL AND n < @most
                    )
                    SELECT order_key FROM k WHERE order_key IS NOT NULL) k
                """,
        };
        return new NpgsqlBatchCommand(
            $"""
            SELECT k.order_key, h.reason, h.since, h.delivery_id,
                f.id, f.event_id, f.retry_count, f.claimed_by IS NOT NULL,
                CASE WHEN f.claimed_by IS NULL THEN nullif(f.next_attempt_at, 'infinity') END, f.last_outcome, f.last_status_code,
                CASE WHEN f.retry_count > 0 THEN (SELECT min(a.started_at) FROM attempts a WHERE a.delivery_id = f.id) END,
                (SELECT count(*) FROM (
                    SELECT FROM delivery_queue q WHERE q.subscription_id = @id AND q.order_key = k.order_key LIMIT {MaxCounted} + 1) x)::int
            FROM ({keys}) k
            LEFT JOIN held_keys h ON h.subscription_id = @id AND h.order_key = k.order_key
            LEFT JOIN LATERAL (
                SELECT * FROM delivery_queue q
                WHERE q.subscription_id = @id AND q.order_key = k.order_key ORDER BY position LIMIT 1) f ON true
            ORDER BY k.order_key
            """)
        {
            Parameters =
            {
                new("id", subscriptionId), new("after", NpgsqlDbType.Text) { Value = (object?)after ?? DBNull.Value }, new("most", most),
            },
        };

        static string Next(string beyond) =>
            $"""
            least(
                (SELECT order_key FROM delivery_queue
                 WHERE subscription_id = @id AND order_key IS NOT NULL {beyond} ORDER BY order_key LIMIT 1),
                (SELECT order_key FROM held_keys WHERE subscription_id = @id {beyond} ORDER BY order_key LIMIT 1))
            """;
    }
}

/// <summary>Which keys of a subscription are asked for.</summary>
public enum KeyStates
{
    /// <summary>All with something in the queue, and those that are held.</summary>
    All,

    /// <summary>Those of which nothing is sent until somebody says so.</summary>
    Held,

    /// <summary>Those whose first delivery has failed and is tried again.</summary>
    Failing,
}
