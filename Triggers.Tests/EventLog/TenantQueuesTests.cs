using Triggers.EventLog;

namespace Triggers.Tests.EventLog;

public sealed class TenantQueuesTests
{
    private const long Mebibyte = 1024 * 1024;
    private readonly TenantQueues<string> _queues = new();
    private readonly Guid _loud = Guid.NewGuid(), _quiet = Guid.NewGuid(), _other = Guid.NewGuid();

    [Fact]
    public void Tenants_are_served_in_turn_and_each_in_its_own_order()
    {
        foreach (var request in new[] { "a1", "a2", "a3", "a4" })
            _queues.Enqueue(_loud, request, 1);
        _queues.Enqueue(_quiet, "b1", 1);
        _queues.Enqueue(_other, "c1", 1);
        _queues.Enqueue(_other, "c2", 1);

        Assert.Equal(["a1", "b1", "c1", "a2", "c2", "a3", "a4"], TakeAll());
    }

    [Fact]
    public void Who_comes_back_waits_behind_those_who_wait()
    {
        _queues.Enqueue(_loud, "a1", 1);
        _queues.Enqueue(_quiet, "b1", 1);
        Assert.Equal("a1", Take());
        _queues.Enqueue(_loud, "a2", 1);
        _queues.Enqueue(_loud, "a3", 1);

        Assert.Equal(["b1", "a2", "a3"], TakeAll());
    }

    [Fact]
    public void A_turn_is_as_long_as_it_is_large_whoever_left_and_came_back()
    {
        for (var i = 0; i < 3; i++)
            _queues.Enqueue(_loud, $"a{i}", 100);
        Assert.Equal("a0", Take());
        // Comes again and again, each time when nothing of it waits.
        for (var i = 0; i < 5; i++)
        {
            _queues.Enqueue(_quiet, $"b{i}", 10);
            Assert.Equal($"b{i}", Take());
        }
        for (var i = 5; i < 12; i++)
            _queues.Enqueue(_quiet, $"b{i}", 10);

        Assert.Equal(["b5", "b6", "b7", "b8", "b9", "a1", "b10", "b11", "a2"], TakeAll());
    }

    [Fact]
    public void What_is_not_wanted_now_keeps_its_turn()
    {
        _queues.Enqueue(_loud, "a", 100);
        Assert.False(_queues.TryDequeue(_ => false, out _));
        _queues.Enqueue(_quiet, "b", 1);

        Assert.Equal(["a", "b"], TakeAll());
    }

    [Fact]
    public void What_waits_of_one_tenant_is_bounded_in_bytes_and_requests_and_is_nobody_elses_trouble()
    {
        for (var i = 0; i < 4; i++)
            _queues.Enqueue(_loud, "x", 4 * Mebibyte);
        Assert.True(Assert.Throws<TenantLimitException>(() => _queues.Enqueue(_loud, "x", 1)).NothingWasKept);
        for (var i = 0; i < 1_000; i++)
            _queues.Enqueue(_quiet, "y", 1);
        Assert.Throws<TenantLimitException>(() => _queues.Enqueue(_quiet, "y", 1));
        _queues.Enqueue(_other, "z", 1);

        // Taking makes room.
        Take();
        _queues.Enqueue(_loud, "x", 1);
    }

    [Fact]
    public void What_waits_of_all_is_bounded_but_for_the_first_request_of_a_tenant()
    {
        for (var tenant = 0; tenant < 4; tenant++)
        {
            var id = Guid.NewGuid();
            for (var i = 0; i < 4; i++)
                _queues.Enqueue(id, "x", 4 * Mebibyte);
        }
        _queues.Enqueue(_quiet, "y", 1);

        var refused = Assert.Throws<EventLogUnavailableException>(() => _queues.Enqueue(_quiet, "y", 1));
        Assert.True(refused.NothingWasKept);
    }

    [Fact]
    public async Task The_reader_is_told_of_the_first_request_and_of_the_end()
    {
        var waiting = _queues.WaitToReadAsync();
        Assert.False(waiting.IsCompleted);
        _queues.Enqueue(_quiet, "a", 1);
        Assert.True(await waiting);
        Assert.True(await _queues.WaitToReadAsync());
        TakeAll();

        var ending = _queues.WaitToReadAsync();
        _queues.Complete();
        Assert.False(await ending);
        Assert.False(await _queues.WaitToReadAsync());
        Assert.Throws<EventLogUnavailableException>(() => _queues.Enqueue(_quiet, "b", 1));
    }

    private string Take()
    {
        Assert.True(_queues.TryDequeue(_ => true, out var request));
        return request;
    }

    private List<string> TakeAll()
    {
        var all = new List<string>();
        while (_queues.TryDequeue(_ => true, out var request))
            all.Add(request);
        return all;
    }
}
