namespace Triggers.Core;

/// <summary>How long something may still take: made once, when a request begins, and handed down to everything that waits.</summary>
/// <param name="time">The clock.</param>
/// <param name="total">From now on; what is less than nothing is nothing.</param>
public sealed class TimeLimit(TimeProvider time, TimeSpan total)
{
    private readonly long _started = time.GetTimestamp();

    /// <summary>What is left; zero when the time is over.</summary>
    public TimeSpan Left => total - time.GetElapsedTime(_started) is { Ticks: > 0 } left ? left : TimeSpan.Zero;

    /// <summary>A limit that ends so much earlier.</summary>
    public TimeLimit Less(TimeSpan kept) => new(time, Left - kept);

    /// <summary>A limit that ends no later than this, and takes no longer than <paramref name="share"/>.</summary>
    public TimeLimit AtMost(TimeSpan share) => new(time, Left < share ? Left : share);
}
