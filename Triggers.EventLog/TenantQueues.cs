using System.Diagnostics.CodeAnalysis;

namespace Triggers.EventLog;

/// <summary>
/// What waits to be appended: a queue for each tenant. Turns go by bytes, so that a tenant that sends much waits for itself: whoever has
/// been served least comes next, and of those who wait longest whoever came first (start-time fair queueing). Bounded in requests and
/// bytes, for a tenant and in all; many may enqueue, one reads.
/// </summary>
internal sealed class TenantQueues<T>
{
    /// <summary>What may wait in all. A tenant that has nothing waiting is let in all the same.</summary>
    public const int MaxRequests = 2_000;
    public const long MaxBytes = 64 * 1024 * 1024;

    /// <summary>What may wait of one tenant. A single request may exceed it, alone.</summary>
    public const int MaxRequestsPerTenant = 1_000;
    public const long MaxBytesPerTenant = 16 * 1024 * 1024;

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Waiting> _byTenant = [];

    // Who has nothing left stays until its turn comes: it would have more turns than others if it could leave and come back.
    private readonly PriorityQueue<Waiting, (long Served, long Order)> _turns = new();
    private long _order;

    // What those have been served whose turn it is: who comes now begins there.
    private long _served;
    private int _requests;
    private long _bytes;
    private bool _completed;
    private TaskCompletionSource<bool>? _reader;

    /// <summary>Lets a request wait.</summary>
    /// <exception cref="TenantLimitException">Too much of this tenant waits already.</exception>
    /// <exception cref="EventLogUnavailableException">Too much waits already, or the process is on its way out.</exception>
    public void Enqueue(Guid tenantId, T request, long bytes)
    {
        TaskCompletionSource<bool>? reader;
        lock (_lock)
        {
            if (_completed)
                throw new EventLogUnavailableException("The event log is closing.") { NothingWasKept = true };
            if (!_byTenant.TryGetValue(tenantId, out var waiting))
            {
                _byTenant.Add(tenantId, waiting = new Waiting(tenantId) { Served = _served });
                _turns.Enqueue(waiting, (_served, _order++));
            }
            else if (waiting.Requests.Count >= MaxRequestsPerTenant || waiting.Bytes > 0 && waiting.Bytes + bytes > MaxBytesPerTenant)
            {
                throw new TenantLimitException("The event log can't keep up with what this tenant sends.");
            }
            if (waiting.Requests.Count > 0 && (_requests >= MaxRequests || _bytes + bytes > MaxBytes))
                throw new EventLogUnavailableException("The event log can't keep up.") { NothingWasKept = true };
            waiting.Requests.Enqueue((request, bytes));
            waiting.Bytes += bytes;
            _requests++;
            _bytes += bytes;
            (reader, _reader) = (_reader, null);
        }
        reader?.SetResult(true);
    }

    /// <summary>Takes the request whose turn it is, if that is wanted now; nobody else's turn comes before.</summary>
    public bool TryDequeue(Func<T, bool> isWanted, [MaybeNullWhen(false)] out T request)
    {
        lock (_lock)
        {
            while (_turns.TryPeek(out var next, out _))
            {
                if (next.Requests.Count == 0)
                {
                    _turns.Dequeue();
                    _byTenant.Remove(next.TenantId);
                    continue;
                }
                (request, var bytes) = next.Requests.Peek();
                if (!isWanted(request))
                    return false;
                next.Requests.Dequeue();
                next.Bytes -= bytes;
                _requests--;
                _bytes -= bytes;
                _served = next.Served;
                next.Served += bytes;
                _turns.DequeueEnqueue(next, (next.Served, _order++));
                return true;
            }
        }
        request = default;
        return false;
    }

    /// <summary>Ends when something waits, or nothing ever will again: then false.</summary>
    public Task<bool> WaitToReadAsync()
    {
        lock (_lock)
        {
            if (_requests > 0 || _completed)
                return Task.FromResult(_requests > 0);
            // Whoever ends the waiting goes on with the reader's work, up to where that waits: one thread is woken less.
            _reader = new TaskCompletionSource<bool>();
            return _reader.Task;
        }
    }

    /// <summary>Nothing more comes in.</summary>
    public void Complete()
    {
        TaskCompletionSource<bool>? reader;
        lock (_lock)
        {
            _completed = true;
            (reader, _reader) = (_reader, null);
        }
        reader?.SetResult(false);
    }

    private sealed class Waiting(Guid tenantId)
    {
        public Guid TenantId { get; } = tenantId;

        public Queue<(T Request, long Bytes)> Requests { get; } = new();

        public long Bytes { get; set; }

        /// <summary>Bytes, from where all began that wait now.</summary>
        public long Served { get; set; }
    }
}

/// <summary>A request in a queue; either the writer takes it or its caller gives it up, never both.</summary>
internal abstract class PendingRequest(AppendRequest request)
{
    private int _state;

    public AppendRequest Request { get; protected set; } = request;

    /// <summary>Of its events, with what goes with each.</summary>
    public long Bytes { get; } = request.Events.Sum(e => (long)e.Data.Length + 512);

    public bool TryTake() => Interlocked.CompareExchange(ref _state, 1, 0) == 0;

    public bool TryAbandon() => Interlocked.CompareExchange(ref _state, 2, 0) == 0;
}
