using Microsoft.Extensions.Time.Testing;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Tests.Delivery;

public class LanesTests
{
    private static readonly Guid A = Guid.CreateVersion7();
    private static readonly Guid B = Guid.CreateVersion7();

    private static readonly Guid Tenant = Guid.CreateVersion7();

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
    public void A_wide_lane_that_is_behind_has_half_its_places_for_what_is_new_and_the_others_for_what_waits()
    {
        var lanes = new Lanes(concurrency: 8, _time);
        lanes.DueIn(A, TimeSpan.Zero);

        // Nobody has come yet who would pass: they are all for what waits.
        Assert.Equal([8], lanes.ReserveDue(_ => Tenant, 500).Places);
        lanes.Claimed(A, places: 8, filled: 8, bytes: 0, tooLarge: null);
        for (var i = 0; i < 8; i++)
            Assert.False(lanes.TryReserve(A));
        for (var i = 0; i < 8; i++)
            lanes.Release(A);

        Assert.Equal([4], lanes.ReserveDue(_ => Tenant, 500).Places);
        lanes.Claimed(A, places: 4, filled: 4, bytes: 0, tooLarge: null);
        for (var i = 0; i < 4; i++)
            Assert.True(lanes.TryReserve(A));
        for (var i = 0; i < 4; i++)
            lanes.Release(A);
        // However many are free: these are for the next claim.
        Assert.False(lanes.TryReserve(A));
        lanes.Release(A, isNew: true);
        Assert.True(lanes.TryReserve(A));
        Assert.Equal([4], lanes.ReserveDue(_ => Tenant, 500).Places);
    }

    [Fact]
    public void What_is_new_is_waited_for_where_it_will_find_a_place_in_time()
    {
        var lanes = new Lanes(concurrency: 8, _time);
        var soon = TimeSpan.FromMilliseconds(50);
        // Nobody knows yet.
        Assert.True(lanes.WillStart(A, 100, soon));

        for (var i = 0; i < 100; i++)
            Attempt(TimeSpan.FromMilliseconds(10));
        Assert.True(lanes.WillStart(A, 39, soon));
        Assert.False(lanes.WillStart(A, 41, soon));

        // Half the places are for what is due.
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.True(lanes.WillStart(A, 19, soon));
        Assert.False(lanes.WillStart(A, 21, soon));

        // However fast it was.
        _time.Advance(TimeSpan.FromMilliseconds(26));
        Assert.False(lanes.WillStart(A, 1, soon));
        Attempt(TimeSpan.FromMilliseconds(10));
        Assert.True(lanes.WillStart(A, 1, soon));
        lanes.Hold(A, TimeSpan.FromSeconds(1));
        Assert.False(lanes.WillStart(A, 1, soon));
        lanes.Cap(A, 0);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.False(lanes.WillStart(A, 1, soon));

        void Attempt(TimeSpan duration)
        {
            Assert.True(lanes.TryReserve(A));
            var startedAt = _time.GetTimestamp();
            _time.Advance(duration);
            lanes.Release(A, isNew: true, startedAt);
        }
    }

    [Fact]
    public void A_lane_is_claimed_for_when_its_time_has_come_and_not_before()
    {
        _lanes.DueIn(A, TimeSpan.FromSeconds(10));

        _time.Advance(TimeSpan.FromSeconds(9.999));
        Assert.Empty(ReserveDue().Lanes);
        Assert.Equal(1, _lanes.UntilNextDue(TimeSpan.FromMinutes(1), _ => Tenant).TotalMilliseconds, 0.01);

        _time.Advance(TimeSpan.FromSeconds(0.001));
        var request = ReserveDue();
        Assert.Equal([A], request.Lanes);
        Assert.Equal([2], request.Places);
        Assert.Equal(2, _lanes.Busy);
    }

    [Fact]
    public void A_batch_is_claimed_when_it_is_full_or_its_time_has_come()
    {
        var lanes = new Lanes(concurrency: 2, _time, batchOf: id => id == A ? new(3, TimeSpan.FromSeconds(10)) : null);
        lanes.Gather(A, 2, 200, 1_000, TimeSpan.FromSeconds(10));
        lanes.DueIn(B, TimeSpan.Zero);
        Assert.Equal([B], lanes.ReserveDue(_ => Tenant, 500).Lanes);

        lanes.Gather(A, 1, 100, 1_000, TimeSpan.FromSeconds(10));
        var request = lanes.ReserveDue(_ => Tenant, 500);
        Assert.Equal((A, 1, 3), (Assert.Single(request.Lanes), Assert.Single(request.Places), Assert.Single(request.Batches)!.Max));
        // Somebody else was there before: what is left waits on.
        lanes.ClaimedBatch(A, bytes: null, room: 1_000, gathered: (1, 100), askIn: TimeSpan.FromSeconds(8));
        Assert.Equal(2, lanes.Busy);
        Assert.Empty(lanes.ReserveDue(_ => Tenant, 500).Lanes);
        _time.Advance(TimeSpan.FromSeconds(8));
        Assert.Equal([A], lanes.ReserveDue(_ => Tenant, 500).Lanes);
    }

