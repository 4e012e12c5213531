using System.Data.Common;
using System.Text;
using Npgsql;
using Triggers.Api.Inbox;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.EventLog.Kafka;

namespace Triggers.Api.Events;

/// <summary>Where an event stands as a whole.</summary>
internal enum EventStatus
{
    /// <summary>Something is still to be done: a delivery, or somebody's acknowledging it.</summary>
    Pending,

    /// <summary>Every delivery ended well, or it was acknowledged and there was none.</summary>
    Delivered,

    /// <summary>A delivery failed for good, and nobody has dealt with its dead letter.</summary>
    DeadLettered,
}

/// <summary>An event as clients see it.</summary>
internal record EventView(
    string Id,
    string Type,
    EventStatus Status,
    DateTimeOffset CreatedAt,
    string CorrelationId,
    string? ExternalId,
    string? Source,
    string? Subject,
    DateTimeOffset? Time,
    RawJson Data)
{
    internal Guid Key { get; init; }
}

/// <summary>
/// Reads events with their status. An event has a row in <c>open_events</c> while it is not settled; one that the projection has
/// not reached yet has none either, and is known by its place in the log.
/// </summary>
internal sealed class EventReader(NpgsqlDataSource dataSource, ProjectionProgress? progress = null)
{
    /// <summary>How long an event may take from getting its id to being committed.</summary>
    private static readonly TimeSpan SafeAge = TimeSpan.FromSeconds(1);

    /// <summary>The same to being in the Kafka log: a turn is waited for, then brokers, and keys may have been reserved before.</summary>
    private static readonly TimeSpan SafeAgeOnKafka = RequestBudget.Turn + RequestBudget.Produce + TimeSpan.FromSeconds(2.5);

    /// <summary>Events of a page hold at most this much data together, or the page ends early.</summary>
    private const int MaxPageBytes = 8 * 1024 * 1024;

    private const string Position = "(SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)";

    /// <summary>Whether an event, as <c>e</c> with its open row as <c>o</c>, is not projected yet.</summary>
    private const string NotProjected = $"coalesce(e.seq >= {Position} AND o.event_id IS NULL, false)";

    private const string Columns = "e.id, e.type, e.correlation_id, e.external_id, e.source, e.subject, e.time, e.data";

    private const string Status =
        $"CASE WHEN o.dead > 0 THEN 'dead_lettered' WHEN o.event_id IS NOT NULL OR {NotProjected} THEN 'pending' ELSE 'delivered' END";

    private const string Open = "open_events o ON o.tenant_id = e.tenant_id AND o.event_id = e.id";

    /// <summary>One event; null when the tenant has none with this id. One that was accepted just now is waited for.</summary>
    public async Task<EventView?> FindAsync(Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        if (await FindStoredAsync(tenantId, id, cancellationToken) is { } found)
            return found;
        if (progress is null)
            return null;
        if (!await progress.WaitForAsync(tenantId, [id], cancellationToken))
            throw InboxApi.NotYetVisible();
        return await FindStoredAsync(tenantId, id, cancellationToken);
    }

