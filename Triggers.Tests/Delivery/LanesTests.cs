using Microsoft.Extensions.Time.Testing;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Tests.Delivery;

public class LanesTests
{
    private static readonly Guid A = Guid.CreateVersion7();
    private static readonly Guid B = Guid.CreateVersion7();

    private readonly FakeTimeProvider _time = new();
    private readonly Lanes _lanes;

    public LanesTests() => _lanes = new Lanes(concurrency: 2, _time);

    [Fact]
    public void A_full_lane_takes_no_more_and_leaves_the_others_alone()
    {
        Assert.True(_lanes.TryReserve(A));
        Assert.True(_lanes.TryReserve(A));
        Assert.False(_lanes.TryReserve(A));
        Assert.True(_lanes.TryReserve(B));
    }

    [Fact]
    public void What_waits_in_Postgres_goes_before_what_is_new()
    {
        _lanes.DueIn(A, TimeSpan.Zero);

        Assert.False(_lanes.TryReserve(A));
    }

    [Fact]
    public void A_lane_is_claimed_for_when_its_time_has_come_and_not_before()
    {
        _lanes.DueIn(A, TimeSpan.FromSeconds(10));

        _time.Advance(TimeSpan.FromSeconds(9.999));
        Assert.Empty(_lanes.ReserveDue(_ => true).Subscriptions);
        Assert.Equal(1, _lanes.UntilNextDue(TimeSpan.FromMinutes(1), _ => true).TotalMilliseconds, 0.01);

        _time.Advance(TimeSpan.FromSeconds(0.001));
        var (subscriptions, free) = _lanes.ReserveDue(_ => true);
        Assert.Equal([A], subscriptions);
        Assert.Equal([2], free);
        Assert.Equal(2, _lanes.Busy);
    }

    [Fact]
    public void A_lane_asks_for_no_more_than_it_can_start()
    {
        Assert.True(_lanes.TryReserve(A));
        _lanes.DueIn(A, TimeSpan.Zero);

        Assert.Equal([1], _lanes.ReserveDue(_ => true).Free);
        Assert.Empty(_lanes.ReserveDue(_ => true).Subscriptions);
    }

    [Fact]
    public void A_lane_that_filled_every_place_is_asked_again_once_one_is_free()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        _lanes.ReserveDue(_ => true);
        _lanes.Unreserve(A, unused: 0, mayHaveMore: true);

        Assert.Empty(_lanes.ReserveDue(_ => true).Subscriptions);
        Assert.True(_lanes.Release(A));
        Assert.Equal([1], _lanes.ReserveDue(_ => true).Free);
    }

    [Fact]
    public void A_lane_with_nothing_left_is_not_asked_again()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        _lanes.ReserveDue(_ => true);
        _lanes.Unreserve(A, unused: 1, mayHaveMore: false);

        Assert.False(_lanes.Release(A));
        Assert.Empty(_lanes.ReserveDue(_ => true).Subscriptions);
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => true));
    }

    [Fact]
    public void A_lane_that_may_not_be_claimed_neither_is_nor_keeps_anyone_awake()
    {
        _lanes.DueIn(A, TimeSpan.Zero);

        Assert.Empty(_lanes.ReserveDue(_ => false).Subscriptions);
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => false));
    }
}
