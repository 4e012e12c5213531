using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>An event that nobody wants, to wait in the inbox.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="EventId">Which.</param>
/// <param name="DeliverAt">Nobody sees it before.</param>
/// <param name="ExpiresAt">Nobody sees it from then on.</param>
public sealed record UnclaimedEvent(Guid TenantId, Guid EventId, DateTimeOffset? DeliverAt = null, DateTimeOffset? ExpiresAt = null);

/// <summary>
/// Where an event stands, as conditions on <c>e</c>, a row of <c>events</c> or anything else with its tenant and id: the only place that
/// says so.
/// </summary>
/// <remarks>
/// An event is settled when everybody has it who is to get it, or when somebody acknowledged it. Nothing keeps the count: what is not
/// settled is in one of a few small tables. An unresolved dead letter makes it dead-lettered; else a delivery in the queue, a place in the
/// inbox, or not being projected yet makes it pending; else it is delivered. A replay leaves the event where it stands until it ends: what
/// is settled is not opened again by one, and a dead letter remains unresolved during its own.
/// </remarks>
public static class EventState
{
    /// <summary>
    /// The place of the Postgres log up to which events are projected. Events of another log are stored when they are projected.
    /// </summary>
    public const string Position = "(SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)";

    /// <summary>Whether deliveries of it are still to be made.</summary>
    private const string FansOut = "EXISTS (SELECT FROM fan_outs f WHERE f.tenant_id = e.tenant_id AND f.event_id = e.id)";

    /// <summary>Whether it waits for a delivery that is not a repetition.</summary>
    public const string IsQueued =
        $"(EXISTS (SELECT FROM delivery_queue q WHERE q.tenant_id = e.tenant_id AND q.event_id = e.id AND NOT q.is_replay) OR {FansOut})";

    /// <summary>Whether a delivery to a subscription is on its way, or is still to be made.</summary>
    /// <param name="tenant">What names the tenant in the query.</param>
    /// <param name="e">What names the event.</param>
    /// <param name="subscription">What names the subscription.</param>
    public static string IsOnItsWay(string tenant, string e, string subscription) =>
        $"""
        (EXISTS (SELECT FROM delivery_queue q WHERE q.tenant_id = {tenant} AND q.event_id = {e} AND q.subscription_id = {subscription})
            OR {FansOutTo(tenant, e, subscription)})
        """;

    /// <summary>Whether it may still fan out to a subscription: nobody has looked yet whether that wants it.</summary>
    /// <param name="tenant">What names the tenant in the query.</param>
    /// <param name="e">What names the event.</param>
    /// <param name="subscription">What names the subscription.</param>
    public static string FansOutTo(string tenant, string e, string subscription) =>
        $"EXISTS (SELECT FROM fan_outs f WHERE f.tenant_id = {tenant} AND f.event_id = {e} AND f.after < {subscription})";

    /// <summary>Whether it has not been projected: no delivery of it is made yet.</summary>
    public const string IsUnprojected = $"coalesce(e.seq >= {Position}, false)";

    /// <summary>Locks that place, and answers it, unless another process has it.</summary>
    public const string LockPosition = "SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0 FOR UPDATE SKIP LOCKED";

    /// <summary>Whether nobody has dealt with a dead letter, <c>l</c>.</summary>
    public const string IsUnresolved = "l.state IN ('open', 'replaying')";

    /// <summary>Whether a delivery of it failed for good and nobody has dealt with that.</summary>
    public const string IsDeadLettered =
        $"EXISTS (SELECT FROM dead_letters l WHERE l.tenant_id = e.tenant_id AND l.event_id = e.id AND {IsUnresolved})";

    /// <summary>Whether somebody acknowledged it.</summary>
    public const string IsAcknowledged =
        "EXISTS (SELECT FROM acknowledgements a WHERE a.tenant_id = e.tenant_id AND a.event_id = e.id)";

    /// <summary>Whether nobody got it and nobody is about to.</summary>
    public const string IsUnclaimed =
        $"(EXISTS (SELECT FROM inbox i WHERE i.tenant_id = e.tenant_id AND i.event_id = e.id) AND NOT {IsAcknowledged})";

