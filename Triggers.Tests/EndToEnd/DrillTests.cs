using System.Diagnostics;
using System.Text.Json;
using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>
/// What operators rehearse: a part goes away under load and comes back. Each drill ends with a line that says what was accepted, lost
/// and repeated, and how long the flow paused.
/// </summary>
[Collection(nameof(CrashCollection))]
public sealed class DrillTests : IClassFixture<DrillTests.Pair>
{
    private readonly Pair _pair;

    public DrillTests(Pair pair)
    {
        KafkaServer.SkipIfMissing();
        _pair = pair;
    }

    /// <summary>Two of each service on one broker; limits are far away.</summary>
    public sealed class Pair() : SystemFixture(
        kafka: true, "--replicas=2", "--RateLimiting:RequestsPerSecond=1000000", "--RateLimiting:Burst=1000000",
        "--RateLimiting:EventsPerSecond=0", "--RateLimiting:BytesPerSecond=0");

    [Fact]
    public async Task A_broker_is_killed_and_comes_back()
    {
        await using var system = await _pair.LoadAsync();
        system.StartLoad();
        await system.AcceptedMoreAsync(200, "load is accepted");

        await system.KillAsync("kafka");
        await Wait.UntilAsync("requests are refused", () => system.Refusals.Count >= 4);
        using (var health = JsonDocument.Parse(
            await system.Apis[0].GetStringAsync("/health/ready", TestContext.Current.CancellationToken)))
        {
            Assert.Equal("degraded", health.RootElement.GetProperty("status").GetString());
            Assert.Contains(health.RootElement.GetProperty("parts").EnumerateArray(), part =>
                part.GetProperty("name").GetString() == "kafka" && part.GetProperty("status").GetString() == "unhealthy");
        }
        await system.StartAsync("kafka");
        await system.AcceptedMoreAsync(200, "load is accepted again");

        await system.ReconcileAsync("broker killed and restarted");
        // The contract is two seconds; the rest is for a busy machine.
        Assert.All(system.Refusals, time => Assert.InRange(time, TimeSpan.Zero, TimeSpan.FromSeconds(4)));
    }

    [Fact]
    public async Task One_of_three_brokers_is_killed_and_ingestion_goes_on()
    {
        await using var system = await LoadedSystem.StartOnKafkaAsync(
            "--Kafka:Brokers=3", "--Kafka:ReplicationFactor=3", "--Kafka:MinInSyncReplicas=2");
        system.StartLoad();
        await system.AcceptedMoreAsync(200, "load is accepted");

        await system.KillAsync("kafka-2");
        await system.AcceptedMoreAsync(500, "load is accepted by two brokers");
        await system.StartAsync("kafka-2");
        await system.AcceptedMoreAsync(200, "load is accepted by three brokers again");

        await system.ReconcileAsync("one of three brokers killed");
    }

    [Fact]
    public async Task Delivery_processes_are_killed_and_join()
    {
        await using var system = await _pair.LoadAsync();
        system.StartLoad();
        await system.AcceptedMoreAsync(200, "load is accepted");

        await system.KillAsync("delivery-1");
        await system.AcceptedMoreAsync(500, "load is accepted with one delivery process");
        await system.ArrivedAsync();
        await system.StartAsync("delivery-1");
        await system.AcceptedMoreAsync(200, "load is accepted with two delivery processes");
        await system.ReconcileAsync("one of two delivery processes killed, and joining");
    }

    [Fact]
    public async Task The_group_is_rebalanced_again_and_again()
    {
        await using var system = await _pair.LoadAsync();
        system.StartLoad();
        for (var i = 0; i < 4; i++)
        {
            var name = $"delivery-{i % 2 + 1}";
            await system.AcceptedMoreAsync(50, $"load is accepted before {name} is killed");
            await system.KillAsync(name);
            await system.StartAsync(name);
        }
        await system.ReconcileAsync("rebalance storm");
    }

