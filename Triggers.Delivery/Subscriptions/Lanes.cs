using Triggers.Core.Subscriptions;
using Triggers.Delivery.Waking;

namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// All lanes of this process. How much one takes at once is found out: half as much where the receiver is overwhelmed, and a little more
/// with every success, up to a limit; nothing while its circuit is open.
/// </summary>
/// <param name="concurrency">What a lane begins with.</param>
/// <param name="time">The clock.</param>
/// <param name="most">What it may grow to; 0: it doesn't.</param>
/// <param name="limitsOf">The limits of a subscription, where it has any.</param>
/// <param name="batchOf">How a subscription gets several events in one request, where it does.</param>
internal sealed partial class Lanes(
    int concurrency, TimeProvider time, int most = 0, Func<Guid, SubscriptionLimits?>? limitsOf = null,
    Func<Guid, Batching?>? batchOf = null)
{
    /// <summary>The most data that a lane has in memory, but for a single delivery that is larger.</summary>
    public const long MaxBytes = 4 * 1024 * 1024;

    /// <summary>How long an idle receiver is remembered to have been overwhelmed.</summary>
    private static readonly TimeSpan s_memory = TimeSpan.FromMinutes(1);

    /// <summary>How long a lane may be without an end and is not taken to hang.</summary>
    private static readonly TimeSpan s_moment = TimeSpan.FromMilliseconds(25);

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Lane> _lanes = [];
    private readonly Dictionary<Guid, long> _tenants = [];
    private readonly HashSet<Lane> _limited = [];
    private long _claims;

    /// <summary>Rings when something of a subscription with limits is to be asked or told.</summary>
    public Signal Limited { get; } = new();

    /// <summary>
    /// Keeps a place for a delivery that is about to be written, if there is one free. While older ones are due in Postgres, half the
    /// places of a wide lane are for those that are new: to write them first, and claim them, costs twice as much, and a lane that has
    /// fallen behind would not catch up.
    /// </summary>
    public bool TryReserve(Guid subscriptionId, int bytes = 0)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            var now = time.GetTimestamp();
            var isBehind = lane.DueAt <= now;
            if (isBehind)
                lane.Passing++;
            if (isBehind && lane.New >= lane.MayPass
                || !lane.CanStart(now) || lane.Bytes > 0 && lane.Bytes + bytes > MaxBytes)
                return false;
            lane.Busy++;
            lane.New++;
            lane.Bytes += bytes;
            lane.Permits?.Take(1);
            return true;
        }
    }

    /// <summary>Whether so many new deliveries more are likely to find a place within that time.</summary>
    public bool WillStart(Guid subscriptionId, int more, TimeSpan within)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            var now = time.GetTimestamp();
            return !(lane.DueAt <= now && Hangs(lane, lane.EndedAt, now)) && lane.HeldUntil <= now
                && DurationOf(lane, more, now) <= Ticks(within);
        }
    }

    /// <summary>Whether so many new deliveries, begun or not, are likely to have ended within that time.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="deliveries">How many.</param>
    /// <param name="since">When the first of them came, a timestamp.</param>
    /// <param name="within">The time.</param>
    public bool WillEnd(Guid subscriptionId, int deliveries, long since, TimeSpan within)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            var now = time.GetTimestamp();
            return !Hangs(lane, Math.Max(lane.EndedAt, since), now) && lane.HeldUntil <= now
                && Math.Max(DurationOf(lane, deliveries, now), lane.Duration) <= Ticks(within);
        }
    }

    /// <summary>An attempt ended, or a reservation came to nothing. True when something of that lane waits for the place.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="isNew">Whether the place was kept by <see cref="TryReserve"/>.</param>
    /// <param name="startedAt">When the attempt began, a timestamp; null: there was none.</param>
    public bool Release(Guid subscriptionId, bool isNew = false, long? startedAt = null)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy--;
            if (isNew)
                lane.New--;
            if (startedAt is { } started)
            {
                lane.EndedAt = time.GetTimestamp();
                lane.Duration += (lane.EndedAt - started - lane.Duration) / 8;
            }
            if (lane.Permits is { } permits && permits.SettleSoon(time.GetTimestamp(), time))
                Limited.Set();
            return IsWaited(lane);
        }
    }

    /// <summary>Data is no longer needed in memory. True when something of that lane waits for that.</summary>
    public bool ReleaseBytes(Guid subscriptionId, int bytes)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Bytes -= bytes;
            return IsWaited(lane);
        }
    }

    /// <summary>Forgets lanes in which nothing moves, and of the others how far they have been claimed.</summary>
    public void Trim()
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            foreach (var lane in _lanes.Values.Where(l => l.Busy == 0 && l.DueAt == long.MaxValue
                && l.Cap is null && l.HeldUntil <= now && (l.HalvedAt == 0 || time.GetElapsedTime(l.HalvedAt) > s_memory)
                && l.Permits is not { IsIdle: false }).ToArray())
            {
                _lanes.Remove(lane.SubscriptionId);
                _limited.Remove(lane);
            }
            foreach (var lane in _lanes.Values)
                lane.ClaimedTo = default;
            // They begin anew, all at once and so in no disorder.
            _tenants.Clear();
        }
    }

    /// <summary>Attempts in flight, over all lanes.</summary>
    public int Busy
    {
        get
        {
            lock (_lock)
                return _lanes.Values.Sum(l => l.Busy);
        }
    }

    /// <summary>How many lanes are in which state; every state is named, also with none in it.</summary>
    /// <param name="isPaused">Whether a lane may start nothing.</param>
    public IEnumerable<(string State, int Count)> CountByState(Func<Guid, bool> isPaused)
    {
        var (full, active, waiting, held, paused, limited) = (0, 0, 0, 0, 0, 0);
        lock (_lock)
        {
            var now = time.GetTimestamp();
            foreach (var lane in _lanes.Values)
            {
                if (isPaused(lane.SubscriptionId))
                    paused++;
                else if (lane.Cap is not null || lane.HeldUntil > now)
                    held++;
                else if (lane.Permits is { Wanted: > 0 })
                    limited++;
                else if (lane.Busy >= lane.Places)
                    full++;
                else if (lane.Busy > 0)
                    active++;
                else
                    waiting++;
            }
        }
        return [("full", full), ("active", active), ("waiting", waiting), ("held", held), ("limited", limited), ("paused", paused)];
    }

    /// <summary>Whether something that is due can be started now.</summary>
    private bool IsWaited(Lane lane) => time.GetTimestamp() is var now && lane.DueAt <= now && lane.CanStart(now);

    /// <summary>One in which nothing ends hangs, however fast it was.</summary>
    private bool Hangs(Lane lane, long since, long now) => now - since > Math.Max(2 * lane.Duration, Ticks(s_moment));

    /// <summary>How long it is likely to take until so many new deliveries have begun.</summary>
    private static double DurationOf(Lane lane, int deliveries, long now) =>
        (lane.DueAt <= now ? lane.MayPass : lane.Places) is var places and > 0 ? lane.Duration * deliveries / places : double.MaxValue;

    private double Ticks(TimeSpan duration) => duration.TotalSeconds * time.TimestampFrequency;

    private Lane Get(Guid subscriptionId)
    {
        if (!_lanes.TryGetValue(subscriptionId, out var lane))
            _lanes.Add(subscriptionId, lane = new Lane(subscriptionId, concurrency));
        if (limitsOf is not null)
            Limit(lane);
        return lane;
    }
}
