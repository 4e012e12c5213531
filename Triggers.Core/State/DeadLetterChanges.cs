using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>What becomes of dead letters, but for what the end of their replay makes of them, which is in <see cref="DeliveryResults"/>.</summary>
public static class DeadLetterChanges
{
    /// <summary>Those dead letters that are not closed wait for how their replays end. Under the locks of their events.</summary>
    /// <param name="replays">The new deliveries.</param>
    public static NpgsqlBatchCommand Replay(IReadOnlyList<NewDelivery> replays)
    {
        var command = new NpgsqlBatchCommand(
            """
            UPDATE dead_letters l SET state = 'replaying', replay_delivery_id = r.id
            FROM unnest(@tenants, @ids, @replayed) AS r (tenant_id, id, replay_of)
            WHERE l.tenant_id = r.tenant_id AND l.delivery_id = r.replay_of AND l.state IN ('open', 'replaying')
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, replays, r => r.TenantId);
        command.Parameters.AddColumn("ids", NpgsqlDbType.Uuid, replays, r => r.Id);
        command.Parameters.AddColumn("replayed", NpgsqlDbType.Uuid, replays, r => r.ReplayOf);
        return command;
    }

    /// <summary>Somebody gives a dead letter up: one row, or none if it was closed before. Under the lock of its event.</summary>
    public static NpgsqlBatchCommand Discard(Guid tenantId, Guid deliveryId) => new(
        """
        UPDATE dead_letters SET state = 'discarded', closed_at = now()
        WHERE tenant_id = @tenant AND delivery_id = @id AND state IN ('open', 'replaying')
        """)
    {
        Parameters = { new("tenant", tenantId), new("id", deliveryId) },
    };

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
