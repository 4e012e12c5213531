using System.Collections.Concurrent;
using System.Threading.RateLimiting;

namespace Triggers.Api.RateLimiting;

/// <summary>The limits of this process alone: without Redis, and while it is away. The counts of the day start with the process.</summary>
internal sealed class LocalLimits(TimeProvider time) : IDisposable
{
    private readonly PartitionedRateLimiter<Bucket> _limiter = PartitionedRateLimiter.Create<Bucket, Bucket>(bucket =>
        RateLimitPartition.GetTokenBucketLimiter(bucket, static bucket => new TokenBucketRateLimiterOptions
        {
            TokenLimit = bucket.Burst,
            TokensPerPeriod = 1,
            ReplenishmentPeriod = TimeSpan.FromSeconds(1.0 / bucket.PerSecond),
            QueueLimit = 0,
        }));

    private volatile Day _today = new(0);

    /// <summary>Decides, for this process.</summary>
    public Standing Take(Limit limit, Cost cost)
    {
        var now = time.GetUtcNow();
        var day = Today(now);
        var counts = day.Keys.GetOrAdd(limit.KeyId, static _ => new Counts());
        var bucket = new Bucket(limit.KeyId, limit.PerSecond, limit.Burst);
        var verdict = Take(counts, bucket, limit.EventsPerDay, cost);
        var left = (int)(_limiter.GetStatistics(bucket)?.CurrentAvailablePermits ?? limit.Burst);
        var missing = Math.Max(verdict == Verdict.Limited ? 1 : 0, cost.Needed - left);
        return new Standing(
            verdict, left, (missing + limit.PerSecond - 1) / limit.PerSecond,
            day.Number, (int)(86_400 - now.ToUnixTimeSeconds() % 86_400), counts.Events, counts.Requests);
    }

    /// <summary>Gives back events of a day that were taken from the quota and not accepted.</summary>
    public void GiveBack(Guid keyId, long day, int events)
    {
        var today = _today;
        if (today.Number == day && today.Keys.TryGetValue(keyId, out var counts))
            counts.Add(-events, 0);
    }

    public void Dispose() => _limiter.Dispose();

    private Verdict Take(Counts counts, Bucket bucket, int? eventsPerDay, Cost cost)
    {
        if (!counts.TryAddEvents(cost.Events, eventsPerDay))
            return Verdict.QuotaExceeded;
        if (cost.Tokens > 0)
        {
            using var lease = _limiter.AttemptAcquire(bucket, cost.Tokens);
            if (!lease.IsAcquired)
            {
                counts.Add(-cost.Events, 0);
                return Verdict.Limited;
            }
        }
        counts.Add(0, cost.Requests);
        return Verdict.Allowed;
    }

    private Day Today(DateTimeOffset now)
    {
        var number = now.ToUnixTimeSeconds() / 86_400;
        var today = _today;
        if (today.Number == number)
            return today;
        // Whoever loses the race at midnight takes the winner's.
        var next = new Day(number);
        var seen = Interlocked.CompareExchange(ref _today, next, today);
        return seen == today ? next : seen;
    }

    // A key whose limit was changed gets a new bucket; the old one is dropped when nobody asks for it any more.
    private readonly record struct Bucket(Guid KeyId, int PerSecond, int Burst);

    private sealed class Day(long number)
    {
        public long Number { get; } = number;

        public ConcurrentDictionary<Guid, Counts> Keys { get; } = new();
    }

    private sealed class Counts
    {
        private long _events;
        private long _requests;

        public long Events => Interlocked.Read(ref _events);

        public long Requests => Interlocked.Read(ref _requests);

        public bool TryAddEvents(int events, int? atMost)
        {
            if (events == 0)
                return true;
            var sum = Interlocked.Add(ref _events, events);
            if (atMost is null || sum <= atMost)
                return true;
            Interlocked.Add(ref _events, -events);
            return false;
        }

        public void Add(int events, int requests)
        {
            if (events != 0)
                Interlocked.Add(ref _events, events);
            if (requests != 0)
                Interlocked.Add(ref _requests, requests);
        }
    }
}
