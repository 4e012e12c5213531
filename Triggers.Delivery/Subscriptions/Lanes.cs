namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// The way to one subscription: so many attempts at once, so much data in memory, and no more. What does not fit stays in Postgres, so a
/// lane that hangs holds up nobody. Guarded by the lock of <see cref="Lanes"/>.
/// </summary>
internal sealed class Lane(Guid subscriptionId, double limit)
{
    public Guid SubscriptionId { get; } = subscriptionId;

    /// <summary>What the receiver is known to stand, in attempts at once; the fraction is what has grown toward one more.</summary>
    public double Limit { get; set; } = limit;

    /// <summary>The most at once whatever it stands: none while its circuit is open, one as a probe; null while it is closed.</summary>
    public int? Cap { get; set; }

    /// <summary>The most attempts in flight.</summary>
    public int Places => Math.Min((int)Limit, Cap ?? int.MaxValue);

    /// <summary>When it was halved last: what began before says nothing of half as many.</summary>
    public long HalvedAt { get; set; }

    /// <summary>Timestamp until when nothing is started, because the receiver asked for that.</summary>
    public long HeldUntil { get; set; }

    /// <summary>Attempts in flight, and places kept for what is being claimed.</summary>
    public int Busy { get; set; }

    /// <summary>Data of those of them whose request is not written yet.</summary>
    public long Bytes { get; set; }

    /// <summary>Timestamp from when on something is due, as far as this process knows; <see cref="long.MaxValue"/> for nothing.</summary>
    public long DueAt { get; set; } = long.MaxValue;

    /// <summary>Whether something is due that is too large to be started beside what is in memory.</summary>
    public bool WaitsForMemory { get; set; }

    /// <summary>Which claim asked for it last.</summary>
    public long AskedBy { get; set; }
}

/// <summary>What a claim asks for: of each lane, once, at most so many deliveries and so much data.</summary>
/// <param name="Lanes">Subscriptions.</param>
/// <param name="Places">The most deliveries of each.</param>
/// <param name="Bytes">The most data of each.</param>
/// <param name="Idle">Whether one delivery comes whatever its size, because no data of the lane is in memory.</param>
internal sealed record ClaimRequest(Guid[] Lanes, int[] Places, long[] Bytes, bool[] Idle);

/// <summary>
/// All lanes of this process. How much one takes at once is found out: half as much where the receiver is overwhelmed, and a little more
/// with every success, up to a limit; nothing while its circuit is open.
/// </summary>
/// <param name="concurrency">What a lane begins with.</param>
/// <param name="time">The clock.</param>
/// <param name="most">What it may grow to; 0: it doesn't.</param>
internal sealed class Lanes(int concurrency, TimeProvider time, int most = 0)
{
    /// <summary>The most data that a lane has in memory, but for a single delivery that is larger.</summary>
    public const long MaxBytes = 4 * 1024 * 1024;

    /// <summary>How long an idle receiver is remembered to have been overwhelmed.</summary>
    private static readonly TimeSpan s_memory = TimeSpan.FromMinutes(1);

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
            var now = time.GetTimestamp();
            if (!CanStart(lane, now) || lane.DueAt <= now || lane.Bytes > 0 && lane.Bytes + bytes > MaxBytes)
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
            return lane.DueAt <= time.GetTimestamp();
        }
    }

    /// <summary>Data is no longer needed in memory. True when something of that lane waits for that.</summary>
    public bool ReleaseBytes(Guid subscriptionId, int bytes)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Bytes -= bytes;
            if (!lane.WaitsForMemory)
                return false;
            lane.WaitsForMemory = false;
            lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
            return true;
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
                .Where(l => CanStart(l, now) && l.DueAt <= now)
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
                var free = Math.Min(lane.Places - lane.Busy, most);
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
    /// <param name="unused">Places that were reserved and not filled.</param>
    /// <param name="bytes">Data of what was claimed.</param>
    /// <param name="mayHaveMore">Whether more may be due.</param>
    /// <param name="waitsForMemory">Whether more is due that is too large for now.</param>
    public void Claimed(Guid subscriptionId, int unused, long bytes, bool mayHaveMore, bool waitsForMemory)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= unused;
            lane.Bytes += bytes;
            // What it waits for may have been let go since it was asked.
            lane.WaitsForMemory = waitsForMemory && lane.Bytes > 0;
            if (mayHaveMore || waitsForMemory && lane.Bytes == 0)
                lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
        }
    }

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

    /// <summary>Whether something is due and nothing is in flight.</summary>
    public bool Waits(Guid subscriptionId)
    {
        lock (_lock)
            return _lanes.TryGetValue(subscriptionId, out var lane) && lane.Busy == 0 && lane.DueAt <= time.GetTimestamp();
    }

    /// <summary>How long until a lane with a free place has something due; at most <paramref name="atMost"/>.</summary>
    public TimeSpan UntilNextDue(TimeSpan atMost, Func<Guid, Guid?> tenantOf)
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            var next = _lanes.Values.Where(l => HasPlace(l) && tenantOf(l.SubscriptionId) is not null)
                .Select(l => Math.Max(l.DueAt, l.HeldUntil)).DefaultIfEmpty(long.MaxValue).Min();
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
            var now = time.GetTimestamp();
            foreach (var lane in _lanes.Values.Where(l => l.Busy == 0 && l.DueAt == long.MaxValue && !l.WaitsForMemory
                && l.Cap is null && l.HeldUntil <= now && (l.HalvedAt == 0 || time.GetElapsedTime(l.HalvedAt) > s_memory)).ToArray())
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
        var (full, active, waiting, held, paused) = (0, 0, 0, 0, 0);
        lock (_lock)
        {
            var now = time.GetTimestamp();
            foreach (var lane in _lanes.Values)
            {
                if (isPaused(lane.SubscriptionId))
                    paused++;
                else if (lane.Cap is not null || lane.HeldUntil > now)
                    held++;
                else if (lane.Busy >= lane.Places)
                    full++;
                else if (lane.Busy > 0)
                    active++;
                else
                    waiting++;
            }
        }
        return [("full", full), ("active", active), ("waiting", waiting), ("held", held), ("paused", paused)];
    }

    private static bool HasPlace(Lane lane) => lane.Busy < lane.Places && !lane.WaitsForMemory;

    private static bool CanStart(Lane lane, long now) => HasPlace(lane) && lane.HeldUntil <= now;

    private Lane Get(Guid subscriptionId)
    {
        if (!_lanes.TryGetValue(subscriptionId, out var lane))
            _lanes.Add(subscriptionId, lane = new Lane(subscriptionId, concurrency));
        return lane;
    }
}
