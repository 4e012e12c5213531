using System.Runtime.ExceptionServices;
using Triggers.Delivery.Waking;

namespace Triggers.Tests.Delivery;

public sealed class SignalTests
{
    private readonly Signal _signal = new();

    [Fact]
    public async Task However_often_it_is_rung_it_wakes_once_and_can_be_rung_again()
    {
        for (var round = 0; round < 3; round++)
        {
            _signal.Set();
            _signal.Set();
            Assert.True(await WaitAsync());
            Assert.False(await WaitAsync());
        }
    }

    [Fact]
    public void Ringing_what_rings_already_throws_nothing()
    {
        var thrown = 0;
        var here = Environment.CurrentManagedThreadId;
        void Count(object? sender, FirstChanceExceptionEventArgs e) => thrown += Environment.CurrentManagedThreadId == here ? 1 : 0;
        AppDomain.CurrentDomain.FirstChanceException += Count;
        for (var i = 0; i < 100; i++)
            _signal.Set();
        AppDomain.CurrentDomain.FirstChanceException -= Count;

        Assert.Equal(0, thrown);
    }

    [Fact]
    public async Task Of_many_who_ring_at_once_none_is_missed()
    {
        var rung = 0;
        var seen = 0;
        var ringing = Enumerable.Range(0, 4).Select(_ => Task.Run(() =>
        {
            for (var i = 0; i < 10_000; i++)
            {
                Interlocked.Increment(ref rung);
                _signal.Set();
            }
        }));
        var all = Task.WhenAll(ringing);
        while (seen < 40_000)
        {
            Assert.True(await _signal.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken), "rung, and not woken");
            seen = Volatile.Read(ref rung);
        }
        await all;
    }

    private Task<bool> WaitAsync() => _signal.WaitAsync(TimeSpan.Zero, TestContext.Current.CancellationToken);
}
