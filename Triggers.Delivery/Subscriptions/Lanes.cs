namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// The way to one subscription: so many attempts at once, and no more. What does not fit stays in Postgres, so a lane that hangs
/// holds up nobody and fills no memory. Guarded by the lock of <see cref="Lanes"/>.
/// </summary>
internal sealed class Lane(Guid subscriptionId)
{
    public Guid SubscriptionId { get; } = subscriptionId;

    /// <summary>Attempts in flight, and places kept for what is being claimed.</summary>
    public int Busy { get; set; }

    /// <summary>Timestamp from when on something is due, as far as this process knows; <see cref="long.MaxValue"/> for nothing.</summary>
    public long DueAt { get; set; } = long.MaxValue;
}

/// <summary>All lanes of this process.</summary>
internal sealed class Lanes(int concurrency, TimeProvider time)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Lane> _lanes = [];

    /// <summary>
    /// Keeps a place for a delivery that is about to be written, if there is one free and nothing older waits in Postgres.
    /// </summary>
    public bool TryReserve(Guid subscriptionId)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (lane.Busy >= concurrency || lane.DueAt <= time.GetTimestamp())
                return false;
            lane.Busy++;
            return true;
        }
    }

    /// <summary>Something of this lane is due in so long. Zero: now.</summary>
    public void DueIn(Guid subscriptionId, TimeSpan delay)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp() + (long)(delay.TotalSeconds * time.TimestampFrequency));
        }
    }

    /// <summary>An attempt ended, or a reservation came to nothing. True when something of that lane waits for the place.</summary>
    public bool Release(Guid subscriptionId)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy--;
            return lane.DueAt <= time.GetTimestamp();
        }
    }

    /// <summary>Keeps every free place of the lanes in which something is due. The lanes are taken not to have more due until told.</summary>
    public (Guid[] Subscriptions, int[] Free) ReserveDue(Func<Guid, bool> mayClaim)
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            var due = _lanes.Values.Where(l => l.DueAt <= now && l.Busy < concurrency && mayClaim(l.SubscriptionId)).ToArray();
            var free = Array.ConvertAll(due, l => concurrency - l.Busy);
            foreach (var lane in due)
            {
                lane.Busy = concurrency;
                lane.DueAt = long.MaxValue;
            }
            return (Array.ConvertAll(due, l => l.SubscriptionId), free);
        }
    }

    /// <summary>Gives back places that were reserved and not filled. A lane that filled all of them may have more due.</summary>
    public void Unreserve(Guid subscriptionId, int unused, bool mayHaveMore)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= unused;
            if (mayHaveMore)
                lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
        }
    }

    /// <summary>How long until a lane with a free place has something due; at most <paramref name="atMost"/>.</summary>
    public TimeSpan UntilNextDue(TimeSpan atMost, Func<Guid, bool> mayClaim)
    {
        lock (_lock)
        {
            var next = _lanes.Values.Where(l => l.Busy < concurrency && mayClaim(l.SubscriptionId)).Select(l => l.DueAt).DefaultIfEmpty(long.MaxValue).Min();
            var now = time.GetTimestamp();
            if (next <= now)
                return TimeSpan.Zero;
            var wait = next == long.MaxValue ? atMost : time.GetElapsedTime(now, next);
            return wait < atMost ? wait : atMost;
        }
    }

    /// <summary>Forgets lanes in which nothing moves.</summary>
    public void Trim()
    {
        lock (_lock)
        {
            foreach (var lane in _lanes.Values.Where(l => l.Busy == 0 && l.DueAt == long.MaxValue).ToArray())
                _lanes.Remove(lane.SubscriptionId);
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
        var (full, active, waiting, paused) = (0, 0, 0, 0);
        lock (_lock)
        {
            foreach (var lane in _lanes.Values)
            {
                if (isPaused(lane.SubscriptionId))
                    paused++;
                else if (lane.Busy >= concurrency)
                    full++;
                else if (lane.Busy > 0)
                    active++;
                else
                    waiting++;
            }
        }
        return [("full", full), ("active", active), ("waiting", waiting), ("paused", paused)];
    }

    private Lane Get(Guid subscriptionId)
    {
        if (!_lanes.TryGetValue(subscriptionId, out var lane))
            _lanes.Add(subscriptionId, lane = new Lane(subscriptionId));
        return lane;
    }
}
