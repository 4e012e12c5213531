using Triggers.Core.State;

namespace Triggers.Delivery.Completion;

/// <summary>
/// Results of first attempts that are made as events are read from the log, before anything of their deliveries is written. They are
/// gathered here, for the transaction in which the log's position passes the events. What has not ended by then is written as claimed, and
/// its result goes the way of all others.
/// </summary>
internal sealed class FirstAttempts
{
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<bool> _written = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Dictionary<Guid, Completed>? _results = [];

    /// <summary>
    /// Ends with the transaction. False: nothing of it was written, and the events are read again. True also where nobody can tell: the
    /// result of what is not there changes nothing.
    /// </summary>
    public Task<bool> Written => _written.Task;

    /// <summary>Those of which there is no result yet.</summary>
    public List<NewDelivery> NotEnded(IEnumerable<NewDelivery> deliveries)
    {
        lock (_lock)
            return [.. deliveries.Where(delivery => _results?.ContainsKey(delivery.Id) is not true)];
    }

    /// <summary>Takes a result; false when it is too late.</summary>
    public bool TryAdd(Completed completed)
    {
        lock (_lock)
            return _results?.TryAdd(completed.Result.Id, completed) ?? false;
    }

    /// <summary>The results that came in time, by delivery, once. No more are taken.</summary>
    public Dictionary<Guid, Completed> Close()
    {
        lock (_lock)
        {
            var results = _results ?? [];
            _results = null;
            return results;
        }
    }

    /// <summary>The transaction has ended.</summary>
    public void End(bool written) => _written.TrySetResult(written);
}
