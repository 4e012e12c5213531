using System.Diagnostics;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>The main job of the delivery service, on real Postgres and real sockets.</summary>
public sealed class DeliveryTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task Every_subscriber_that_matches_gets_the_event_and_nobody_else()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/orders", "order.*");
        await Engine.SubscribeAsync($"{Receiver.Url}/all", "*");
        await Engine.SubscribeAsync($"{Receiver.Url}/users", "user.created");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created", data: """{ "total": 1.50 }"""))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded, 2);
        Assert.Equal(["/all", "/orders"], Receiver.Received.Select(w => w.Path).Order());
        Assert.All(Receiver.Received, w => Assert.Equal(TypeId.Format(TypeId.Event, id), w.EventId));
        Assert.All(Receiver.Received, w => Assert.EndsWith("""
            "data":{ "total": 1.50 }}
            """.Trim(), Encoding.UTF8.GetString(w.Body), StringComparison.Ordinal));
        Assert.Equal(0, await Engine.UnsettledAsync());
    }

    [Fact]
    public async Task An_event_nobody_wants_stays_open_for_the_inbox()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/orders", "order.*");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("user.created"))[0];

        await Wait.UntilAsync("the event is projected", async () =>
            await Engine.ScalarAsync<long>($"SELECT count(*) FROM inbox WHERE event_id = '{id}'") == 1);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
    }

    [Fact]
    public async Task A_failure_is_tried_again_on_schedule_and_every_attempt_is_recorded()
    {
        Receiver.Respond = async (webhook, context) =>
        {
            context.Response.StatusCode = webhook.Attempt < 3 ? 503 : 200;
            context.Response.Headers["X-Answer"] = "yes";
            await context.Response.WriteAsync(new string('a', 10_000));
        };
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Equal([1, 2, 3], Receiver.Received.Select(w => w.Attempt));
        await using var db = Engine.Db();
        var attempts = await db.Attempts.OrderBy(a => a.Number).ToListAsync(TestContext.Current.CancellationToken);
        Assert.Equal([1, 2, 3], attempts.Select(a => a.Number));
        Assert.Equal([503, 503, 200], attempts.Select(a => a.StatusCode!.Value));
        Assert.Equal([AttemptOutcome.HttpStatus, AttemptOutcome.HttpStatus, AttemptOutcome.Delivered], attempts.Select(a => a.Outcome));
        Assert.All(attempts, a => Assert.Equal(4096, a.ResponseBody!.Length));
        Assert.All(attempts, a => Assert.Equal("yes", a.ResponseHeaders!["X-Answer"]));
        Assert.Equal(2, (await db.Deliveries.SingleAsync(TestContext.Current.CancellationToken)).RetryCount);
    }

    [Fact]
    public async Task The_next_attempt_is_due_when_the_schedule_says_by_the_clock_of_the_database()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "01:00:00"));

        await Engine.AppendAsync("order.created");

        await Wait.UntilAsync(
            "the first attempt is recorded", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM all_attempts") == 1);
        var wait = await Engine.ScalarAsync<double>(
            "SELECT extract(epoch FROM d.next_attempt_at - (a.started_at + a.duration_ms * interval '1 ms'))::float8 FROM "
                + "delivery_queue d JOIN attempts a ON a.delivery_id = d.id");
        Assert.InRange(wait, 3600, 3601);
    }

    [Fact]
    public async Task Retry_after_moves_the_next_attempt()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.Headers.RetryAfter = "120";
            return Answer(context, 429);
        };
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();

        await Engine.AppendAsync("order.created");

        await Wait.UntilAsync(
            "the first attempt is recorded", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM all_attempts") == 1);
        Assert.InRange(
            await Engine.ScalarAsync<double>("SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM delivery_queue"), 110, 121);
    }

    [Fact]
    public async Task What_is_exhausted_becomes_a_dead_letter_that_says_why()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "3"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        await using var db = Engine.Db();
        var letter = await db.DeadLetters.SingleAsync(TestContext.Current.CancellationToken);
        Assert.Equal((id, subscription, "exhausted", 3, 500), (
            letter.EventId, letter.SubscriptionId, letter.Reason, letter.Attempts, letter.LastStatusCode));
        Assert.Equal(DeadLetterState.Open, letter.State);
        Assert.Equal("dead_lettered", await Engine.StatusAsync(id));
    }

    [Fact]
    public async Task AReceiver_that_is_gone_is_left_alone()
    {
        Receiver.Respond = (_, context) => Answer(context, 410);
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Cancelled);
        await using var db = Engine.Db();
        var after = await db.Subscriptions.SingleAsync(s => s.Id == subscription, TestContext.Current.CancellationToken);
        Assert.Equal((false, "gone"), (after.Enabled, after.DisabledReason));

        // Proved by something later: the next event comes to another subscriber, and not to this one.
        await Engine.SubscribeAsync($"{Receiver.Url}/other");
        Receiver.Respond = (_, _) => Task.CompletedTask;
        var next = (await Engine.AppendAsync("order.created"))[0];
        await Engine.WaitForStatusAsync(next, DeliveryStatus.Succeeded);
        Assert.Equal(["/", "/other"], Receiver.Received.Select(w => w.Path));
    }

    [Fact]
    public async Task Who_is_gone_while_somebody_changes_subscriptions_holds_up_nobody_and_is_disabled_later()
    {
        Receiver.Respond = (_, context) => context.Request.Path == "/well" ? Task.CompletedTask : Answer(context, 410);
        var changed = await Engine.SubscribeAsync($"{Receiver.Url}/changed", "order.changed");
        var other = await Engine.SubscribeAsync($"{Receiver.Url}/other", "order.other");
        await Engine.SubscribeAsync($"{Receiver.Url}/well", "order.well");
        await Engine.StartDeliveryAsync();
        Guid held;
        await using (var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (var changing = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            await using (var change = new NpgsqlCommand($"UPDATE subscriptions SET description = 'x' WHERE id = '{changed}'", connection))
                await change.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

            held = (await Engine.AppendAsync("order.changed"))[0];
            await Wait.UntilAsync("the one that is being changed answers", () => Receiver.Received.Any(w => w.Path == "/changed"));
            await Engine.WaitForStatusAsync((await Engine.AppendAsync("order.other"))[0], DeliveryStatus.Cancelled);
            await Engine.WaitForStatusAsync((await Engine.AppendAsync("order.well"))[0], DeliveryStatus.Succeeded);
            Assert.Equal("gone", await Engine.ScalarAsync<string>($"SELECT disabled_reason FROM subscriptions WHERE id = '{other}'"));
            Assert.True(await Engine.ScalarAsync<bool>($"SELECT enabled FROM subscriptions WHERE id = '{changed}'"));
        }

        await Engine.WaitForStatusAsync(held, DeliveryStatus.Cancelled);
        Assert.Equal("gone", await Engine.ScalarAsync<string>($"SELECT disabled_reason FROM subscriptions WHERE id = '{changed}'"));
    }

    [Fact]
    public async Task An_address_inside_the_network_is_never_called()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:AllowedNetworks", ""));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("undeliverable", await Engine.ScalarAsync<string>("SELECT reason FROM dead_letters"));
        Assert.Equal("refused_by_guard", await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts"));
        Assert.Empty(Receiver.Received);
    }

    [Fact]
    public async Task A_name_that_points_inside_the_network_is_refused_after_it_is_resolved()
    {
        await Engine.SubscribeAsync(Receiver.Url.Replace("127.0.0.1", "localhost", StringComparison.Ordinal));
        await Engine.StartDeliveryAsync(("Delivery:AllowedNetworks", ""));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("refused_by_guard", await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts"));
    }

    [Fact]
    public async Task A_redirect_is_a_failure_and_is_not_followed()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.Headers.Location = $"{Receiver.Url}/elsewhere";
            return Answer(context, 307);
        };
        await Engine.SubscribeAsync($"{Receiver.Url}/here");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("rejected", await Engine.ScalarAsync<string>("SELECT reason FROM dead_letters"));
        Assert.Equal(["/here", "/here", "/here"], Receiver.Received.Select(w => w.Path));
    }

    [Theory]
    [InlineData("http://127.0.0.1:1024", "connection_refused")]
    [InlineData("http://127.0.0.1:22", "refused_by_guard")]
    [InlineData("http://0.0.0.0/", "refused_by_guard")]
    [InlineData("http://[::]:8080/", "refused_by_guard")]
    [InlineData("http://[::ffff:a9fe:a9fe]/", "refused_by_guard")]
    [InlineData("http://no-such-name.invalid", "dns_failure")]
    public async Task Failures_before_the_request_are_told_apart(string url, string outcome)
    {
        await Engine.SubscribeAsync(url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "1"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal(outcome, await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts"));
    }

    [Fact]
    public async Task What_came_of_an_answer_that_broke_off_is_recorded_obeyed_and_told_in_the_log()
    {
        await using var receiver = new RawReceiver(
            [[Steps.Read, Steps.Send(
                "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nX-Queue: full\r\nContent-Length: 100\r\n\r\ntry later"), Steps.Close]]);
        var logs = new CapturedLogs();
        await Engine.SubscribeAsync($"http://127.0.0.1:{receiver.Port}/");
        await Engine.StartDeliveryAsync(logs);

        await Engine.AppendAsync("order.created");

        await Wait.UntilAsync(
            "the first attempt is recorded", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM attempts") == 1);
        await using var db = Engine.Db();
        var attempt = await db.Attempts.SingleAsync(TestContext.Current.CancellationToken);
        const string Cause = "the receiver closed the connection in the middle of its answer";
        Assert.Equal((AttemptOutcome.HttpStatus, 503, Cause), (attempt.Outcome, attempt.StatusCode, attempt.Error));
        Assert.Equal("full", attempt.ResponseHeaders!["X-Queue"]);
        Assert.Equal("try later", Encoding.UTF8.GetString(attempt.ResponseBody!));
        Assert.InRange(
            await Engine.ScalarAsync<double>("SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM delivery_queue"), 110, 121);
        var line = Assert.Single(logs.Lines, line => line.Message.StartsWith("delivery.attempted", StringComparison.Ordinal));
        Assert.Contains($"ended http_status (the receiver answered 503; {Cause})", line.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task AReceiver_that_speaks_no_TLS_is_a_TLS_failure()
    {
        await Engine.SubscribeAsync(Receiver.Url.Replace("http:", "https:", StringComparison.Ordinal));
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "1"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("tls_failure", await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts"));
    }

    [Fact]
    public async Task AReceiver_that_does_not_answer_times_out()
    {
        Receiver.Respond = (_, context) =>
            Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(
            ("Delivery:AttemptTimeout", "00:00:00.3"), ("Delivery:ConnectTimeout", "00:00:00.3"), ("Delivery:Retry:MaxAttempts", "1"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("timeout", await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts"));
    }

    [Fact]
    public async Task A_test_that_fails_is_cancelled_and_leaves_no_dead_letter()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "never.matches");
        await Engine.StartDeliveryAsync();
        var id = TypeId.NewGuid();
        var test = new Event { TenantId = Engine.Tenant, Id = id, Type = "triggers.test", CorrelationId = "c", Data = "{}"u8.ToArray() };
        await Engine.ExecuteAsync(
            [.. StoredEvents.Test(test, TypeId.NewGuid(), subscription), new($"SELECT pg_notify('{Notifications.Deliveries}', '')")]);

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Cancelled);
        Assert.Single(Receiver.Received);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        Assert.Equal(0, await Engine.UnsettledAsync());
    }

    [Fact]
    public async Task Deliveries_of_a_deleted_subscription_are_cancelled()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("the first attempt was made", () => Receiver.Received.Count > 0);

        await Engine.ExecuteAsync($"UPDATE subscriptions SET deleted_at = now() WHERE id = '{subscription}'");

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Cancelled);
    }

    [Fact]
    public async Task Deliveries_of_a_disabled_subscription_wait_until_it_is_enabled()
    {
        var fails = true;
        Receiver.Respond = (_, context) => Answer(context, fails ? 500 : 200);
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "00:00:01"));
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync(
            "the first attempt is recorded", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM all_attempts") == 1);

        await Engine.ExecuteAsync($"UPDATE subscriptions SET enabled = false, disabled_reason = 'requested' WHERE id = '{subscription}'");
        await Wait.UntilAsync(
            "the delivery is due", async () => await Engine.ScalarAsync<bool>("SELECT next_attempt_at < now() FROM delivery_queue"));
        var before = Receiver.Received.Count;
        fails = false;
        await Engine.ExecuteAsync($"UPDATE subscriptions SET enabled = true, disabled_reason = NULL WHERE id = '{subscription}'");

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Equal(before + 1, Receiver.Received.Count);
    }

    [Fact]
    public async Task A_replay_that_succeeds_resolves_the_dead_letter_and_settles_the_event()
    {
        var (id, dead) = await MakeDeadLetterAsync();
        Receiver.Respond = (_, _) => Task.CompletedTask;

        await ReplayAsync(id, dead);

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Equal("resolved", await Engine.ScalarAsync<string>("SELECT state FROM dead_letters"));
        Assert.Equal(0, await Engine.UnsettledAsync());
        Assert.Equal("true", Receiver.Received.Last().Headers["webhook-replay"]);
    }

    [Fact]
    public async Task A_replay_that_dies_takes_the_place_of_the_dead_letter_it_repeats()
    {
        var (id, dead) = await MakeDeadLetterAsync();

        await ReplayAsync(id, dead);

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered, 2);
        Assert.Equal("discarded", await Engine.ScalarAsync<string>($"SELECT state FROM dead_letters WHERE delivery_id = '{dead}'"));
        Assert.Equal("open", await Engine.ScalarAsync<string>($"SELECT state FROM dead_letters WHERE delivery_id <> '{dead}'"));
        Assert.Equal("dead_lettered", await Engine.StatusAsync(id));
    }

    [Fact]
    public async Task A_subscription_made_before_an_event_always_gets_it()
    {
        await Engine.StartDeliveryAsync();
        var expected = new List<string>();
        for (var i = 0; i < 20; i++)
        {
            await Engine.SubscribeAsync($"{Receiver.Url}/{i}", $"type.n{i}");
            expected.Add($"/{i}");
            await Engine.AppendAsync($"type.n{i}");
        }

        await Wait.UntilAsync("every subscriber got its event", () => Receiver.Received.Count == 20);
        Assert.Equal(expected.Order(), Receiver.Received.Select(w => w.Path).Order());
    }

    [Fact]
    public async Task Large_data_arrives_whole()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();
        var data = $"\"{new string('x', 1_000_000)}\"";

        var id = (await Engine.AppendAsync("order.created", data: data))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.EndsWith($"\"data\":{data}}}", Encoding.UTF8.GetString(Receiver.Received.Single().Body), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_backlog_larger_than_a_lane_drains_without_a_double()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        var ids = await Engine.AppendAsync("order.created", 1_000);
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "8"));

        await Wait.UntilAsync("all are delivered", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == 1_000);
        Assert.Equal(ids.Select(id => TypeId.Format(TypeId.Event, id)).Order(), Receiver.Received.Select(w => w.EventId).Order());
        Assert.Equal(0, await Engine.UnsettledAsync());
    }

    [Fact]
    public async Task A_subscriber_that_hangs_keeps_nobody_waiting()
    {
        using var release = new CancellationTokenSource();
        Receiver.Respond = (webhook, _) => webhook.Path == "/hangs"
            ? Task.Delay(Timeout.Infinite, release.Token).ContinueWith(_ => { }, TaskScheduler.Default)
            : Task.CompletedTask;
        await Engine.SubscribeAsync($"{Receiver.Url}/hangs");
        await Engine.SubscribeAsync($"{Receiver.Url}/healthy");
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "4"));

        for (var i = 0; i < 10; i++)
            await Engine.AppendAsync("order.created", 50);

        await Wait.UntilAsync("the healthy subscriber has everything", () => Receiver.At("/healthy").Count() == 500);
        Assert.Equal(4, Receiver.At("/hangs").Count());
        await release.CancelAsync();
    }

    private async Task<(Guid Event, Guid Delivery)> MakeDeadLetterAsync()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "2"));
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        return (id, await Engine.ScalarAsync<Guid>("SELECT delivery_id FROM dead_letters"));
    }

    private async Task ReplayAsync(Guid eventId, Guid of)
    {
        var subscription = await Engine.ScalarAsync<Guid>($"SELECT subscription_id FROM deliveries WHERE id = '{of}'");
        NewDelivery replay = new(Engine.Tenant, TypeId.NewGuid(), eventId, subscription) { IsReplay = true, ReplayOf = of };
        await Engine.ExecuteAsync([EventState.Lock([eventId]), .. DeliveryQueue.Replay([replay])]);
    }

    private static Task Answer(HttpContext context, int statusCode)
    {
        context.Response.StatusCode = statusCode;
        return Task.CompletedTask;
    }
}
