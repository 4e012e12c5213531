using Triggers.Core.Subscriptions;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Delivery.Subscriptions;

/// <summary>What the limits of subscriptions leave to lanes, as it is asked for.</summary>
internal sealed partial class Lanes
{
    /// <summary>So many have found no place: where a limit is in the way, it is asked for them.</summary>
    public void Want(Guid subscriptionId, int requests)
    {
        lock (_lock)
        {
            var lane = Get(subscriptionId);
            if (lane.Permits is not null && lane.HasPlace && !lane.HasPermit(time.GetTimestamp()))
                Want(lane, Math.Min(requests, lane.Places - lane.Busy));
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
}
