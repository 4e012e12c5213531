namespace Triggers.Delivery.Waking;

/// <summary>A bell: rung any number of times before it is waited for, it wakes once.</summary>
internal sealed class Signal
{
    private readonly SemaphoreSlim _rung = new(0, 1);
    private int _isSet;

    /// <summary>Rings.</summary>
    public void Set()
    {
        if (Interlocked.Exchange(ref _isSet, 1) == 0)
            _rung.Release();
    }

    /// <summary>Waits for the bell, at most so long. False when it did not ring.</summary>
    public async Task<bool> WaitAsync(TimeSpan atMost, CancellationToken cancellationToken)
    {
        if (!await _rung.WaitAsync(atMost, cancellationToken))
            return false;
        // From here on it can ring again. What was rung for just before is there already for whoever was woken.
        Volatile.Write(ref _isSet, 0);
        return true;
    }
}
