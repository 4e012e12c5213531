using System.Diagnostics;
using Triggers.Core;

namespace Triggers.Tests.Support;

/// <summary>Waiting in tests: always for something that has a name, never longer than a bound.</summary>
internal static class Wait
{
    public static readonly TimeSpan Long = TimeSpan.FromSeconds(30);

    /// <summary>The longest that an answer may take, with room for a machine that is busy with other tests.</summary>
    public static readonly TimeSpan Answer = RequestBudget.Request + TimeSpan.FromSeconds(2.5);

    /// <summary>Waits until the condition holds; fails with its name when it does not in time.</summary>
    public static async Task UntilAsync(string condition, Func<Task<bool>> holds, TimeSpan? atMost = null)
    {
        var bound = atMost ?? Long;
        var watch = Stopwatch.StartNew();
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!await holds())
        {
            if (watch.Elapsed > bound)
                throw new TimeoutException($"Not within {bound.TotalSeconds:0.#} s: {condition}.");
            await timer.WaitForNextTickAsync(TestContext.Current.CancellationToken);
        }
    }

    /// <summary>What comes of something that must end within <see cref="Answer"/>.</summary>
    public static async Task<T> ForAnswerAsync<T>(string what, Func<Task<T>> ask)
    {
        var watch = Stopwatch.StartNew();
        var answer = await ask();
        Assert.True(watch.Elapsed < Answer, $"{what} took {watch.Elapsed.TotalSeconds:0.00} s");
        return answer;
    }

    /// <summary>The same for a condition that needs no waiting itself.</summary>
    public static Task UntilAsync(string condition, Func<bool> holds, TimeSpan? atMost = null) =>
        UntilAsync(condition, () => Task.FromResult(holds()), atMost);
}
