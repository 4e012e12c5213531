namespace Triggers.Delivery;

/// <summary>A bell: rung any number of times before it is waited for, it wakes once.</summary>
internal sealed class Signal
{
    private readonly SemaphoreSlim _rung = new(0, 1);

    /// <summary>Rings.</summary>
    public void Set()
    {
        try
        {
            _rung.Release();
        }
        catch (SemaphoreFullException)
        {
            // It rings already.
        }
    }

    /// <summary>Waits for the bell, at most so long.</summary>
    public async Task WaitAsync(TimeSpan atMost, CancellationToken cancellationToken) => await _rung.WaitAsync(atMost, cancellationToken);
}