    /// <summary>The name of its state; <c>e</c> is a row of <c>events</c>.</summary>
    public const string Status =
        $"""
        CASE WHEN e.cancelled_at IS NOT NULL THEN 'cancelled' WHEN {IsDeadLettered} THEN 'dead_lettered'
            WHEN {IsQueued} OR {IsUnprojected} OR {IsUnclaimed} THEN CASE WHEN e.deliver_at > now() THEN 'scheduled' ELSE 'pending' END
            WHEN e.expired_at IS NOT NULL AND NOT {IsAcknowledged} THEN 'expired' ELSE 'delivered' END
        """;

    /// <summary>
    /// Ids of a tenant's events (<c>@tenant</c>) that may be in the inbox, or pending and projected, each once: what they are is still to
    /// be asked. Three small indexes are read in their order, from a place and no further than asked.
    /// </summary>
    /// <param name="bounds">Conditions on a column of ids.</param>
    /// <param name="order"><c>ASC</c> or <c>DESC</c>.</param>
    /// <param name="limit">How many are wanted.</param>
    public static string OpenEvents(Func<string, string> bounds, string order, int limit) =>
        $"""
        SELECT id FROM (
            (SELECT event_id AS id FROM inbox WHERE tenant_id = @tenant{bounds("event_id")} ORDER BY event_id {order} LIMIT {limit})
            UNION
            (SELECT DISTINCT event_id FROM delivery_queue
             WHERE tenant_id = @tenant AND NOT is_replay{bounds("event_id")} ORDER BY event_id {order} LIMIT {limit})
            UNION
            (SELECT event_id FROM fan_outs WHERE tenant_id = @tenant{bounds("event_id")} ORDER BY event_id {order} LIMIT {limit})
        ) open
        """;

    /// <summary>The same for events with an unresolved dead letter.</summary>
    public static string DeadLetteredEvents(Func<string, string> bounds, string order, int limit) =>
        $"""
        SELECT DISTINCT event_id AS id FROM dead_letters
        WHERE tenant_id = @tenant AND state IN ('open', 'replaying'){bounds("event_id")} ORDER BY event_id {order} LIMIT {limit}
        """;

    /// <summary>Whether now is between its times, of <c>e</c>, a row of <c>events</c> or <c>inbox</c>.</summary>
    public const string IsInTime = "(e.deliver_at IS NULL OR e.deliver_at <= now()) AND (e.expires_at IS NULL OR e.expires_at > now())";

    /// <summary>Whether it is in the inbox, if it is one of those of <see cref="OpenEvents"/>.</summary>
    public const string IsInInbox = $"{IsInTime} AND NOT {IsAcknowledged} AND NOT {IsDeadLettered}";

