using Microsoft.Extensions.Time.Testing;
using Triggers.Core.Subscriptions;
using Triggers.Delivery.Subscriptions;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Tests.Delivery;

/// <summary>How lanes ask for what limits permit, and when.</summary>
public sealed class PermitsTests
{
    private static readonly Guid A = Guid.CreateVersion7();
    private static readonly Guid B = Guid.CreateVersion7();
    private static readonly Guid Tenant = Guid.CreateVersion7();

    private readonly FakeTimeProvider _time = new();
    private SubscriptionLimits? _limits = SubscriptionLimits.Of(10, 1, null);

    [Fact]
    public void A_lane_without_a_permit_asks_once_and_is_not_looked_at_until_it_is_answered()
    {
        var lanes = New();
        lanes.DueIn(A, TimeSpan.Zero);
        lanes.DueIn(B, TimeSpan.FromMinutes(1));

        Assert.Empty(ReserveDue(lanes));
        Assert.Equal(TimeSpan.FromMinutes(1), lanes.UntilNextDue(TimeSpan.FromHours(1), _ => Tenant));
        var request = Assert.Single(lanes.AskLimits(out _));
        Assert.Equal((A, 4), (request.SubscriptionId, request.Wanted));
        Assert.Empty(lanes.AskLimits(out _));

        Assert.True(lanes.LimitsAnswered(request, new Permitted(0, LimitKind.Rate, TimeSpan.FromSeconds(10), "1")));
        Assert.Empty(lanes.AskLimits(out var wait));
        Assert.Equal(10, wait.TotalSeconds, 0.001);
        Assert.Equal(TimeSpan.FromMinutes(1), lanes.UntilNextDue(TimeSpan.FromHours(1), _ => Tenant));
        Assert.Contains(("limited", 1), lanes.CountByState(_ => false));

        _time.Advance(TimeSpan.FromSeconds(10));
        request = Assert.Single(lanes.AskLimits(out _));
        Assert.False(lanes.LimitsAnswered(request, new Permitted(2, LimitKind.Rate, TimeSpan.Zero, "1")));
        Assert.Equal([2], ReserveDue(lanes));
    }

    [Fact]
    public void A_lane_without_limits_asks_for_nothing()
    {
        var lanes = New();
        Assert.True(lanes.TryReserve(B));
        lanes.Release(B);
        lanes.DueIn(B, TimeSpan.Zero);

        Assert.Equal([4], ReserveDue(lanes));
        Assert.Empty(lanes.AskLimits(out var wait));
        Assert.Equal(Timeout.InfiniteTimeSpan, wait);
    }

    [Fact]
    public void What_a_claim_did_not_use_is_given_back()
    {
        var lanes = New();
        Permit(lanes, 4, "7");
        Assert.Equal([4], ReserveDue(lanes));

        lanes.Claimed(A, 4, filled: 1, bytes: 1, tooLarge: null);

        Assert.Empty(lanes.AskLimits(out _));
        _time.Advance(TimeSpan.FromSeconds(1));
        var back = Assert.Single(lanes.AskLimits(out _));
        Assert.Equal((3, "7", 0), (back.GivenBack, back.Counted, back.Wanted));
    }

    [Fact]
    public void A_permit_of_a_rate_that_was_not_used_in_time_is_worth_nothing()
    {
        var lanes = New();
        Permit(lanes, 4, "7");

        _time.Advance(TimeSpan.FromSeconds(2));

        Assert.False(lanes.TryReserve(A));
        Assert.Empty(ReserveDue(lanes));
        Assert.Equal((4, 4), Assert.Single(lanes.AskLimits(out _)) is var r ? (r.GivenBack, r.Wanted) : default);
    }

    [Fact]
    public void Places_are_kept_while_they_are_used_said_to_be_and_given_up_after()
    {
        _limits = SubscriptionLimits.Of(null, null, 2);
        var lanes = New();
        Permit(lanes, 2, "");
        Assert.Equal([2], ReserveDue(lanes));
        lanes.Claimed(A, 2, filled: 2, bytes: 2, tooLarge: null);
        // All that there are: more need not be asked for.
        Assert.Empty(ReserveDue(lanes));

        _time.Advance(SharedPermits.Lapse / 2);
        var renewal = Assert.Single(lanes.AskLimits(out _));
        Assert.Equal((2, 0), (renewal.Held, renewal.Wanted));
        lanes.LimitsAnswered(renewal, new Permitted(0, LimitKind.None, TimeSpan.Zero, ""));

        // A place that comes free is taken without asking.
        Assert.True(lanes.Release(A));
        Assert.Equal([1], ReserveDue(lanes));
        lanes.Claimed(A, 1, filled: 0, bytes: 0, tooLarge: null);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(1, Assert.Single(lanes.AskLimits(out _)).Held);
    }

    [Fact]
    public void Who_waits_for_others_places_asks_less_and_less_often()
    {
        _limits = SubscriptionLimits.Of(null, null, 2);
        var lanes = New();
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Empty(ReserveDue(lanes));
        var waits = new List<double>();
        for (var i = 0; i < 6; i++)
        {
            lanes.LimitsAnswered(
                Assert.Single(lanes.AskLimits(out _)), new Permitted(0, LimitKind.Concurrency, TimeSpan.Zero, ""));
            lanes.AskLimits(out var wait);
            waits.Add(wait.TotalSeconds);
            _time.Advance(wait);
        }

        Assert.Equal([0.1, 0.2, 0.4, 0.8, 1, 1], waits.Select(w => Math.Round(w, 3)));
    }

    [Fact]
    public void Other_limits_are_asked_for_at_once_and_none_are_waited_for_no_more()
    {
        var lanes = New();
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Empty(ReserveDue(lanes));
        lanes.LimitsAnswered(Assert.Single(lanes.AskLimits(out _)), new Permitted(0, LimitKind.Rate, TimeSpan.FromHours(1), "1"));
        Assert.Empty(lanes.AskLimits(out _));

        _limits = SubscriptionLimits.Of(20, 1, null);
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Equal(20, Assert.Single(lanes.AskLimits(out _)).Limits.Requests);

        _limits = null;
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Equal([4], ReserveDue(lanes));
    }

    [Theory]
    [InlineData(10, 3, new[] { 4, 3, 3 })]
    [InlineData(2, 3, new[] { 1, 1, 0 })]
    [InlineData(6, 1, new[] { 6 })]
    public void Shares_add_up_to_the_limit(int limit, int processes, int[] shares)
    {
        var limits = new SubscriptionLimits(limit, TimeSpan.FromSeconds(1), limit);

        Assert.Equal(shares, Enumerable.Range(0, processes).Select(rank => limits.ShareOf(rank, processes).Requests!.Value));
        Assert.Equal(shares, Enumerable.Range(0, processes).Select(rank => limits.ShareOf(rank, processes).Concurrency!.Value));
    }

    private Lanes New() => new(concurrency: 4, _time, limitsOf: id => id == A ? _limits : null);

    private static int[] ReserveDue(Lanes lanes) => lanes.ReserveDue(_ => Tenant, 500).Places;

    /// <summary>Something is due in the lane, and it may begin so many.</summary>
    private static void Permit(Lanes lanes, int permits, string counted)
    {
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Empty(ReserveDue(lanes));
        lanes.LimitsAnswered(Assert.Single(lanes.AskLimits(out _)), new Permitted(permits, LimitKind.None, TimeSpan.Zero, counted));
    }
}
