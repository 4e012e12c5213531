using Npgsql;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>An event as it goes out.</summary>
/// <param name="Event">What is known of it, without its data.</param>
/// <param name="Body">The body of every request for it.</param>
internal sealed record Payload(StoredEvent Event, byte[] Body)
{
    /// <summary>Writes the body; the data itself is then no longer needed.</summary>
    public static Payload Of(StoredEvent e) => new(e with { Data = [] }, WebhookBody.Of(e));
}

/// <summary>Reads events; those that are no longer kept are not among the answers.</summary>
internal delegate Task<IReadOnlyCollection<StoredEvent>> ReadEvents(
    IReadOnlyCollection<(Guid TenantId, Guid Id)> events, CancellationToken cancellationToken);

/// <summary>
/// What attempts send: read when an attempt starts, once for all deliveries of an event that are on their way, and let go when the last
/// request for it is written.
/// </summary>
internal sealed class Payloads(ReadEvents read)
{
    private const int MaxTogether = 200;
    private const int LargeBytes = 64 * 1024;
    private const int LargeReads = 4;

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Entry> _entries = [];
    private readonly Queue<Entry> _wanted = new();
    private readonly SemaphoreSlim _large = new(LargeReads);
    private bool _reading;

    /// <summary>How many events are in memory.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _entries.Count;
        }
    }

    /// <summary>Reads events by their ids, each by its primary key.</summary>
    public static ReadEvents ReadFrom(NpgsqlDataSource dataSource) => async (events, cancellationToken) =>
    {
        // The bounds tell Postgres which partitions need not be looked at, however many there are.
        await using var command = dataSource.CreateCommand(
            $"""
            SELECT {StoredEvent.Columns} FROM unnest(@tenants, @ids) AS i (tenant_id, id)
            CROSS JOIN LATERAL (SELECT * FROM events WHERE tenant_id = i.tenant_id AND id = i.id AND id BETWEEN @first AND @last LIMIT 1) e
            """);
        command.Parameters.AddWithValue("tenants", events.Select(e => e.TenantId).ToArray());
        command.Parameters.AddWithValue("ids", events.Select(e => e.Id).ToArray());
        command.Parameters.AddWithValue("first", events.Min(e => e.Id));
        command.Parameters.AddWithValue("last", events.Max(e => e.Id));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var read = new List<StoredEvent>();
        while (await reader.ReadAsync(cancellationToken))
            read.Add(StoredEvent.Read(reader, 0));
        return read;
    };

    /// <summary>A share of an event that is there already.</summary>
    public PayloadShare Hold(Guid tenantId, StoredEvent e)
    {
        lock (_lock)
        {
            var entry = Get(tenantId, e.Id, out var isNew);
            if (isNew)
                entry.Read.SetResult(Payload.Of(e));
            return new PayloadShare(this, entry);
        }
    }

    /// <summary>A share of an event that is read now, unless somebody else has it.</summary>
    /// <param name="tenantId">Whose it is.</param>
    /// <param name="eventId">Which.</param>
    /// <param name="bytes">Length of its data. The large ones are read one by one, so that the others don't wait for them.</param>
    public PayloadShare Hold(Guid tenantId, Guid eventId, int bytes)
    {
        lock (_lock)
        {
            var entry = Get(tenantId, eventId, out var isNew);
            if (isNew && bytes > LargeBytes)
            {
                _ = ReadLargeAsync(entry);
            }
            else if (isNew)
            {
                _wanted.Enqueue(entry);
                if (!_reading)
                {
                    _reading = true;
                    _ = Task.Run(ReadWantedAsync);
                }
            }
            return new PayloadShare(this, entry);
        }
    }

    internal void Release(Entry entry)
    {
        lock (_lock)
        {
            if (--entry.Shares == 0 && _entries.TryGetValue(entry.EventId, out var current) && current == entry)
                _entries.Remove(entry.EventId);
        }
    }

    private Entry Get(Guid tenantId, Guid eventId, out bool isNew)
    {
        // What could not be read is not kept for the next one.
        isNew = !_entries.TryGetValue(eventId, out var entry) || entry.Read.Task.IsFaulted;
        if (isNew)
            _entries[eventId] = entry = new Entry(tenantId, eventId);
        entry!.Shares++;
        return entry;
    }

    private async Task ReadWantedAsync()
    {
        while (true)
        {
            var batch = new List<Entry>();
            lock (_lock)
            {
                while (batch.Count < MaxTogether && _wanted.TryDequeue(out var entry))
                    batch.Add(entry);
                if (batch.Count == 0)
                {
                    _reading = false;
                    return;
                }
            }
            await ReadAsync(batch);
        }
    }

    private async Task ReadLargeAsync(Entry entry)
    {
        await _large.WaitAsync();
        try
        {
            await ReadAsync([entry]);
        }
        finally
        {
            _large.Release();
        }
    }

    private async Task ReadAsync(List<Entry> entries)
    {
        try
        {
            var found = (await read(entries.ConvertAll(e => (e.TenantId, e.EventId)), CancellationToken.None)).ToDictionary(e => e.Id);
            foreach (var entry in entries)
                entry.Read.SetResult(found.TryGetValue(entry.EventId, out var e) ? Payload.Of(e) : null);
        }
        catch (Exception e)
        {
            foreach (var entry in entries)
                entry.Read.TrySetException(e);
        }
    }

    internal sealed class Entry(Guid tenantId, Guid eventId)
    {
        public Guid TenantId { get; } = tenantId;

        public Guid EventId { get; } = eventId;

        /// <summary>Null when it is no longer kept.</summary>
        public TaskCompletionSource<Payload?> Read { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public int Shares { get; set; }
    }
}

/// <summary>One attempt's share of an event. It keeps the event in memory until it is disposed of.</summary>
internal sealed class PayloadShare(Payloads payloads, Payloads.Entry entry) : IDisposable
{
    private readonly (Guid TenantId, Guid EventId) _event = (entry.TenantId, entry.EventId);
    private Payloads.Entry? _entry = entry;

    /// <summary>The event; null when it is no longer kept.</summary>
    public async Task<Payload?> ReadAsync(CancellationToken cancellationToken) =>
        _entry is { } mine
            ? await mine.Read.Task.WaitAsync(cancellationToken)
            : throw new ObjectDisposedException(nameof(PayloadShare));

    /// <summary>A share like this one, of data that this one has let go.</summary>
    public PayloadShare Again() => payloads.Hold(_event.TenantId, _event.EventId, int.MaxValue);

    /// <summary>Lets go of the data. To be called any number of times.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _entry, null) is { } mine)
            payloads.Release(mine);
    }
}
