using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.EventLog.Kafka;

/// <summary>What the transaction that projects records of Kafka asks of Postgres.</summary>
internal static class ProjectionStatements
{
    public static NpgsqlBatchCommand LockPositions(KafkaLogName log, List<ConsumedRecord> items) => new(
        """
        SELECT partition, next FROM log_positions WHERE log = @log AND partition = ANY (@partitions) ORDER BY partition FOR UPDATE
        """)
    {
        Parameters = { new("log", log.Log), new("partitions", items.Select(i => i.Record.Partition.Value).Distinct().ToArray()) },
    };

    /// <summary>Rows of tenant and id of the events that were not stored before.</summary>
    public static NpgsqlBatchCommand Store(KafkaLogName log, List<ConsumedRecord> items)
    {
        // The lower ids first: two processes that store the same events then wait for each other in one order.
        var byId = items.Where(i => i.Event is not null).Select(i => (i.Record, Event: i.Event!)).OrderBy(i => i.Event.Id).ToList();
        var command = new NpgsqlBatchCommand(StoredEvents.Store(
            $"""
            SELECT {StoredEvents.Columns}
            FROM unnest(@partitions, @offsets, @tenants, @ids, @externalIds, @types, @sources, @subjects, @times, @correlationIds,
                @traceParents, @data, @due, @expiries, @attributes)
                WITH ORDINALITY AS i (partition, "offset", {StoredEvents.Columns}, ord)
            WHERE i."offset" >= (SELECT next FROM log_positions p WHERE p.log = @log AND p.partition = i.partition)
            ORDER BY ord
            """) + " RETURNING tenant_id, id");
        var parameters = command.Parameters;
        parameters.AddWithValue("log", log.Log);
        parameters.AddColumn("partitions", NpgsqlDbType.Integer, byId, i => i.Record.Partition.Value);
        parameters.AddColumn("offsets", NpgsqlDbType.Bigint, byId, i => i.Record.Offset.Value);
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, byId, i => i.Event.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, byId, i => i.Event.Id);
        parameters.AddColumn("externalIds", NpgsqlDbType.Text, byId, i => i.Event.ExternalId);
        parameters.AddColumn("types", NpgsqlDbType.Text, byId, i => i.Event.Type);
        parameters.AddColumn("sources", NpgsqlDbType.Text, byId, i => i.Event.Source);
        parameters.AddColumn("subjects", NpgsqlDbType.Text, byId, i => i.Event.Subject);
        parameters.AddColumn("times", NpgsqlDbType.TimestampTz, byId, i => i.Event.Time?.UtcDateTime);
        parameters.AddColumn("correlationIds", NpgsqlDbType.Text, byId, i => i.Event.CorrelationId);
        parameters.AddColumn("traceParents", NpgsqlDbType.Text, byId, i => i.Event.TraceParent);
        parameters.AddColumn("data", NpgsqlDbType.Bytea, byId, i => i.Event.Data);
        parameters.AddColumn("due", NpgsqlDbType.TimestampTz, byId, i => i.Event.DeliverAt?.UtcDateTime);
        parameters.AddColumn("expiries", NpgsqlDbType.TimestampTz, byId, i => i.Event.ExpiresAt?.UtcDateTime);
        parameters.AddColumn("attributes", NpgsqlDbType.Text, byId, i => i.Event.Attributes?.ToJson());
        return command;
    }

    public static NpgsqlBatchCommand Advance(KafkaLogName log, List<ConsumedRecord> items, List<LoggedEvent> events)
    {
        var last = ConsumedRecord.LastOfPartitions(items);
        var command = new NpgsqlBatchCommand(
            $"""
            UPDATE log_positions p SET next = l.next, passed_at = l.passed_at
            FROM unnest(@positions, @nexts, @passed) AS l (partition, next, passed_at)
            WHERE p.log = @log AND p.partition = l.partition AND p.next < l.next
            {(events.Count > 0 ? $"RETURNING pg_notify('{Notifications.Inbox}', @payload)" : "")}
            """);
        command.Parameters.AddWithValue("log", log.Log);
        command.Parameters.AddColumn("positions", NpgsqlDbType.Integer, last, r => r.Partition.Value);
        command.Parameters.AddColumn("nexts", NpgsqlDbType.Bigint, last, r => r.Offset.Value + 1);
        command.Parameters.AddColumn("passed", NpgsqlDbType.TimestampTz, last, r => r.Message.Timestamp.UtcDateTime);
        if (events.Count > 0)
            command.Parameters.AddWithValue("payload", Notifications.TenantsOf(events.Select(e => e.TenantId)));
        return command;
    }
}
