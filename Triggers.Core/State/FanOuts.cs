using Npgsql;
using NpgsqlTypes;

namespace Triggers.Core.State;

/// <summary>An event of which deliveries are still to be made.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="EventId">Which.</param>
/// <param name="DataBytes">Length of its data.</param>
/// <param name="After">The subscription up to which they are made, in the order of ids.</param>
public sealed record FanOut(Guid TenantId, Guid EventId, int DataBytes, Guid After)
{
    /// <summary>When its deliveries are due; null, or what has passed: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>From when on they are not sent.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Subscriptions that have theirs already, since they get it in order.</summary>
    public IReadOnlyList<Guid> Made { get; init; } = [];
}

/// <summary>The statements by which events that many subscribe to get their deliveries portion by portion.</summary>
public static class FanOuts
{
    /// <summary>The deliveries of these events are made later.</summary>
    public static NpgsqlBatchCommand Defer(IReadOnlyList<FanOut> events)
    {
        var command = new NpgsqlBatchCommand(
            """
            INSERT INTO fan_outs (tenant_id, event_id, data_bytes, made)
            SELECT tenant_id, event_id, bytes, made::uuid[]
            FROM unnest(@tenants, @events, @bytes, @made) AS e (tenant_id, event_id, bytes, made)
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, events, e => e.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, events, e => e.EventId);
        command.Parameters.AddColumn("bytes", NpgsqlDbType.Integer, events, e => e.DataBytes);
        // An array of arrays of different lengths there is none of.
        command.Parameters.AddColumn(
            "made", NpgsqlDbType.Text, events, e => e.Made.Count == 0 ? null : $"{{{string.Join(',', e.Made)}}}");
        return command;
    }

    /// <summary>The oldest few of each tenant, locked, tenant by tenant in the order of their ids: rows of tenant, event, bytes of data,
    /// after, the event's type, who has theirs already, and the event's times.</summary>
    /// <param name="behind">The tenant behind which to begin.</param>
    /// <param name="ofEach">The most of a tenant.</param>
    /// <param name="most">The most together; fewer are answered where nobody is left behind the last.</param>
    public static NpgsqlBatchCommand Take(Guid behind, int ofEach, int most) => new(
        """
        WITH RECURSIVE tenants AS (
            (SELECT tenant_id FROM fan_outs WHERE tenant_id > @behind ORDER BY tenant_id LIMIT 1)
            UNION ALL
            SELECT n.tenant_id FROM tenants t CROSS JOIN LATERAL (
                SELECT tenant_id FROM fan_outs WHERE tenant_id > t.tenant_id ORDER BY tenant_id LIMIT 1) n
        ),
        taken AS MATERIALIZED (
            SELECT f.* FROM tenants t CROSS JOIN LATERAL (
                SELECT * FROM fan_outs WHERE tenant_id = t.tenant_id ORDER BY number LIMIT @ofEach FOR UPDATE SKIP LOCKED) f
            LIMIT @most
        )
        SELECT f.tenant_id, f.event_id, f.data_bytes, f.after, e.type, f.made, e.deliver_at, e.expires_at
        FROM taken f
        LEFT JOIN LATERAL (
            SELECT type, deliver_at, expires_at FROM events WHERE tenant_id = f.tenant_id AND id = f.event_id LIMIT 1) e ON true
        ORDER BY f.tenant_id, f.number
        """)
    {
        Parameters = { new("behind", behind), new("ofEach", ofEach), new("most", most) },
    };

    /// <summary>A portion of their deliveries is made: they go on after a subscription, or are done where that is null.</summary>
    public static NpgsqlBatchCommand Advance(IReadOnlyList<(FanOut Event, Guid? After)> events)
    {
        var command = new NpgsqlBatchCommand(
            """
            WITH e AS MATERIALIZED (
                SELECT * FROM unnest(@tenants, @events, @afters) AS e (tenant_id, event_id, after)
            ),
            done AS (
                DELETE FROM fan_outs f USING e WHERE f.tenant_id = e.tenant_id AND f.event_id = e.event_id AND e.after IS NULL
            )
            UPDATE fan_outs f SET after = e.after FROM e WHERE f.tenant_id = e.tenant_id AND f.event_id = e.event_id
                AND e.after IS NOT NULL
            """);
        command.Parameters.AddColumn("tenants", NpgsqlDbType.Uuid, events, e => e.Event.TenantId);
        command.Parameters.AddColumn("events", NpgsqlDbType.Uuid, events, e => e.Event.EventId);
        command.Parameters.AddColumn("afters", NpgsqlDbType.Uuid, events, e => e.After);
        return command;
    }
}
