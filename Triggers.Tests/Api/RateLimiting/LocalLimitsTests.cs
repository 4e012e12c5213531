using Microsoft.Extensions.Time.Testing;
using Triggers.Api.Auth;
using Triggers.Api.RateLimiting;
using Triggers.Core;

namespace Triggers.Tests.Api.RateLimiting;

public sealed class LocalLimitsTests
{
    private readonly FakeTimeProvider _time = new(new DateTimeOffset(2026, 1, 31, 23, 59, 0, TimeSpan.Zero));

    [Fact]
    public void The_quota_begins_anew_at_midnight_UTC()
    {
        var local = new LocalLimits(_time);
        var limits = Of(1_000, 1_000) with { EventsPerDay = 2 };

        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 2, 0)).Verdict);
        var refused = local.Take(limits, new Cost(1, 1, 0));
        Assert.Equal((Verdict.QuotaExceeded, 60, 2L), (refused.Verdict, refused.SecondsLeft, refused.EventsToday));
        Assert.Equal(new DateTimeOffset(2026, 2, 1, 0, 0, 0, TimeSpan.Zero), refused.ResetsAt);

        _time.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 1, 0)).Verdict);
        // What was taken yesterday is not given back today.
        local.GiveBack(limits, refused.Day, 2);
        Assert.Equal(1, local.Take(limits, default).EventsToday);
        local.GiveBack(limits, refused.Day + 1, 1);
        Assert.Equal(0, local.Take(limits, default).EventsToday);
    }

    [Fact]
    public void What_the_rate_refuses_is_not_taken_and_what_the_events_refuse_costs_a_request()
    {
        var local = new LocalLimits(_time);
        var limits = Of(1, 3) with { EventsPerDay = 10 };

        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 6, 0)).Verdict);
        var refused = local.Take(limits, new Cost(1, 6, 0));
        Assert.Equal(
            (Verdict.QuotaExceeded, 1L, 6L, 2L), (refused.Verdict, refused.RequestsLeft, refused.EventsToday, refused.RequestsToday));
        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 0, 0)).Verdict);
        refused = local.Take(limits, new Cost(1, 1, 0));
        Assert.Equal((Verdict.Limited, 1, 0L, 6L, 3L), (
            refused.Verdict, refused.WaitSeconds, refused.RequestsLeft, refused.EventsToday, refused.RequestsToday));
    }

    [Fact]
    public void What_is_larger_than_a_bucket_is_let_in_when_that_is_full_and_paid_for_afterwards()
    {
        var local = new LocalLimits(_time);
        var limits = Of(1_000, 1_000) with { Events = new Rate(10, 10), Bytes = new Rate(1_000, 1_000) };

        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 100, 500)).Verdict);
        var refused = local.Take(limits, new Cost(1, 1, 0));
        Assert.Equal((Verdict.EventsLimited, 10, 0L), (refused.Verdict, refused.WaitSeconds, refused.EventsLeft));
        _time.Advance(TimeSpan.FromSeconds(9));
        Assert.Equal(Verdict.EventsLimited, local.Take(limits, new Cost(1, 1, 0)).Verdict);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 10, 5_000)).Verdict);
        _time.Advance(TimeSpan.FromSeconds(4));
        refused = local.Take(limits, new Cost(1, 1, 1));
        Assert.Equal((Verdict.BytesLimited, 1), (refused.Verdict, refused.WaitSeconds));
        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 1, 0)).Verdict);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(Verdict.Allowed, local.Take(limits, new Cost(1, 1, 1)).Verdict);
    }

    [Fact]
    public void The_keys_of_a_tenant_share_what_it_may_use_and_a_keys_own_limit_comes_on_top()
    {
        var local = new LocalLimits(_time);
        var first = Of(1, 5);
        var second = first with { LimitId = TypeId.NewGuid(), KeyRequests = new Rate(1, 2) };
        var stranger = Of(1, 5);

        foreach (var expected in new[] { Verdict.Allowed, Verdict.Allowed, Verdict.Limited })
            Assert.Equal(expected, local.Take(second, new Cost(1, 0, 0)).Verdict);
        foreach (var expected in new[] { Verdict.Allowed, Verdict.Allowed, Verdict.Allowed, Verdict.Limited })
            Assert.Equal(expected, local.Take(first, new Cost(1, 0, 0)).Verdict);

        var standing = local.Take(second, default);
        Assert.Equal((5L, 2L, 0L), (standing.RequestsToday, standing.KeyRequestsToday, standing.KeyRequestsLeft));
        Assert.Equal(Verdict.Allowed, local.Take(stranger, new Cost(1, 0, 0)).Verdict);
    }

    private static Limits Of(int perSecond, int burst)
    {
        var id = TypeId.NewGuid();
        return new Limits(id, new Rate(perSecond, burst), null, null, null, id, null);
    }
}
