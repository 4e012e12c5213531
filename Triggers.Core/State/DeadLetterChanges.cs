using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>
/// What becomes of dead letters, but for what the end of their replay makes of them, which is in <see cref="DeliveryResults"/>.
/// </summary>
public static class DeadLetterChanges
{
    /// <summary>The unresolved dead letters of these events and subscriptions wait for how their replays end.</summary>
    /// <param name="replays">The new deliveries.</param>
    public static NpgsqlBatchCommand Replay(IReadOnlyList<NewDelivery> replays)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE dead_letters l SET state = 'replaying', replay_delivery_id = r.id
            FROM unnest(@tenants, @ids, @events, @subscriptions) AS r (tenant_id, id, event_id, subscription_id)
            WHERE l.tenant_id = r.tenant_id AND l.event_id = r.event_id AND l.subscription_id = r.subscription_id
                AND l.state IN ('open', 'replaying')
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, replays, r => r.TenantId);
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, replays, r => r.Id);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, replays, r => r.EventId);
        command.Parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, replays, r => r.SubscriptionId);
        return command;
    }

    /// <summary>Unresolved dead letters, the oldest first: rows of their delivery and event.</summary>
    /// <param name="tenantId">Whose they are.</param>
    /// <param name="id">One; null for those of a subscription.</param>
    /// <param name="subscriptionId">The subscription.</param>
    /// <param name="most">The most of them.</param>
    public static NpgsqlBatchCommand Unresolved(Guid tenantId, Guid? id, Guid? subscriptionId, int most) => new(
        $"""
        SELECT delivery_id, event_id FROM dead_letters
        WHERE tenant_id = @tenant AND {(id is null ? "subscription_id" : "delivery_id")} = @id AND state IN ('open', 'replaying')
        ORDER BY delivery_id LIMIT @most
        """)
    {
        Parameters = { new("tenant", tenantId), new("id", (id ?? subscriptionId)!.Value), new("most", most) },
    };

    /// <summary>
    /// Somebody gives dead letters up: a row for each that was not closed before. Under the locks of their events, which are then to be
    /// settled.
    /// </summary>
    public static NpgsqlBatchCommand Discard(Guid tenantId, IReadOnlyList<Guid> deliveries)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE dead_letters SET state = 'discarded', closed_at = now()
            WHERE tenant_id = @tenant AND delivery_id = ANY (@ids) AND state IN ('open', 'replaying')
            """);
        command.Parameters.Add(new("tenant", NpgsqlDbType.Uuid) { Value = tenantId });
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, deliveries);
        return command;
    }

    /// <summary>They are in the dead-letter topic.</summary>
    public static NpgsqlBatchCommand Publish(IReadOnlyList<(Guid TenantId, Guid DeliveryId)> letters)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE dead_letters l SET published_at = clock_timestamp()
            FROM unnest(@tenants, @ids) AS p (tenant_id, delivery_id)
            WHERE l.tenant_id = p.tenant_id AND l.delivery_id = p.delivery_id
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, letters, l => l.TenantId);
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, letters, l => l.DeliveryId);
        return command;
    }
}