    /// <summary>
    /// Who does more than one thing about an event, or judges it by what others do, locks it first: replays, discards, cancellations,
    /// deliveries that end without success. Always before any row, and all events of a transaction at once.
    /// </summary>
    public static NpgsqlBatchCommand Lock(IReadOnlyCollection<Guid> events)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            SELECT pg_advisory_xact_lock({AdvisoryLocks.EventClass}, hash)
            FROM (SELECT DISTINCT uuid_hash(id) AS hash FROM unnest(@events) AS id ORDER BY 1) x
            """);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, [.. events]);
        return command;
    }

    /// <summary>
    /// Puts those events into the inbox that nobody got, nobody is about to get, nobody acknowledged, and of which no dead letter waits;
    /// none that is no longer kept. To be run under their locks, after what may have brought that about, as a statement of its own: it
    /// must see what others committed until then.
    /// </summary>
    public static NpgsqlBatchCommand Settle(IReadOnlyList<(Guid TenantId, Guid EventId)> events)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            INSERT INTO inbox (tenant_id, event_id, deliver_at, expires_at)
            SELECT DISTINCT e.tenant_id, e.id, t.deliver_at, t.expires_at
            FROM unnest(@tenants, @events, @floors) AS e (tenant_id, id, floor)
            CROSS JOIN LATERAL (
                SELECT deliver_at, expires_at FROM events WHERE tenant_id = e.tenant_id AND id = e.id LIMIT 1) t
            WHERE NOT EXISTS (SELECT FROM delivery_queue q WHERE q.tenant_id = e.tenant_id AND q.event_id = e.id)
                AND NOT {FansOut} AND NOT {IsDeadLettered} AND NOT {IsAcknowledged}
                AND NOT EXISTS (
                    SELECT FROM deliveries d
                    WHERE d.event_id = e.id AND d.tenant_id = e.tenant_id AND d.status = 'succeeded' AND d.id >= e.floor)
            ON CONFLICT DO NOTHING
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, events, e => e.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, events, e => e.EventId);
        command.Parameters.AddColumn("floors", NpgsqlDbType.Uuid, events, e => FirstDelivery(e.EventId));
        return command;
    }

    /// <summary>
    /// The smallest id a delivery of an event can have: it is made after the event, by a clock that may be a little behind. It spares the
    /// days before.
    /// </summary>
    public static Guid FirstDelivery(Guid eventId) => TypeId.At(TypeId.CreatedAt(eventId).AddHours(-1));

    /// <summary>
    /// Somebody says that they have these events: rows of id and <c>acknowledged</c> or <c>not_found</c>. Nobody receives them from the
    /// default inbox any more.
    /// </summary>
    public static NpgsqlBatchCommand Acknowledge(Guid tenantId, IReadOnlyList<Guid> ids)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            WITH known AS MATERIALIZED (
                SELECT e.id FROM events e WHERE e.tenant_id = @tenant AND e.id = ANY (@ids)
            ),
            noted AS (
                INSERT INTO acknowledgements (tenant_id, event_id) SELECT @tenant, id FROM known ORDER BY id ON CONFLICT DO NOTHING
            ),
            got AS (
                DELETE FROM inbox i USING known k WHERE i.tenant_id = @tenant AND i.event_id = k.id
            ),
            held AS MATERIALIZED (
                SELECT q.id FROM known k
                JOIN subscriptions s ON s.tenant_id = @tenant AND s.inbox = '{Inboxes.Default}' AND s.deleted_at IS NULL
                JOIN delivery_queue q ON q.tenant_id = @tenant AND q.event_id = k.id AND q.subscription_id = s.id AND NOT q.is_replay
                ORDER BY q.id FOR UPDATE OF q
            ),
            received AS (
                DELETE FROM delivery_queue q USING held h WHERE q.tenant_id = @tenant AND q.id = h.id RETURNING q.*
            ),
            history AS (
                INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, claim, retry_count, test, finalized_at)
                SELECT tenant_id, id, event_id, subscription_id, 'succeeded', claim, retry_count, test, clock_timestamp() FROM received
            )
            SELECT w.id, CASE WHEN k.id IS NULL THEN 'not_found' ELSE 'acknowledged' END
            FROM unnest(@ids) AS w (id) LEFT JOIN known k ON k.id = w.id
            """);
        command.Parameters.Add(new("tenant", NpgsqlDbType.Uuid) { Value = tenantId });
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, ids);
        return command;
    }

    /// <summary>The projection has seen events that nobody subscribes to: they wait in the inbox.</summary>
    public static NpgsqlBatchCommand Receive(IReadOnlyList<UnclaimedEvent> events)
    {
        var command = new NpgsqlBatchCommand(
            $"""
            INSERT INTO inbox (tenant_id, event_id, deliver_at, expires_at)
            SELECT e.tenant_id, e.id, e.deliver_at, e.expires_at
            FROM unnest(@tenants, @events, @due, @expiries) AS e (tenant_id, id, deliver_at, expires_at) WHERE NOT {IsAcknowledged}
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, events, e => e.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, events, e => e.EventId);
        command.Parameters.AddColumn("due", NpgsqlDbType.TimestampTz, events, e => e.DeliverAt?.UtcDateTime);
        command.Parameters.AddColumn("expiries", NpgsqlDbType.TimestampTz, events, e => e.ExpiresAt?.UtcDateTime);
        return command;
    }
}
