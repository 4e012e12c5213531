using Triggers.Api.Http;
using Triggers.Api.RateLimiting;

namespace Triggers.Api.Inbox;

/// <summary>Looks again and again for something in an inbox, as long as a request is ready to wait.</summary>
internal sealed class InboxWait(InboxSignal signal, ConcurrencyLimits limits, TimeProvider time)
{
    /// <summary>The longest wait, in seconds.</summary>
    public const int MaxSeconds = 30;

    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(25);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromMilliseconds(400);
    private static readonly TimeSpan s_quietPause = TimeSpan.FromSeconds(5);

    /// <summary>Waits until a look finds something, or the time is over.</summary>
    /// <param name="context">The request.</param>
    /// <param name="tenantId">Whose inbox it is.</param>
    /// <param name="wait">How long to wait.</param>
    /// <param name="look">Looks: what there is, whether that is an answer, and when to look again at the latest.</param>
    /// <returns>What was found last.</returns>
    public async Task<T> ForAsync<T>(
        HttpContext context, Guid tenantId, TimeSpan wait, Func<Task<(T Found, bool IsAnswer, TimeSpan? Next)>> look)
    {
        var deadline = Deadline.Of(context);
        var started = time.GetTimestamp();
        // How often to look again after a signal: what was appended comes into the inbox a little later.
        var looks = 0;
        var pause = s_firstPause;
        using var place = wait > TimeSpan.Zero ? limits.Wait(tenantId) : null;
        while (true)
        {
            var next = wait > TimeSpan.Zero ? signal.NextOf(tenantId) : Task.CompletedTask;
            var (found, isAnswer, dueIn) = await look();
            var left = wait - time.GetElapsedTime(started);
            if (isAnswer || left <= TimeSpan.Zero || signal.IsEnding)
                return found;

            deadline.Pause();
            if (looks > 0)
            {
                looks--;
                await Task.Delay(Min(pause, left), time, context.RequestAborted);
                pause = Min(pause * 4, s_longestPause);
            }
            else if (await WaitAsync(next, Min(Min(s_quietPause, dueIn ?? s_quietPause), left), time, context.RequestAborted))
            {
                looks = 3;
            }
            else
            {
                pause = s_firstPause;
                // What has come due may be on its way to somebody who doesn't keep it, or not be what is asked for.
                if (dueIn < s_quietPause)
                    looks = 3;
            }
            deadline.Restart();
        }
    }

    private static async Task<bool> WaitAsync(Task signal, TimeSpan atMost, TimeProvider time, CancellationToken cancellationToken)
    {
        try
        {
            await signal.WaitAsync(atMost, time, cancellationToken);
            return true;
        }
        catch (TimeoutException)
        {
            return false;
        }
    }

    private static TimeSpan Min(TimeSpan a, TimeSpan b) => a < b ? a : b;
}
