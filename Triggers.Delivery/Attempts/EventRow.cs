using Npgsql;

namespace Triggers.Delivery.Attempts;

/// <summary>Reads an event as it goes out from a row of <c>events e</c>.</summary>
internal static class EventRow
{
    public const string Columns = "e.id, e.type, e.external_id, e.source, e.subject, e.time, e.correlation_id, e.trace_parent, e.data";

    /// <summary>The same, with data left out where it is larger.</summary>
    public static string ColumnsUpTo(int maxBytes) =>
        Columns.Replace("e.data", $"CASE WHEN octet_length(e.data) <= {maxBytes} THEN e.data END", StringComparison.Ordinal);

    /// <summary>Reads events by their ids, each by its primary key.</summary>
    public static ReadEvents ReadFrom(NpgsqlDataSource dataSource) => async (events, cancellationToken) =>
    {
        // The bounds tell Postgres which partitions need not be looked at, however many there are.
        await using var command = dataSource.CreateCommand(
            $"""
            SELECT {Columns} FROM unnest(@tenants, @ids) AS i (tenant_id, id)
            CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant_id = i.tenant_id AND id = i.id AND id BETWEEN @first AND @last LIMIT 1) e
            """);
        command.Parameters.AddWithValue("tenants", events.Select(e => e.TenantId).ToArray());
        command.Parameters.AddWithValue("ids", events.Select(e => e.Id).ToArray());
        command.Parameters.AddWithValue("first", events.Min(e => e.Id));
        command.Parameters.AddWithValue("last", events.Max(e => e.Id));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var read = new List<EventToSend>();
        while (await reader.ReadAsync(cancellationToken))
            read.Add(Read(reader, 0));
        return read;
    };

    public static EventToSend Read(NpgsqlDataReader reader, int at) => new(
        reader.GetGuid(at), reader.GetString(at + 1), Text(reader, at + 2), Text(reader, at + 3), Text(reader, at + 4),
        reader.IsDBNull(at + 5) ? null : reader.GetFieldValue<DateTimeOffset>(at + 5), reader.GetString(at + 6), Text(reader, at + 7),
        reader.IsDBNull(at + 8) ? [] : reader.GetFieldValue<byte[]>(at + 8));

    private static string? Text(NpgsqlDataReader reader, int at) => reader.IsDBNull(at) ? null : reader.GetString(at);
}
