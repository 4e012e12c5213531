using Microsoft.Extensions.Time.Testing;
using Triggers.AppHost;

namespace Triggers.Tests.AppHost;

public sealed class BackoffTests
{
    [Fact]
    public void It_begins_at_half_a_second_doubles_up_to_half_a_minute_and_forgets_after_a_minute()
    {
        var time = new FakeTimeProvider();
        var backoff = new Backoff(time);
        var pauses = new List<double>();

        for (var i = 0; i < 8; i++)
            pauses.Add(backoff.Next().TotalSeconds);
        Assert.Equal([0.5, 1, 2, 4, 8, 16, 30, 30], pauses);

        backoff.Started();
        time.Advance(TimeSpan.FromSeconds(59));
        Assert.Equal(30, backoff.Next().TotalSeconds);
        backoff.Started();
        time.Advance(TimeSpan.FromSeconds(60));
        Assert.Equal(0.5, backoff.Next().TotalSeconds);
    }
}
