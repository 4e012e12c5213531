using System.Diagnostics;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.RateLimiting;

/// <summary>Redis crashes under two API processes: nobody is refused for it, everybody is still limited, and it heals by itself.</summary>
public sealed class RedisAwayTests(ApiFixture api, RedisServer redis) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task While_Redis_is_away_each_process_limits_for_itself_and_after_it_both_do_together()
    {
        await using var server = await RedisServer.StartOwnAsync();
        await using var hosts = await RedisHosts.StartAsync(api, await server.ConnectionStringAsync(), ("Auth:KeepKeys", "00:05:00"));
        var key = await hosts.First.NewKeyAsync(1, 4, eventsPerDay: 1_000);
        using var here = hosts.First.Client(key.Secret);
        using var there = hosts.Second.Client(key.Secret);
        using var admin = hosts.First.Client();
        using var decisions = new Decisions(hosts.First);
        (await here.TryPublishAsync()).Is(202);
        Assert.Equal((1, 0), (decisions["allowed", "redis"], decisions["allowed", "local"]));

        await server.StopImmediateAsync();

        // The whole bucket in each process.
        foreach (var client in new[] { here, there })
        {
            for (var i = 0; i < 4; i++)
                (await client.TryPublishAsync()).Is(202);
            Answer refused;
            do
                refused = await client.TryPublishAsync();
            while (refused.Status == 202);
            refused.IsProblem(429, "rate_limited");
            Assert.Contains("\"events-per-day\";q=1000;", refused.Headers["RateLimit-Policy"]);
        }
        Assert.InRange(decisions["allowed", "local"], 4, 20);
        Assert.Equal(1, decisions["limited", "local"]);
        await hosts.First.RedisIsAsync("unhealthy");
        Assert.Equal("degraded", (await admin.GetAsync("/health")).Is(200)["status"]);
        var ready = (await admin.GetAsync("/health/ready")).Is(200);
        Assert.Equal("degraded", ready["status"]);
        Assert.Null(ready.Json["parts"]!.AsArray().Single(part => part!["name"]!.GetValue<string>() == "redis")!["detail"]);
        var usage = await admin.UsageAsync(key);
        Assert.Equal(("unavailable", null, "1000"), (usage["source"], usage["eventsToday"], usage["eventsPerDay"]));
        // A key is revoked all the same.
        var doomed = await hosts.First.NewKeyAsync(10, 10);
        (await admin.DeleteAsync(doomed.Path)).Is(204);

        await server.StartAsync();

        await hosts.First.RedisIsAsync("healthy");
        await hosts.Second.RedisIsAsync("healthy");
        var next = await hosts.First.NewKeyAsync(1, 4);
        using var hereAgain = hosts.First.Client(next.Secret);
        using var thereAgain = hosts.Second.Client(next.Secret);
        for (var i = 0; i < 2; i++)
        {
            (await hereAgain.TryPublishAsync()).Is(202);
            (await thereAgain.TryPublishAsync()).Is(202);
        }
        var statuses = new List<int>();
        for (var i = 0; i < 3; i++)
            statuses.Add((await thereAgain.TryPublishAsync()).Status);
        Assert.Contains(429, statuses);
        Assert.Equal("all_processes", (await admin.UsageAsync(next))["source"]);
        // Keys are kept for minutes here: only by listening again can it know.
        var burst = 4;
        await Wait.UntilAsync("the other process hears of changed keys again", async () =>
        {
            (await admin.PatchAsync($"/usage-plans/{next.PlanId}", $$"""{"burst":{{++burst}}}""")).Is(200);
            return (await thereAgain.GetAsync("/events")).Headers["RateLimit-Policy"].Contains($"q={burst};", StringComparison.Ordinal);
        });
    }

    /// <summary>Without a bound of ours, each of these would wait for the seconds that the client gives Redis.</summary>
    [Fact]
    public async Task A_Redis_that_hangs_holds_up_nobody()
    {
        var port = int.Parse((await redis.ConnectionStringAsync()).Split(':')[1].Split(',')[0]);
        await using var network = new StallingProxy(port);
        await using var host = new ApiHost(api.ConnectionString, ("ConnectionStrings:redis", network.Address));
        await host.RedisIsAsync("healthy");
        // One that Redis was asked about before is let in for a moment without asking.
        var key = await host.NewKeyAsync(1_000, 1_000);
        using var other = host.Client();
        using var client = host.Client(key.Secret);
        using var decisions = new Decisions(host);
        await other.PublishAsync();
        Assert.Equal(1, decisions["allowed", "redis"]);

        network.Stall();

        await Wait.ForAnswerAsync("the first POST /events", () => client.PublishAsync());
        var watch = Stopwatch.StartNew();
        await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => client.PublishAsync()));
        for (var i = 0; i < 10; i++)
            await client.PublishAsync();
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(5), $"20 requests took {watch.Elapsed.TotalSeconds:0.0} s");
        Assert.Equal(21, decisions["allowed", "local"]);

        network.Flow();

        await host.RedisIsAsync("healthy");
        await client.PublishAsync();
        Assert.Equal(2, decisions["allowed", "redis"]);
    }

    [Fact]
    public async Task It_starts_without_Redis_and_finds_it_later()
    {
        await using var server = await RedisServer.StartOwnAsync();
        var connectionString = await server.ConnectionStringAsync();
        await server.StopImmediateAsync();
        await using var host = new ApiHost(api.ConnectionString, ("ConnectionStrings:redis", connectionString));
        using var client = host.Client();
        await Wait.UntilAsync("the API is ready", async () => (await client.GetAsync("/health/ready")).Status == 200);
        using var decisions = new Decisions(host);

        await client.PublishAsync();

        Assert.Equal(1, decisions["allowed", "local"]);
        await host.RedisIsAsync("unhealthy");
        await server.StartAsync();
        await host.RedisIsAsync("healthy");
        await client.PublishAsync();
        Assert.Equal(1, decisions["allowed", "redis"]);
    }

    [Fact]
    public async Task Without_a_connection_string_the_counts_are_those_of_the_process_and_health_knows_no_Redis()
    {
        using var admin = api.Host.Client();
        var key = await api.Host.NewKeyAsync(1_000, 1_000, eventsPerDay: 5);
        using var client = api.Host.Client(key.Secret);

        (await client.TryPublishAsync(2)).Is(202);
        (await client.TryPublishAsync(4)).IsProblem(429, "quota_exceeded");
        (await client.TryPublishAsync(",\"nonsense\":1")).IsProblem(400, "invalid_request");

        await Wait.UntilAsync("two events are counted", async () => (await admin.UsageAsync(key))["eventsToday"] == "2");
        Assert.Equal("this_process", (await admin.UsageAsync(key))["source"]);
        Assert.DoesNotContain("redis", (await admin.GetAsync("/health")).Text);
    }
}
