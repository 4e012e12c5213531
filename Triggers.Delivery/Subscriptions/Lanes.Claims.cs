using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Subscriptions;

/// <summary>What a claim asks for: of each lane, once, at most so many deliveries and so much data.</summary>
/// <param name="Lanes">Subscriptions.</param>
/// <param name="Places">The most deliveries of each.</param>
/// <param name="Bytes">The most data of each.</param>
/// <param name="Idle">Whether one delivery comes whatever its size, because no data of the lane is in memory.</param>
/// <param name="From">From when on what is due is looked for; the database's time.</param>
/// <param name="Batches">How the lanes that take batches, a place each, take them; null for the others.</param>
internal sealed record ClaimRequest(Guid[] Lanes, int[] Places, long[] Bytes, bool[] Idle, DateTime[] From, Batching?[] Batches);

/// <summary>What is due, and which of it is claimed next.</summary>
internal sealed partial class Lanes
{
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
                .Where(l => l.HasPlace && tenantOf(l.SubscriptionId) is not null && (l.Permits is not { } p || p.Wanted == 0 && !p.IsBusy))
                .Select(l => Math.Max(l.DueAt, l.HeldUntil)).DefaultIfEmpty(long.MaxValue).Min();
            if (next <= now)
                return TimeSpan.Zero;
            var wait = next == long.MaxValue ? atMost : time.GetElapsedTime(now, next);
            return wait < atMost ? wait : atMost;
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
                .Where(l => l.MayStart(now) && l.DueAt <= now)
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
                var kept = Math.Max(Math.Min(lane.Passing, lane.MayPass) - lane.New, 0);
                var free = Math.Min(
                    Math.Min(Math.Max(lane.Places - lane.Busy - kept, 1), batch is null ? most : 1), lane.Room);
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
                [.. asked.Select(l => MaxBytes - l.Bytes)], [.. asked.Select(l => l.Bytes == 0)],
                [.. asked.Select(l => l.ClaimedTo)], [.. batches]);
        }
    }

    /// <summary>What a claim brought a lane; places that it did not fill are given back.</summary>
    /// <param name="subscriptionId">The lane.</param>
    /// <param name="places">Places that were reserved.</param>
    /// <param name="filled">How many of them have got a delivery.</param>
    /// <param name="bytes">Data of what was claimed.</param>
    /// <param name="tooLarge">Data of what comes next, where that is too large for now.</param>
    /// <param name="to">Until when all that is due is claimed, as far as can be known; the database's time.</param>
    public void Claimed(Guid subscriptionId, int places, int filled, long bytes, int? tooLarge, DateTime to = default)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            lane.Busy -= places - filled;
            lane.Bytes += bytes;
            lane.ClaimedTo = to > lane.ClaimedTo ? to : lane.ClaimedTo;
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

    private void EndClaim(Lane lane, int unfilled, bool hasMore)
    {
        if (lane.Permits is not { } permits)
            return;
        permits.Claimed(unfilled, hasMore);
        permits.SettleSoon(time.GetTimestamp(), time);
        Limited.Set();
    }
}
