using Npgsql;
using Triggers.Api.Http;
using Triggers.Core.State;

namespace Triggers.Api.Events;

/// <summary>
/// The query of a page of events, or a part of one. One condition of the filter is chosen that an index answers in the order of the page,
/// and read no further than a chunk; the others are held against what is found there. The text has only literals that are few, so that
/// Postgres plans it once.
/// </summary>
/// <param name="filter">Which events.</param>
/// <param name="unprojectedFrom">An id that no unprojected event is older than; null when there is none, or nobody asks.</param>
internal sealed class EventPageQuery(EventFilter filter, Guid? unprojectedFrom)
{
    private const int LargestChunk = 4096;

    /// <summary>The chunk that a page of so many events begins with.</summary>
    public static int FirstChunk(int events) => events <= 64 ? 64 : 256;

    /// <summary>The one after it.</summary>
    public static int NextChunk(int chunk) => Math.Min(LargestChunk, chunk * 4);

    /// <summary>
    /// Writes the query: rows of the event's columns and status, how many matched, how many were scanned, and the last id of these; at
    /// least one row, without an event if none matched.
    /// </summary>
    public void WriteTo(NpgsqlCommand command, Guid? after, int limit, long bytes, int chunk)
    {
        var parameters = command.Parameters;
        var conditions = new List<string>();
        var bounds = new List<string>();
        void Add(string name, object value, string? condition, List<string> to)
        {
            parameters.AddWithValue(name, value);
            if (condition is not null)
                to.Add(condition);
        }

        Add("tenant", filter.TenantId, null, bounds);
        if (filter.From is { } from)
            Add("from", from, "{0} >= @from", bounds);
        if (filter.Before is { } before)
            Add("before", before, "{0} < @before", bounds);
        if (after is not null)
            Add("after", after, filter.NewestFirst ? "{0} < @after" : "{0} > @after", bounds);
        if (filter.ExternalKeyHash is { } hash)
            Add("external", hash, null, conditions);
        if (filter.CorrelationId is { } correlationId)
            Add("correlation", correlationId, "e.correlation_id = @correlation", conditions);
        if (filter.Subject is { } subject)
            Add("subject", subject, "e.subject = @subject", conditions);
        if (filter.Source is { } source)
            Add("source", source, "e.source = @source", conditions);
        if (TypePrefix is { } prefix)
            Add("type", prefix, "starts_with(e.type, @type) AND length(e.type) > length(@type)", conditions);
        else if (ExactType is { } type)
            Add("type", type, "e.type = @type", conditions);
        if (filter.InboxOnly)
            conditions.Add(EventState.IsInInbox);
        if (filter.Status is { } status)
            Add("status", Core.SnakeCase<EventStatus>.Of(status), $"{EventState.Status} = @status", conditions);
        if (unprojectedFrom is { } unprojected)
            parameters.AddWithValue("unprojected", unprojected);
        parameters.AddWithValue("limit", limit);
        parameters.AddWithValue("bytes", bytes);

        var order = filter.NewestFirst ? "DESC" : "ASC";
        var back = filter.NewestFirst ? "ASC" : "DESC";
        // Found one by one, by their ids: there are few of them, whatever Postgres believes.
        command.CommandText = $"""
            WITH scanned AS MATERIALIZED (
                SELECT id FROM ({Scan(column => string.Concat(bounds.Select(b => " AND " + string.Format(b, column))), order, chunk)}) s
                ORDER BY id {order} LIMIT {chunk}
            ),
            matched AS MATERIALIZED (
                SELECT {EventReader.Columns}, {EventState.Status} AS status
                FROM scanned s CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant_id = @tenant AND id = s.id LIMIT 1) e
                {(conditions.Count == 0 ? "" : "WHERE " + string.Join(" AND ", conditions))}
                ORDER BY e.id {order} LIMIT @limit
            )
            SELECT p.id, p.type, p.correlation_id, p.external_id, p.source, p.subject, p.time, p.data, p.deliver_at,
                p.expires_at, p.status,
                (SELECT count(*) FROM matched), (SELECT count(*) FROM scanned), (SELECT id FROM scanned ORDER BY id {back} LIMIT 1)
            FROM (SELECT) one
            LEFT JOIN (
                SELECT *, sum(octet_length(data)) OVER (ORDER BY id {order}) - octet_length(data) AS bytes_before FROM matched
            ) p ON p.bytes_before < @bytes
            ORDER BY p.id {order}
            """;
    }

    private string? TypePrefix =>
        filter.Type is not null and not "*" && filter.Type.EndsWith(".*", StringComparison.Ordinal) ? filter.Type[..^1] : null;

    private string? ExactType => filter.Type is null or "*" || TypePrefix is not null ? null : filter.Type;

    /// <summary>The ids among which the events are: those that fewest events have first.</summary>
    private string Scan(Func<string, string> bounds, string order, int chunk)
    {
        if (filter.ExternalKeyHash is not null)
            return "SELECT event_id AS id FROM request_keys WHERE tenant_id = @tenant AND kind = 1 AND key_hash = "
                + $"@external{bounds("event_id")}";
        if (filter.CorrelationId is not null)
            return Events("correlation_id = @correlation");
        if (filter.Subject is not null)
            return Events("subject = @subject");
        if (filter.InboxOnly || filter.Status == EventStatus.Pending && unprojectedFrom is null)
            return EventState.OpenEvents(bounds, order, chunk);
        if (filter.Status == EventStatus.Pending)
        {
            return $"""
                {EventState.OpenEvents(bounds, order, chunk)}
                UNION
                ({Events($"seq >= {EventState.Position} AND id >= @unprojected")})
                """;
        }
        if (filter.Status == EventStatus.DeadLettered)
            return EventState.DeadLetteredEvents(bounds, order, chunk);
        if (filter.Status is EventStatus.Scheduled or EventStatus.Cancelled)
            return Events("deliver_at IS NOT NULL");
        if (filter.Status == EventStatus.Expired)
            return Events("expires_at IS NOT NULL");
        if (filter.Source is not null)
            return Events("source = @source");
        return Events(ExactType is null ? null : "type = @type");

        string Events(string? condition) =>
            $"SELECT id FROM events WHERE tenant_id = @tenant{(condition is null ? "" : " AND " + condition)}{bounds("id")} ORDER BY "
                + $"id {order} LIMIT {chunk}";
    }
}
