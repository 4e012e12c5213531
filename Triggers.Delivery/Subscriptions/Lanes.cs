using Triggers.Core.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.ServiceDefaults.Redis;

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
    public int Places => Math.Min((int)Limit, Math.Min(Cap ?? int.MaxValue, Permits?.Limits.Concurrency ?? int.MaxValue));

    /// <summary>What its subscription's limits leave to it; null: it has none.</summary>
    public Permits? Permits { get; set; }

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

    /// <summary>How many new deliveries came since the last claim that are not to wait for all that is due.</summary>
    public int Passing { get; set; }

    /// <summary>
    /// How large the next of what is due is: known of what was too large beside what is in memory, otherwise as large as the last were.
    /// </summary>
    public long NextBytes { get; set; }

    /// <summary>How many wait for others to go with, as far as this process knows.</summary>
    public int Gathered { get; set; }

    /// <summary>Data of those.</summary>
    public long GatheredBytes { get; set; }

    /// <summary>Which claim asked for it last.</summary>
    public long AskedBy { get; set; }
}

/// <summary>What a claim asks for: of each lane, once, at most so many deliveries and so much data.</summary>
/// <param name="Lanes">Subscriptions.</param>
/// <param name="Places">The most deliveries of each.</param>
/// <param name="Bytes">The most data of each.</param>
/// <param name="Idle">Whether one delivery comes whatever its size, because no data of the lane is in memory.</param>
/// <param name="Batches">How the lanes that take batches, a place each, take them; null for the others.</param>
internal sealed record ClaimRequest(Guid[] Lanes, int[] Places, long[] Bytes, bool[] Idle, Batching?[] Batches);

