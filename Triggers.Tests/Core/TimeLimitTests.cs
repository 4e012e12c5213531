using Microsoft.Extensions.Time.Testing;
using Triggers.Core;

namespace Triggers.Tests.Core;

public sealed class TimeLimitTests
{
    private readonly FakeTimeProvider _time = new();

    [Fact]
    public void What_one_step_uses_the_next_has_no_more()
    {
        var request = new TimeLimit(_time, RequestBudget.Request);
        var append = request.Less(RequestBudget.Answer);
        _time.Advance(TimeSpan.FromSeconds(1));

        Assert.Equal(TimeSpan.FromSeconds(0.7), request.Left);
        Assert.Equal(TimeSpan.FromSeconds(0.6), append.Left);
        Assert.Equal(TimeSpan.FromSeconds(0.6), append.AtMost(RequestBudget.Turn).Left);
        Assert.Equal(TimeSpan.FromSeconds(0.2), append.AtMost(TimeSpan.FromSeconds(0.2)).Left);
        _time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(TimeSpan.Zero, request.Left);
        Assert.Equal(TimeSpan.Zero, append.Less(RequestBudget.AfterWait).Left);
    }

    /// <summary>Clients are told 2 s.</summary>
    [Fact]
    public void The_steps_add_up_to_what_clients_are_told()
    {
        Assert.True(RequestBudget.Request + RequestBudget.Redis < TimeSpan.FromSeconds(2));
        Assert.True(RequestBudget.Request + RequestBudget.Answer < TimeSpan.FromSeconds(2));
        Assert.True(RequestBudget.Health < RequestBudget.Request);
        // What is begun with the most that is left ends in the time of its request.
        var append = RequestBudget.Request - RequestBudget.Answer;
        Assert.True(RequestBudget.Commit < append && RequestBudget.Produce < append && RequestBudget.LeastAppend < append);
        // Who waited for somebody else can still append.
        Assert.True(RequestBudget.AfterWait >= RequestBudget.LeastAppend + RequestBudget.Answer);
    }
}
