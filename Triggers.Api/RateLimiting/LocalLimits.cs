using System.Collections.Concurrent;
using Triggers.Api.Auth;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// The limits of this process alone: without Redis, and while it is away. The same decisions as the script in <see cref="RedisLimits"/>.
/// The counts of the day start with the process.
/// </summary>
internal sealed class LocalLimits(TimeProvider time)
{
    private static readonly TimeSpan MaxIdle = TimeSpan.FromHours(2);

    private readonly ConcurrentDictionary<Guid, Account> _accounts = new();
    private long _today;

    /// <summary>Decides, for this process.</summary>
    public Standing Take(Limits limits, Cost cost)
    {
        var now = time.GetTimestamp();
        var clock = time.GetUtcNow();
        var day = clock.ToUnixTimeSeconds() / 86_400;
        if (Interlocked.Exchange(ref _today, day) != day)
            ForgetIdle(now);
        var account = _accounts.GetOrAdd(limits.AccountId, static _ => new Account());
        lock (account)
        {
            var key = account.KeyOf(limits.LimitId);
            account.Bring(day, now);
            key.Bring(day, now);
            var seconds = time.GetElapsedTime(account.At, now).TotalSeconds;
            account.At = now;
            account.Requests.Refill(limits.Requests, seconds);
            account.Events.Refill(limits.Events, seconds);
            account.Bytes.Refill(limits.Bytes, seconds);
            key.Requests.Refill(limits.KeyRequests, time.GetElapsedTime(key.At, now).TotalSeconds);
            key.At = now;

            var (verdict, wait) = Decide(limits, cost, account, key);
            if (verdict is Verdict.Allowed or > Verdict.Limited)
            {
                account.Requests.Take(cost.Requests);
                key.Requests.Take(cost.Requests);
                account.RequestsToday += cost.Requests;
                key.RequestsToday += cost.Requests;
            }
            if (verdict == Verdict.Allowed)
            {
                account.Events.Take(cost.Events);
                account.Bytes.Take(cost.Bytes);
                account.EventsToday += cost.AllEventsOfDay;
                key.EventsToday += cost.AllEventsOfDay;
            }
            return new Standing(
                verdict, wait, day, (int)(86_400 - clock.ToUnixTimeSeconds() % 86_400),
                account.Requests.Left, account.Events.Left, account.Bytes.Left, key.Requests.Left,
                account.EventsToday, account.RequestsToday, key.EventsToday, key.RequestsToday);
        }
    }

    /// <summary>Gives back events of a day that were taken and not accepted.</summary>
    public void GiveBack(Limits limits, long day, int events)
    {
        if (!_accounts.TryGetValue(limits.AccountId, out var account))
            return;
        lock (account)
        {
            account.Events.Take(-events);
            foreach (var counts in (Counts[])[account, account.KeyOf(limits.LimitId)])
            {
                if (counts.Day == day)
                    counts.EventsToday = Math.Max(0, counts.EventsToday - events);
            }
        }
    }

    private static (Verdict, int WaitSeconds) Decide(Limits limits, Cost cost, Account account, Counts key)
    {
        if (Math.Max(account.Requests.Wait(
            limits.Requests, cost.Requests), key.Requests.Wait(limits.KeyRequests, cost.Requests)) is > 0 and var wait)
            return (Verdict.Limited, wait);
        if (cost.AllEventsOfDay > 0 && account.EventsToday + cost.AllEventsOfDay > limits.EventsPerDay)
            return (Verdict.QuotaExceeded, 0);
        if (account.Events.Wait(limits.Events, cost.Events) is > 0 and var events)
            return (Verdict.EventsLimited, events);
        return account.Bytes.Wait(limits.Bytes, cost.Bytes) is > 0 and var bytes ? (Verdict.BytesLimited, bytes) : (Verdict.Allowed, 0);
    }

    /// <summary>Nothing that is used is as much in debt.</summary>
    private void ForgetIdle(long now)
    {
        foreach (var (id, account) in _accounts)
        {
            if (time.GetElapsedTime(account.At, now) > MaxIdle)
                _accounts.TryRemove(id, out _);
        }
    }

    private class Counts
    {
        public Bucket Requests;

        public long At { get; set; }

        public long Day { get; private set; }

        public long EventsToday { get; set; }

        public long RequestsToday { get; set; }

        /// <summary>Begins anew with the day.</summary>
        public void Bring(long day, long now)
        {
            if (Day == day)
                return;
            if (Day == 0)
                At = now;
            (Day, EventsToday, RequestsToday) = (day, 0, 0);
        }
    }

    private sealed class Account : Counts
    {
        private readonly Dictionary<Guid, Counts> _keys = [];

        public Bucket Events;
        public Bucket Bytes;

        public Counts KeyOf(Guid id) => _keys.TryGetValue(id, out var key) ? key : _keys[id] = new Counts();
    }

    private struct Bucket
    {
        // Null while there is no limit; a limit begins with a full bucket.
        private double? _tokens;

        public readonly long Left => (long)Math.Max(0, Math.Floor((_tokens ?? 0) + 0.000001));

        public void Refill(Rate? rate, double seconds) =>
            _tokens = rate is { } r ? Math.Min(r.Burst, (_tokens ?? r.Burst) + seconds * r.PerSecond) : null;

        public readonly int Wait(Rate? rate, long cost) =>
            rate is { } r && cost > 0 ? r.SecondsTo(Math.Min(cost, r.Burst) - _tokens!.Value) : 0;

        public void Take(long cost) => _tokens -= cost;
    }
}