    [Theory]
    [InlineData("redis")]
    [InlineData("postgres")]
    public async Task A_store_is_killed_and_comes_back(string store)
    {
        await using var system = await _pair.LoadAsync();
        system.StartLoad();
        await system.AcceptedMoreAsync(200, "load is accepted");

        var (accepted, refused) = (system.Ledger.AcceptedCount, system.Refusals.Count);
        await system.KillAsync(store);
        if (store == "redis")
        {
            await system.AcceptedMoreAsync(200, "load is accepted without Redis");
        }
        else
        {
            // Until the API no longer goes by what it knows of the key.
            await Wait.UntilAsync("requests are refused", () => system.Refusals.Count >= refused + 4);
            TestContext.Current.SendDiagnosticMessage($"{system.Ledger.AcceptedCount - accepted} events were accepted without Postgres");
        }
        await system.StartAsync(store);
        await system.AcceptedMoreAsync(200, "load is accepted again");
        await system.ReconcileAsync($"{store} killed and restarted");
    }

    [Fact]
    public async Task An_api_process_dies_between_reserving_a_key_and_appending()
    {
        await using var system = await _pair.LoadAsync();
        var key = Guid.NewGuid().ToString();
        Assert.NotNull(await system.PublishAsync());
        await system.ArrivedAsync();
        await using var database = Triggers.Core.Storage.Builder(await system.ConnectionStringAsync("triggersdb"), "tests").Build();
        var before = await ReservedAsync();

        // The broker stands still: what is reserved can't be appended.
        var broker = system.ProcessOf("kafka");
        using (var stop = Process.Start("kill", ["-STOP", $"{broker}"]))
            await stop.WaitForExitAsync(TestContext.Current.CancellationToken);
        var first = system.PublishAsync(system.Apis[0], key);
        await Wait.UntilAsync("the key is reserved", async () => await ReservedAsync() > before);
        await system.KillAsync("api-1");
        using (var go = Process.Start("kill", ["-CONT", $"{broker}"]))
            await go.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Null(await first);

        string? retried = null;
        await Wait.UntilAsync("the retry is accepted", async () =>
            (retried = await system.PublishAsync(system.Apis[1], key)) is not null, TimeSpan.FromMinutes(1));
        // Under the reserved id if it came into the log after all, and otherwise under a new one: once, whichever it is.
        await system.StartAsync("api-1");
        Assert.Equal(retried, await system.PublishAsync(system.Apis[0], key));
        Assert.Equal(2, await system.StoredAsync());
        await system.ReconcileAsync("api killed between reservation and append");
        Assert.Equal((2, 0, 0), (system.Ledger.Delivered(), system.Ledger.Duplicates(), system.Ledger.Unconfirmed()));

        async Task<long> ReservedAsync()
        {
            await using var command = database.CreateCommand("SELECT count(*) FROM request_keys WHERE kind = 0 AND busy_until IS NOT NULL");
            return (long)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
        }
    }

    [Fact]
    public async Task Ten_thousand_racing_duplicates_are_one_event()
    {
        await using var system = await _pair.LoadAsync();
        var key = Guid.NewGuid().ToString();
        var ids = new System.Collections.Concurrent.ConcurrentDictionary<string, int>();

        await Parallel.ForEachAsync(Enumerable.Range(0, 10_000), new ParallelOptions { MaxDegreeOfParallelism = 64 }, async (i, _) =>
        {
            // 409 while the first one runs, 503 while the machine is busy: a client comes again.
            string? id;
            do
            {
                id = await system.PublishAsync(system.Apis[i % 2], key);
            }
            while (id is null);
            ids.AddOrUpdate(id, 1, (_, n) => n + 1);
        });

        Assert.Equal(10_000, Assert.Single(ids).Value);
        Assert.Equal(1, await system.StoredAsync());
        await system.ReconcileAsync("10,000 racing duplicates");
        Assert.Equal((1, 0, 0), (system.Ledger.Delivered(), system.Ledger.Duplicates(), system.Ledger.Unconfirmed()));
    }
}
