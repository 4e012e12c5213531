using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Filters of subscriptions, from the API to the receiver.</summary>
public abstract class FiltersTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private const string Large = """{"data":{"total":[{"numeric":[">=",100]}]}}""";

    [Fact]
    public async Task Only_what_a_filter_matches_is_sent_and_what_nobody_wants_is_in_the_inbox()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var subscription = await SubscribeAsync(client, "/large", $$""","filter":{{Large}}""");
        await SubscribeAsync(client, "/order-7", ""","filter":{"subject":["order-7"]}""");
        await SubscribeAsync(client, "/large", ""","filter":{"data":{"padding":[{"prefix":"y"}]}}""");
        await Engine.StartDeliveryAsync();

        var small = await client.PublishAsync(data: """{"total":99}""");
        var large = await client.PublishAsync(data: """{"total":100}""");
        var both = await client.PublishAsync(data: """{"total":101}""", more: ""","subject":"order-7" """);
        // More than the projection carries along.
        var heavy = await client.PublishAsync(data: $$"""{"total":200,"padding":"{{new string('x', 100_000)}}"}""");
        await AtAsync("/large", large, both, heavy);
        await AtAsync("/order-7", both);
        await Wait.UntilAsync("what nobody wants can be received", async () =>
            (await client.GetAsync("/inbox")).Is(200).Ids is [var only] && only == small);

        await client.PatchAsync($"/subscriptions/{subscription}", """{"filter":{"data":{"total":[99]}}}""");
        var now = await client.PublishAsync(data: """{"total":99}""");
        await AtAsync("/large", large, both, heavy, now);
        Assert.Null((await client.PatchAsync($"/subscriptions/{subscription}", """{"filter":null}""")).Is(200).Json["filter"]);
        var any = await client.PublishAsync(data: "\"text\"");
        await AtAsync("/large", large, both, heavy, now, any);
    }

    [Fact]
    public async Task A_fan_out_in_portions_goes_to_those_whose_filters_match()
    {
        const int Subscriptions = 2_400;
        var other = await Engine.SubscribeAsync(Receiver.Url, "user.created");
        await Engine.ExecuteAsync(
            $$$"""
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets, filter)
            SELECT gen_random_uuid(), tenant_id, '{{{Receiver.Url}}}/' || i % 2, '{*}', secrets, '{"data":{"n":[' || i % 2 || ']}}'
            FROM subscriptions, generate_series(1, {{{Subscriptions}}}) i WHERE id = '{{{other}}}'
            """);
        await Engine.StartDeliveryAsync();

        await Engine.AppendAsync("order.created", data: """{"n":1}""");
        await Wait.UntilAsync(
            "everybody who wants it has it", () => Receiver.At("/1").Count() == Subscriptions / 2, TimeSpan.FromMinutes(1));
        await Wait.UntilAsync(
            "nothing is left to be made", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM fan_outs") == 0);

        Assert.Equal(Subscriptions / 2, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
    }

    /// <summary>
    /// One tenant's filters could hold up the log for everybody, and for long. As many as fit into some milliseconds are looked at with it,
    /// and as many at a time beside it.
    /// </summary>
    [Fact]
    public async Task What_many_filters_have_to_look_at_for_long_is_decided_beside_the_log_and_in_portions()
    {
        // Each of these takes 8,453 steps to find that an event is not wanted, so 23 of them are looked at in a transaction.
        const int Subscriptions = 60, InOrder = 10;
        static string Filter(string last) =>
            $$$"""{"data":{"s":["{{{string.Join("\",\"", Enumerable.Range(1, 99).Select(i => $"a{i}"))}}}","{{{last}}}"]}}""";
        static string Data(string text) => $"{{\"s\":[{string.Join(',', Enumerable.Repeat($"\"{text}\"", 650))}]}}";
        var other = await Engine.SubscribeAsync(Receiver.Url, "none");
        await Engine.ExecuteAsync(
            $$$"""
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets, filter, ordering)
            SELECT gen_random_uuid(), tenant_id, '{{{Receiver.Url}}}/unordered', '{*}', secrets,
                CASE i % 6 WHEN 0 THEN '{{{Filter("x")}}}' ELSE '{{{Filter("a0")}}}' END, 'none'
            FROM subscriptions, generate_series(1, {{{Subscriptions}}}) i WHERE id = '{{{other}}}';
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets, filter, ordering)
            SELECT gen_random_uuid(), tenant_id, '{{{Receiver.Url}}}/ordered', '{ordered}', secrets, '{{{Filter("a0")}}}', 'strict'
            FROM subscriptions, generate_series(1, {{{InOrder}}}) i WHERE id = '{{{other}}}'
            """);
        await Engine.ExecuteAsync(
            """
            CREATE TABLE portions (event_id uuid);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO portions VALUES (NEW.event_id);
                RETURN NEW;
            END $$;
            CREATE TRIGGER note BEFORE UPDATE ON fan_outs FOR EACH ROW WHEN (OLD.after < NEW.after) EXECUTE FUNCTION note()
            """);
        await Engine.StartDeliveryAsync();

        var wanted = (await Engine.AppendAsync("order.created", data: Data("x")))[0];
        var unwanted = (await Engine.AppendAsync("order.created", data: Data("y")))[0];
        // By the steps that there are for those who get it in order, two filters are decided. The others get it in vain, but in order.
        var ordered = (await Engine.AppendAsync("ordered", data: Data("y")))[0];

        await Wait.UntilAsync(
            "what nobody wants is in the inbox", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM inbox") == 1);
        await Wait.UntilAsync("all are sent", () => Receiver.Received.Count == Subscriptions / 6 + InOrder - 2);
        await Wait.UntilAsync("all is made, and recorded", async () =>
            await Engine.ScalarAsync<long>("SELECT (SELECT count(*) FROM fan_outs) + (SELECT count(*) FROM delivery_queue)") == 0);

        Assert.Equal(unwanted, await Engine.ScalarAsync<Guid>("SELECT event_id FROM inbox"));
        Assert.All(Receiver.At("/unordered"), w => Assert.Equal(TypeId.Format(TypeId.Event, wanted), w.EventId));
        Assert.All(Receiver.At("/ordered"), w => Assert.Equal(TypeId.Format(TypeId.Event, ordered), w.EventId));
        Assert.Equal(InOrder - 2, Receiver.At("/ordered").Count());
        // Of the last portion the row goes.
        foreach (var e in new[] { wanted, unwanted, ordered })
            Assert.InRange(await Engine.ScalarAsync<long>($"SELECT count(*) FROM portions WHERE event_id = '{e}'"), 2, 5);
    }

    [Fact]
    public async Task Replays_choose_as_the_filter_does_unless_somebody_is_named()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        await Engine.StartDeliveryAsync();
        var small = await client.PublishAsync(data: """{"total":1}""");
        var large = await client.PublishAsync(data: """{"total":500}""");
        await Wait.UntilAsync("both are in the inbox", async () => (await client.GetAsync("/inbox")).Is(200).Ids.Length == 2);
        var subscription = await SubscribeAsync(client, "/large", $$""","filter":{{Large}}""");

        var inbox = (await client.PostAsync("/inboxes", $$"""{"name":"large","eventTypes":["*"],"filter":{{Large}}}""")).Is(201).Id;

        foreach (var (id, job) in new[] { (subscription, await ReplayAsync(subscription)), (inbox, await ReplayAsync(inbox)) })
        {
            await Wait.UntilAsync($"what {id} missed is replayed", async () =>
                (await client.GetAsync($"/replays/{job}")).Is(200)["status"] == "completed", TimeSpan.FromMinutes(1));
        }
        await AtAsync("/large", large);
        var received = (await client.PostAsync("/inboxes/large/receive")).Is(200).Json["items"]!.AsArray();
        Assert.Equal(large, Assert.Single(received)!["event"]!["id"]!.GetValue<string>());

        Assert.Empty((await client.PostAsync($"/events/{small}/replay")).Is(202).Json["deliveries"]!.AsArray());
        Assert.Single((await client.PostAsync($"/events/{large}/replay")).Is(202).Json["deliveries"]!.AsArray());
        await AtAsync("/large", large, large);
        (await client.PostAsync($"/events/{small}/replay", $$"""{"subscriptionIds":["{{subscription}}"]}""")).Is(202);
        await AtAsync("/large", large, large, small);

        async Task<string> ReplayAsync(string id) =>
            (await client.PostAsync("/replays", $$"""{"subscriptionId":"{{id}}","from":"2026-01-01T00:00:00Z"}""")).Is(202).Id;
    }

    private async Task<string> SubscribeAsync(ApiClient client, string path, string more) => (await client.PostAsync(
        "/subscriptions", $$"""{"url":"{{Receiver.Url}}{{path}}","eventTypes":["*"]{{more}}}""")).Is(201).Id;

    private async Task AtAsync(string path, params string[] events)
    {
        await Wait.UntilAsync($"{events.Length} webhooks came to {path}", () => Receiver.At(path).Count() == events.Length);
        Assert.Equal(events.Order(), Receiver.At(path).Select(w => w.EventId).Order());
        await Wait.UntilAsync(
            "all is recorded", async () => await Engine.ScalarAsync<long>(
                "SELECT count(*) FROM delivery_queue q JOIN subscriptions s ON s.id = q.subscription_id WHERE s.inbox IS NULL") == 0);
    }
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresFiltersTests(PostgresServer postgres) : FiltersTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaFiltersTests(PostgresServer postgres, KafkaServer kafka) : FiltersTests(postgres, kafka);
