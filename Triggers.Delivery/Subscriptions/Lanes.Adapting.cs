namespace Triggers.Delivery.Subscriptions;

/// <summary>How much a receiver stands at once, as its answers show.</summary>
internal sealed partial class Lanes
{
    /// <summary>The receiver took it: a lane whose places are all taken gets a little more room.</summary>
    public void Widen(Guid subscriptionId)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (lane.Busy >= (int)lane.Limit)
                lane.Limit = Math.Min(lane.Limit + 1 / lane.Limit, Math.Max(most, concurrency));
        }
    }

    /// <summary>The receiver is overwhelmed: half as much at once, once for all that was under way.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="startedAt">When the attempt began that showed it, a timestamp.</param>
    public void Narrow(Guid subscriptionId, long startedAt)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (startedAt < lane.HalvedAt)
                return;
            lane.Limit = Math.Max(1, lane.Limit / 2);
            lane.HalvedAt = time.GetTimestamp();
        }
    }

    /// <summary>The receiver wants to be left alone for so long.</summary>
    public void Hold(Guid subscriptionId, TimeSpan duration)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.HeldUntil = Math.Max(lane.HeldUntil, time.GetTimestamp() + (long)(duration.TotalSeconds * time.TimestampFrequency));
        }
    }

    /// <summary>
    /// Its circuit opens, or lets one through as a probe; or it closes, and the receiver is not overrun by what has been held: one at a
    /// time to begin with.
    /// </summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="most">0 or 1 at once; null: it is closed.</param>
    public void Cap(Guid subscriptionId, int? most)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Cap = most;
            if (most is null)
                lane.Limit = 1;
        }
    }
}
