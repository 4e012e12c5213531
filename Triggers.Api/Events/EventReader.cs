using Npgsql;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Lists;
using Triggers.Core;
using Triggers.Core.State;
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

    /// <summary>Its <c>deliverAt</c> is still to come.</summary>
    Scheduled,

    /// <summary>It was taken back before that.</summary>
    Cancelled,

    /// <summary>Its <c>expiresAt</c> came before everybody had it.</summary>
    Expired,
}

/// <summary>An event, and where it stands.</summary>
internal record EventView : ShownEvent
{
    public EventView(StoredEvent stored, EventStatus status) : base(stored) => Status = status;

    public EventStatus Status { get; }

    public DateTimeOffset? DeliverAt => Stored.DeliverAt;

    internal Guid Key => Stored.Id;
}

/// <summary>
/// Reads events with their status, which <see cref="EventState"/> derives. One that the projection has not reached yet is known by its
/// place in the log.
/// </summary>
internal sealed class EventReader(NpgsqlDataSource dataSource, TimeProvider time, ProjectionProgress? progress = null)
{
    /// <summary>Events of a page hold at most this much data together, or the page ends early.</summary>
    private const int MaxPageBytes = 8 * 1024 * 1024;

    // Behind the event's columns and its status.
    private const int FirstCount = StoredEvent.ColumnCount + 1;

    /// <summary>One event; null when the tenant has none with this id. One that was accepted just now is waited for.</summary>
    public async Task<EventView?> FindAsync(Guid tenantId, Guid id, TimeLimit limit, CancellationToken cancellationToken)
    {
        if (await FindStoredAsync(tenantId, id, cancellationToken) is { } found)
            return found;
        if (progress is null)
            return null;
        if (!await progress.WaitForAsync(tenantId, [id], limit.Less(RequestBudget.AfterWait), cancellationToken))
            throw ApiException.NotYetVisible();
        return await FindStoredAsync(tenantId, id, cancellationToken);
    }

