namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// The way to one subscription: so many attempts at once, so much data in memory, and no more. What does not fit stays in Postgres, so a
/// lane that hangs holds up nobody. Guarded by the lock of <see cref="Lanes"/>.
/// </summary>
internal sealed class Lane(Guid subscriptionId)
{
    public Guid SubscriptionId { get; } = subscriptionId;

    /// <summary>Attempts in flight, and places kept for what is being claimed.</summary>
    public int Busy { get; set; }

    /// <summary>Data of those of them whose request is not written yet.</summary>
    public long Bytes { get; set; }

    /// <summary>Timestamp from when on something is due, as far as this process knows; <see cref="long.MaxValue"/> for nothing.</summary>
    public long DueAt { get; set; } = long.MaxValue;

    /// <summary>
    /// How large the next of what is due is: known of what was too large beside what is in memory, otherwise as large as the last were.
    /// </summary>
    public long NextBytes { get; set; }

    /// <summary>Which claim asked for it last.</summary>
    public long AskedBy { get; set; }
}

/// <summary>What a claim asks for: of each lane, once, at most so many deliveries and so much data.</summary>
/// <param name="Lanes">Subscriptions.</param>
/// <param name="Places">The most deliveries of each.</param>
/// <param name="Bytes">The most data of each.</param>
/// <param name="Idle">Whether one delivery comes whatever its size, because no data of the lane is in memory.</param>
internal sealed record ClaimRequest(Guid[] Lanes, int[] Places, long[] Bytes, bool[] Idle);

/// <summary>All lanes of this process.</summary>
internal sealed class Lanes(int concurrency, TimeProvider time)
{
    /// <summary>The most data that a lane has in memory, but for a single delivery that is larger.</summary>
    public const long MaxBytes = 4 * 1024 * 1024;

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Lane> _lanes = [];
    private readonly Dictionary<Guid, long> _tenants = [];
    private long _claims;

    /// <summary>
    /// Keeps a place for a delivery that is about to be written, if there is one free and nothing older waits in Postgres.
    /// </summary>
    public bool TryReserve(Guid subscriptionId, int bytes = 0)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (lane.Busy >= concurrency || lane.DueAt <= time.GetTimestamp() || lane.Bytes > 0 && lane.Bytes + bytes > MaxBytes)
                return false;
            lane.Busy++;
            lane.Bytes += bytes;
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

    /// <summary>
    /// Keeps free places of lanes in which something is due: tenants in turn, and the lanes of each in turn, until a claim is full. Who
    /// gets none this time is among the first next time. The lanes asked are taken not to have more due until told.
    /// </summary>
    /// <param name="tenantOf">Whose a lane is; null when it may not be claimed for.</param>
    /// <param name="most">The most places, together.</param>
    public ClaimRequest ReserveDue(Func<Guid, Guid?> tenantOf, int most)
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            var turns = _lanes.Values
                .Where(l => CanStart(l) && l.DueAt <= now)
                .Select(lane => (Lane: lane, Tenant: tenantOf(lane.SubscriptionId)))
                .Where(l => l.Tenant is not null)
                .GroupBy(l => l.Tenant!.Value, l => l.Lane)
                .OrderBy(tenant => _tenants.GetValueOrDefault(tenant.Key))
                .SelectMany(
                    tenant => tenant.OrderBy(l => l.AskedBy).Select((lane, round) => (Tenant: tenant.Key, Lane: lane, Round: round)))
                .OrderBy(l => l.Round);
            var (asked, places) = (new List<Lane>(), new List<int>());
            _claims++;
            foreach (var (tenant, lane, _) in turns)
            {
                if (most == 0)
                    break;
                var free = Math.Min(Math.Min(concurrency - lane.Busy, most), FitIn(lane));
                most -= free;
                asked.Add(lane);
                places.Add(free);
                lane.Busy += free;
                lane.DueAt = long.MaxValue;
                lane.AskedBy = _claims;
                _tenants[tenant] = _claims;
            }
            return new ClaimRequest(
                [.. asked.Select(l => l.SubscriptionId)], [.. places],
                [.. asked.Select(l => MaxBytes - l.Bytes)], [.. asked.Select(l => l.Bytes == 0)]);
        }
    }

    /// <summary>What a claim brought a lane; places that it did not fill are given back.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="places">Places that were reserved.</param>
    /// <param name="filled">How many of them have got a delivery.</param>
    /// <param name="bytes">Data of what was claimed.</param>
    /// <param name="tooLarge">Data of what comes next, where that is too large for now.</param>
    public void Claimed(Guid subscriptionId, int places, int filled, long bytes, int? tooLarge)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= places - filled;
            lane.Bytes += bytes;
            var hasMore = tooLarge is not null || filled == places;
            lane.NextBytes = tooLarge ?? (hasMore ? bytes / filled : 0);
            if (hasMore)
                lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
        }
    }

    /// <summary>A claim failed: all its places are given back, and what is due is still due.</summary>
    public void NotClaimed(Guid subscriptionId, int places)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= places;
            lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
        }
    }

    /// <summary>How long until a lane with a free place has something due; at most <paramref name="atMost"/>.</summary>
    public TimeSpan UntilNextDue(TimeSpan atMost, Func<Guid, Guid?> tenantOf)
    {
        lock (_lock)
        {
            var next = _lanes.Values.Where(l => CanStart(l) && tenantOf(l.SubscriptionId) is not null)
                .Select(l => l.DueAt).DefaultIfEmpty(long.MaxValue).Min();
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

    private bool CanStart(Lane lane) => lane.Busy < concurrency && FitIn(lane) > 0;

    /// <summary>Whether something that is due can be started now.</summary>
    private bool IsWaited(Lane lane) => lane.DueAt <= time.GetTimestamp() && CanStart(lane);

    /// <summary>
    /// How many of what is due there is memory for, as far as their size is known. More would be locked in Postgres, and left.
    /// </summary>
    private static int FitIn(Lane lane) =>
        lane.Bytes == 0 && lane.NextBytes > MaxBytes ? 1 : (int)((MaxBytes - lane.Bytes) / Math.Max(lane.NextBytes, 1));

    private Lane Get(Guid subscriptionId)
    {
        if (!_lanes.TryGetValue(subscriptionId, out var lane))
            _lanes.Add(subscriptionId, lane = new Lane(subscriptionId));
        return lane;
    }
}
