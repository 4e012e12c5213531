using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.Json.Nodes;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Inbox;

/// <summary>Receiving from inboxes: what is leased is nobody else's until the lease ends.</summary>
public abstract class LeasesTests(PostgresServer postgres, KafkaServer? kafka = null) : ApiAndEngineTests(postgres, kafka)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await Engine.StartDeliveryAsync();
    }

    [Fact]
    public async Task Each_inbox_gets_every_event_it_wants_and_each_of_its_events_goes_to_one_receiver()
    {
        await CreateAsync("billing", """["order.*"]""");
        await CreateAsync("audit", """["*"]""");
        await Client.SubscribeAsync("\"order.*\"", Receiver.Url);
        var orders = new[] { await Client.PublishAsync(), await Client.PublishAsync("order.paid") };
        var other = await Client.PublishAsync("user.created");

        var billing = await ReceiveAllAsync("billing", 2);
        var audit = await ReceiveAllAsync("audit", 3);

        Assert.Equal(orders.Order(), billing.Select(EventOf).Order());
        Assert.Equal([.. orders.Append(other).Order()], audit.Select(EventOf).Order());
        Assert.Empty(await ReceiveAsync("billing"));
        Assert.Equal("0 waiting, 2 leased", await CountAsync("billing"));
        await Wait.UntilAsync("they are pushed too", () => Receiver.Received.Count == 2);
        // In none of them a push was tried.
        Assert.Equal(0, await Engine.ScalarAsync<long>(
            "SELECT count(*) FROM all_attempts a JOIN all_deliveries d ON d.id = a.delivery_id "
            + "JOIN subscriptions s ON s.id = d.subscription_id WHERE s.inbox IS NOT NULL"));

        Assert.All(await SettleAsync("audit", "acknowledge", audit), status => Assert.Equal("acknowledged", status));
        Assert.Equal("pending", (await Client.GetAsync($"/events/{orders[0]}")).Is(200)["status"]);
        Assert.Equal("delivered", (await Client.GetAsync($"/events/{other}")).Is(200)["status"]);
        Assert.All(await SettleAsync("billing", "acknowledge", billing), status => Assert.Equal("acknowledged", status));
        await Wait.UntilAsync("the events are delivered",
            async () => (await Client.GetAsync($"/events/{orders[0]}")).Is(200)["status"] == "delivered");
        Assert.Equal("0 waiting, 0 leased", await CountAsync("billing"));
    }

    [Fact]
    public async Task A_lease_that_ends_gives_the_event_to_somebody_else_and_its_token_no_longer_counts()
    {
        await CreateAsync("work");
        await Client.PublishAsync();
        var first = Assert.Single(await ReceiveAllAsync("work", 1, lease: 1));
        Assert.Equal(1, CountOf(first));

        var second = Assert.Single(await ReceiveAllAsync("work", 1, lease: 600));

        Assert.Equal((EventOf(first), 2), (EventOf(second), CountOf(second)));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "acknowledge", [first]));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "release", [first]));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "reject", [first]));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "extend", [first], ""","lease":5"""));
        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [second]));
        // Its answer may have been lost.
        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [second]));
        Assert.Empty(await ReceiveAsync("work"));
    }

    [Fact]
    public async Task What_nobody_has_received_since_can_be_acknowledged_after_the_lease()
    {
        await CreateAsync("work");
        var id = await Client.PublishAsync();
        var item = Assert.Single(await ReceiveAllAsync("work", 1, lease: 1));
        await Wait.UntilAsync("the lease has ended", async () => await CountAsync("work") == "1 waiting, 0 leased");

        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [item]));

        Assert.Equal("delivered", (await Client.GetAsync($"/events/{id}")).Is(200)["status"]);
    }

    [Fact]
    public async Task What_is_released_comes_again_after_the_delay()
    {
        await CreateAsync("work");
        await Client.PublishAsync();
        var first = Assert.Single(await ReceiveAllAsync("work", 1, lease: 600));
        Assert.Equal(["released"], await SettleAsync("work", "release", [first]));
        Assert.Equal(["released"], await SettleAsync("work", "release", [first]));

        var second = Assert.Single(await ReceiveAllAsync("work", 1, lease: 600));
        Assert.Equal(2, CountOf(second));
        Assert.Equal(["released"], await SettleAsync("work", "release", [second], ""","delay":3600"""));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "acknowledge", [second]));

        Assert.Empty(await ReceiveAsync("work"));
        Assert.Equal("1 waiting, 0 leased", await CountAsync("work"));
        // An operator need not wait for it.
        var inbox = (await Client.GetAsync("/inboxes/work")).Is(200).Id;
        (await Client.GetAsync($"/deliveries?subscriptionId={inbox}&status=pending")).Is(200);
        await Engine.ExecuteAsync(DeliveryQueue.SendNow(Engine.Tenant, null, Rows.Uuid(inbox), 10));
        Assert.Equal(3, CountOf(Assert.Single(await ReceiveAllAsync("work", 1))));
    }

    [Fact]
    public async Task A_lease_is_extended()
    {
        await CreateAsync("work", more: ""","lease":1""");
        await Client.PublishAsync();
        var item = Assert.Single(await ReceiveAllAsync("work", 1, lease: 600));

        Assert.Equal(["extended"], await SettleAsync("work", "extend", [item], ""","lease":1200"""));

        Assert.True(await Engine.ScalarAsync<double>(
            "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM delivery_queue") > 900);
        // And shortened.
        Assert.Equal(["extended"], await SettleAsync("work", "extend", [item], ""","lease":1"""));
        Assert.Equal(2, CountOf(Assert.Single(await ReceiveAllAsync("work", 1))));
    }

    [Fact]
    public async Task What_is_rejected_is_a_dead_letter_with_the_reason_and_comes_again_when_that_is_replayed()
    {
        await CreateAsync("work");
        var id = await Client.PublishAsync();
        var item = Assert.Single(await ReceiveAllAsync("work", 1));

        Assert.Equal(["rejected"], await SettleAsync("work", "reject", [item], ""","reason":"No such customer." """));
        Assert.Equal(["rejected"], await SettleAsync("work", "reject", [item]));
        Assert.Equal(["lease_lost"], await SettleAsync("work", "acknowledge", [item]));

        var letter = (await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray().Single()!;
        Assert.Equal(("rejected", "No such customer.", 1), (letter["reason"]!.GetValue<string>(),
            letter["lastError"]!.GetValue<string>(), letter["attempts"]!.GetValue<int>()));
        Assert.Equal("dead_lettered", (await Client.GetAsync($"/events/{id}")).Is(200)["status"]);
        Assert.Empty(await ReceiveAsync("work"));

        (await Client.PostAsync($"/dead-letters/{letter["id"]}/replay")).Is(202);
        var again = Assert.Single(await ReceiveAllAsync("work", 1));
        Assert.Equal((id, 1), (EventOf(again), CountOf(again)));
        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [again]));
        Assert.Equal("resolved", (await Client.GetAsync($"/dead-letters/{letter["id"]}")).Is(200)["state"]);
        Assert.Equal("delivered", (await Client.GetAsync($"/events/{id}")).Is(200)["status"]);
    }

    [Fact]
    public async Task What_was_given_out_too_often_is_a_dead_letter_and_stands_in_nobodys_way()
    {
        await CreateAsync("work", more: ""","maxDeliveries":2""");
        var bad = await Client.PublishAsync();
        for (var i = 1; i <= 2; i++)
        {
            var item = Assert.Single(await ReceiveAllAsync("work", 1));
            Assert.Equal(i, CountOf(item));
            Assert.Equal(["released"], await SettleAsync("work", "release", [item]));
        }
        var good = await Client.PublishAsync();

        Assert.Equal(good, EventOf(Assert.Single(await ReceiveAllAsync("work", 1, max: 1))));

        var letter = (await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray().Single()!;
        Assert.Equal(("exhausted", 2, bad), (letter["reason"]!.GetValue<string>(),
            letter["attempts"]!.GetValue<int>(), letter["eventId"]!.GetValue<string>()));
    }

    [Fact]
    public async Task Who_waits_gets_what_is_published_meanwhile()
    {
        await CreateAsync("work");
        var waiting = ReceiveAsync("work", ""","wait":30""");
        await Wait.UntilAsync("it waits", () => Api.RequestsUnderWay == 1);
        var id = await Client.PublishAsync();

        Assert.Equal(id, EventOf(Assert.Single(await waiting)));
    }

    [Fact]
    public async Task Only_the_types_that_are_asked_for_are_received()
    {
        await CreateAsync("work");
        var user = await Client.PublishAsync("user.created");
        var order = await Client.PublishAsync("order.created");
        var paid = await Client.PublishAsync("order.paid.late");
        await Wait.UntilAsync("all are there", async () => await CountAsync("work") == "3 waiting, 0 leased");

        Assert.Equal(order, EventOf(Assert.Single(await ReceiveAsync("work", ""","types":["order.created"]"""))));
        Assert.Equal(paid, EventOf(Assert.Single(await ReceiveAsync("work", ""","types":["x","order.*"]"""))));
        Assert.Equal(user, EventOf(Assert.Single(await ReceiveAsync("work", ""","types":["order.*","*"]"""))));
    }

    [Fact]
    public async Task Who_waits_for_some_types_looks_seldom_while_others_are_due_and_gets_what_comes_at_once()
    {
        using var logs = new CapturedLogs();
        await using var host = new ApiHost(
            Engine.ConnectionString, logs, [.. Engine.Settings, ("Logging:LogLevel:Npgsql.Command", "Information")]);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        await CreateAsync("work");
        await client.PublishAsync("user.created");
        await Wait.UntilAsync("it is there", async () => await CountAsync("work") == "1 waiting, 0 leased");

        Assert.Empty(await PollAsync(1));
        // At first, at the end, and a few times after each signal: of the event, and that the listening has begun.
        Assert.InRange(Looks(), 2, 20);

        var waiting = PollAsync(30);
        await Wait.UntilAsync("it waits", () => host.RequestsUnderWay == 1);
        var id = await client.PublishAsync();
        var item = Assert.Single(await waiting);
        Assert.Equal(id, EventOf(item));

        // It is looked again when a lease ends, and not for what is due and of no use.
        var inbox = Rows.Uuid((await Client.GetAsync("/inboxes/work")).Is(200).Id);
        Assert.InRange(await NextDueAsync("order.*") ?? 0, 1, 600);
        Assert.True(await NextDueAsync() <= 0);
        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [item]));
        Assert.Null(await NextDueAsync("order.*"));

        async Task<JsonNode[]> PollAsync(int wait) =>
            [.. (await client.PostAsync("/inboxes/work/receive", $$"""{"wait":{{wait}},"lease":600,"types":["order.*"]}""")).Is(200)
                .Json["items"]!.AsArray().Select(i => i!)];

        int Looks() => logs.Lines.Count(
            line => line.Category == "Npgsql.Command" && line.Message.Contains("wanted AS MATERIALIZED", StringComparison.Ordinal));

        async Task<double?> NextDueAsync(params string[] types)
        {
            await using var batch = Engine.DataSource.CreateBatch();
            batch.BatchCommands.Add(Inboxes.NextDue(inbox, types));
            return await batch.ExecuteScalarAsync(TestContext.Current.CancellationToken) as double?;
        }
    }

    [Fact]
    public async Task What_nobody_subscribes_to_is_received_from_the_default_inbox()
    {
        await CreateAsync("work", """["order.*"]""");
        var wanted = await Client.PublishAsync();
        var unclaimed = new[] { await Client.PublishAsync("a"), await Client.PublishAsync("b"), await Client.PublishAsync("c") };
        await Wait.UntilAsync("all are projected", async () =>
            await CountAsync("default") == "3 waiting, 0 leased" && await CountAsync("work") == "1 waiting, 0 leased");

        var first = Assert.Single((await Client.PostAsync("/inbox/receive", """{"max":1,"lease":600}""")).Is(200).Json["items"]!.AsArray())!;
        var rest = (await Client.PostAsync("/inbox/receive")).Is(200).Json["items"]!.AsArray().Select(i => i!).ToArray();

        Assert.Equal(unclaimed, rest.Prepend(first).Select(EventOf));
        Assert.Equal("0 waiting, 3 leased", await CountAsync("default"));
        Assert.Empty(await ReceiveAsync("default"));
        // Who reads the inbox as before still sees what is not acknowledged.
        Assert.Equal([wanted, .. unclaimed], (await Client.GetAsync("/inbox")).Is(200).Ids.AsEnumerable());
        Assert.Equal(["acknowledged"], await SettleAsync("default", "acknowledge", [first]));
        (await Client.PostAsync($"/events/{unclaimed[1]}/acknowledge")).Is(200);
        Assert.Equal("delivered", (await Client.GetAsync($"/events/{unclaimed[0]}")).Is(200)["status"]);
        Assert.Equal([wanted, unclaimed[2]], (await Client.GetAsync("/inbox")).Is(200).Ids);

        // What was acknowledged by its event comes no more; the other does.
        Assert.Equal(["acknowledged", "released"],
            [.. await SettleAsync("default", "acknowledge", [rest[0]]), .. await SettleAsync("default", "release", [rest[1]])]);
        var again = Assert.Single(await ReceiveAllAsync("default", 1));
        Assert.Equal((unclaimed[2], 2), (EventOf(again), CountOf(again)));
        // What is due of another type is in the way of none that is asked for.
        Assert.Equal(["released"], await SettleAsync("default", "release", [again]));
        var other = await Client.PublishAsync("d");
        await Wait.UntilAsync("it is there", async () => await CountAsync("default") == "2 waiting, 0 leased");
        Assert.Equal(other, EventOf(Assert.Single(await ReceiveAsync("default", ""","types":["d"]""", max: 1))));
    }

    [Fact]
    public async Task What_is_leased_of_the_default_inbox_waits_there_again_when_that_is_deleted()
    {
        var id = await Client.PublishAsync("a");
        Assert.Single(await ReceiveAllAsync("default", 1, lease: 1));

        (await Client.DeleteAsync("/inboxes/default")).Is(204);

        var again = Assert.Single(await ReceiveAllAsync("default", 1));
        Assert.Equal((id, 1), (EventOf(again), CountOf(again)));
    }

    [Fact]
    public async Task A_deleted_inbox_is_gone_and_what_waited_in_it_is_cancelled()
    {
        await CreateAsync("work");
        var id = await Client.PublishAsync();
        await Wait.UntilAsync("it is there", async () => await CountAsync("work") == "1 waiting, 0 leased");

        (await Client.DeleteAsync("/inboxes/work")).Is(204);

        (await Client.PostAsync("/inboxes/work/receive", "{}")).IsProblem(404, "not_found");
        await Engine.WaitForStatusAsync(Rows.Uuid(id), DeliveryStatus.Cancelled);
        // Nobody got it, and its name is free.
        Assert.Equal([id], (await Client.GetAsync("/inbox")).Is(200).Ids);
        await CreateAsync("work");
        Assert.Empty(await ReceiveAsync("work"));
    }

    [Fact]
    public async Task No_worker_touches_what_is_in_an_inbox()
    {
        await CreateAsync("work");
        var dying = await Engine.StartDeliveryAsync();
        for (var i = 0; i < 5; i++)
            await Client.PublishAsync();
        var leased = await ReceiveAllAsync("work", 5, lease: 600);
        await Client.PublishAsync();
        await Wait.UntilAsync("one more is there", async () => await CountAsync("work") == "1 waiting, 5 leased");

        // A worker that goes away gives back what is its own, another one sweeps as it begins; neither is about inboxes.
        await dying.DisposeAsync();
        var another = await Engine.StartDeliveryAsync();
        await Client.SubscribeAsync("\"marker\"", Receiver.Url);
        var marker = await Client.PublishAsync("marker");
        await Engine.WaitForStatusAsync(Rows.Uuid(marker), DeliveryStatus.Succeeded);

        Assert.Equal("1 waiting, 5 leased", (await CountAsync("work")).Replace("2 waiting", "1 waiting", StringComparison.Ordinal));
        Assert.Equal(5, await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE claim = 1 AND claimed_by = 0"));
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE claim > 1 OR claimed_by > 0"));
        // It is due, and nothing that anybody should hurry for.
        var backlog = await Engine.DataSource.CreateCommand(DeliveryQueue.Backlog.Replace("@max", "1000", StringComparison.Ordinal))
            .ExecuteReaderAsync(TestContext.Current.CancellationToken);
        await using (backlog)
        {
            await backlog.ReadAsync(TestContext.Current.CancellationToken);
            Assert.Equal((0L, 0d), (backlog.GetInt64(1), backlog.GetDouble(2)));
        }
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM ({DeliveryQueue.NextDue}) due"));
        Assert.All(await SettleAsync("work", "acknowledge", leased), status => Assert.Equal("acknowledged", status));
        GC.KeepAlive(another);
    }

    [Fact]
    public async Task What_was_claimed_and_never_answered_comes_again_when_the_lease_ends()
    {
        await CreateAsync("work");
        var id = await Client.PublishAsync();
        await Wait.UntilAsync("it is there", async () => await CountAsync("work") == "1 waiting, 0 leased");
        var inbox = Rows.Uuid((await Client.GetAsync("/inboxes/work")).Is(200).Id);

        // What is left of a process that died here.
        await Engine.ExecuteAsync(Inboxes.Receive(Engine.Tenant, inbox, 10, 1_000, TimeSpan.FromSeconds(1), []));

        var item = Assert.Single(await ReceiveAllAsync("work", 1));
        Assert.Equal((id, 2), (EventOf(item), CountOf(item)));
        Assert.Equal(["acknowledged"], await SettleAsync("work", "acknowledge", [item]));
    }

    [Fact]
    public async Task Many_receivers_at_once_never_have_the_same_event_and_leave_none()
    {
        const int Events = 600;
        const int Receivers = 12;
        await CreateAsync("work", more: ""","maxDeliveries":1000""");
        // Another process of the API receives too.
        await using var other = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var second = other.Client();
        await second.WaitUntilReadyAsync();
        var published = new ConcurrentBag<string>();
        // What each lease began and ended at; one that ended by itself, without our knowing when, ended at 0.
        var held = new ConcurrentDictionary<(string Delivery, int Count), (long Began, long Ended)>();
        var acknowledged = new ConcurrentDictionary<string, int>();
        var twice = new ConcurrentBag<string>();
        var clock = Stopwatch.StartNew();

        await Task.WhenAll(
            Enumerable.Range(0, Receivers).Select(n => ReceiveUntilDoneAsync(n, n % 2 == 0 ? Client : second)).Append(PublishAsync()));

        Assert.Empty(twice);
        foreach (var leases in held.GroupBy(h => h.Key.Delivery, h => (h.Key.Count, h.Value.Began, h.Value.Ended)))
        {
            var inOrder = leases.OrderBy(l => l.Count).ToArray();
            Assert.All(inOrder.Zip(inOrder.Skip(1)), pair => Assert.True(pair.First.Ended <= pair.Second.Began, $"{leases.Key}: {pair}"));
        }
        Assert.Equal(published.Order(), acknowledged.Keys.Order());
        Assert.All(acknowledged.Values, times => Assert.Equal(1, times));
        Assert.Equal("0 waiting, 0 leased", await CountAsync("work"));

        async Task PublishAsync()
        {
            for (var i = 0; i < Events; i += 20)
            {
                var events = string.Join(',', Enumerable.Range(i, 20).Select(n => $$"""{"type":"order.created","data":{{n}}}"""));
                foreach (var id in (await Client.PostAsync("/events/batch", $$"""{"events":[{{events}}]}""")).Is(202).Ids)
                    published.Add(id);
            }
        }

        async Task ReceiveUntilDoneAsync(int receiver, ApiClient client)
        {
            var random = new Random(receiver);
            while (acknowledged.Count < Events)
            {
                // Some leases end while they are worked on.
                var lease = random.Next(4) == 0 ? 1 : 600;
                var items = (await client.PostAsync("/inboxes/work/receive", $$"""{"max":7,"wait":1,"lease":{{lease}}}""")).Is(200)
                    .Json["items"]!.AsArray().Select(i => i!).ToArray();
                var now = clock.ElapsedMilliseconds;
                foreach (var item in items)
                {
                    if (!held.TryAdd(KeyOf(item), (now, lease == 1 ? 0 : long.MaxValue)))
                        twice.Add(TokenOf(item));
                }
                foreach (var (group, action) in items.GroupBy(_ => random.Next(5)).Select(g => (g.ToArray(), g.Key)))
                {
                    if (lease == 1 && action < 2)
                        continue;
                    if (action == 0)
                    {
                        var end = clock.ElapsedMilliseconds;
                        foreach (var item in group)
                            held[KeyOf(item)] = (held[KeyOf(item)].Began, end);
                        await SettleAsync("work", "release", group, client: client);
                        continue;
                    }
                    var results = await SettleAsync("work", "acknowledge", group, client: client);
                    foreach (var (item, result) in group.Zip(results))
                    {
                        if (result == "acknowledged")
                            acknowledged.AddOrUpdate(EventOf(item), 1, (_, times) => times + 1);
                        else if (lease > 1)
                            twice.Add($"{TokenOf(item)} was {result} under a lease");
                    }
                }
            }
        }
    }

    [Fact]
    public async Task Only_what_a_filter_matches_comes_into_an_inbox_and_what_nobody_wants_into_the_default_one()
    {
        await CreateAsync("large", more: ""","filter":{"subject":["DE"],"data":{"total":[{"numeric":[">=",100]}]}}""");

        var wanted = await PublishAsync("DE", 200);
        // More than the projection carries along.
        var heavy = await PublishAsync("DE", 300, new string('x', 100_000));
        var others = new[] { await PublishAsync("AT", 100), await PublishAsync("DE", 99) };

        Assert.Equal(new[] { wanted, heavy }.Order(), (await ReceiveAllAsync("large", 2)).Select(EventOf).Order());
        Assert.Equal(others.Order(), (await ReceiveAllAsync("default", 2)).Select(EventOf).Order());

        Task<string> PublishAsync(string subject, int total, string more = "") => Client.PublishAsync(
            data: $$"""{"total":{{total}},"more":"{{more}}"}""", more: $",\"subject\":\"{subject}\"");
    }

    private async Task CreateAsync(string name, string eventTypes = """["*"]""", string more = "") =>
        (await Client.PostAsync("/inboxes", $$"""{"name":"{{name}}","eventTypes":{{eventTypes}}{{more}}}""")).Is(201);

    private async Task<JsonNode[]> ReceiveAsync(string inbox, string more = "", int max = 100) =>
        [.. (await Client.PostAsync($"/inboxes/{inbox}/receive", $$"""{"max":{{max}}{{more}}}""")).Is(200)
            .Json["items"]!.AsArray().Select(i => i!)];

    /// <summary>Receives until there are so many.</summary>
    private async Task<JsonNode[]> ReceiveAllAsync(string inbox, int count, int lease = 60, int max = 100)
    {
        var received = new List<JsonNode>();
        await Wait.UntilAsync($"{count} are received", async () =>
        {
            received.AddRange(await ReceiveAsync(inbox, $",\"wait\":1,\"lease\":{lease}", max));
            return received.Count >= count;
        });
        Assert.Equal(count, received.Count);
        return [.. received];
    }

    private async Task<string[]> SettleAsync(
        string inbox, string action, JsonNode[] items, string more = "", ApiClient? client = null)
    {
        var leases = string.Join(',', items.Select(i => $"\"{TokenOf(i)}\""));
        var answer = (await (client ?? Client).PostAsync($"/inboxes/{inbox}/{action}", $$"""{"leases":[{{leases}}]{{more}}}""")).Is(200);
        Assert.Equal(items.Select(TokenOf), answer.Json["items"]!.AsArray().Select(i => i!["lease"]!.GetValue<string>()));
        return [.. answer.Json["items"]!.AsArray().Select(i => i!["status"]!.GetValue<string>())];
    }

    private async Task<string> CountAsync(string inbox)
    {
        var view = (await Client.GetAsync($"/inboxes/{inbox}")).Is(200);
        return $"{view["waiting"]} waiting, {view["leased"]} leased";
    }

    private static string TokenOf(JsonNode item) => item["lease"]!.GetValue<string>();

    private static string EventOf(JsonNode item) => item["event"]!["id"]!.GetValue<string>();

    private static (string Delivery, int Count) KeyOf(JsonNode item) => (TokenOf(item).Split('.')[0], CountOf(item));

    private static int CountOf(JsonNode item) => item["deliveryCount"]!.GetValue<int>();
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresLeasesTests(PostgresServer postgres) : LeasesTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaLeasesTests(PostgresServer postgres, KafkaServer kafka) : LeasesTests(postgres, kafka);
