using Triggers.Core.Transformations;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Makes messages that may take long, on threads of their own, so that nobody else waits for them: tenants in turn, and of each one message
/// at a time.
/// </summary>
internal sealed class SlowMessages : IDisposable
{
    private static readonly int s_threads = Math.Max(1, Environment.ProcessorCount / 2);

    private readonly object _lock = new();
    private readonly Dictionary<Guid, Queue<Action>> _byTenant = [];
    private readonly Queue<Guid> _turns = new();
    private bool _started;
    private bool _ended;

    /// <summary>Has a message made, when it is the tenant's turn.</summary>
    public void Add(Guid tenantId, Action make)
    {
        lock (_lock)
        {
            if (!_started)
            {
                _started = true;
                for (var i = 0; i < s_threads; i++)
                    RoomyThread.Start("transformations", Run);
            }
            if (_byTenant.TryGetValue(tenantId, out var waiting))
            {
                waiting.Enqueue(make);
                return;
            }
            _byTenant[tenantId] = new Queue<Action>([make]);
            _turns.Enqueue(tenantId);
            Monitor.Pulse(_lock);
        }
    }

    /// <summary>Ends the threads. What waits is not made any more.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _ended = true;
            Monitor.PulseAll(_lock);
        }
    }

    private void Run()
    {
        while (Next() is var (tenantId, make))
        {
            make();
            lock (_lock)
            {
                if (_byTenant[tenantId].Count == 0)
                {
                    _byTenant.Remove(tenantId);
                    continue;
                }
                _turns.Enqueue(tenantId);
                Monitor.Pulse(_lock);
            }
        }
    }

    private (Guid TenantId, Action Make)? Next()
    {
        lock (_lock)
        {
            while (_turns.Count == 0 && !_ended)
                Monitor.Wait(_lock);
            if (_ended)
                return null;
            var tenantId = _turns.Dequeue();
            return (tenantId, _byTenant[tenantId].Dequeue());
        }
    }
}