    [Fact]
    public void A_lane_asks_for_no_more_than_it_can_start()
    {
        Assert.True(_lanes.TryReserve(A));
        _lanes.DueIn(A, TimeSpan.Zero);

        Assert.Equal([1], ReserveDue().Places);
        Assert.Empty(ReserveDue().Lanes);
    }

    [Fact]
    public void A_lane_that_filled_every_place_is_asked_again_once_one_is_free()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        ReserveDue();
        _lanes.Claimed(A, places: 2, filled: 2, bytes: 0, tooLarge: null);

        Assert.Empty(ReserveDue().Lanes);
        Assert.True(_lanes.Release(A));
        Assert.Equal([1], ReserveDue().Places);
    }

    [Fact]
    public void A_claim_looks_from_where_the_last_one_ended_until_the_next_sweep()
    {
        var (at, later) = (new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc), new DateTime(2026, 1, 1, 0, 0, 9, DateTimeKind.Utc));
        _lanes.DueIn(A, TimeSpan.Zero);
        Assert.Equal([default], ReserveDue().From);
        _lanes.Claimed(A, places: 2, filled: 2, bytes: 0, tooLarge: null, later);
        _lanes.Release(A);
        Assert.Equal([later], ReserveDue().From);
        // One that came earlier, as leases that run out do, takes nothing back.
        _lanes.Claimed(A, places: 1, filled: 1, bytes: 0, tooLarge: null, at);
        _lanes.Release(A);
        Assert.Equal([later], ReserveDue().From);

        _lanes.NotClaimed(A, places: 1);
        _lanes.Trim();
        Assert.Equal([default], ReserveDue().From);
    }

    [Fact]
    public void A_lane_with_nothing_left_is_not_asked_again()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        ReserveDue();
        _lanes.Claimed(A, places: 2, filled: 1, bytes: 0, tooLarge: null);

        Assert.False(_lanes.Release(A));
        Assert.Empty(ReserveDue().Lanes);
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => Tenant));
    }

    [Fact]
    public void A_lane_that_may_not_be_claimed_neither_is_nor_keeps_anyone_awake()
    {
        _lanes.DueIn(A, TimeSpan.Zero);

        Assert.Empty(_lanes.ReserveDue(_ => null, 500).Lanes);
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => null));
    }

    [Fact]
    public void Tenants_are_asked_in_turn_and_the_lanes_of_each_in_turn_until_a_claim_is_full()
    {
        var many = Enumerable.Range(0, 10).Select(_ => Guid.CreateVersion7()).ToArray();
        Guid? TenantOf(Guid lane) => many.Contains(lane) ? Tenant : B;
        foreach (var lane in many)
            _lanes.DueIn(lane, TimeSpan.Zero);
        var first = _lanes.ReserveDue(TenantOf, most: 5);
        Assert.Equal([2, 2, 1], first.Places);
        Assert.Equal(5, _lanes.Busy);

        // Somebody else's lane does not wait behind the seven that were left.
        _lanes.DueIn(A, TimeSpan.Zero);
        var second = _lanes.ReserveDue(TenantOf, most: 5);

        Assert.Equal(A, second.Lanes[0]);
        Assert.Equal(3, second.Lanes.Length);
        Assert.Empty(first.Lanes.Intersect(second.Lanes));
        var third = _lanes.ReserveDue(TenantOf, most: 500);
        Assert.Equal(10, first.Lanes.Concat(second.Lanes).Concat(third.Lanes).Where(many.Contains).Distinct().Count());
    }

    [Fact]
    public void A_lane_has_no_more_data_in_memory_than_it_may_but_for_one_delivery()
    {
        const int Half = (int)(Lanes.MaxBytes / 2);
        Assert.True(_lanes.TryReserve(A, (int)Lanes.MaxBytes + 1));
        Assert.False(_lanes.TryReserve(A, 1));
        Assert.False(_lanes.ReleaseBytes(A, (int)Lanes.MaxBytes + 1));
        Assert.True(_lanes.TryReserve(A, Half + 1));
        Assert.False(_lanes.TryReserve(A, Half));
        Assert.True(_lanes.TryReserve(B, Half));
    }

    [Fact]
    public void A_lane_whose_next_delivery_is_too_large_for_now_is_asked_again_when_memory_is_let_go()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        var request = ReserveDue();
        Assert.Equal([Lanes.MaxBytes], request.Bytes);
        Assert.Equal([true], request.Idle);
        _lanes.Claimed(A, places: 2, filled: 1, bytes: 1_000, tooLarge: (int)Lanes.MaxBytes);

        _lanes.DueIn(A, TimeSpan.Zero);
        Assert.Empty(ReserveDue().Lanes);
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => Tenant));
        Assert.False(_lanes.TryReserve(A));

        Assert.True(_lanes.ReleaseBytes(A, 1_000));
        request = ReserveDue();
        Assert.Equal([A], request.Lanes);
        Assert.Equal([1], request.Places);
        Assert.Equal([true], request.Idle);
    }

    [Fact]
    public void A_lane_asks_for_no_more_than_there_is_memory_for_once_it_is_known_how_large_they_are()
    {
        const int Size = 1_000_000;
        var lanes = new Lanes(concurrency: 32, _time);
        lanes.DueIn(A, TimeSpan.Zero);
        Assert.Equal([32], Places());
        lanes.Claimed(A, places: 32, filled: 4, bytes: 4 * Size, tooLarge: Size);

        // Until one more fits nobody is woken, and then it asks for that one.
        Assert.Empty(Places());
        Assert.False(lanes.ReleaseBytes(A, Size / 2));
        Assert.True(lanes.ReleaseBytes(A, Size / 2));
        Assert.Equal([1], Places());
        lanes.Claimed(A, places: 1, filled: 1, bytes: Size, tooLarge: null);
        Assert.Empty(Places());

        // What is small again is taken as such.
        Assert.True(lanes.ReleaseBytes(A, Size));
        Assert.Equal([1], Places());
        lanes.Claimed(A, places: 1, filled: 1, bytes: 1_000, tooLarge: null);
        Assert.Equal([26], Places());

        int[] Places() => lanes.ReserveDue(_ => Tenant, 500).Places;
    }

    [Fact]
    public void What_a_failed_claim_asked_for_is_asked_for_again()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        ReserveDue();
        _lanes.NotClaimed(A, places: 2);

        Assert.Equal([2], ReserveDue().Places);
    }

    [Fact]
    public void A_receiver_that_is_overwhelmed_gets_half_as_much_at_once_and_with_every_success_a_little_more()
    {
        var lanes = new Lanes(concurrency: 8, _time, most: 9);
        _time.Advance(TimeSpan.FromSeconds(1));
        var started = _time.GetTimestamp();
        _time.Advance(TimeSpan.FromSeconds(1));

        lanes.Narrow(A, started);
        // All of these were under way when the first of them showed it.
        lanes.Narrow(A, started);
        Assert.Equal(4, Places(lanes));
        lanes.Narrow(A, _time.GetTimestamp());
        lanes.Narrow(A, _time.GetTimestamp());
        lanes.Narrow(A, _time.GetTimestamp());
        Assert.Equal(1, Places(lanes));
        // With places free nobody knows whether it stands more.
        for (var i = 0; i < 100; i++)
            lanes.Widen(A);
        Assert.Equal(1, Places(lanes));

        Assert.True(lanes.TryReserve(A));
        lanes.Widen(A);
        Assert.True(lanes.TryReserve(A));
        Assert.False(lanes.TryReserve(A));
        for (var i = 0; i < 3; i++)
            lanes.Widen(A);
        Assert.True(lanes.TryReserve(A));
        for (var i = 0; i < 1_000; i++)
        {
            lanes.TryReserve(A);
            lanes.Widen(A);
        }
        Assert.Equal(9, lanes.Busy);

        static int Places(Lanes lanes)
        {
            var taken = 0;
            for (; lanes.TryReserve(A); taken++) { }
            for (var i = 0; i < taken; i++)
                lanes.Release(A);
            return taken;
        }
    }

    [Fact]
    public void A_lane_that_is_held_starts_nothing_until_then_and_keeps_nobody_awake()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        _lanes.Hold(A, TimeSpan.FromSeconds(10));
        _lanes.Hold(A, TimeSpan.FromSeconds(2));
        _lanes.Hold(B, TimeSpan.FromSeconds(10));

        Assert.Empty(ReserveDue().Lanes);
        Assert.False(_lanes.TryReserve(B));
        Assert.Equal(10_000, _lanes.UntilNextDue(TimeSpan.FromMinutes(1), _ => Tenant).TotalMilliseconds, 0.01);
        _lanes.Trim();
        Assert.Contains(("held", 2), _lanes.CountByState(_ => false));

        _time.Advance(TimeSpan.FromSeconds(10));
        Assert.True(_lanes.TryReserve(B));
        Assert.Equal([A], ReserveDue().Lanes);
    }

    [Fact]
    public void While_its_circuit_is_open_a_lane_starts_nothing_then_one_and_when_it_closes_one_to_begin_with()
    {
        _lanes.DueIn(A, TimeSpan.Zero);
        _lanes.Cap(A, 0);
        Assert.Empty(ReserveDue().Lanes);
        Assert.True(_lanes.Waits(A));
        Assert.Equal(TimeSpan.FromSeconds(5), _lanes.UntilNextDue(TimeSpan.FromSeconds(5), _ => Tenant));

        _lanes.Cap(A, 1);
        Assert.Equal([1], ReserveDue().Places);
        _lanes.Claimed(A, places: 1, filled: 1, bytes: 0, tooLarge: null);
        Assert.False(_lanes.Waits(A));

        _lanes.Cap(A, null);
        Assert.Empty(ReserveDue().Lanes);
        _lanes.Widen(A);
        Assert.Equal([1], ReserveDue().Places);
    }

    private ClaimRequest ReserveDue() => _lanes.ReserveDue(_ => Tenant, 500);
}
