using Microsoft.AspNetCore.Http;
using Triggers.Core.State;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>
/// What an operator asks for and receivers see: tests, sending now, replays of a range of time. API and delivery service on one database.
/// </summary>
public sealed class OperatorActionsTests(PostgresServer postgres) : EngineTests(postgres)
{
    private const string LongAgo = "2026-01-01T00:00:00Z";

    [Fact]
    public async Task A_test_waits_neither_for_a_full_lane_nor_for_its_subscription_to_be_enabled()
    {
        using var release = new CancellationTokenSource();
        Receiver.Respond = (webhook, _) => Type(webhook) == "triggers.test"
            ? Task.CompletedTask
            : Task.Delay(Timeout.Infinite, release.Token).ContinueWith(_ => { }, TaskScheduler.Default);
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "1"));
        for (var i = 0; i < 3; i++)
            await client.PublishAsync();
        await Wait.UntilAsync("the lane is full", () => Receiver.Received.Count == 1);

        Assert.Equal(
            "200", (await client.PostAsync($"/subscriptions/{subscription}/test")).Is(200).Json["attempt"]!["statusCode"]!.ToString());

        await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""");
        Assert.Equal(
            "200", (await client.PostAsync($"/subscriptions/{subscription}/test")).Is(200).Json["attempt"]!["statusCode"]!.ToString());
        Assert.Single(Receiver.Received, w => Type(w) != "triggers.test");
        await release.CancelAsync();
    }

    [Fact]
    public async Task What_is_an_hour_ahead_is_sent_now()
    {
        var fails = true;
        Receiver.Respond = (_, context) => Answer(context, fails ? 503 : 200);
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "01:00:00"));
        var events = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => client.PublishAsync()));
        await Wait.UntilAsync(
            "every first attempt has failed", async () => (await PendingAsync(client)).Count(d => d.FailedAttempts == 1) == 4);
        fails = false;
        var one = (await PendingAsync(client))[0].Id;

        var sent = (await client.PostAsync($"/deliveries/{one}/send-now")).Is(202);
        Assert.Equal(("pending", $"/deliveries/{one}"), (sent["status"], sent.Headers["Location"]));
        await Wait.UntilAsync(
            "it is delivered", async () => (await client.GetAsync($"/deliveries/{one}")).Is(200)["status"] == "succeeded");
        Assert.Equal(5, Receiver.Received.Count);
        (await client.PostAsync($"/deliveries/{one}/send-now")).IsProblem(409, "delivery_ended");

        var all = (await client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202);
        Assert.Equal(("3", "false"), (all["deliveries"], all["remaining"]));
        await Wait.UntilAsync("all are delivered", async () => (await PendingAsync(client)).Count == 0);
        Assert.Equal(events.Order(), Receiver.Received.Where(w => w.Attempt == 2).Select(w => w.EventId).Order());
        Assert.Equal("0", (await client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202)["deliveries"]);
    }

    [Fact]
    public async Task What_was_published_while_a_subscription_was_disabled_is_delivered_by_a_replay()
    {
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync("\"order.*\",\"user.*\"", Receiver.Url);
        await Engine.StartDeliveryAsync();
        var before = await client.PublishAsync();
        await Wait.UntilAsync(
            "the first is delivered", async () => (await client.GetAsync($"/events/{before}")).Is(200)["status"] == "delivered");
        await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""");
        var missed = new[] { await client.PublishAsync(), await client.PublishAsync("order.paid") };
        await client.PublishAsync("user.created");
        await client.PublishAsync("invoice.sent");
        await Wait.UntilAsync("nobody gets them", async () => (await client.GetAsync("/inbox")).Is(200).Ids.Length == 4);
        (await client.PostAsync("/replays", Body(subscription))).IsProblem(409, "subscription_disabled");
        await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":true}""");

        var job = await FinishAsync(client, Body(subscription, ",\"eventTypes\":[\"order.*\"]"));

        Assert.Equal(("completed", "3", "2"), (job["status"], job["matched"], job["deliveries"]));
        Assert.Equal(job["to"], job["doneUntil"]);
        await Wait.UntilAsync("what was missed is delivered", () => Receiver.Received.Count == 3);
        Assert.Equal([before, .. missed], Receiver.Received.Select(w => w.EventId).Order());
        // It had those two before, so the rest is the one left of what the subscription wants.
        var rest = await FinishAsync(client, Body(subscription));
        Assert.Equal(("4", "1"), (rest["matched"], rest["deliveries"]));
        await Wait.UntilAsync("the rest is delivered", () => Receiver.Received.Count == 4);
        Assert.Single((await client.GetAsync("/inbox")).Is(200).Ids);
    }

    [Fact]
    public async Task A_replay_of_everything_sends_each_event_of_its_range_once()
    {
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: Receiver.Url);
        await client.SubscribeAsync(url: $"{Receiver.Url}/other");
        await Engine.StartDeliveryAsync();
        var outside = await client.PublishAsync();
        var from = (await client.GetAsync($"/events/{outside}")).Is(200)["createdAt"]!;
        await Wait.UntilAsync("a moment has passed", async () =>
            (await client.GetAsync($"/events/{await client.PublishAsync("tick")}")).Is(200)["createdAt"] != from);
        var answer = (await client.PostAsync("/events/batch",
            $$"""{"events":[{{string.Join(",", Enumerable.Range(0, 500).Select(i => $$"""{"type":"order.created","data":{{i}}}"""))}}]}""")).Is(202);
        var ids = answer.Json["items"]!.AsArray().Select(i => i!["id"]!.GetValue<string>()).ToArray();
        await Wait.UntilAsync("all are delivered", () => Receiver.At("/").Count(w => Type(w) == "order.created") == 501);

        var job = await FinishAsync(client, Body(subscription, ",\"include\":\"all\",\"eventTypes\":[\"order.*\"]",
            answer.Json["items"]![0]!["createdAt"]!.GetValue<string>()));

        Assert.Equal(("500", "500"), (job["matched"], job["deliveries"]));
        await Wait.UntilAsync(
            "all are delivered again", () => Receiver.At("/").Count(w => w.Headers.ContainsKey("webhook-replay")) == 500);
        Assert.Equal(ids.Order(), Receiver.At("/").Where(w => w.Headers.ContainsKey("webhook-replay")).Select(w => w.EventId).Order());
        Assert.DoesNotContain(Receiver.At("/other"), w => w.Headers.ContainsKey("webhook-replay"));
    }

    [Fact]
    public async Task A_replay_whose_worker_dies_in_the_middle_of_a_portion_goes_on_and_sends_nothing_twice()
    {
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: Receiver.Url);
        await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""");
        await Engine.StartDeliveryAsync();
        var events = new List<string>();
        for (var i = 0; i < 5; i++)
            events.Add(await client.PublishAsync());
        await Wait.UntilAsync("they are projected", async () => (await client.GetAsync("/inbox")).Is(200).Ids.Length == 5);
        await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":true}""");
        // Somebody has the third event, so that the worker stops with two of them locked.
        await using var holder = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await holder.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using (var batch = new Npgsql.NpgsqlBatch(holder) { BatchCommands = { EventState.Lock([Rows.Uuid(events[2])]) } })
            await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        var job = (await client.PostAsync("/replays", Body(subscription))).Is(202);
        const string Waiting =
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND NOT l.granted AND "
                + "a.datname = current_database()";
        await Wait.UntilAsync("the worker waits for the event", async () => await Engine.ScalarAsync<long>(Waiting) == 1,
            TimeSpan.FromMinutes(2));
        await Engine.ScalarAsync<bool>(Waiting.Replace("count(*)", "bool_and(pg_terminate_backend(pid))"));
        await Wait.UntilAsync("it tries again", async () => await Engine.ScalarAsync<long>(Waiting) == 1);
        // What it had charged by then it may have made; nothing from the locked one on.
        var (status, made) = await ProgressAsync(client, job.Id);
        Assert.Equal("running", status);
        Assert.InRange(int.Parse(made!), 0, 2);
        await transaction.RollbackAsync(TestContext.Current.CancellationToken);

        await Wait.UntilAsync("the job is completed", async () => await ProgressAsync(client, job.Id) == ("completed", "5"));
        await Wait.UntilAsync("all are delivered", () => Receiver.Received.Count == 5);
        Assert.Equal(events.Order(), Receiver.Received.Select(w => w.EventId).Order());
    }

    [Fact]
    public async Task A_replay_makes_a_days_events_ahead_and_waits_while_its_tenant_has_none_left()
    {
        await using var host = await ApiAsync();
        using var client = host.Client();
        var plan = (await client.PostAsync("/usage-plans", """{"name":"small","requestsPerSecond":1000,"burst":1000,"eventsPerDay":100}"""))
            .Is(201).Id;
        (await client.PatchAsync($"/tenants/{(await client.GetAsync("/tenants")).Ids.Single()}", $$"""{"usagePlanId":"{{plan}}"}"""))
            .Is(200);
        for (var i = 0; i < 2; i++)
            (await client.PostAsync(
                "/events/batch", $$"""{"events":[{{string.Join(",", Enumerable.Repeat("""{"type":"a","data":1}""", 700))}}]}""")).Is(202);
        await Engine.StartDeliveryAsync();
        await Wait.UntilAsync("nobody was there for them", () => Engine.ScalarAsync<bool>(
            "SELECT next > (SELECT max(seq) FROM events) FROM log_positions WHERE log = 'postgres' AND partition = 0"));
        var subscription = await client.SubscribeAsync(url: Receiver.Url);

        var job = (await client.PostAsync("/replays", Body(subscription))).Is(202);

        // The first was paid for when the replay was asked for.
        await Wait.UntilAsync("it is as far ahead as it may be", async () =>
            await ProgressAsync(client, job.Id) == ("running", "201"), TimeSpan.FromSeconds(30));
        Assert.Equal(101, await Engine.ScalarAsync<long>("SELECT charged FROM replay_jobs"));
        var heldUntil = await HeldUntilAsync();
        await Wait.UntilAsync(
            "it was looked at twice more", async () => await HeldUntilAsync() > heldUntil.AddSeconds(4), TimeSpan.FromSeconds(20));
        Assert.Equal(("running", "201"), await ProgressAsync(client, job.Id));

        (await client.PatchAsync($"/usage-plans/{plan}", """{"eventsPerDay":null}""")).Is(200);

        await Wait.UntilAsync(
            "the job is completed", async () => await ProgressAsync(client, job.Id) == ("completed", "1400"), TimeSpan.FromSeconds(30));

        Task<DateTime> HeldUntilAsync() => Engine.ScalarAsync<DateTime>("SELECT charge_at FROM replay_jobs");
    }

    [Fact]
    public async Task A_replay_passes_nothing_that_may_still_fan_out_to_its_subscription()
    {
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync("\"invoice.*\"", Receiver.Url);
        var events = await Engine.AppendAsync("order.created", 2);
        await Engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'");
        // Nobody has looked yet who wants the second, and while somebody holds it nobody does.
        await Engine.ExecuteAsync([FanOuts.Defer([new FanOut(Engine.Tenant, events[1], 7, Guid.Empty)])]);
        await using var holder = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await holder.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using (var hold = new Npgsql.NpgsqlCommand("SELECT FROM fan_outs FOR UPDATE", holder))
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        await Engine.StartDeliveryAsync();

        var job = (await client.PostAsync("/replays", Body(subscription, ",\"eventTypes\":[\"order.*\"]"))).Is(202);

        await Wait.UntilAsync("the first is delivered", () => Receiver.Received.Count == 1);
        var waiting = (await client.GetAsync($"/replays/{job.Id}")).Is(200);
        Assert.Equal(("running", "1"), (waiting["status"], waiting["matched"]));
        await transaction.RollbackAsync(TestContext.Current.CancellationToken);
        // The fan-out did not bring it, so the replay does.
        await Wait.UntilAsync("the job is completed", async () => await ProgressAsync(client, job.Id) == ("completed", "2"));
        await Wait.UntilAsync("the second is delivered", () => Receiver.Received.Count == 2);
    }

    [Fact]
    public async Task A_replay_resolves_the_dead_letters_of_what_it_delivers_and_ends_with_its_subscription()
    {
        var fails = true;
        Receiver.Respond = (_, context) => Answer(context, fails ? 400 : 200);
        await using var host = await ApiAsync();
        using var client = host.Client();
        var subscription = await client.SubscribeAsync(url: Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxRejectedAttempts", "1"));
        await client.PublishAsync();
        await Wait.UntilAsync("it is dead", async () => (await client.GetAsync("/dead-letters?state=open")).Is(200).Ids.Length == 1);
        fails = false;

        var job = await FinishAsync(client, Body(subscription));

        Assert.Equal("1", job["deliveries"]);
        await Wait.UntilAsync(
            "the dead letter is resolved", async () => (await client.GetAsync("/dead-letters?state=resolved")).Is(200).Ids.Length == 1);

        // The job waits for its last seconds to be certain; until then there is one, and it does not outlive its subscription.
        var next = (await client.PostAsync("/replays", Body(subscription))).Is(202);
        await client.DeleteAsync($"/subscriptions/{subscription}");
        await Wait.UntilAsync(
            "the job has ended", async () => (await client.GetAsync($"/replays/{next.Id}")).Is(200)["status"] != "running");
        Assert.Equal(("failed", "subscription_gone"), ((await client.GetAsync($"/replays/{next.Id}"))
            .Is(200)["status"], (await client.GetAsync($"/replays/{next.Id}")).Is(200)["reason"]));
        (await client.PostAsync("/replays", Body(subscription))).IsProblem(409, "subscription_gone");
    }

    private static string Body(string subscription, string more = "", string from = LongAgo) =>
        $$"""{"subscriptionId":"{{subscription}}","from":"{{from}}"{{more}}}""";

    private static string Type(ReceivedWebhook webhook) =>
        System.Text.Json.Nodes.JsonNode.Parse(webhook.Body)!["type"]!.GetValue<string>();

    private static async Task<Answer> FinishAsync(ApiClient client, string body)
    {
        var job = (await client.PostAsync("/replays", body)).Is(202);
        Assert.Equal($"/replays/{job.Id}", job.Headers["Location"]);
        Answer? read = null;
        await Wait.UntilAsync(
            "the job has ended", async () => (read = (await client.GetAsync($"/replays/{job.Id}")).Is(200))["status"] != "running");
        return read!;
    }

    private static async Task<(string? Status, string? Deliveries)> ProgressAsync(ApiClient client, string id)
    {
        var job = (await client.GetAsync($"/replays/{id}")).Is(200);
        return (job["status"], job["deliveries"]);
    }

    private static async Task<List<(string Id, int FailedAttempts)>> PendingAsync(ApiClient client) =>
        [.. (await client.GetAsync("/deliveries?status=pending")).Is(200).Json["items"]!.AsArray()
            .Select(d => (d!["id"]!.GetValue<string>(), d["failedAttempts"]!.GetValue<int>()))];

    private async Task<ApiHost> ApiAsync()
    {
        var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        return host;
    }

    private static Task Answer(HttpContext context, int statusCode)
    {
        context.Response.StatusCode = statusCode;
        return Task.CompletedTask;
    }
}
