using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>A delivery that somebody says they received: its id, and the claim they received it under.</summary>
/// <param name="Id">The delivery.</param>
/// <param name="Claim">The claim.</param>
public readonly record struct Lease(Guid Id, int Claim);

/// <summary>
/// The statements by which deliveries are received from inboxes. A lease is a claim like that of a webhook's attempt: its number fences,
/// and <c>next_attempt_at</c> is when it ends. No worker's number is 0, so that nobody frees one who looks for what a dead worker had.
/// How they end is in <see cref="DeliveryResults"/>.
/// </summary>
public static class Inboxes
{
    /// <summary>The inbox that every tenant has: what nobody subscribes to, and what everybody's push was given up of.</summary>
    public const string Default = "default";

    /// <summary>What the default inbox is said to want. Nothing is published of this type: what it has is looked for elsewhere.</summary>
    public const string DefaultEventType = "triggers.unclaimed";

    /// <summary>Of how many deliveries the types are looked at, when only some are wanted.</summary>
    private const int MaxLookedAt = 10_000;

    /// <summary>What is due of an inbox, and has not expired.</summary>
    private const string Due =
        "subscription_id = @inbox AND NOT test AND next_attempt_at <= now() AND (expires_at IS NULL OR expires_at > now())";

    /// <summary>Something came into inboxes of these tenants.</summary>
    public static NpgsqlBatchCommand Notify(IEnumerable<Guid> tenants) => new($"SELECT pg_notify('{Notifications.Inbox}', @tenants)")
    {
        Parameters = { new("tenants", Notifications.TenantsOf(tenants)) },
    };

    /// <summary>
    /// Brings events into the default inbox's queue that nobody got, as many as are wanted and not there yet; due for whoever receives in
    /// the same transaction.
    /// </summary>
    /// <param name="tenantId">Whose.</param>
    /// <param name="inbox">The default inbox.</param>
    /// <param name="ids">As many ids as are wanted.</param>
    /// <param name="types">Patterns of types; none for all.</param>
    public static NpgsqlBatchCommand Fill(Guid tenantId, Guid inbox, Guid[] ids, string[] types)
    {
        // Where only some types are wanted, what is due may be of others.
        var missing = types.Length > 0 ? "cardinality(@ids)"
            : $"""
                greatest(0, cardinality(@ids) - (
                    SELECT count(*) FROM (
                        SELECT FROM delivery_queue WHERE {Due}
                        LIMIT cardinality(@ids)) due))
                """;
        var command = new NpgsqlBatchCommand(
            $"""
            WITH candidates AS MATERIALIZED (
                SELECT e.id, octet_length(e.data) AS bytes
                FROM (
                    SELECT event_id FROM inbox e WHERE tenant_id = @tenant AND {EventState.IsInTime}
                    ORDER BY event_id LIMIT {MaxLookedAt}) i
                CROSS JOIN LATERAL (SELECT id, type, tenant_id, data FROM events WHERE tenant_id = @tenant AND id = i.event_id LIMIT 1) e
                WHERE {Wants(types)} AND NOT {EventState.IsAcknowledged}
                    AND NOT EXISTS (
                        SELECT FROM delivery_queue q
                        WHERE q.tenant_id = @tenant AND q.event_id = e.id AND q.subscription_id = @inbox)
                LIMIT {missing}
            ),
            taken AS MATERIALIZED (
                SELECT i.event_id, c.bytes, i.expires_at FROM candidates c JOIN inbox i ON i.tenant_id = @tenant AND i.event_id = c.id
                FOR UPDATE OF i SKIP LOCKED
            ),
            gone AS (
                DELETE FROM inbox i USING taken t WHERE i.tenant_id = @tenant AND i.event_id = t.event_id
            )
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at, data_bytes, expires_at)
            SELECT @tenant, @ids[n], event_id, @inbox, now(), bytes, expires_at
            FROM (SELECT *, row_number() OVER (ORDER BY event_id) AS n FROM taken) t ORDER BY n
            """);
        command.Parameters.Add(new("tenant", NpgsqlDbType.Uuid) { Value = tenantId });
        command.Parameters.Add(new("inbox", NpgsqlDbType.Uuid) { Value = inbox });
        command.Parameters.Add(new("ids", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = ids });
        AddTypes(command, types);
        return command;
    }

