using Microsoft.Extensions.Time.Testing;
using Triggers.Api.RateLimiting;
using Triggers.Core;

namespace Triggers.Tests.Api.RateLimiting;

public sealed class LocalLimitsTests
{
    private readonly FakeTimeProvider _time = new(new DateTimeOffset(2026, 1, 31, 23, 59, 0, TimeSpan.Zero));

    [Fact]
    public void The_quota_begins_anew_at_midnight_UTC()
    {
        using var limits = new LocalLimits(_time);
        var limit = new Limit(TypeId.NewGuid(), 1_000, 1_000, EventsPerDay: 2);

        Assert.Equal(Verdict.Allowed, limits.Take(limit, Cost.OfRequest(2)).Verdict);
        var refused = limits.Take(limit, Cost.OfRequest(1));
        Assert.Equal((Verdict.QuotaExceeded, 60, 2L), (refused.Verdict, refused.SecondsLeft, refused.EventsToday));
        Assert.Equal(new DateTimeOffset(2026, 2, 1, 0, 0, 0, TimeSpan.Zero), refused.ResetsAt);

        _time.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(Verdict.Allowed, limits.Take(limit, Cost.OfRequest(1)).Verdict);
        // What was taken yesterday is not given back today.
        limits.GiveBack(limit.KeyId, refused.Day, 2);
        Assert.Equal(1, limits.Take(limit, default).EventsToday);
        limits.GiveBack(limit.KeyId, refused.Day + 1, 1);
        Assert.Equal(0, limits.Take(limit, default).EventsToday);
    }

    [Fact]
    public void What_the_rate_refuses_is_not_taken_from_the_quota()
    {
        using var limits = new LocalLimits(_time);
        var limit = new Limit(TypeId.NewGuid(), 1, 10, EventsPerDay: 100);

        Assert.Equal(Verdict.Allowed, limits.Take(limit, new Cost(6, 6, 6, 1)).Verdict);
        var refused = limits.Take(limit, new Cost(6, 7, 6, 1));

        Assert.Equal((Verdict.Limited, 4, 3, 6L, 1L), (refused.Verdict, refused.TokensLeft, refused.WaitSeconds, refused.EventsToday, refused.RequestsToday));
    }

    [Theory]
    [InlineData(1, 10, 0, 1)]
    [InlineData(10, 10, 9, 10)]
    [InlineData(1_000, 10, 9, 10)]
    [InlineData(3, 10, 2, 3)]
    public void A_batch_never_asks_for_more_than_the_bucket_holds(int events, int burst, int tokens, int needed) =>
        Assert.Equal(new Cost(tokens, needed, events, 0), Cost.OfBatch(events, events, burst));
}
