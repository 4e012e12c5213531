using System.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;
using Triggers.ServiceDefaults.Redis;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>
/// Limits of a subscription, held by several delivery processes against a receiver that counts. Rates are of an hour, so that no clock
/// has a say in what may come.
/// </summary>
public abstract class LimitsTests(PostgresServer postgres, RedisServer redis, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    /// <summary>An attempt that is given up while the test still sets the scene would be another story.</summary>
    private static readonly (string, string)[] s_patient = [("Delivery:AttemptTimeout", "00:05:00"), ("Delivery:Lease", "00:10:00")];

    private readonly SemaphoreSlim _mayEnd = new(0);
    private int _atOnce;
    private int _mostAtOnce;

    [Fact]
    public async Task Two_processes_together_send_no_more_at_once_than_the_limit_and_nothing_fails_for_it()
    {
        Receiver.Respond = CountAsync;
        await LimitAsync("/limited", "concurrency = 3");
        await Engine.SubscribeAsync($"{Receiver.Url}/free");
        await StartTwoAsync(await redis.ConnectionStringAsync());

        for (var i = 0; i < 8; i++)
            await Engine.AppendAsync("order.created", 3);
        await Wait.UntilAsync("as many as may are under way", () => Volatile.Read(ref _atOnce) == 3);
        await Wait.UntilAsync("nobody else waits", () => Receiver.At("/free").Count() == 24);
        for (var i = 0; i < 24; i++)
        {
            var sent = Receiver.At("/limited").Count();
            _mayEnd.Release();
            await Wait.UntilAsync("another takes the place", () => Receiver.At("/limited").Count() > sent || sent == 24);
        }

        await DeliveredAsync(48);
        Assert.Equal(3, _mostAtOnce);
        Assert.Equal(24, Receiver.At("/limited").Select(w => w.EventId).Distinct().Count());
        Assert.All(Receiver.Received, w => Assert.Equal(1, w.Attempt));
    }

    [Fact]
    public async Task Two_processes_together_send_no_more_than_the_rate_and_the_rest_waits_in_its_order()
    {
        var subscription = await LimitAsync("/limited", "rate_requests = 5, rate_seconds = 3600");
        await Engine.SubscribeAsync($"{Receiver.Url}/free");
        await StartTwoAsync(await redis.ConnectionStringAsync());

        var ids = new List<Guid>();
        for (var i = 0; i < 6; i++)
            ids.AddRange(await Engine.AppendAsync("order.created", 2));
        await Wait.UntilAsync("the rate is used up", () => Receiver.At("/limited").Count() == 5);
        await Wait.UntilAsync("nobody else waits", () => Receiver.At("/free").Count() == 12);
        await Wait.UntilAsync("the rest is in the queue, and nobody works on it", async () => await Engine.ScalarAsync<long>(
            $"SELECT count(*) FROM delivery_queue WHERE subscription_id = '{subscription}' AND claimed_by IS NULL AND claim = 0") == 7);

        Assert.Equal(5, Receiver.At("/limited").Count());
        await Engine.ExecuteAsync($"UPDATE subscriptions SET rate_requests = 9 WHERE id = '{subscription}'");
        await Engine.ExecuteAsync("SELECT pg_notify('triggers_subscriptions', '')");
        await Wait.UntilAsync("what the new rate has room for is sent", () => Receiver.At("/limited").Count() == 9);
        await Engine.ExecuteAsync("UPDATE subscriptions SET rate_requests = NULL, rate_seconds = NULL");
        await Engine.ExecuteAsync("SELECT pg_notify('triggers_subscriptions', '')");
        await DeliveredAsync(24);
        Assert.Equal(ids.Select(id => TypeId.Format(TypeId.Event, id)).Order(), Receiver.At("/limited").Select(w => w.EventId).Order());
        Assert.All(Receiver.Received, w => Assert.Equal(1, w.Attempt));
    }

    [Fact]
    public async Task What_a_rate_left_waiting_is_sent_at_the_end_of_its_window()
    {
        await LimitAsync("/limited", "rate_requests = 2, rate_seconds = 1");
        await StartTwoAsync(await redis.ConnectionStringAsync());

        await Engine.AppendAsync("order.created", 3);

        // Nothing else lets it go: neither is the limit changed, nor does anything end after the first two.
        await DeliveredAsync(3);
        Assert.Equal(3, Receiver.At("/limited").Select(w => w.EventId).Distinct().Count());
        Assert.All(Receiver.Received, w => Assert.Equal(1, w.Attempt));
    }

    [Fact]
    public async Task In_order_a_rate_holds_up_what_comes_next_over_its_windows_and_loses_nothing()
    {
        foreach (var ordering in new[] { "strict", "per_key" })
        {
            var id = await LimitAsync($"/{ordering}", "rate_requests = 4, rate_seconds = 1");
            await Engine.ExecuteAsync($"UPDATE subscriptions SET ordering = '{ordering}' WHERE id = '{id}'");
        }
        await StartTwoAsync(await redis.ConnectionStringAsync());

        var ids = new Dictionary<string, List<string>> { ["a"] = [], ["b"] = [] };
        for (var i = 0; i < 6; i++)
        {
            var subject = i % 2 == 0 ? "a" : "b";
            var e = (await Engine.AppendAsync("order.created", subject: subject))[0];
            ids[subject].Add(TypeId.Format(TypeId.Event, e));
        }

        await DeliveredAsync(12);
        foreach (var path in new[] { "/strict", "/per_key" })
        {
            var sent = Receiver.At(path).Select(w => w.EventId).ToList();
            Assert.Equal(6, sent.Count);
            Assert.All(ids.Values, ofSubject => Assert.Equal(ofSubject, sent.Where(ofSubject.Contains)));
        }
        if (Engine.Kafka is null)
            Assert.Equal(ids["a"].Zip(ids["b"]).SelectMany(pair => new[] { pair.First, pair.Second }),
                Receiver.At("/strict").Select(w => w.EventId));
        Assert.All(Receiver.Received, w => Assert.Equal(1, w.Attempt));
    }

    [Fact]
    public async Task One_at_a_time_is_the_order_of_the_log()
    {
        await LimitAsync("/limited", "concurrency = 1");
        await Engine.StartDeliveryAsync([.. s_patient, ("ConnectionStrings:redis", await redis.ConnectionStringAsync())]);

        var ids = new List<Guid>();
        for (var i = 0; i < 10; i++)
            ids.AddRange(await Engine.AppendAsync("order.created", 4));

        await DeliveredAsync(40);
        if (Engine.Kafka is null)
            Assert.Equal(ids.Select(id => TypeId.Format(TypeId.Event, id)), Receiver.At("/limited").Select(w => w.EventId));
        else
            Assert.Equal(40, Receiver.At("/limited").Count());
    }

    [Fact]
    public async Task Failures_count_against_the_rate_as_well()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 503;
            return Task.CompletedTask;
        };
        await LimitAsync("/limited", "rate_requests = 4, rate_seconds = 3600");
        await Engine.SubscribeAsync($"{Receiver.Url}/free");
        await Engine.StartDeliveryAsync(
            ("ConnectionStrings:redis", await redis.ConnectionStringAsync()), ("Delivery:Retry:MaxAttempts", "9"));

        await Engine.AppendAsync("order.created");
        await Wait.UntilAsync("nobody else waits", () => Receiver.At("/free").Count() == 9);

        Assert.Equal([1, 2, 3, 4], Receiver.At("/limited").Select(w => w.Attempt));
        Assert.Equal(4, await Engine.ScalarAsync<int>("SELECT retry_count FROM delivery_queue"));
    }

    [Fact]
    public async Task While_Redis_is_away_each_process_keeps_its_share_and_after_it_they_share_the_limit_again()
    {
        await using var server = await RedisServer.StartOwnAsync();
        Receiver.Respond = CountAsync;
        var subscription = await LimitAsync("/limited", "concurrency = 4, rate_requests = 1000, rate_seconds = 3600");
        var (first, _) = await StartTwoAsync(await server.ConnectionStringAsync());
        await Engine.AppendAsync("order.created", 4);
        await Wait.UntilAsync("as many as may are under way", () => Volatile.Read(ref _atOnce) == 4);

        await server.StopImmediateAsync();
        _mayEnd.Release(4);
        await DeliveredAsync(4);
        for (var i = 0; i < 6; i++)
            await Engine.AppendAsync("order.created", 2);
        await Wait.UntilAsync("both have taken their shares", () => Volatile.Read(ref _atOnce) == 4);
        _mayEnd.Release(12);
        await DeliveredAsync(16);
        Assert.Equal(4, _mostAtOnce);

        await server.StartAsync();
        await Engine.AppendAsync("order.created");
        var permits = new SharedPermits(first.Services.GetRequiredService<RedisConnection>());
        var limits = SubscriptionLimits.Of(1000, 3600, 4)!;
        await Wait.UntilAsync("the new Redis hears of what is under way, and of what was sent meanwhile", async () =>
        {
            try
            {
                return await permits.LookAsync(subscription, limits) is { Concurrency: > 0, Requests: > 1 };
            }
            catch (Exception e) when (RedisConnection.MeansAway(e))
            {
                return false;
            }
        });
        _mayEnd.Release();
        await DeliveredAsync(17);
        Assert.Equal(4, _mostAtOnce);
        Assert.All(Receiver.Received, w => Assert.Equal(1, w.Attempt));
    }

    [Fact]
    public async Task Places_of_a_process_that_was_killed_come_free()
    {
        var dies = new TaskCompletionSource();
        Receiver.Respond = (_, _) => dies.Task;
        await LimitAsync("/limited", "concurrency = 2");
        var settings = s_patient.Append(("ConnectionStrings:redis", await redis.ConnectionStringAsync())).ToArray();
        using (var process = DeliveryProcess.Start([.. Engine.Settings, .. settings, ("Delivery:AllowedNetworks", "127.0.0.0/8")]))
        {
            await Engine.AppendAsync("order.created", 5);
            await Wait.UntilAsync("it has taken all places", () => Receiver.Received.Count == 2, TimeSpan.FromMinutes(1));
            await Engine.StartDeliveryAsync(settings);

            process.Kill();
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }
        Receiver.Respond = (_, _) => Task.CompletedTask;

        await DeliveredAsync(5);
        Assert.Equal(5, Receiver.Received.Select(w => w.EventId).Distinct().Count());
        dies.SetResult();
    }

    [Fact]
    public async Task Without_limits_Redis_is_not_even_connected()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        var host = await Engine.StartDeliveryAsync(("ConnectionStrings:redis", "127.0.0.1:1"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Null(host.Services.GetRequiredService<RedisConnection>().ExecuteTask);
    }

    [Fact]
    public async Task Without_Redis_a_process_keeps_the_limits_by_itself_and_is_ready()
    {
        await LimitAsync("/limited", "rate_requests = 3, rate_seconds = 3600");
        await Engine.SubscribeAsync($"{Receiver.Url}/free");
        var host = await Engine.StartDeliveryAsync(("ConnectionStrings:redis", "127.0.0.1:1"));

        await Engine.AppendAsync("order.created", 8);
        await Wait.UntilAsync("the rate is used up", () => Receiver.At("/limited").Count() == 3);
        await Wait.UntilAsync("nobody else waits", () => Receiver.At("/free").Count() == 8);

        using var client = host.CreateClient();
        await Wait.UntilAsync("it is ready", async () => (await client.GetAsync("/health/ready")).IsSuccessStatusCode);
        Assert.Equal(3, Receiver.At("/limited").Count());
    }

    [Fact]
    public async Task Without_Redis_a_process_that_has_places_of_a_limit_stops_in_order()
    {
        Receiver.Respond = CountAsync;
        await LimitAsync("/limited", "concurrency = 3");
        var host = await Engine.StartDeliveryAsync(s_patient);
        await Engine.AppendAsync("order.created", 3);
        await Wait.UntilAsync("all are under way", () => Volatile.Read(ref _atOnce) == 3);
        Assert.NotEmpty(host.Services.GetRequiredService<Lanes>().LetGoOfLimits());

        // What a service throws as it stops comes out here, and would make its process end with another code than 0.
        var stopped = host.DisposeAsync();
        _mayEnd.Release(3);
        await stopped;

        await DeliveredAsync(3);
    }

    private async Task<(DeliveryHost First, DeliveryHost Second)> StartTwoAsync(string connection) => (
        await Engine.StartDeliveryAsync([.. s_patient, ("ConnectionStrings:redis", connection)]),
        await Engine.StartDeliveryAsync([.. s_patient, ("ConnectionStrings:redis", connection)]));

    private async Task<Guid> LimitAsync(string path, string limits)
    {
        var id = await Engine.SubscribeAsync(Receiver.Url + path);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET {limits} WHERE id = '{id}'");
        return id;
    }

    /// <summary>On Kafka nobody can tell by the events that are stored.</summary>
    private Task DeliveredAsync(int deliveries) => Wait.UntilAsync($"{deliveries} are delivered", async () =>
        await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == deliveries,
        TimeSpan.FromMinutes(1));

    /// <summary>Counts what comes to the limited one at once, and answers when the test lets it.</summary>
    private async Task CountAsync(ReceivedWebhook webhook, Microsoft.AspNetCore.Http.HttpContext context)
    {
        if (webhook.Path != "/limited")
            return;
        var now = Interlocked.Increment(ref _atOnce);
        for (var most = _mostAtOnce; now > most; most = _mostAtOnce)
            Interlocked.CompareExchange(ref _mostAtOnce, now, most);
        await _mayEnd.WaitAsync(TestContext.Current.CancellationToken);
        Interlocked.Decrement(ref _atOnce);
    }
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresLimitsTests(PostgresServer postgres, RedisServer redis) : LimitsTests(postgres, redis);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaLimitsTests(PostgresServer postgres, RedisServer redis, KafkaServer kafka) : LimitsTests(postgres, redis, kafka);

/// <summary>Triggers.Delivery as a process of its own, from its own output.</summary>
internal static class DeliveryProcess
{
    public static Process Start(params (string Key, string Value)[] settings)
    {
        // …/Triggers.Tests/bin/<configuration>/<framework>/
        var output = new DirectoryInfo(AppContext.BaseDirectory);
        var root = output.Parent!.Parent!.Parent!.Parent!.FullName;
        var start = new ProcessStartInfo("dotnet")
        {
            WorkingDirectory = Path.Combine(root, "Triggers.Delivery", "bin", output.Parent.Name, output.Name),
        };
        start.ArgumentList.Add("Triggers.Delivery.dll");
        foreach (var (key, value) in settings)
            start.Environment[key.Replace(":", "__", StringComparison.Ordinal)] = value;
        start.Environment["ASPNETCORE_URLS"] = "http://127.0.0.1:0";
        return Process.Start(start)!;
    }
}