    /// <summary>
    /// Somebody receives what is due of an inbox, the longest due first: rows of delivery, event, claim, when the lease ends, whether it
    /// is a replay, and the event's columns, null where it is no longer kept. What was received before and is due again counts as failed.
    /// </summary>
    /// <param name="tenantId">Whose.</param>
    /// <param name="inbox">The inbox.</param>
    /// <param name="most">The most of them.</param>
    /// <param name="bytes">The most data of them together, but for a single one that has more.</param>
    /// <param name="lease">How long they are not given to anybody else.</param>
    /// <param name="types">Patterns of types; none for all. Of an inbox with very much in it only the first are looked at.</param>
    public static NpgsqlBatchCommand Receive(Guid tenantId, Guid inbox, int most, long bytes, TimeSpan lease, string[] types)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH {(types.Length == 0 ? "" : $"""
            wanted AS MATERIALIZED (
                SELECT q.id
                FROM (
                    SELECT id, event_id, next_attempt_at FROM delivery_queue
                    WHERE {Due} ORDER BY next_attempt_at LIMIT {MaxLookedAt}) q
                CROSS JOIN LATERAL (SELECT type FROM events WHERE tenant_id = @tenant AND id = q.event_id LIMIT 1) e
                WHERE {Wants(types)}
                ORDER BY q.next_attempt_at LIMIT @most + 1000
            ),
            """)}
            due AS MATERIALIZED (
                SELECT id, data_bytes, next_attempt_at FROM delivery_queue
                WHERE {Due} AND tenant_id = @tenant {(types.Length == 0 ? "" : "AND id IN (SELECT id FROM wanted)")}
                ORDER BY next_attempt_at LIMIT @most
                FOR UPDATE SKIP LOCKED
            ),
            fitting AS (
                SELECT id FROM (SELECT id, sum(data_bytes) OVER (ORDER BY next_attempt_at, id) - data_bytes AS before FROM due) d
                WHERE before < @bytes
            ),
            received AS (
                UPDATE delivery_queue q SET retry_count = q.claim, claim = q.claim + 1, claimed_by = 0,
                    next_attempt_at = clock_timestamp() + @lease
                FROM fitting f WHERE q.tenant_id = @tenant AND q.id = f.id
                RETURNING q.id, q.event_id, q.claim, q.next_attempt_at, q.is_replay
            )
            SELECT r.id AS delivery_id, r.event_id, r.claim, r.next_attempt_at, r.is_replay, e.*
            FROM received r
            LEFT JOIN LATERAL (
                SELECT {StoredEvent.Columns} FROM events e WHERE e.tenant_id = @tenant AND e.id = r.event_id LIMIT 1) e ON true
            ORDER BY r.event_id
            """);
        var parameters = command.Parameters;
        parameters.Add(new("tenant", NpgsqlDbType.Uuid) { Value = tenantId });
        parameters.Add(new("inbox", NpgsqlDbType.Uuid) { Value = inbox });
        parameters.Add(new("most", NpgsqlDbType.Integer) { Value = most });
        parameters.Add(new("bytes", NpgsqlDbType.Bigint) { Value = bytes });
        parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        AddTypes(command, types);
        return command;
    }

    /// <summary>
    /// In how many seconds something of an inbox is due that was not received in the same transaction; null when nothing will be.
    /// </summary>
    /// <param name="inbox">The inbox.</param>
    /// <param name="types">Patterns of types; none for all. Otherwise what is due already is left out: it may be of another type.</param>
    public static NpgsqlBatchCommand NextDue(Guid inbox, string[] types) => new(
        $"""
        SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp())::float8
        FROM delivery_queue WHERE subscription_id = @inbox AND NOT test AND (expires_at IS NULL OR expires_at > now())
            {(types.Length == 0 ? "" : "AND next_attempt_at > now()")}
        """)
    {
        Parameters = { new("inbox", inbox) },
    };

    /// <summary>
    /// Holds what is still leased, until the transaction ends: rows of id, claim, event, and whether it is a replay. What others have
    /// received meanwhile, or is given back, is not among them.
    /// </summary>
    public static IEnumerable<NpgsqlBatchCommand> Hold(Guid tenantId, Guid inbox, IReadOnlyList<Lease> leases)
    {
        // Who ends a replay has its event's lock, which comes before any row.
        yield return WithLeases(
            $"""
            SELECT pg_advisory_xact_lock({AdvisoryLocks.EventClass}, hash) FROM (
                SELECT DISTINCT uuid_hash(q.event_id) AS hash
                FROM unnest(@ids) AS h (id) JOIN delivery_queue q ON q.tenant_id = @tenant AND q.id = h.id
                WHERE q.subscription_id = @inbox AND q.is_replay ORDER BY 1) x
            """);
        yield return WithLeases(
            """
            SELECT q.id, q.claim, q.event_id, q.is_replay
            FROM unnest(@ids, @claims) AS h (id, claim)
            JOIN delivery_queue q ON q.tenant_id = @tenant AND q.id = h.id AND q.claim = h.claim
            WHERE q.subscription_id = @inbox AND q.claimed_by IS NOT NULL
            ORDER BY q.id FOR UPDATE OF q
            """);

        NpgsqlBatchCommand WithLeases(string sql) => Inboxes.WithLeases(sql, tenantId, inbox, leases);
    }

    /// <summary>Leases end so long from now: rows of id and claim of those that are still there.</summary>
    public static NpgsqlBatchCommand Extend(Guid tenantId, Guid inbox, IReadOnlyList<Lease> leases, TimeSpan lease)
    {
        var command = WithLeases(
            """
            WITH held AS MATERIALIZED (
                SELECT q.id
                FROM unnest(@ids, @claims) AS h (id, claim)
                JOIN delivery_queue q ON q.tenant_id = @tenant AND q.id = h.id AND q.claim = h.claim
                WHERE q.subscription_id = @inbox AND q.claimed_by IS NOT NULL
                ORDER BY q.id FOR UPDATE OF q
            )
            UPDATE delivery_queue q SET next_attempt_at = clock_timestamp() + @lease
            FROM held h WHERE q.tenant_id = @tenant AND q.id = h.id
            RETURNING q.id, q.claim
            """, tenantId, inbox, leases);
        command.Parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = lease });
        return command;
    }

    /// <summary>
    /// What became of leases that are not there: rows of id, the newest claim, and the status of the history, or <c>released</c> or
    /// <c>leased</c>. What the inbox never had is not among them.
    /// </summary>
    public static NpgsqlBatchCommand Lost(Guid tenantId, Guid inbox, IReadOnlyList<Lease> leases) => WithLeases(
        """
        SELECT d.id, d.claim, d.status FROM unnest(@ids) AS h (id)
        CROSS JOIN LATERAL (
            (SELECT id, claim, subscription_id, CASE WHEN claimed_by IS NULL THEN 'released' ELSE 'leased' END AS status
             FROM delivery_queue WHERE tenant_id = @tenant AND id = h.id)
            UNION ALL
            (SELECT id, claim, subscription_id, status FROM deliveries WHERE tenant_id = @tenant AND id = h.id LIMIT 1)
        ) d
        WHERE d.subscription_id = @inbox
        """, tenantId, inbox, leases);

    /// <summary>
    /// What is in an inbox: how many wait, how many are leased, and the oldest event of them. The counts stop at <c>@most</c>.
    /// </summary>
    /// <param name="inbox">The inbox.</param>
    /// <param name="unclaimed">Whose it is, of a default inbox: what nobody got waits there too.</param>
    /// <param name="most">Where counting stops.</param>
    public static NpgsqlBatchCommand Count(Guid inbox, Guid? unclaimed, int most) => new(
        """
        SELECT count(*) FILTER (WHERE claimed_by IS NULL OR next_attempt_at <= now())::int
                + (SELECT count(*) FROM (SELECT FROM inbox WHERE tenant_id = @unclaimed LIMIT @most) x)::int,
            count(*) FILTER (WHERE claimed_by IS NOT NULL AND next_attempt_at > now())::int,
            least(
                (array_agg(event_id ORDER BY event_id))[1],
                (SELECT event_id FROM inbox WHERE tenant_id = @unclaimed ORDER BY event_id LIMIT 1))
        FROM (
            SELECT claimed_by, next_attempt_at, event_id FROM delivery_queue
            WHERE subscription_id = @inbox AND NOT test ORDER BY next_attempt_at LIMIT @most) q
        """)
    {
        Parameters = { new("inbox", inbox), new("unclaimed", unclaimed ?? Guid.Empty), new("most", most) },
    };

    private static NpgsqlBatchCommand WithLeases(string sql, Guid tenantId, Guid inbox, IReadOnlyList<Lease> leases)
    {
        var command = new NpgsqlBatchCommand(sql);
        command.Parameters.Add(new("tenant", NpgsqlDbType.Uuid) { Value = tenantId });
        command.Parameters.Add(new("inbox", NpgsqlDbType.Uuid) { Value = inbox });
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, leases, l => l.Id);
        command.Parameters.AddColumn("claims", NpgsqlDbType.Integer, leases, l => l.Claim);
        return command;
    }

    /// <summary>The condition on <c>e.type</c> that <c>EventTypePattern</c> is.</summary>
    private static string Wants(string[] types) =>
        types.Length == 0 || types.Contains("*") ? "true"
            : "(e.type = ANY (@exact) OR EXISTS ("
                + "SELECT FROM unnest(@prefixes) p WHERE starts_with(e.type, p) AND length(e.type) > length(p)))";

    private static void AddTypes(NpgsqlBatchCommand command, string[] types)
    {
        if (types.Length == 0 || types.Contains("*"))
            return;
        var prefixes = types.Where(t => t.EndsWith(".*", StringComparison.Ordinal)).ToList();
        command.Parameters.AddColumn("exact", NpgsqlDbType.Text, [.. types.Except(prefixes)]);
        command.Parameters.AddColumn("prefixes", NpgsqlDbType.Text, prefixes.ConvertAll(p => p[..^1]));
    }
}
