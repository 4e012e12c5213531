using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using Triggers.ServiceDefaults;
using Triggers.Tests.Support;

namespace Triggers.Tests.ServiceDefaults;

/// <summary>What becomes of background work that fails, and of the process it is in.</summary>
public sealed class BackgroundLoopTests
{
    private sealed class Work(TimeProvider time, Func<int, Work, Task> round, ILogger? logger = null)
        : BackgroundLoop(time, logger ?? NullLogger.Instance)
    {
        private int _rounds;

        public int Rounds => _rounds;

        public void Works() => Recovered();

        public void Finish() => End();

        protected override Task RunAsync(CancellationToken stoppingToken) =>
            round(Interlocked.Increment(ref _rounds), this).WaitAsync(stoppingToken);
    }

    [Fact]
    public async Task A_service_whose_background_work_died_ends_with_an_exit_code()
    {
        Assert.Equal(1, await RunAsync(new Work(TimeProvider.System, (_, _) => throw new InvalidOperationException("a mistake"))));
    }

    [Fact]
    public async Task An_orderly_end_is_one_also_while_something_is_away()
    {
        var work = new Work(TimeProvider.System, (_, _) => throw new TimeoutException());

        Assert.Equal(0, await RunAsync(work, stopWhen: () => work.Rounds > 2));
    }

    [Fact]
    public async Task What_is_away_is_tried_again_after_pauses_that_grow_to_a_second_and_begin_anew_once_it_worked()
    {
        var time = new FakeTimeProvider();
        using var work = new Work(time, (round, work) =>
        {
            if (round == 7)
                work.Works();
            throw new TimeoutException();
        });
        await work.StartAsync(TestContext.Current.CancellationToken);

        foreach (var (round, pause) in ((int, double)[])[(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1), (6, 1), (7, 0.1), (8, 0.2)])
        {
            await Wait.UntilAsync($"round {round} has failed", () => work.Rounds == round);
            // The pause is armed a moment after the round: it is over at its time, and not before.
            await Wait.UntilAsync($"the pause after round {round} is over", () =>
            {
                time.Advance(TimeSpan.FromSeconds(pause / 20));
                return work.Rounds > round;
            });
        }
        await work.StopAsync(TestContext.Current.CancellationToken);
    }

    [Fact]
    public void Pauses_double_from_a_tenth_of_a_second_to_a_second()
    {
        var backoff = new Backoff();

        Assert.Equal([0.1, 0.2, 0.4, 0.8, 1, 1], Enumerable.Range(0, 6).Select(_ => backoff.Next().TotalSeconds));
        backoff.Reset();
        Assert.Equal(0.1, backoff.Next().TotalSeconds);
    }

    [Fact]
    public async Task It_is_said_once_that_something_is_away_and_once_that_it_is_back()
    {
        using var logs = new CapturedLogs();
        using var work = new Work(
            TimeProvider.System, (round, work) =>
            {
                if (round == 5)
                    work.Finish();
                return round is 1 or 5 ? Task.CompletedTask : throw new TimeoutException("no answer");
            }, logs.CreateLogger("work"));

        await work.StartAsync(TestContext.Current.CancellationToken);
        await work.ExecuteTask!.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);

        Assert.Equal(
            [(LogLevel.Warning, "Waits, and is tried again until it works: no answer"), (LogLevel.Information, "Works again")],
            logs.Lines.Select(line => (line.Level, line.Message.Split(" after ")[0])));
    }

    private static async Task<int> RunAsync(Work work, Func<bool>? stopWhen = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Logging.ClearProviders();
        builder.Services.AddHostedService(_ => work);
        var app = builder.Build();
        var running = app.RunServiceAsync();
        if (stopWhen is not null)
        {
            await Wait.UntilAsync("the service is to be stopped", stopWhen);
            app.Lifetime.StopApplication();
        }
        return await running.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);
    }
}
