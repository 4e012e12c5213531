using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>A delivery that is made anew.</summary>
/// <param name="Id">UUIDv7.</param>
/// <param name="EventId">What is delivered.</param>
/// <param name="SubscriptionId">To whom.</param>
/// <param name="ReplayOf">The delivery it repeats; null when the event never went there.</param>
/// <param name="Test">One attempt, no dead letter.</param>
public sealed record Repetition(Guid Id, Guid EventId, Guid SubscriptionId, Guid? ReplayOf, bool Test = false);

/// <summary>
/// The statements by which events are delivered again. Of an event only one delivery to a subscription is on its way at a time: whoever
/// makes one holds the event's lock from the look to the commit.
/// </summary>
public static class Repetitions
{
    /// <summary>
    /// Held, to the end of the transaction, by whoever looks at what became of events and acts on it: of two at once the second sees what
    /// the first did, if it looks by a later statement of a read-committed transaction. All of a transaction at once.
    /// </summary>
    public static NpgsqlBatchCommand Lock(IReadOnlyCollection<Guid> events) => new(
        """
        SELECT pg_advisory_xact_lock(hashtextextended('event ' || id::text, 0))
        FROM (SELECT DISTINCT id FROM unnest(@events) AS id ORDER BY id) x
        """)
    {
        Parameters = { new("events", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = events.ToArray() } },
    };

    /// <summary>
    /// Makes them, under the locks of their events. The unresolved dead letters of what is repeated wait for how it ends. The first
    /// command affects one row for each of those.
    /// </summary>
    /// <param name="tenantId">Whose they are.</param>
    /// <param name="repetitions">At least one.</param>
    public static IEnumerable<NpgsqlBatchCommand> Insert(Guid tenantId, IReadOnlyCollection<Repetition> repetitions)
    {
        // In the order in which completions lock: dead letters, then their events.
        yield return With(
            """
            WITH letters AS MATERIALIZED (
                SELECT d.delivery_id, r.id
                FROM unnest(@ids, @events, @subscriptions) AS r (id, event_id, subscription_id)
                JOIN dead_letters d ON d.event_id = r.event_id AND d.subscription_id = r.subscription_id
                WHERE d.tenant_id = @tenant AND d.state IN ('open', 'replaying')
                ORDER BY d.delivery_id FOR UPDATE OF d
            )
            UPDATE dead_letters d SET state = 'replaying', replay_delivery_id = l.id FROM letters l
            WHERE d.tenant_id = @tenant AND d.delivery_id = l.delivery_id AND d.state IN ('open', 'replaying')
            """);
        yield return With(
            """
            WITH counts AS MATERIALIZED (
                SELECT event_id, count(*)::int AS made FROM unnest(@events) AS event_id GROUP BY event_id
            ),
            locked AS MATERIALIZED (
                SELECT o.event_id, c.made FROM counts c JOIN open_events o ON o.tenant_id = @tenant AND o.event_id = c.event_id
                ORDER BY o.event_id FOR UPDATE OF o
            )
            UPDATE open_events o SET open = o.open + l.made FROM locked l WHERE o.tenant_id = @tenant AND o.event_id = l.event_id
            """);
        yield return With(
            """
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at, replay_of, test)
            SELECT @tenant, r.id, r.event_id, r.subscription_id, now(), r.replay_of, r.test
            FROM unnest(@ids, @events, @subscriptions, @replayed, @tests) AS r (id, event_id, subscription_id, replay_of, test)
            """);
        yield return new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')");

        NpgsqlBatchCommand With(string sql) => new(sql)
        {
            Parameters =
            {
                new("tenant", tenantId),
                new("ids", repetitions.Select(r => r.Id).ToArray()),
                new("events", repetitions.Select(r => r.EventId).ToArray()),
                new("subscriptions", repetitions.Select(r => r.SubscriptionId).ToArray()),
                new("replayed", repetitions.Select(r => r.ReplayOf).ToArray()),
                new("tests", repetitions.Select(r => r.Test).ToArray()),
            },
        };
    }
}
