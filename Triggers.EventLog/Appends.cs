using Triggers.Core;

namespace Triggers.EventLog;

/// <summary>Appends in a request's time.</summary>
internal static class Appends
{
    /// <summary>Waits for an append, which goes on when its caller is gone, or told to come again.</summary>
    /// <exception cref="EventLogUnavailableException">The time is over.</exception>
    public static async Task<T> WithinAsync<T>(this Task<T> append, TimeLimit limit, TimeProvider time, CancellationToken cancellationToken)
    {
        try
        {
            return await append.WaitAsync(limit.Left, time, cancellationToken);
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException)
        {
            // It may have ended just as the time did.
            if (append.IsCompleted)
                return await append;
            // Whatever becomes of it is observed.
            _ = append.ContinueWith(
                static t => t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
            if (e is OperationCanceledException)
                throw;
            throw new EventLogUnavailableException("The event log did not answer in time.", e);
        }
    }

    /// <summary>To be asked before an append is begun.</summary>
    /// <exception cref="EventLogUnavailableException">Too little time is left. Nothing was kept.</exception>
    public static void EnsureTime(TimeLimit limit)
    {
        if (limit.Left < RequestBudget.LeastAppend)
            throw new EventLogUnavailableException("Too little time was left to append.") { NothingWasKept = true };
    }
}
