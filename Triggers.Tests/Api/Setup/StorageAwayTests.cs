using System.Diagnostics;
using Npgsql;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

/// <summary>Postgres crashes under the API: nobody waits, nothing is promised, and nothing that was promised is lost.</summary>
public sealed class StorageAwayTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task While_Postgres_is_away_every_answer_is_503_within_2_seconds_and_what_was_accepted_is_there_after()
    {
        await using var server = await PostgresServer.StartOwnAsync();
        var database = await server.CreateMigratedDatabaseAsync();
        await using var host = new ApiHost(database);
        using var client = host.Client();
        await Wait.UntilAsync("the API is ready", async () => (await client.GetAsync("/health/ready")).Status == 200);
        Assert.Equal("healthy", (await client.GetAsync("/health")).Is(200)["status"]);
        var accepted = await client.PublishAsync();

        await server.StopImmediateAsync();

        await ExpectRefusalAsync(() => client.PostAsync("/events", """{"type":"a","data":1}"""));
        await ExpectRefusalAsync(
            () => client.PostAsync("/events/batch", """{"events":[{"type":"a","data":1}]}""", ("Idempotency-Key", "k")));
        string[] paths =
            ["/events", $"/events/{accepted}", "/inbox?wait=10", "/subscriptions", "/deliveries", "/dead-letters", "/api-keys"];
        foreach (var path in paths)
            await ExpectRefusalAsync(() => client.GetAsync(path));
        await Task.WhenAll(
            Enumerable.Range(0, 100).Select(_ => ExpectRefusalAsync(() => client.PostAsync("/events", """{"type":"a","data":1}"""))));
        using (var stranger = host.Client(null))
        {
            var health = (await stranger.GetAsync("/health")).Is(200);
            Assert.Equal("degraded", health["status"]);
            Assert.Equal("unhealthy", health.Json["parts"]![0]!["status"]!.GetValue<string>());
            Assert.Null(health.Json["parts"]![0]!["detail"]);
            // A dependency lost later takes nobody out of rotation.
            var ready = (await stranger.GetAsync("/health/ready")).Is(200);
            Assert.Equal("degraded", ready["status"]);
            Assert.Null(ready.Json["parts"]!.AsArray().Single(part => part!["name"]!.GetValue<string>() == "postgres")!["detail"]);
            (await stranger.GetAsync("/health/live")).Is(200);
        }

        await server.StartAsync();

        await Wait.UntilAsync("it answers again", async () => (await client.GetAsync($"/events/{accepted}")).Status == 200);
        Assert.Equal([accepted], (await client.GetAsync("/events")).Is(200).Ids);
        await client.PublishAsync();
    }

    [Fact]
    public async Task A_Postgres_that_hangs_is_named_in_time_by_whoever_is_asked_how_it_is()
    {
        var settings = new NpgsqlConnectionStringBuilder(api.ConnectionString);
        await using var network = new StallingProxy(settings.Port);
        (settings.Host, settings.Port) = ("127.0.0.1", int.Parse(network.Address.Split(':')[1]));
        await using var host = new ApiHost(settings.ConnectionString);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();

        network.Stall();

        foreach (var path in new[] { "/health", "/health/ready", "/health" })
        {
            Assert.Equal("degraded", (await Wait.ForAnswerAsync(path, () => client.GetAsync(path))).Is(200)["status"]);
        }
        network.Flow();
    }

    [Fact]
    public async Task While_Postgres_hangs_every_answer_is_503_within_the_time_of_a_request()
    {
        var settings = new NpgsqlConnectionStringBuilder(api.ConnectionString);
        await using var network = new StallingProxy(settings.Port);
        (settings.Host, settings.Port) = ("127.0.0.1", int.Parse(network.Address.Split(':')[1]));
        // Keys are kept for minutes here, so that what a request waits for is its own.
        await using var host = new ApiHost(settings.ConnectionString, ("Auth:KeepKeys", "00:05:00"));
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var accepted = await client.PublishAsync();

        network.Stall();

        await RefusedAsync("log_unavailable", "POST", "/events");
        await RefusedAsync("log_unavailable", "POST", "/events", ("Idempotency-Key", "k"));
        foreach (var path in new[] { "/events", $"/events/{accepted}", "/subscriptions" })
            await RefusedAsync("storage_unavailable", "GET", path);
        await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => RefusedAsync("storage_unavailable", "GET", "/events")));

        network.Flow();

        await Wait.UntilAsync("it answers again", async () => (await client.GetAsync($"/events/{accepted}")).Status == 200);
        await Wait.UntilAsync(
            "it accepts again", async () => (await client.PostAsync("/events", """{"type":"a","data":1}""")).Status == 202);

        async Task RefusedAsync(string code, string method, string path, params (string, string)[] headers) =>
            (await Wait.ForAnswerAsync($"{method} {path}", () => client.SendAsync(
                new HttpMethod(method), path, method == "POST" ? """{"type":"a","data":1}""" : null, headers))).IsProblem(503, code);
    }

    private static async Task ExpectRefusalAsync(Func<Task<Answer>> send)
    {
        var watch = Stopwatch.StartNew();
        var answer = await send();
        var elapsed = watch.Elapsed;
        answer.IsProblem(503, answer["code"] == "log_unavailable" ? "log_unavailable" : "storage_unavailable");
        Assert.Equal("1", answer.Headers["Retry-After"]);
        Assert.True(elapsed < TimeSpan.FromSeconds(2), $"the answer took {elapsed.TotalSeconds:0.00} s");
    }
}
