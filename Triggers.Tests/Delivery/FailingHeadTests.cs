using System.Collections.Concurrent;
using System.Text.Json.Nodes;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What becomes of a key whose first delivery fails, and what somebody can do about it.</summary>
public sealed class FailingHeadTests(PostgresServer postgres) : ApiAndEngineTests(postgres)
{
    private readonly ConcurrentDictionary<string, byte> _fails = [];
    private readonly ConcurrentQueue<string> _tried = new();
    private readonly ConcurrentQueue<string> _taken = new();

    private protected override (string Key, string Value)[] ApiSettings => [("Limits:OrderedSubscriptionsPerTenant", "1")];

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        Receiver.Respond = (webhook, context) =>
        {
            var data = JsonNode.Parse(webhook.Body)!["data"]!.ToString();
            _tried.Enqueue(data);
            if (_fails.ContainsKey(data))
                context.Response.StatusCode = 503;
            else
                _taken.Enqueue(data);
            return Task.CompletedTask;
        };
    }

    [Fact]
    public async Task A_key_is_blocked_by_what_fails_for_good_until_somebody_lets_it_go()
    {
        var subscription = await SubscribeAsync("per_key");
        await StartAsync();
        _fails["a1"] = 0;
        var first = await PublishAsync("a", "a1");
        foreach (var data in new[] { "a2", "b1", "a3" })
            await PublishAsync(data[..1], data);

        var held = await HeldAsync(subscription, behind: 2);
        await TakenAsync("b1");
        Assert.Equal(("a", "held", "exhausted"), (Text(held["key"]), Text(held["state"]), Text(held["reason"])));
        Assert.NotNull(Text(held["since"]));
        var head = held["head"]!;
        Assert.Equal((first, "2", null, "503"),
            (Text(head["eventId"]), Text(head["failedAttempts"]), Text(head["nextAttemptAt"]), Text(head["lastStatusCode"])));
        Assert.Equal(Text(head["deliveryId"]), Text(held["failedDeliveryId"]));
        Assert.Equal("pending", (await Client.GetAsync($"/deliveries/{head["deliveryId"]}")).Is(200)["status"]);
        (await Client.PostAsync($"/deliveries/{head["deliveryId"]}/send-now")).IsProblem(409, "waits_in_order");
        Assert.Equal("0", (await Client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202)["deliveries"]);
        Assert.Empty((await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray());

        _fails.Clear();
        Assert.Equal("0", (await ReleaseAsync(subscription, """{"key":"b"}"""))["released"]);
        Assert.Equal("1", (await ReleaseAsync(subscription, """{"key":"a"}"""))["released"]);

        await TakenAsync("b1", "a1", "a2", "a3");
        Assert.Equal(["a1", "a1", "a1"], _tried.Where(data => data == "a1"));
        await Wait.UntilAsync("nothing waits", async () =>
            (await Client.GetAsync($"/subscriptions/{subscription}/ordering")).Is(200).Json["keys"]!.AsArray().Count == 0);
    }

    [Fact]
    public async Task After_as_many_attempts_as_are_asked_for_the_next_one_goes_on()
    {
        await SubscribeAsync("per_key", ""","failingHead":"dead_letter_after","failingHeadAttempts":3""");
        await StartAsync(("Delivery:Retry:MaxAttempts", "50"));
        _fails["a1"] = 0;
        foreach (var data in new[] { "a1", "a2", "a3" })
            await PublishAsync("a", data);

        await TakenAsync("a2", "a3");
        Assert.Equal(["a1", "a1", "a1", "a2", "a3"], _tried);
        var letter = Assert.Single((await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray())!;
        Assert.Equal(("exhausted", "3"), (Text(letter["reason"]), Text(letter["attempts"])));
    }

    [Fact]
    public async Task A_parked_key_waits_behind_its_dead_letter_and_a_replay_comes_last()
    {
        var subscription = await SubscribeAsync("per_key", ""","failingHead":"park_key" """);
        await StartAsync();
        _fails["a1"] = 0;
        await PublishAsync("a", "a1");
        await HeldAsync(subscription, behind: 0);
        // Also what comes when nothing of the key is left.
        await PublishAsync("a", "a2");
        await PublishAsync("b", "b1");
        await TakenAsync("b1");
        var held = await HeldAsync(subscription, behind: 0);
        var letter = Assert.Single((await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray())!;
        Assert.Equal(Text(letter["id"]), Text(held["failedDeliveryId"]));
        Assert.NotEqual(Text(letter["id"]), Text(held["head"]!["deliveryId"]));

        Assert.Equal("1", (await ReleaseAsync(subscription))["released"]);
        await TakenAsync("b1", "a2");

        _fails.Clear();
        (await Client.PostAsync($"/subscriptions/{subscription}/circuit/open")).Is(200);
        await PublishAsync("a", "a3");
        await InQueueAsync(1);
        (await Client.PostAsync($"/dead-letters/{letter["id"]}/replay")).Is(202);
        await PublishAsync("a", "a4");
        await InQueueAsync(3);
        (await Client.PostAsync($"/subscriptions/{subscription}/circuit/close")).Is(200);
        await TakenAsync("b1", "a2", "a3", "a1", "a4");
    }

    [Fact]
    public async Task What_heads_a_key_can_be_given_up_while_it_is_held_and_while_it_is_tried()
    {
        var subscription = await SubscribeAsync("strict");
        await StartAsync();
        (_fails["1"], _fails["2"]) = (0, 0);
        for (var i = 1; i <= 3; i++)
            await Client.PublishAsync(data: $"\"{i}\"");
        var held = await HeldAsync(subscription, behind: 2);
        Assert.Equal("", Text(held["key"]));
        var first = Text(held["head"]!["deliveryId"])!;
        var second = TypeId.Format(
            TypeId.Delivery, await Engine.ScalarAsync<Guid>("SELECT id FROM delivery_queue ORDER BY position OFFSET 1 LIMIT 1"));
        (await SkipAsync(subscription, second)).IsProblem(409, "waits_in_order");
        (await SkipAsync(subscription, "dlv_01jd0000000000000000000000")).IsProblem(404, "not_found");

        (await SkipAsync(subscription, first)).Is(204);

        held = await HeldAsync(subscription, behind: 1);
        Assert.Equal(second, Text(held["failedDeliveryId"]));
        (await SkipAsync(subscription, first)).IsProblem(409, "delivery_ended");
        // From now on it is tried again in a day.
        (await Client.PatchAsync($"/subscriptions/{subscription}", """{"retry":{"schedule":["1.00:00:00"]}}""")).Is(200);
        await ReleaseAsync(subscription);
        await Wait.UntilAsync("it waits for its next attempt", async () => await KeyAsync(subscription, "failing") is { } key
            && Text(key["state"]) == "failing" && Text(key["since"]) is not null && Text(key["head"]!["nextAttemptAt"]) is not null);
        (await SkipAsync(subscription, second)).Is(204);
        await TakenAsync("3");
        Assert.Equal(["skipped", "skipped"],
            (await Client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray().Select(letter => Text(letter!["reason"])));
    }

    [Fact]
    public async Task A_circuit_holds_all_but_the_first_and_lets_them_go_in_order()
    {
        await SubscribeAsync("strict");
        for (var i = 0; i < 6; i++)
            _fails[$"{i}"] = 0;
        await StartAsync(
            ("Delivery:Retry:MaxAttempts", "50"), ("Delivery:Retry:BaseDelay", "00:00:00.01"),
            ("Delivery:Circuit:ConsecutiveFailures", "3"), ("Delivery:Circuit:BreakDuration", "00:00:00.5"));
        for (var i = 0; i < 6; i++)
            await Client.PublishAsync(data: $"\"{i}\"");
        await Wait.UntilAsync("a probe has failed", async () =>
            await Engine.ScalarAsync<int>("SELECT coalesce(max(failed_probes), 0) FROM circuits") > 0);
        await InQueueAsync(6);
        Assert.All(_tried, data => Assert.Equal("0", data));

        _fails.Clear();

        await TakenAsync("0", "1", "2", "3", "4", "5");
    }

    [Fact]
    public async Task A_change_of_the_order_leaves_what_is_on_its_way_as_it_is_and_loses_nothing()
    {
        var subscription = await SubscribeAsync("none");
        await StartAsync();
        (await Client.PostAsync($"/subscriptions/{subscription}/circuit/open")).Is(200);
        var expected = 0;
        foreach (var ordering in new[] { "none", "per_key", "strict", "none" })
        {
            (await Client.PatchAsync($"/subscriptions/{subscription}", $$"""{"ordering":"{{ordering}}"}""")).Is(200);
            for (var i = 0; i < 3; i++)
                await PublishAsync("a", $"{ordering}-{expected++}");
            await InQueueAsync(expected);
        }
        // The first of each key, and what is in no order.
        Assert.Equal(8L, await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE next_attempt_at <= now()"));
        (await Client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""")).Is(200);
        (await Client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":true}""")).Is(200);

        await Wait.UntilAsync("all are delivered", () => _taken.Count == expected);
        Assert.Equal(expected, _taken.Distinct().Count());
        foreach (var ordering in new[] { "per_key", "strict" })
        {
            var taken = _taken.Where(data => data.StartsWith(ordering, StringComparison.Ordinal)).ToArray();
            Assert.Equal(taken.OrderBy(data => int.Parse(data[(ordering.Length + 1)..])), taken);
        }
    }

    [Fact]
    public async Task What_waits_in_order_is_cancelled_with_its_subscription()
    {
        var subscription = await SubscribeAsync("per_key");
        await StartAsync();
        _fails["a1"] = 0;
        foreach (var data in new[] { "a1", "a2", "a3" })
            await PublishAsync("a", data);
        await HeldAsync(subscription, behind: 2);

        (await Client.DeleteAsync($"/subscriptions/{subscription}")).Is(204);

        await Wait.UntilAsync("all are cancelled", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'cancelled'") == 3);
        (await Client.GetAsync($"/subscriptions/{subscription}/ordering")).IsProblem(404, "not_found");
        Assert.Empty(_taken);
    }

    [Fact]
    public async Task What_has_no_subject_waits_for_nothing()
    {
        await SubscribeAsync("per_key");
        await StartAsync(("Delivery:Retry:BaseDelay", "01:00:00"));
        _fails["1"] = 0;
        await Client.PublishAsync(data: "\"1\"");
        await Wait.UntilAsync("the first has failed", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE retry_count = 1 AND order_key IS NULL") == 1);
        await Client.PublishAsync(data: "\"2\"");
        await TakenAsync("2");
    }

    [Fact]
    public async Task An_event_that_very_many_subscribe_to_comes_once_to_each_and_in_its_order()
    {
        const int Others = 1_001;
        var subscription = await SubscribeAsync("strict");
        await Engine.ExecuteAsync(
            $"""
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets)
            SELECT gen_random_uuid(), tenant_id, '{Receiver.Url}/other', event_types, secrets
            FROM subscriptions, generate_series(1, {Others})
            """);
        await StartAsync();
        for (var i = 1; i <= 3; i++)
            await Client.PublishAsync(data: $"\"{i}\"");

        await Wait.UntilAsync("all have arrived", () => Receiver.Received.Count >= 3 * (Others + 1), TimeSpan.FromMinutes(2));
        await Wait.UntilAsync("nothing is left", async () => await Engine.ScalarAsync<long>(
            "SELECT (SELECT count(*) FROM delivery_queue) + (SELECT count(*) FROM fan_outs)") == 0, TimeSpan.FromMinutes(1));
        Assert.Equal(
            3L * (Others + 1), await Engine.ScalarAsync<long>("SELECT count(DISTINCT (event_id, subscription_id)) FROM deliveries"));
        Assert.Equal(3L * (Others + 1), await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries"));
        Assert.Equal(["1", "2", "3"], Receiver.At("/hook").Select(webhook => JsonNode.Parse(webhook.Body)!["data"]!.ToString()));
        Assert.NotEmpty(subscription);
    }

    [Fact]
    public async Task Keys_are_listed_in_the_order_of_their_names()
    {
        var subscription = await SubscribeAsync("per_key");
        await StartAsync();
        (await Client.PostAsync($"/subscriptions/{subscription}/circuit/open")).Is(200);
        foreach (var key in new[] { "c", "a", "b", "a" })
            await PublishAsync(key, key);
        await InQueueAsync(4);

        var page = (await Client.GetAsync($"/subscriptions/{subscription}/ordering?limit=2")).Is(200).Json;
        Assert.Equal(["a", "b"], page["keys"]!.AsArray().Select(key => Text(key!["key"])));
        Assert.Equal(("flowing", "1"), (Text(page["keys"]![0]!["state"]), Text(page["keys"]![0]!["behind"])));
        Assert.True((bool)page["more"]!);
        page = (await Client.GetAsync($"/subscriptions/{subscription}/ordering?limit=2&after=b")).Is(200).Json;
        Assert.Equal(["c"], page["keys"]!.AsArray().Select(key => Text(key!["key"])));
        Assert.False((bool)page["more"]!);
        Assert.Empty((await Client.GetAsync($"/subscriptions/{subscription}/ordering?state=held")).Is(200).Json["keys"]!.AsArray());
        Assert.Empty(
            (await Client.GetAsync($"/subscriptions/{subscription}/ordering?state=failing&after=a")).Is(200).Json["keys"]!.AsArray());
        (await Client.GetAsync($"/subscriptions/{subscription}/ordering?state=gone")).IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task There_may_be_so_many_subscriptions_in_order_and_none_without_sense()
    {
        var subscription = await SubscribeAsync("per_key", ""","failingHeadAttempts":3""");
        var body = $$"""{"url":"{{Receiver.Url}}","eventTypes":["*"],"ordering":"strict"}""";
        (await Client.PostAsync("/subscriptions", body)).IsProblem(409, "limit_reached");
        var other = await Client.SubscribeAsync(url: Receiver.Url);
        (await Client.PatchAsync($"/subscriptions/{other}", """{"ordering":"per_key"}""")).IsProblem(409, "limit_reached");
        Assert.Equal("none", (await Client.GetAsync($"/subscriptions/{other}")).Is(200)["ordering"]);

        var changed = (await Client.PatchAsync(
            $"/subscriptions/{subscription}", """{"ordering":"strict","failingHead":"park_key","failingHeadAttempts":null}""")).Is(200);
        Assert.Equal(("strict", "park_key", null), (changed["ordering"], changed["failingHead"], changed["failingHeadAttempts"]));
        foreach (var wrong in new[]
        {
            """{"ordering":"some"}""", """{"ordering":null}""", """{"failingHead":"wait"}""", """{"failingHeadAttempts":0}""",
        })
            (await Client.PatchAsync($"/subscriptions/{subscription}", wrong)).IsProblem(400, "invalid_request");
    }

    private async Task<string> SubscribeAsync(string ordering, string more = "") =>
        (await Client.PostAsync(
            "/subscriptions", $$"""{"url":"{{Receiver.Url}}/hook","eventTypes":["*"],"ordering":"{{ordering}}"{{more}}}""")).Is(201).Id;

    /// <summary>Two attempts, unless the settings say otherwise.</summary>
    private async Task StartAsync(params (string, string)[] settings) => await Engine.StartDeliveryAsync(
        [("Delivery:Retry:BaseDelay", "00:00:00.02"), ("Delivery:Retry:MaxAttempts", "2"), .. settings]);

    private Task<string> PublishAsync(string subject, string data) =>
        Client.PublishAsync(data: $"\"{data}\"", more: $",\"subject\":\"{subject}\"");

    private async Task<Answer> ReleaseAsync(string subscription, string? body = null) =>
        (await Client.PostAsync($"/subscriptions/{subscription}/ordering/release", body)).Is(200);

    private Task<Answer> SkipAsync(string subscription, string delivery) =>
        Client.PostAsync($"/subscriptions/{subscription}/ordering/skip", $$"""{"deliveryId":"{{delivery}}"}""");

    /// <summary>The one key that is held, once so many wait behind its first.</summary>
    private async Task<JsonNode> HeldAsync(string subscription, int behind)
    {
        JsonNode? held = null;
        await Wait.UntilAsync($"a key is held, and {behind} wait", async () =>
            (held = await KeyAsync(subscription, "held")) is not null && (int)held["behind"]! == behind);
        return held!;
    }

    private async Task<JsonNode?> KeyAsync(string subscription, string state) =>
        (await Client.GetAsync($"/subscriptions/{subscription}/ordering?state={state}")).Is(200).Json["keys"]!.AsArray().SingleOrDefault();

    private async Task TakenAsync(params string[] expected)
    {
        await Wait.UntilAsync($"{string.Join(", ", expected)} are taken", () => _taken.Count >= expected.Length);
        Assert.Equal(expected, _taken);
    }

    private Task InQueueAsync(int count) => Wait.UntilAsync($"{count} are in the queue", async () =>
        await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == count);

    private static string? Text(JsonNode? node) => node?.ToString();
}