    private async Task<EventView?> FindStoredAsync(Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"SELECT {StoredEvent.Columns}, {EventState.Status} FROM events e WHERE e.tenant_id = @tenant AND e.id = @id");
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", id);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        return await reader.ReadAsync(cancellationToken) ? Read(reader) : null;
    }

    /// <summary>Whether the projection has seen an event; null when the tenant has none with this id.</summary>
    public async Task<bool?> IsProjectedAsync(Guid tenantId, Guid id, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"SELECT NOT {EventState.IsUnprojected} FROM events e WHERE e.tenant_id = @tenant AND e.id = @id");
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
                count(*) FILTER (WHERE status = 'dead_lettered'), count(*) FILTER (WHERE status = 'cancelled'),
                count(*) FILTER (WHERE status = 'expired')
            FROM all_deliveries WHERE tenant_id = @tenant AND event_id = @id AND id >= @floor
            """);
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", eventId);
        command.Parameters.AddWithValue("floor", EventState.FirstDelivery(eventId));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return new DeliverySummary(reader.GetInt32(0), reader.GetInt32(1), reader.GetInt32(2), reader.GetInt32(3), reader.GetInt32(4));
    }

    /// <summary>A page of a list in the order of time, as far as it is complete.</summary>
    public Task<(List<EventView> Events, Guid? Next)> ReadPageUpwardsAsync(HttpContext context, EventFilter filter) =>
        progress is not null
            ? ReadPageUpwardsAsync(filter, progress, Deadline.Of(context).Limit, context.RequestAborted)
            : Upwards.ReadAsync(
                context, () => ReadCompleteAsync(context.RequestAborted), () => ReadPageAsync(filter, context.RequestAborted), e => e.Key);

    private async Task<(List<EventView> Events, Guid? Next)> ReadPageUpwardsAsync(
        EventFilter filter, ProjectionProgress progress, TimeLimit limit, CancellationToken cancellationToken)
    {
        var (events, next) = await ReadPageAsync(filter, cancellationToken);
        if (next is null)
            return (events, next);
        var safe = time.GetUtcNow() - RequestBudget.IdToKafka;
        var last = TypeId.CreatedAt(next.Value) <= safe ? next : events.FindLast(e => e.CreatedAt <= safe)?.Key;
        if (last is null
            || !await progress.WaitForAsync(TypeId.CreatedAt(last.Value), limit.Less(RequestBudget.AfterWait), cancellationToken))
            throw ApiException.NotYetVisible();
        // What was on its way then is there now. With it the page may end earlier.
        (events, next) = await ReadPageAsync(filter, cancellationToken);
        if (next is { } end && end.CompareTo(last.Value) < 0)
            return (events, next);
        events.RemoveAll(e => e.Key.CompareTo(last.Value) > 0);
        return (events, last);
    }

    /// <summary>An id below which no event is added to the Postgres log any more.</summary>
    private async Task<Guid> ReadCompleteAsync(CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand($"SELECT {StoredEvents.Complete}");
        return (Guid)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>
    /// The page of a filter. Part of a filter is answered by an index, in the order of the page; what is found there is looked at, a chunk
    /// at a time, until the page is full, the list is at its end, or the time is over. So a page takes no longer the more there is.
    /// </summary>
    /// <returns>Its events, and the id the next page begins after: null at the end of the list.</returns>
    public async Task<(List<EventView> Events, Guid? Next)> ReadPageAsync(EventFilter filter, CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();
        var query = new EventPageQuery(
            filter, filter.Status == EventStatus.Pending ? await ReadUnprojectedAsync(cancellationToken) : null);
        var events = new List<EventView>();
        long bytes = 0;
        var after = filter.After;
        for (var size = EventPageQuery.FirstChunk(filter.Limit + 1); ; size = EventPageQuery.NextChunk(size))
        {
            var chunk = await ReadChunkAsync(query, after, filter.Limit + 1 - events.Count, MaxPageBytes - bytes, size, cancellationToken);
            events.AddRange(chunk.Events);
            bytes += chunk.Events.Sum(e => (long)e.Stored.Data.Length);
            if (events.Count > filter.Limit)
                events.RemoveRange(filter.Limit, events.Count - filter.Limit);
            else if (chunk.Events.Count == chunk.Matched)
            {
                if (chunk.Scanned < size)
                    return (events, null);
                after = chunk.Last;
                if (time.GetElapsedTime(started) > RequestBudget.Scan)
                    return (events, after);
                continue;
            }
            return (events, events[^1].Key);
        }
    }

    private sealed record Chunk(List<EventView> Events, long Matched, long Scanned, Guid? Last);

    private async Task<Chunk> ReadChunkAsync(
        EventPageQuery query, Guid? after, int limit, long bytes, int size, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand();
        query.WriteTo(command, after, limit, bytes, size);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var events = new List<EventView>();
        long matched = 0, scanned = 0;
        Guid? last = null;
        while (await reader.ReadAsync(cancellationToken))
        {
            (matched, scanned, last) = (
                reader.GetInt64(FirstCount), reader.GetInt64(FirstCount + 1),
                reader.IsDBNull(FirstCount + 2) ? null : reader.GetGuid(FirstCount + 2));
            if (!reader.IsDBNull(0))
                events.Add(Read(reader));
        }
        return new Chunk(events, matched, scanned, last);
    }

    /// <summary>An id that no event is older than that is not projected yet; null when there is none.</summary>
    private async Task<Guid?> ReadUnprojectedAsync(CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            $"SELECT id FROM events WHERE seq >= {EventState.Position} ORDER BY seq LIMIT 1");
        // The log is in the order of commits, which that of ids is but for the time a commit takes, and the clocks of those who make them.
        return await command.ExecuteScalarAsync(cancellationToken) is Guid oldest ? TypeId.At(TypeId.CreatedAt(oldest).AddSeconds(-10))
            : null;
    }

    private static EventView Read(NpgsqlDataReader reader) =>
        new(StoredEvent.Read(reader, 0), SnakeCase<EventStatus>.Parse(reader.GetString(StoredEvent.ColumnCount)));
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
    public byte[][]? ExternalKeyHashes { get; init; }
    public Guid? From { get; init; }
    public Guid? Before { get; init; }
    public Guid? After { get; init; }
    public bool NewestFirst { get; init; }
}

/// <summary>How many deliveries an event has.</summary>
internal sealed record DeliverySummary(int Pending, int Succeeded, int DeadLettered, int Cancelled, int Expired);