/// <summary>
/// All lanes of this process. How much one takes at once is found out: half as much where the receiver is overwhelmed, and a little more
/// with every success, up to a limit; nothing while its circuit is open.
/// </summary>
/// <param name="concurrency">What a lane begins with.</param>
/// <param name="time">The clock.</param>
/// <param name="most">What it may grow to; 0: it doesn't.</param>
/// <param name="limitsOf">The limits of a subscription, where it has any.</param>
/// <param name="batchOf">How a subscription gets several events in one request, where it does.</param>
internal sealed class Lanes(
    int concurrency, TimeProvider time, int most = 0, Func<Guid, SubscriptionLimits?>? limitsOf = null,
    Func<Guid, Batching?>? batchOf = null)
{
    /// <summary>The most data that a lane has in memory, but for a single delivery that is larger.</summary>
    public const long MaxBytes = 4 * 1024 * 1024;

    /// <summary>How long an idle receiver is remembered to have been overwhelmed.</summary>
    private static readonly TimeSpan s_memory = TimeSpan.FromMinutes(1);

    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, Lane> _lanes = [];
    private readonly Dictionary<Guid, long> _tenants = [];
    private readonly HashSet<Lane> _limited = [];
    private long _claims;

    /// <summary>Rings when something of a subscription with limits is to be asked or told.</summary>
    public Signal Limited { get; } = new();

    /// <summary>
    /// Keeps a place for a delivery that is about to be written, if there is one free. While older ones are due in Postgres, as many may
    /// pass between two claims as half the places of a wide lane are: to write them first, and claim them, costs twice as much, and a lane
    /// that has fallen behind would not catch up.
    /// </summary>
    public bool TryReserve(Guid subscriptionId, int bytes = 0)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            var now = time.GetTimestamp();
            if (lane.DueAt <= now && ++lane.Passing > MayPass(lane)
                || !CanStart(lane, now) || lane.Bytes > 0 && lane.Bytes + bytes > MaxBytes)
                return false;
            lane.Busy++;
            lane.Bytes += bytes;
            lane.Permits?.Take(1);
            return true;
        }
    }

    /// <summary>Whether something older is due in Postgres.</summary>
    public bool IsBehind(Guid subscriptionId)
    {
        lock (_lock)
            return Get(subscriptionId).DueAt <= time.GetTimestamp();
    }

    /// <summary>So many have found no place: where a limit is in the way, it is asked for them.</summary>
    public void Want(Guid subscriptionId, int requests)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (lane.Permits is not null && HasPlace(lane) && !HasPermit(lane, time.GetTimestamp()))
                Want(lane, Math.Min(requests, lane.Places - lane.Busy));
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

    /// <summary>So many more wait for others to go with: until there are enough of them, or it takes too long.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="deliveries">How many.</param>
    /// <param name="bytes">Data of them.</param>
    /// <param name="room">The most data of a batch.</param>
    /// <param name="wait">How long they wait at most.</param>
    public void Gather(Guid subscriptionId, int deliveries, long bytes, long room, TimeSpan wait)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Gathered += deliveries;
            lane.GatheredBytes += bytes;
            if (lane.Gathered >= batchOf?.Invoke(subscriptionId)?.Max || lane.GatheredBytes >= room)
                wait = TimeSpan.Zero;
        }
        DueIn(subscriptionId, wait);
    }

    /// <summary>An attempt ended, or a reservation came to nothing. True when something of that lane waits for the place.</summary>
    public bool Release(Guid subscriptionId)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy--;
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
                .Where(l => MayStart(l, now) && l.DueAt <= now)
                .Select(lane => (Lane: lane, Tenant: tenantOf(lane.SubscriptionId)))
                .Where(l => l.Tenant is not null)
                .GroupBy(l => l.Tenant!.Value, l => l.Lane)
                .OrderBy(tenant => _tenants.GetValueOrDefault(tenant.Key))
                .SelectMany(
                    tenant => tenant.OrderBy(l => l.AskedBy).Select((lane, round) => (Tenant: tenant.Key, Lane: lane, Round: round)))
                .OrderBy(l => l.Round);
            var (asked, places, batches) = (new List<Lane>(), new List<int>(), new List<Batching?>());
            _claims++;
            foreach (var (tenant, lane, _) in turns)
            {
                if (most == 0)
                    break;
                var batch = batchOf?.Invoke(lane.SubscriptionId);
                var kept = Math.Min(lane.Passing, MayPass(lane));
                var free = Math.Min(
                    Math.Min(Math.Max(lane.Places - lane.Busy - kept, 1), batch is null ? most : 1), FitIn(lane));
                if (lane.Permits is { } permits)
                {
                    var permitted = permits.IsBusy ? 0 : Math.Min(free, permits.Available(lane.Busy, now));
                    if (permitted < free)
                        Want(lane, free - permitted);
                    if (permitted == 0)
                        continue;
                    free = permitted;
                    permits.Take(free);
                    permits.IsBusy = true;
                }
                most -= batch is null ? free : Math.Min(batch.Max, most);
                (lane.Gathered, lane.GatheredBytes) = (0, 0);
                asked.Add(lane);
                places.Add(free);
                batches.Add(batch);
                lane.Busy += free;
                lane.DueAt = long.MaxValue;
                lane.Passing = 0;
                lane.AskedBy = _claims;
                _tenants[tenant] = _claims;
            }
            return new ClaimRequest(
                [.. asked.Select(l => l.SubscriptionId)], [.. places],
                [.. asked.Select(l => MaxBytes - l.Bytes)], [.. asked.Select(l => l.Bytes == 0)], [.. batches]);
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
            EndClaim(lane, places - filled, hasMore);
            lane.NextBytes = tooLarge ?? (hasMore ? bytes / filled : 0);
            if (hasMore)
                lane.DueAt = Math.Min(lane.DueAt, time.GetTimestamp());
        }
    }

    /// <summary>What a claim of a batch brought a lane.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="bytes">Data of the batch; null: there was none to be taken yet.</param>
    /// <param name="room">The most data of a batch: only where there is so much room is one claimed.</param>
    /// <param name="gathered">How many wait for others still, and their data.</param>
    /// <param name="askIn">When to ask again; null when told.</param>
    public void ClaimedBatch(Guid subscriptionId, long? bytes, long room, (int Deliveries, long Bytes) gathered, TimeSpan? askIn)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= bytes is null ? 1 : 0;
            lane.Bytes += bytes ?? 0;
            lane.NextBytes = room;
            lane.Gathered += gathered.Deliveries;
            lane.GatheredBytes += gathered.Bytes;
            EndClaim(lane, bytes is null ? 1 : 0, hasMore: askIn == TimeSpan.Zero);
        }
        if (askIn is { } wait)
            DueIn(subscriptionId, wait);
    }

    /// <summary>A claim failed: all its places are given back, and what is due is still due.</summary>
    public void NotClaimed(Guid subscriptionId, int places)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= places;
            EndClaim(lane, 0, hasMore: true);
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

    /// <summary>What is to be asked or told now of limits, of each lane that has some.</summary>
    /// <param name="wait">When there is more.</param>
    public List<PermitRequest> AskLimits(out TimeSpan wait)
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            var requests = new List<PermitRequest>();
            foreach (var lane in _limited.Where(l => l.Permits!.NextAt <= now).ToArray())
            {
                if (Limit(lane) && lane.Permits!.Ask(lane, IsWaited(lane), now, time) is { } request)
                    requests.Add(request);
            }
            var next = _limited.Select(l => l.Permits!.NextAt).DefaultIfEmpty(long.MaxValue).Min();
            wait = next == long.MaxValue ? Timeout.InfiniteTimeSpan : next <= now ? TimeSpan.Zero : time.GetElapsedTime(now, next);
            return requests;
        }
    }

    /// <summary>What came of it.</summary>
    /// <returns>Whether something begins to wait for a limit.</returns>
    public bool LimitsAnswered(PermitRequest request, Permitted answer)
    {
        lock (_lock)
            return _lanes.TryGetValue(request.SubscriptionId, out var lane) && lane.Permits is { } permits
                && permits.Answer(request, answer, time.GetTimestamp(), time);
    }

    /// <summary>Gives up all that limits have permitted.</summary>
    public List<PermitRequest> LetGoOfLimits()
    {
        lock (_lock)
            return [.. _limited.Where(l => l.Permits!.Held > 0).Select(l => new PermitRequest(l.SubscriptionId, l.Permits!.Limits, 0, 0))];
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
            // Who has asked for a permit is woken when there is one.
            var next = _lanes.Values
                .Where(l => HasPlace(l) && tenantOf(l.SubscriptionId) is not null && (l.Permits is not { } p || p.Wanted == 0 && !p.IsBusy))
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
            foreach (var lane in _lanes.Values.Where(l => l.Busy == 0 && l.DueAt == long.MaxValue
                && l.Cap is null && l.HeldUntil <= now && (l.HalvedAt == 0 || time.GetElapsedTime(l.HalvedAt) > s_memory)
                && l.Permits is not { IsIdle: false }).ToArray())
            {
                _lanes.Remove(lane.SubscriptionId);
                _limited.Remove(lane);
            }
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

    private static bool HasPlace(Lane lane) => lane.Busy < lane.Places && FitIn(lane) > 0;

    private static int MayPass(Lane lane) => lane.Permits is null && lane.Places >= 4 ? lane.Places / 2 : 0;

    private static bool HasPermit(Lane lane, long now) =>
        lane.Permits is not { } permits || !permits.IsBusy && permits.Available(lane.Busy, now) > 0;

    /// <summary>Whether something can be started as soon as its limits permit it.</summary>
    private static bool MayStart(Lane lane, long now) => HasPlace(lane) && lane.HeldUntil <= now;

    private static bool CanStart(Lane lane, long now) => MayStart(lane, now) && HasPermit(lane, now);

    /// <summary>Whether something that is due can be started now.</summary>
    private bool IsWaited(Lane lane) => time.GetTimestamp() is var now && lane.DueAt <= now && CanStart(lane, now);

    /// <summary>
    /// How many of what is due there is memory for, as far as their size is known. More would be locked in Postgres, and left.
    /// </summary>
    private static int FitIn(Lane lane) =>
        lane.Bytes == 0 && lane.NextBytes > MaxBytes ? 1 : (int)((MaxBytes - lane.Bytes) / Math.Max(lane.NextBytes, 1));

    private Lane Get(Guid subscriptionId)
    {
        if (!_lanes.TryGetValue(subscriptionId, out var lane))
            _lanes.Add(subscriptionId, lane = new Lane(subscriptionId, concurrency));
        if (limitsOf is not null)
            Limit(lane);
        return lane;
    }

    /// <summary>Gives a lane the limits that its subscription has now.</summary>
    /// <returns>Whether there are any.</returns>
    private bool Limit(Lane lane)
    {
        if (limitsOf?.Invoke(lane.SubscriptionId) is not { } limits)
        {
            if (lane.Permits is not null && _limited.Remove(lane))
                lane.Permits = null;
            return false;
        }
        if (lane.Permits is null)
            lane.Permits = new Permits { Limits = limits };
        else if (lane.Permits.Limits != limits)
            lane.Permits.Limits = limits;
        else
            return true;
        _limited.Add(lane);
        Limited.Set();
        return true;
    }

    private void Want(Lane lane, int requests)
    {
        if (lane.Permits!.Want(requests))
            Limited.Set();
    }

    private void EndClaim(Lane lane, int unfilled, bool hasMore)
    {
        if (lane.Permits is not { } permits)
            return;
        permits.Claimed(unfilled, hasMore);
        permits.SettleSoon(time.GetTimestamp(), time);
        Limited.Set();
    }
}