    private async Task<EventView?> FindStoredAsync(Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"SELECT {Columns}, {Status} FROM events e LEFT JOIN {Open} WHERE e.tenant_id = @tenant AND e.id = @id");
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", id);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        return await reader.ReadAsync(cancellationToken) ? Read(reader) : null;
    }

    /// <summary>Whether the projection has seen an event; null when the tenant has none with this id.</summary>
    public async Task<bool?> IsProjectedAsync(Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"SELECT NOT {NotProjected} FROM events e LEFT JOIN {Open} WHERE e.tenant_id = @tenant AND e.id = @id");
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", id);
        return await command.ExecuteScalarAsync(cancellationToken) as bool?;
    }

    /// <summary>How many deliveries an event has, by their status.</summary>
    public async Task<DeliverySummary> CountDeliveriesAsync(Guid tenantId, Guid eventId, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            """
            SELECT count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'succeeded'),
                count(*) FILTER (WHERE status = 'dead_lettered'), count(*) FILTER (WHERE status = 'cancelled')
            FROM deliveries WHERE tenant_id = @tenant AND event_id = @id AND id >= @floor
            """);
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", eventId);
        command.Parameters.AddWithValue("floor", DeliveriesFrom(eventId));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return new DeliverySummary(reader.GetInt32(0), reader.GetInt32(1), reader.GetInt32(2), reader.GetInt32(3));
    }

    /// <summary>
    /// The smallest id a delivery of the event can have: it is made after the event, by a clock that may be a little behind. It spares
    /// the days before.
    /// </summary>
    public static Guid DeliveriesFrom(Guid eventId) => TypeId.At(TypeId.CreatedAt(eventId).AddHours(-1));

    /// <summary>
    /// A page of a list in the order of time, which ends where it is certain that nothing older is still on its way: ids are made before
    /// they are appended, by several processes, and a cursor must not pass one that comes later.
    /// </summary>
    public async Task<(List<EventView> Events, bool More)> ReadPageUpwardsAsync(EventFilter filter, TimeProvider time, CancellationToken cancellationToken)
    {
        var (events, more) = await ReadPageAsync(filter, cancellationToken);
        if (!more)
            return (events, more);
        if (progress is null)
        {
            if (SafeAge - (time.GetUtcNow() - events[^1].CreatedAt) is { } early && early > TimeSpan.Zero)
            {
                await Task.Delay(early < SafeAge ? early : SafeAge, time, cancellationToken);
                (events, more) = await ReadPageAsync(filter, cancellationToken);
            }
            return (events, more);
        }
        var safe = time.GetUtcNow() - SafeAgeOnKafka;
        if (events.FindLast(e => e.CreatedAt <= safe) is not { } last || !await progress.WaitForAsync(last.CreatedAt, cancellationToken))
            throw InboxApi.NotYetVisible();
        // What was on its way then is there now.
        (events, _) = await ReadPageAsync(filter, cancellationToken);
        events.RemoveAll(e => e.Key.CompareTo(last.Key) > 0);
        return (events, true);
    }

    /// <summary>The page of a filter.</summary>
    /// <returns>Its events, and whether there are more.</returns>
    public async Task<(List<EventView> Events, bool More)> ReadPageAsync(EventFilter filter, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand();
        command.CommandText = PageSql(filter, command.Parameters);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var events = new List<EventView>();
        long found = 0;
        while (await reader.ReadAsync(cancellationToken))
        {
            found = reader.GetInt64(9);
            if (events.Count < filter.Limit)
                events.Add(Read(reader));
        }
        return (events, found > events.Count);
    }

    private static string PageSql(EventFilter filter, NpgsqlParameterCollection parameters)
    {
        var where = new StringBuilder("e.tenant_id = @tenant");
        parameters.AddWithValue("tenant", filter.TenantId);
        void And(object? value, string name, string clause)
        {
            if (value is null)
                return;
            where.Append(" AND ").Append(clause);
            parameters.AddWithValue(name, value);
        }

        var join = "LEFT";
        if (filter.InboxOnly || filter.Status == EventStatus.DeadLettered)
            join = "INNER";
        if (filter.InboxOnly)
            where.Append(" AND o.acknowledged_at IS NULL AND o.dead = 0");
        where.Append(filter.Status switch
        {
            null => "",
            EventStatus.DeadLettered => " AND o.dead > 0",
            EventStatus.Delivered => $" AND o.event_id IS NULL AND NOT {NotProjected}",
            // Few events are open: beginning with those spares reading the many that are not.
            _ => $" AND e.id IN (SELECT event_id FROM open_events WHERE tenant_id = @tenant AND dead = 0 UNION ALL "
                + $"SELECT id FROM events WHERE tenant_id = @tenant AND seq >= {Position}) AND (o.event_id IS NOT NULL OR {NotProjected})",
        });
        if (filter.Type is not null and not "*")
            And(filter.Type.EndsWith(".*", StringComparison.Ordinal) ? filter.Type[..^1] : filter.Type, "type",
                filter.Type.EndsWith(".*", StringComparison.Ordinal) ? "starts_with(e.type, @type) AND length(e.type) > length(@type)" : "e.type = @type");
        And(filter.Source, "source", "e.source = @source");
        And(filter.Subject, "subject", "e.subject = @subject");
        And(filter.CorrelationId, "correlation", "e.correlation_id = @correlation");
        And(filter.ExternalKeyHash, "external",
            "e.id = (SELECT event_id FROM request_keys WHERE tenant_id = @tenant AND kind = 1 AND key_hash = @external)");
        And(filter.From, "from", "e.id >= @from");
        And(filter.Before, "before", "e.id < @before");
        And(filter.After, "after", filter.NewestFirst ? "e.id < @after" : "e.id > @after");
        parameters.AddWithValue("limit", filter.Limit + 1);
        parameters.AddWithValue("bytes", (long)MaxPageBytes);

        var order = filter.NewestFirst ? "DESC" : "ASC";
        return $"""
            SELECT e.id, e.type, e.correlation_id, e.external_id, e.source, e.subject, e.time, e.data, e.status, e.found FROM (
                SELECT *, count(*) OVER () AS found, sum(octet_length(data)) OVER (ORDER BY id {order}) - octet_length(data) AS bytes_before FROM (
                    SELECT {Columns}, {Status} AS status FROM events e {join} JOIN {Open} WHERE {where} ORDER BY e.id {order} LIMIT @limit
                ) e
            ) e WHERE bytes_before < @bytes ORDER BY e.id {order}
            """;
    }

    private static EventView Read(DbDataReader reader)
    {
        var id = reader.GetGuid(0);
        return new EventView(
            TypeId.Format(TypeId.Event, id), reader.GetString(1), SnakeCase<EventStatus>.Parse(reader.GetString(8)), TypeId.CreatedAt(id),
            reader.GetString(2), Text(reader, 3), Text(reader, 4), Text(reader, 5),
            reader.IsDBNull(6) ? null : reader.GetFieldValue<DateTimeOffset>(6), new RawJson(reader.GetFieldValue<byte[]>(7)))
        { Key = id };
    }

    private static string? Text(DbDataReader reader, int column) => reader.IsDBNull(column) ? null : reader.GetString(column);
}

/// <summary>Which events a page shows.</summary>
internal sealed record EventFilter(Guid TenantId, int Limit)
{
    public bool InboxOnly { get; init; }
    public EventStatus? Status { get; init; }

    /// <summary>A type, or a pattern of types.</summary>
    public string? Type { get; init; }
    public string? Source { get; init; }
    public string? Subject { get; init; }
    public string? CorrelationId { get; init; }
    public byte[]? ExternalKeyHash { get; init; }
    public Guid? From { get; init; }
    public Guid? Before { get; init; }
    public Guid? After { get; init; }
    public bool NewestFirst { get; init; }
}

/// <summary>How many deliveries an event has.</summary>
internal sealed record DeliverySummary(int Pending, int Succeeded, int DeadLettered, int Cancelled);
