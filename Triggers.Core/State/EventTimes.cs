using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>
/// The statements by which events are taken back before their time, and by which they expire. Their times themselves are with what they
/// bound: in the queue a delivery is due at the first, and an inbox shows nothing outside of them.
/// </summary>
/// <remarks>
/// Whoever makes deliveries of an event that is scheduled holds its row (<see cref="NotCancelled"/>), and so does who takes it back; who
/// claims a delivery holds its row in the queue. So it is either taken back, and nobody has it, or it is too late for that.
/// </remarks>
public static class EventTimes
{
    /// <summary>Whether an event was not taken back and is not too late.</summary>
    public const string CanBeReplayed = "cancelled_at IS NULL AND (expires_at IS NULL OR expires_at > now())";

    /// <summary>Which of these events nobody has taken back: nobody does until the transaction ends.</summary>
    public static NpgsqlBatchCommand NotCancelled(IReadOnlyList<(Guid TenantId, Guid EventId)> scheduled)
    {
        var command = new NpgsqlBatchCommand(
            """
            SELECT e.id FROM unnest(@tenants, @events) AS x (tenant_id, id)
            JOIN events e ON e.tenant_id = x.tenant_id AND e.id = x.id
            WHERE e.cancelled_at IS NULL ORDER BY e.id FOR SHARE OF e
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, scheduled, e => e.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, scheduled, e => e.EventId);
        return command;
    }

    /// <summary>
    /// Holds an event that is scheduled, and what would deliver it: to be followed by <see cref="Cancel"/>. The second command answers
    /// whether it was taken back before and whether its time is still to come; nothing, when there is no such event.
    /// </summary>
    public static IEnumerable<NpgsqlBatchCommand> Hold(Guid tenantId, Guid eventId)
    {
        yield return EventState.Lock([eventId]);
        yield return Of(
            """
            SELECT cancelled_at IS NOT NULL, coalesce(deliver_at > clock_timestamp(), false)
            FROM events WHERE tenant_id = @tenant AND id = @id FOR NO KEY UPDATE
            """);
        // Nobody makes more of its deliveries.
        yield return Of("SELECT FROM fan_outs WHERE tenant_id = @tenant AND event_id = @id FOR UPDATE");
        yield return Of("SELECT FROM delivery_queue WHERE tenant_id = @tenant AND event_id = @id ORDER BY id FOR UPDATE");

        NpgsqlBatchCommand Of(string sql) => EventTimes.Of(sql, tenantId, eventId);
    }

    /// <summary>
    /// Takes an event back that is held, unless its time has come by now, or somebody was sent it before, at request. What is pending of
    /// it becomes <c>cancelled</c>, and it is in no inbox, as if it were acknowledged. Answers whether it did.
    /// </summary>
    public static NpgsqlBatchCommand Cancel(Guid tenantId, Guid eventId)
    {
        var command = Of(
            $"""
            WITH cancelled AS (
                UPDATE events e SET cancelled_at = clock_timestamp()
                WHERE e.tenant_id = @tenant AND e.id = @id AND e.cancelled_at IS NULL AND e.deliver_at > clock_timestamp()
                    AND NOT EXISTS (
                        SELECT FROM delivery_queue q JOIN subscriptions s ON s.id = q.subscription_id
                        WHERE q.tenant_id = @tenant AND q.event_id = @id AND q.claim > 0 AND NOT {SubscriptionEnds.HasEnded})
                    AND NOT EXISTS (
                        SELECT FROM deliveries d
                        WHERE d.tenant_id = @tenant AND d.event_id = @id AND d.id >= @floor
                            AND (d.status <> 'cancelled' OR d.attempt_id IS NOT NULL))
                RETURNING e.tenant_id, e.id
            ),
            taken AS (
                DELETE FROM delivery_queue q USING cancelled c WHERE q.tenant_id = c.tenant_id AND q.event_id = c.id RETURNING q.*
            ),
            history AS (
                INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, claim, retry_count, replay_of, test, finalized_at)
                SELECT tenant_id, id, event_id, subscription_id, 'cancelled', claim, retry_count, replay_of, test, clock_timestamp()
                FROM taken
            ),
            unmade AS (
                DELETE FROM fan_outs f USING cancelled c WHERE f.tenant_id = c.tenant_id AND f.event_id = c.id
            ),
            unseen AS (
                DELETE FROM inbox i USING cancelled c WHERE i.tenant_id = c.tenant_id AND i.event_id = c.id
            ),
            noted AS (
                INSERT INTO acknowledgements (tenant_id, event_id) SELECT tenant_id, id FROM cancelled ON CONFLICT DO NOTHING
            )
            SELECT EXISTS (SELECT FROM cancelled)
            """, tenantId, eventId);
        command.Parameters.Add(new("floor", NpgsqlDbType.Uuid) { Value = EventState.FirstDelivery(eventId) });
        return command;
    }

    /// <summary>
    /// Deliveries that are too late, the longest first: rows of tenant, id, event, subscription, claim, whether it is a replay, and key.
    /// Not what somebody works on, nor what holds its key until somebody lets it go.
    /// </summary>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand TooLate(int most) => new(
        """
        SELECT q.tenant_id, q.id, q.event_id, q.subscription_id, q.claim, q.is_replay, q.order_key
        FROM delivery_queue q
        WHERE q.expires_at IS NOT NULL AND q.expires_at <= now()
            AND (q.claimed_by IS NULL OR q.claimed_by = 0 AND q.next_attempt_at <= now())
            AND NOT EXISTS (
                SELECT FROM held_keys h
                WHERE h.subscription_id = q.subscription_id AND h.order_key = q.order_key AND h.delivery_id = q.id)
        ORDER BY q.expires_at LIMIT @most
        """)
    {
        Parameters = { new("most", most) },
    };

    /// <summary>Somebody has not got the events of these deliveries in time. Under their locks.</summary>
    public static NpgsqlBatchCommand Expire(IReadOnlyList<DeliveryResult> tooLate)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE events e SET expired_at = clock_timestamp()
            FROM (SELECT DISTINCT * FROM unnest(@tenants, @events, @floors) AS x (tenant_id, id, floor)) x
            WHERE e.tenant_id = x.tenant_id AND e.id = x.id AND e.expired_at IS NULL
                AND EXISTS (
                    SELECT FROM deliveries d
                    WHERE d.tenant_id = x.tenant_id AND d.event_id = x.id AND d.id >= x.floor AND d.status = 'expired')
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, tooLate, e => e.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, tooLate, e => e.EventId);
        command.Parameters.AddColumn("floors", NpgsqlDbType.Uuid, tooLate, e => EventState.FirstDelivery(e.EventId));
        return command;
    }

    /// <summary>Events that nobody wanted, and that are too late, leave the inbox: answers how many.</summary>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand ExpireUnclaimed(int most) => new(
        """
        WITH late AS MATERIALIZED (
            SELECT tenant_id, event_id FROM inbox WHERE expires_at IS NOT NULL AND expires_at <= now()
            ORDER BY expires_at LIMIT @most FOR UPDATE SKIP LOCKED
        ),
        gone AS (
            DELETE FROM inbox i USING late l WHERE i.tenant_id = l.tenant_id AND i.event_id = l.event_id
            RETURNING i.tenant_id, i.event_id
        ),
        expired AS (
            UPDATE events e SET expired_at = clock_timestamp() FROM gone g WHERE e.tenant_id = g.tenant_id AND e.id = g.event_id
        )
        SELECT count(*) FROM gone
        """)
    {
        Parameters = { new("most", most) },
    };

    private static NpgsqlBatchCommand Of(string sql, Guid tenantId, Guid eventId) => new(sql)
    {
        Parameters = { new("tenant", tenantId), new("id", eventId) },
    };
}
