using System.Diagnostics;

namespace Triggers.Bench;

/// <summary>Waits for conditions, and not for ever.</summary>
internal static class Until
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(100);

    /// <summary>Whether it came true in time.</summary>
    public static async Task<bool> TrueAsync(Func<Task<bool>> condition, TimeSpan limit)
    {
        for (var started = Stopwatch.GetTimestamp(); !await condition(); await Task.Delay(s_pause))
            if (Stopwatch.GetElapsedTime(started) > limit)
                return false;
        return true;
    }
}
