using Npgsql;

namespace Triggers.Core.State;

/// <summary>An event as it is stored, read from a row of <c>events e</c>.</summary>
internal sealed record StoredEvent(
    Guid Id, string Type, string? ExternalId, string? Source, string? Subject,
    DateTimeOffset? Time, string CorrelationId, string? TraceParent, byte[] Data, EventAttributes? Attributes = null)
{
    public const string Columns =
        "e.id, e.type, e.external_id, e.source, e.subject, e.time, e.correlation_id, e.trace_parent, e.data, e.deliver_at, e.expires_at, "
            + "e.attributes";

    /// <summary>How many there are.</summary>
    public const int ColumnCount = 12;

    /// <summary>Nobody gets it before; null: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>Nobody gets it from then on; null: it does not expire.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Whether there is a time before or after which nobody gets it.</summary>
    public bool IsTimed => DeliverAt is not null || ExpiresAt is not null;

    /// <summary>W3C trace state that goes with <see cref="TraceParent"/>.</summary>
    public string? TraceState => Attributes?.TraceState;

    /// <summary>Whether its data is JSON, and not text, bytes or elsewhere.</summary>
    public bool HoldsJson => Attributes is null or { HoldsJson: true };

    /// <summary>The same columns of what has another name in a query.</summary>
    public static string ColumnsOf(string name) => Columns.Replace("e.", name + ".", StringComparison.Ordinal);

    /// <summary>The same, with data left out where it is larger.</summary>
    public static string ColumnsUpTo(int maxBytes) =>
        Columns.Replace("e.data", $"CASE WHEN octet_length(e.data) <= {maxBytes} THEN e.data END", StringComparison.Ordinal);

    public static StoredEvent Read(NpgsqlDataReader reader, int at) => new(
        reader.GetGuid(at), reader.GetString(at + 1), Text(reader, at + 2), Text(reader, at + 3), Text(reader, at + 4),
        Moment(reader, at + 5), reader.GetString(at + 6), Text(reader, at + 7),
        reader.IsDBNull(at + 8) ? [] : reader.GetFieldValue<byte[]>(at + 8), EventAttributes.Parse(Text(reader, at + 11)))
    {
        DeliverAt = Moment(reader, at + 9),
        ExpiresAt = Moment(reader, at + 10),
    };

    private static DateTimeOffset? Moment(NpgsqlDataReader reader, int at) =>
        reader.IsDBNull(at) ? null : reader.GetFieldValue<DateTimeOffset>(at);

    private static string? Text(NpgsqlDataReader reader, int at) => reader.IsDBNull(at) ? null : reader.GetString(at);
}
