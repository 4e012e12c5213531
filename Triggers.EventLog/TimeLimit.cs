namespace Triggers.EventLog;

/// <summary>How long something may still take: made once, and handed down to everything that is waited for.</summary>
internal sealed class TimeLimit(TimeProvider time, TimeSpan total)
{
    private readonly long _started = time.GetTimestamp();

    /// <summary>What is left; zero when the time is over.</summary>
    public TimeSpan Left => total - time.GetElapsedTime(_started) is { Ticks: > 0 } left ? left : TimeSpan.Zero;

    /// <summary>Waits for an append, which goes on when its caller is gone, or told to come again.</summary>
    /// <exception cref="EventLogUnavailableException">The time is over.</exception>
    public async Task<T> WaitAsync<T>(Task<T> append, CancellationToken cancellationToken)
    {
        try
        {
            return await append.WaitAsync(Left, time, cancellationToken);
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException && !append.IsCompleted)
        {
            // Whatever becomes of it is observed.
            _ = append.ContinueWith(
                static t => t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            if (e is OperationCanceledException)
                throw;
            throw new EventLogUnavailableException("The event log did not answer in time.", e);
        }
    }
}
