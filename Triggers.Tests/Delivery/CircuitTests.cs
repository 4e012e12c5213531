using System.Collections.Concurrent;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery.Circuits;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Receivers that fail, and how little of that they notice. API and delivery service on one database.</summary>
public sealed class CircuitTests(PostgresServer postgres) : EngineTests(postgres)
{
    /// <summary>Retries are due at once; what holds them is the circuit alone.</summary>
    private static readonly (string, string)[] s_settings =
    [
        ("Delivery:LaneConcurrency", "1"), ("Delivery:MaxLaneConcurrency", "1"), ("Delivery:Retry:BaseDelay", "00:00:00.01"),
        ("Delivery:Retry:MaxAttempts", "50"), ("Delivery:Circuit:ConsecutiveFailures", "3"), ("Delivery:Circuit:BreakDuration", "01:00:00"),
        ("Delivery:Circuit:MaxBreakDuration", "01:00:00"),
    ];

    private readonly ConcurrentQueue<string> _taken = new();
    private volatile bool _fails;

    [Fact]
    public async Task What_goes_to_a_receiver_that_fails_is_held_until_a_probe_succeeds()
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await client.SubscribeAsync(url: $"{Receiver.Url}/well");
        await Engine.StartDeliveryAsync([.. s_settings, ("Delivery:Circuit:BreakDuration", "00:00:01")]);

        var events = new List<string> { await client.PublishAsync() };
        await WaitForAsync(client, subscription, "open");
        for (var i = 0; i < 5; i++)
            events.Add(await client.PublishAsync());
        await Wait.UntilAsync("a probe fails", async () => await CircuitAsync(client, subscription, "failedProbes") is not "0");
        await Wait.UntilAsync("the other receiver has all", () => Receiver.At("/well").Count() == events.Count);

        var sick = await CircuitAsync(client, subscription);
        Assert.Equal(("failures", "http_status", "503"), (Text(sick["reason"]), Text(sick["lastOutcome"]), Text(sick["lastStatusCode"])));
        Assert.NotNull(Text(sick["since"]));
        Assert.NotNull(Text(sick["failingSince"]));
        Assert.NotNull(Text(sick["nextProbeAt"]));
        // Three opened it. Of what came since one at a time was sent, to see.
        Assert.InRange(Receiver.At("/sick").Count() - 3, 1, 20);
        _fails = false;
        await Wait.UntilAsync("all are delivered", () => _taken.Distinct().Count() == events.Count);
        await WaitForAsync(client, subscription, "closed");
        Assert.Equal(events.Order(), _taken.Distinct().Order());
        Assert.Equal(0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM circuits"));
    }

    [Fact]
    public async Task A_probe_that_fails_costs_one_attempt_and_the_next_waits_twice_as_long()
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await Engine.StartDeliveryAsync(s_settings);
        for (var i = 0; i < 4; i++)
            await client.PublishAsync();
        await WaitForAsync(client, subscription, "open");
        Assert.Equal(3, Receiver.Received.Count);

        await ProbeNowAsync();

