using Npgsql;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>Reads events; those that are no longer kept are not among the answers.</summary>
internal delegate Task<IReadOnlyCollection<StoredEvent>> ReadEvents(
    IReadOnlyCollection<(Guid TenantId, Guid Id)> events, CancellationToken cancellationToken);

/// <summary>
/// What attempts send: read when an attempt starts, made once for all deliveries of an event in the same format that are on their way, and
/// let go when the last request for it is written.
/// </summary>
internal sealed class Payloads(ReadEvents read)
{
    private const int MaxTogether = 200;
    private const int LargeBytes = 64 * 1024;
    private const int LargeReads = 4;

    private readonly Lock _lock = new();
    private readonly Dictionary<(Guid EventId, MessageFormat Format), Entry> _entries = [];
    private readonly Queue<Entry> _wanted = new();
    private readonly SemaphoreSlim _large = new(LargeReads);
    private bool _reading;

    /// <summary>How many messages are in memory.</summary>
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

    /// <summary>A share of an event that is there already, as it is sent in a format.</summary>
    public PayloadShare Hold(Guid tenantId, StoredEvent e, MessageFormat format)
    {
        lock (_lock)
        {
            var entry = Get(tenantId, e.Id, format, out var isNew);
            if (isNew)
                entry.Make(e);
            return new PayloadShare(this, entry);
        }
    }

    /// <summary>A share of an event that is read now, unless somebody else has it.</summary>
    /// <param name="tenantId">Whose it is.</param>
    /// <param name="eventId">Which.</param>
    /// <param name="bytes">Length of its data. The large ones are read one by one, so that the others don't wait for them.</param>
    /// <param name="format">As what it is sent.</param>
    public PayloadShare Hold(Guid tenantId, Guid eventId, int bytes, MessageFormat format)
    {
        lock (_lock)
        {
            var entry = Get(tenantId, eventId, format, out var isNew);
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
            if (--entry.Shares == 0 && _entries.TryGetValue((entry.EventId, entry.Format), out var current) && current == entry)
                _entries.Remove((entry.EventId, entry.Format));
        }
    }

    private Entry Get(Guid tenantId, Guid eventId, MessageFormat format, out bool isNew)
    {
        // What could not be read is not kept for the next one.
        isNew = !_entries.TryGetValue((eventId, format), out var entry) || entry.Read.Task.IsFaulted;
        if (isNew)
            _entries[(eventId, format)] = entry = new Entry(tenantId, eventId, format);
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
            var found = (await read([.. entries.Select(e => (e.TenantId, e.EventId)).Distinct()], CancellationToken.None))
                .ToDictionary(e => e.Id);
            foreach (var entry in entries)
            {
                if (found.TryGetValue(entry.EventId, out var e))
                    entry.Make(e);
                else
                    entry.Read.SetResult(null);
            }
        }
        catch (Exception e)
        {
            foreach (var entry in entries)
                entry.Read.TrySetException(e);
        }
    }

    internal sealed class Entry(Guid tenantId, Guid eventId, MessageFormat format)
    {
        public Guid TenantId { get; } = tenantId;

        public Guid EventId { get; } = eventId;

        public MessageFormat Format { get; } = format;

        /// <summary>Null when it is no longer kept.</summary>
        public TaskCompletionSource<WebhookMessage?> Read { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public int Shares { get; set; }

        public void Make(StoredEvent e) => Read.SetResult(Format.Make(TenantId, e));
    }
}

/// <summary>One attempt's share of an event. It keeps the event in memory until it is disposed of.</summary>
internal sealed class PayloadShare(Payloads payloads, Payloads.Entry entry) : IDisposable
{
    private readonly (Guid TenantId, Guid Id) _event = (entry.TenantId, entry.EventId);
    private Payloads.Entry? _entry = entry;

    /// <summary>As what it is sent.</summary>
    public MessageFormat Format { get; } = entry.Format;

    /// <summary>What is sent of the event; null when it is no longer kept.</summary>
    public async Task<WebhookMessage?> ReadAsync(CancellationToken cancellationToken) =>
        _entry is { } mine
            ? await mine.Read.Task.WaitAsync(cancellationToken)
            : throw new ObjectDisposedException(nameof(PayloadShare));

    /// <summary>A share like this one, of data that this one has let go.</summary>
    public PayloadShare Again() => payloads.Hold(_event.TenantId, _event.Id, int.MaxValue, Format);

    /// <summary>Lets go of the data. To be called any number of times.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _entry, null) is { } mine)
            payloads.Release(mine);
    }
}