        await Wait.UntilAsync("the probe has failed", async () => await CircuitAsync(client, subscription, "failedProbes") is "1");
        Assert.Equal(4, Receiver.Received.Count);
        Assert.Equal("open", await CircuitAsync(client, subscription, "state"));
    }

    [Fact]
    public async Task What_can_not_be_sent_is_no_probe_and_the_next_is()
    {
        const string Halves = """{"template":"{\"half\": {{ event.data.n | divided_by: event.data.by }}}"}""";
        await using var host = await StartAsync(fails: false);
        using var client = host.Client();
        var subscription = (await client.PostAsync(
            "/subscriptions", $$"""{"url":"{{Receiver.Url}}/sick","eventTypes":["*"],"transformation":{{Halves}} }""")).Is(201).Id;
        await OpenAsync(subscription);
        await Engine.StartDeliveryAsync(s_settings);
        for (var i = 0; i < 6; i++)
            await client.PublishAsync(data: """{"n":8,"by":0}""");
        await WaitForPendingAsync(6);
        var good = await client.PublishAsync(data: """{"n":8,"by":2}""");
        await WaitForPendingAsync(7);

        await ProbeNowAsync();

        // If one of them had counted, the next would have been tried in an hour.
        await WaitForAsync(client, subscription, "closed");
        Assert.Equal(good, Assert.Single(Receiver.Received).EventId);
        await Wait.UntilAsync("the others are dead letters", async () =>
            (await client.GetAsync("/dead-letters?state=open")).Is(200).Ids.Length == 6);

        Task WaitForPendingAsync(int count) => Wait.UntilAsync(
            $"{count} wait", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == count);
    }

    [Fact]
    public async Task A_probe_may_take_as_long_as_its_subscription_gives_an_attempt()
    {
        await using var host = await StartAsync(fails: false);
        var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Receiver.Respond = (_, _) => answer.Task;
        using var client = host.Client();
        var subscription = (await client.PostAsync(
            "/subscriptions", $$"""{"url":"{{Receiver.Url}}/slow","eventTypes":["*"],"retry":{"timeout":"00:00:30"} }""")).Is(201).Id;
        await OpenAsync(subscription);
        await Engine.StartDeliveryAsync(
            [.. s_settings, ("Delivery:AttemptTimeout", "00:00:01"), ("Delivery:ConnectTimeout", "00:00:01")]);
        await client.PublishAsync();

        await ProbeNowAsync();
        await Wait.UntilAsync("the probe is under way", () => Receiver.Received.Count == 1);

        // No other process takes it before, which would leave nothing for this one to close.
        Assert.InRange(
            await Engine.ScalarAsync<double>("SELECT extract(epoch FROM next_probe_at - since)::float8 FROM circuits"), 35, 120);
        answer.SetResult();
        await WaitForAsync(client, subscription, "closed");
    }

    [Fact]
    public async Task A_probe_that_is_taken_while_the_circuits_are_read_is_still_one_when_they_have_been()
    {
        const long Lock = 4711;
        await using var host = await StartAsync(fails: false);
        var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Receiver.Respond = (_, _) => answer.Task;
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await OpenAsync(subscription);
        var delivery = await Engine.StartDeliveryAsync(s_settings);
        await client.PublishAsync();
        // Whoever reads them here has begun, and waits for the lock before a row comes.
        await Engine.ExecuteAsync($"""
            CREATE SCHEMA slow;
            CREATE VIEW slow.circuits AS SELECT c.* FROM public.circuits c, (SELECT pg_advisory_xact_lock({Lock})) AS held
            """);
        await using var slow = NpgsqlDataSource.Create(
            new NpgsqlConnectionStringBuilder(Engine.ConnectionString) { SearchPath = "slow,public" }.ConnectionString);
        await using var holder = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var held = await holder.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using (var take = new NpgsqlCommand($"SELECT pg_advisory_xact_lock({Lock})", holder))
            await take.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        var reading = delivery.Services.GetRequiredService<Circuits>().RefreshAsync(slow, TestContext.Current.CancellationToken);
        await Wait.UntilAsync("the circuits are being read", async () => await Engine.ScalarAsync<long>(
            $"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {Lock} AND NOT granted") == 1);
        await ProbeNowAsync();
        await Wait.UntilAsync("the probe is under way", () => Receiver.Received.Count == 1);
        await held.RollbackAsync(TestContext.Current.CancellationToken);
        await reading;
        answer.SetResult();

        await WaitForAsync(client, subscription, "closed");
    }

    [Fact]
    public async Task Another_process_holds_what_one_saw_fail()
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await Engine.StartDeliveryAsync(s_settings);
        await client.PublishAsync();
        await WaitForAsync(client, subscription, "open");
        await Engine.StartDeliveryAsync(s_settings);
        var other = await client.SubscribeAsync(url: $"{Receiver.Url}/well");

        var id = await client.PublishAsync();
        await Wait.UntilAsync("both processes have looked", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM workers") == 2 && Receiver.At("/well").Any());
        await client.PostAsync($"/subscriptions/{subscription}/send-now");
        await client.PostAsync($"/subscriptions/{other}/test");

        Assert.Equal(3, Receiver.At("/sick").Count());
        _fails = false;
        (await client.PostAsync($"/subscriptions/{subscription}/circuit/close")).Is(200);
        await Wait.UntilAsync("the event got there", () => _taken.Contains(id));
    }

    [Fact]
    public async Task One_process_takes_a_probe_and_who_acts_on_an_older_state_changes_nothing()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.ExecuteAsync([CircuitChanges.Open(
            new Failing(subscription, 1, TimeSpan.Zero, AttemptOutcome.Timeout, null), TimeSpan.Zero)]);
        var epoch = await Engine.ScalarAsync<long>("SELECT epoch FROM circuits");

        var taken = await Task.WhenAll(Enumerable.Range(0, 8).Select(async _ =>
        {
            await using var batch = Engine.DataSource.CreateBatch();
            batch.BatchCommands.Add(CircuitChanges.TakeProbes([(subscription, epoch, TimeSpan.FromMinutes(1))]));
            await using var reader = await batch.ExecuteReaderAsync(TestContext.Current.CancellationToken);
            return await reader.ReadAsync(TestContext.Current.CancellationToken) ? reader.GetInt64(1) : 0;
        }));

        var probe = Assert.Single(taken, t => t != 0);
        await Engine.ExecuteAsync([CircuitChanges.Close(subscription, epoch)]);
        Assert.Equal("half_open", await Engine.ScalarAsync<string>("SELECT state FROM circuits"));
        await Engine.ExecuteAsync([CircuitChanges.Close(subscription, probe)]);
        Assert.Equal(0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM circuits"));
    }

    [Fact]
    public async Task What_somebody_holds_waits_until_somebody_lets_it_go()
    {
        await using var host = await StartAsync(fails: false);
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await client.SubscribeAsync(url: $"{Receiver.Url}/well");
        var held = (await client.PostAsync($"/subscriptions/{subscription}/circuit/open")).Is(200).Json["circuit"]!;
        Assert.Equal(("open", "requested", null), (Text(held["state"]), Text(held["reason"]), Text(held["nextProbeAt"])));
        await Engine.StartDeliveryAsync(s_settings);

        var events = new List<string>();
        for (var i = 0; i < 5; i++)
            events.Add(await client.PublishAsync());
        await Wait.UntilAsync("the other receiver has them", () => Receiver.At("/well").Count() == 5);
        // A test is sent all the same: somebody wants to know.
        var test = (await client.PostAsync($"/subscriptions/{subscription}/test")).Is(200).Json["attempt"]!;
        Assert.Equal("200", Text(test["statusCode"]));
        Assert.Empty(_taken.Intersect(events));

        (await client.PostAsync($"/subscriptions/{subscription}/circuit/close")).Is(200);
        await Wait.UntilAsync("they got there", () => _taken.Intersect(events).Count() == 5);
        Assert.Equal(events, _taken.Where(events.Contains));
        (await client.PostAsync("/subscriptions/sub_01jd0000000000000000000000/circuit/open")).IsProblem(404, "not_found");
    }

    [Theory]
    [InlineData("""{"url":"URL/other"}""")]
    [InlineData("""{"enabled":true}""")]
    public async Task A_subscription_that_was_changed_begins_anew(string change)
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await Engine.StartDeliveryAsync(s_settings);
        var id = await client.PublishAsync();
        await WaitForAsync(client, subscription, "open");
        _fails = false;

        var changed = (await client.PatchAsync($"/subscriptions/{subscription}", change.Replace("URL", Receiver.Url))).Is(200);

        Assert.Equal("closed", Text(changed.Json["circuit"]!["state"]));
        await Wait.UntilAsync(
            "the event is delivered", async () => (await client.GetAsync($"/events/{id}")).Is(200)["status"] == "delivered");
    }

    [Fact]
    public async Task A_probe_that_is_answered_410_ends_a_hook_and_its_circuit_and_is_no_recovery()
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var status = 503;
        Receiver.Respond = (webhook, context) =>
        {
            context.Response.StatusCode = webhook.Path == "/sick" ? Volatile.Read(ref status) : 200;
            return Task.CompletedTask;
        };
        var hook = (await client.PostAsync("/hooks", $$"""{"targetUrl":"{{Receiver.Url}}/sick","eventTypes":["order.*"]}""")).Is(201).Id;
        await client.SubscribeAsync("\"triggers.subscription.*\"", $"{Receiver.Url}/operators");
        await Engine.StartDeliveryAsync([.. s_settings, ("Delivery:Circuit:BreakDuration", "00:00:01")]);
        await client.PublishAsync();
        await WaitForAsync(client, hook, "open");

        Volatile.Write(ref status, 410);

        await Wait.UntilAsync("the hook is gone", async () => (await client.GetAsync($"/subscriptions/{hook}")).Status == 404);
        await Wait.UntilAsync("its circuit is gone", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM circuits") == 0);
        // It would have been told in the transaction that closed the circuit.
        Assert.Equal(
            0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE type = 'triggers.subscription.recovered'"));
        await Wait.UntilAsync("that it failed was told", () => Receiver.At("/operators").Any());
    }

    [Fact]
    public async Task After_nothing_but_failures_for_too_long_a_subscription_is_disabled_and_the_tenant_is_told_before_and_after()
    {
        await using var host = await StartAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/sick");
        await client.SubscribeAsync("\"triggers.subscription.*\"", $"{Receiver.Url}/operators");
        await Engine.StartDeliveryAsync([.. s_settings, ("Delivery:Circuit:DisableAfter", "00:00:02")]);
        await client.PublishAsync();

        await Wait.UntilAsync("it is disabled", async () =>
            (await client.GetAsync($"/subscriptions/{subscription}")).Is(200) is var s
                && (s["enabled"], s["disabledReason"]) == ("false", "failing"));
        await Wait.UntilAsync("the tenant is told", () => Receiver.At("/operators").Count() == 2);

        var told = Receiver.At("/operators").Select(w => JsonNode.Parse(w.Body)!).ToList();
        Assert.Equal(
            ["triggers.subscription.failing", "triggers.subscription.disabled"], told.Select(t => t["type"]!.ToString()));
        Assert.All(told, t => Assert.Equal(subscription, t["data"]!["subscriptionId"]!.ToString()));
        Assert.Equal("failing", Text(told[1]["data"]!["reason"]));
        Assert.Equal(0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM circuits"));
        // Nobody who did not ask is told, and nothing of it waits in the inbox.
        Assert.All(Receiver.At("/sick"), w => Assert.Equal("order.created", Text(JsonNode.Parse(w.Body)!["type"])));
        Assert.DoesNotContain("triggers.", (await client.GetAsync("/inbox")).Is(200).Text);
    }

    [Fact]
    public async Task A_receiver_that_asks_to_be_left_alone_gets_nothing_more_until_then()
    {
        Receiver.Respond = (webhook, context) =>
        {
            if (webhook.Path == "/sick")
                (context.Response.StatusCode, context.Response.Headers.RetryAfter) = (429, "3600");
            if (webhook.Path == "/spent")
                context.Response.Headers["RateLimit"] = "\"hooks\";r=0;t=3600";
            return Task.CompletedTask;
        };
        await Engine.SubscribeAsync($"{Receiver.Url}/sick");
        await Engine.SubscribeAsync($"{Receiver.Url}/spent");
        await Engine.SubscribeAsync($"{Receiver.Url}/well");
        await Engine.StartDeliveryAsync(s_settings);

        await Engine.AppendAsync("order.created");
        await Wait.UntilAsync("all have answered", async () =>
            Receiver.Received.Count == 3 && await Engine.ScalarAsync<long>(
                "SELECT count(*) FROM all_deliveries WHERE status = 'succeeded' OR last_status_code = 429") == 3);
        await Engine.AppendAsync("order.created", 4);
        await Wait.UntilAsync("the well one has all", () => Receiver.At("/well").Count() == 5);

        Assert.Single(Receiver.At("/sick"));
        Assert.Single(Receiver.At("/spent"));
    }

    private async Task<ApiHost> StartAsync(bool fails = true)
    {
        _fails = fails;
        Receiver.Respond = (webhook, context) =>
        {
            if (webhook.Path == "/sick" && _fails)
                context.Response.StatusCode = 503;
            else if (webhook.Path == "/sick")
                _taken.Enqueue(webhook.EventId);
            return Task.CompletedTask;
        };
        return await ApiAsync();
    }

    private async Task<ApiHost> ApiAsync()
    {
        var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        return host;
    }

    /// <summary>Its circuit is open, and a probe an hour away.</summary>
    private Task OpenAsync(string subscription) => Engine.ExecuteAsync([CircuitChanges.Open(
        new Failing(Rows.Uuid(subscription), 1, TimeSpan.Zero, AttemptOutcome.Timeout, null), TimeSpan.FromHours(1))]);

    private async Task ProbeNowAsync()
    {
        await Engine.ExecuteAsync("UPDATE circuits SET epoch = DEFAULT, next_probe_at = clock_timestamp()");
        await Engine.ExecuteAsync("SELECT pg_notify('triggers_subscriptions', '')");
    }

    private static Task WaitForAsync(ApiClient client, string subscription, string state) =>
        Wait.UntilAsync($"the circuit is {state}", async () => await CircuitAsync(client, subscription, "state") == state);

    private static async Task<string?> CircuitAsync(ApiClient client, string subscription, string member) =>
        Text((await CircuitAsync(client, subscription))[member]);

    private static async Task<JsonNode> CircuitAsync(ApiClient client, string subscription) =>
        (await client.GetAsync($"/subscriptions/{subscription}")).Is(200).Json["circuit"]!;

    private static string? Text(JsonNode? node) => node?.ToString();
}
