using System.Text.Json.Nodes;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Events that are delivered at a time, and those that are not delivered any more after one.</summary>
public abstract class SchedulingTests(PostgresServer postgres, KafkaServer? kafka = null) : ApiAndEngineTests(postgres, kafka)
{
    [Fact]
    public async Task What_is_scheduled_comes_at_its_time_and_holds_up_nothing()
    {
        await Client.SubscribeAsync("\"a.*\"", $"{Receiver.Url}/hook");
        await CreateInboxAsync();
        await Engine.StartDeliveryAsync();
        var deliverAt = In(3);
        var id = await Client.PublishAsync("a.b", more: $$""","deliverAt":"{{deliverAt}}","expiresAt":"{{In(600)}}" """);
        var unclaimed = await Client.PublishAsync("other", more: $$""","deliverAt":"{{deliverAt}}" """);
        var next = await Client.PublishAsync("a.c");

        await Wait.UntilAsync("what is not scheduled is sent", () => Receiver.Received.Count > 0);
        await Wait.UntilAsync("the inbox has it too", async () => await ReceiveAsync("work") == next);
        var shown = (await Client.GetAsync($"/events/{id}")).Is(200);
        var delivery = (await Client.GetAsync($"/events/{id}/deliveries")).Is(200).Json["items"]![0]!;
        Assert.Equal("scheduled", shown["status"]);
        Assert.Equal(DateTimeOffset.Parse(deliverAt), shown.Json["deliverAt"]!.GetValue<DateTimeOffset>());
        Assert.Equal(DateTimeOffset.Parse(deliverAt), delivery["nextAttemptAt"]!.GetValue<DateTimeOffset>());
        Assert.Equal(shown.Json["expiresAt"]!.ToString(), delivery["expiresAt"]!.ToString());
        Assert.Equal([unclaimed, id], (await Client.GetAsync("/events?status=scheduled")).Is(200).Ids);
        Assert.Empty((await Client.GetAsync("/inbox")).Is(200).Ids.Intersect([id, unclaimed]));

        await Wait.UntilAsync("it is sent at its time", () => Receiver.Received.Any(w => w.EventId == id));
        var body = JsonNode.Parse(Receiver.Received.Single(w => w.EventId == id).Body)!;
        Assert.Equal(shown.Json["expiresAt"]!.GetValue<DateTimeOffset>(), body["expiresAt"]!.GetValue<DateTimeOffset>());
        Assert.Equal([next, id], Receiver.Received.Select(w => w.EventId));
        await Wait.UntilAsync("it is received from the inbox at its time", async () => await ReceiveAsync("work") == id);
        await Wait.UntilAsync("and from that of what nobody wants", async () => await ReceiveAsync("default") == unclaimed);
        Assert.Equal(0, await Engine.ScalarAsync<long>(
            "SELECT count(*) FROM all_attempts a JOIN all_deliveries d ON d.id = a.delivery_id "
            + "JOIN events e ON e.id = d.event_id WHERE a.started_at < e.deliver_at"));
    }

    [Fact]
    public async Task What_is_scheduled_takes_its_place_in_the_order_when_its_time_has_come()
    {
        var mayAnswer = new TaskCompletionSource();
        Receiver.Respond = (_, _) => mayAnswer.Task;
        (await Client.PostAsync("/subscriptions", $$"""{"url":"{{Receiver.Url}}","eventTypes":["*"],"ordering":"strict"}""")).Is(201);
        await Engine.StartDeliveryAsync();

        var first = await Client.PublishAsync();
        await Wait.UntilAsync("the first is being sent", () => Receiver.Received.Count == 1);
        var scheduled = await Client.PublishAsync(more: $$""","deliverAt":"{{In(2)}}" """);
        var second = await Client.PublishAsync();
        await Wait.UntilAsync("its time has come, and it waits in order", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE order_key IS NOT NULL") == 3);
        Assert.Single(Receiver.Received);
        mayAnswer.SetResult();

        await Wait.UntilAsync("all are sent", () => Receiver.Received.Count == 3);
        Assert.Equal([first, second, scheduled], Receiver.Received.Select(w => w.EventId));
        await Engine.WaitForStatusAsync(Rows.Uuid(scheduled), DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task What_is_scheduled_is_cancelled_as_a_whole_or_not_at_all()
    {
        var subscription = await Client.SubscribeAsync("\"a.*\"", Receiver.Url);
        await CreateInboxAsync();
        await Engine.StartDeliveryAsync();
        var hour = $$""","deliverAt":"{{In(3600)}}" """;
        var id = await Client.PublishAsync("a.b", more: hour);
        var unclaimed = await Client.PublishAsync("other", more: hour);
        await Wait.UntilAsync("deliveries are made", async () => await PendingAsync(id) == 2);

        foreach (var answer in new[] { await CancelAsync(id), await CancelAsync(id) })
            Assert.Equal((id, "cancelled"), (answer.Is(200).Id, answer["status"]));
        (await CancelAsync(unclaimed)).Is(200);

        var shown = (await Client.GetAsync($"/events/{id}")).Is(200);
        Assert.Equal(("cancelled", 2), (shown["status"]!, (int)shown.Json["deliveries"]!["cancelled"]!));
        Assert.Equal([unclaimed, id], (await Client.GetAsync("/events?status=cancelled")).Is(200).Ids);
        (await Client.PostAsync($"/events/{id}/replay")).IsProblem(409, "event_cancelled");
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM delivery_queue)"));

        // What was sent before its time, at request, can't be taken back; all of a subscription means what is tried again.
        var sent = await Client.PublishAsync("a.b", more: hour);
        await Wait.UntilAsync("deliveries are made", async () => await PendingAsync(sent) == 2);
        Assert.Equal("0", (await Client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202)["deliveries"]);
        var delivery = (await Client.GetAsync($"/deliveries?eventId={sent}&subscriptionId={subscription}")).Is(200).Ids[0];
        (await Client.PostAsync($"/deliveries/{delivery}/send-now")).Is(202);
        await Wait.UntilAsync("it is sent", () => Receiver.Received.Count == 1);
        (await CancelAsync(sent)).IsProblem(409, "not_scheduled");
        (await CancelAsync(await Client.PublishAsync("a.b"))).IsProblem(409, "not_scheduled");
        (await CancelAsync("evt_01jd0000000000000000000000")).IsProblem(404, "not_found");
    }

    [Fact]
    public async Task When_the_time_comes_as_it_is_cancelled_it_is_either_sent_or_cancelled()
    {
        await Client.SubscribeAsync("\"*\"", Receiver.Url);
        await Engine.StartDeliveryAsync();
        await Engine.StartDeliveryAsync();
        var deliverAt = In(1.5);
        var ids = await Task.WhenAll(Enumerable.Range(0, 40).Select(_ => Client.PublishAsync(more: $$""","deliverAt":"{{deliverAt}}" """)));
        await Wait.UntilAsync("its time is near", async () => await Engine.ScalarAsync<bool>(
            "SELECT coalesce(bool_and(deliver_at < clock_timestamp() + interval '20 milliseconds'), false) FROM events"));

        var answers = await Task.WhenAll(ids.Select(CancelAsync));

        var cancelled = ids.Zip(answers).Where(a => a.Second.Status == 200).Select(a => a.First).ToArray();
        Assert.All(answers.Where(a => a.Status != 200), answer => answer.IsProblem(409, "not_scheduled"));
        await Wait.UntilAsync("all have ended", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == 0);
        Assert.Equal(ids.Except(cancelled).Order(), Receiver.Received.Select(w => w.EventId).Order());
        foreach (var id in ids)
            Assert.Equal(cancelled.Contains(id) ? "cancelled" : "delivered", (await Client.GetAsync($"/events/{id}")).Is(200)["status"]);
    }

    [Fact]
    public async Task What_is_too_late_is_neither_sent_nor_shown()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 503;
            return Task.CompletedTask;
        };
        await Client.SubscribeAsync("\"failing\"", Receiver.Url);
        var disabled = await Client.SubscribeAsync("\"held\"", Receiver.Url);
        await CreateInboxAsync();
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "50"));
        var failing = await Client.PublishAsync("failing", more: $$""","expiresAt":"{{In(1.5)}}" """);
        var held = await Client.PublishAsync("held", more: $$""","deliverAt":"{{In(3600)}}","expiresAt":"{{In(3601)}}" """);
        var pulled = await Client.PublishAsync("a.b", more: $$""","expiresAt":"{{In(3601)}}" """);
        var unclaimed = await Client.PublishAsync("other", more: $$""","expiresAt":"{{In(3601)}}" """);
        await Wait.UntilAsync("the inboxes have theirs", async () => (await Client.GetAsync("/inbox")).Is(200).Ids.Length == 2);
        await Wait.UntilAsync("its delivery is made", async () => await PendingAsync(held) == 1);
        (await Client.PatchAsync($"/subscriptions/{disabled}", """{"enabled":false}""")).Is(200);

        await Engine.WaitForStatusAsync(Rows.Uuid(failing), DeliveryStatus.Expired);
        // An hour passes.
        foreach (var table in new[] { "events", "delivery_queue", "inbox" })
            await Engine.ExecuteAsync($"UPDATE {table} SET expires_at = now() WHERE expires_at IS NOT NULL");
        Assert.NotEmpty(Receiver.Received);
        Assert.All(Receiver.Received, webhook => Assert.Equal(failing, webhook.EventId));
        Assert.Null(await ReceiveAsync("work"));
        Assert.Null(await ReceiveAsync("default"));
        Assert.Empty((await Client.GetAsync("/inbox")).Is(200).Ids);
        foreach (var id in new[] { failing, held, pulled, unclaimed })
        {
            await Wait.UntilAsync($"{id} has expired",
                async () => (await Client.GetAsync($"/events/{id}")).Is(200)["status"] == "expired");
            (await Client.PostAsync($"/events/{id}/replay")).IsProblem(409, "event_expired");
        }
        Assert.Equal([unclaimed, pulled, held, failing], (await Client.GetAsync("/events?status=expired")).Is(200).Ids);
        var expired = (await Client.GetAsync("/deliveries?status=expired")).Is(200).Json["items"]!.AsArray();
        Assert.Equal(3, expired.Count);
        // What has ended says until when it was to be sent: as its event does.
        foreach (var delivery in expired)
        {
            var expiresAt = (await Client.GetAsync($"/events/{delivery!["eventId"]}")).Is(200)["expiresAt"];
            Assert.NotNull(expiresAt);
            Assert.Equal(expiresAt, delivery["expiresAt"]!.ToString());
            Assert.Equal(expiresAt, (await Client.GetAsync($"/deliveries/{delivery["id"]}")).Is(200)["expiresAt"]);
        }
        Assert.Empty((await Client.GetAsync("/dead-letters")).Is(200).Ids);
        Assert.Equal(1, (int)(await Client.GetAsync($"/events/{held}")).Is(200).Json["deliveries"]!["expired"]!);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM delivery_queue)"));
    }

    [Fact]
    public async Task Times_are_part_of_what_an_event_says()
    {
        var (soon, late) = (In(1), In(3600));
        (string, string) key = ("Idempotency-Key", "once");
        var body = $$"""{"type":"a","data":1,"externalId":"x","expiresAt":"{{soon}}"}""";
        var first = (await Client.PostAsync("/events", body, key)).Is(202);

        (await Client.PostAsync("/events", """{"type":"a","data":1,"externalId":"x"}""")).IsProblem(409, "external_id_conflict");
        Assert.Equal(["/expiresAt"], (await PublishAsync(late, late)).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/deliverAt"], (await PublishAsync("tomorrow", null)).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/deliverAt"], (await PublishAsync(In(91 * 24 * 3600), null)).IsProblem(422, "invalid_schedule").Pointers);
        Assert.Equal(["/expiresAt"], (await PublishAsync(null, In(-1))).IsProblem(422, "invalid_schedule").Pointers);
        var batch = (await Client.PostAsync("/events/batch",
            $$"""{"events":[{"type":"a","data":1,"deliverAt":"{{late}}"},{"type":"a","data":1,"expiresAt":"{{In(-1)}}"}]}""")).Is(202);
        Assert.Equal(("accepted", "invalid_schedule"),
            (batch.Json["items"]![0]!["status"]!.ToString(), batch.Json["items"]![1]!["code"]!.ToString()));
        // What has passed means at once.
        Assert.Equal("pending", (await PublishAsync(In(-1), null)).Is(202)["status"]);
        Assert.Equal("scheduled", (await PublishAsync(late, null)).Is(202)["status"]);

        // Repeated when it is too late for it.
        await Wait.UntilAsync("the time has passed", async () => await Engine.ScalarAsync<bool>($"SELECT now() > '{soon}'"));
        Assert.Equal(first.Id, (await Client.PostAsync("/events", body, key)).Is(202).Id);
        Assert.Equal(first.Id, (await Client.PostAsync("/events", body)).Is(202).Id);
        var item = (await Client.PostAsync("/events/batch", $$"""{"events":[{{body}}]}""")).Is(202).Json["items"]![0]!;
        Assert.Equal(first.Id, item["id"]!.ToString());

        Task<Answer> PublishAsync(string? deliverAt, string? expiresAt) => Client.PostAsync("/events", new JsonObject
        {
            ["type"] = "a",
            ["data"] = 1,
            ["deliverAt"] = deliverAt,
            ["expiresAt"] = expiresAt,
        }.ToJsonString());
    }

    private protected static string In(double seconds) =>
        $"{TimeProvider.System.GetUtcNow().AddSeconds(seconds):yyyy-MM-dd'T'HH:mm:ss.fff'Z'}";

    private protected Task<Answer> CancelAsync(string id) => Client.PostAsync($"/events/{id}/cancel");

    private async Task CreateInboxAsync() =>
        (await Client.PostAsync("/inboxes", """{"name":"work","eventTypes":["a.*"]}""")).Is(201);

    private async Task<int> PendingAsync(string id) =>
        (int)(await Client.GetAsync($"/events/{id}")).Is(200).Json["deliveries"]!["pending"]!;

    /// <summary>The event that is received; null for none.</summary>
    private async Task<string?> ReceiveAsync(string inbox) =>
        (await Client.PostAsync($"/inboxes/{inbox}/receive", """{"max":1,"lease":600}""")).Is(200)
            .Json["items"]!.AsArray().SingleOrDefault()?["event"]!["id"]!.ToString();
}

public sealed class SchedulingOnPostgresTests(PostgresServer postgres) : SchedulingTests(postgres)
{
    [Fact]
    public async Task What_is_cancelled_before_it_is_read_from_the_log_is_never_delivered()
    {
        await Client.SubscribeAsync("\"a\"", Receiver.Url);
        foreach (var type in new[] { "a", "b" })
            (await CancelAsync(await Client.PublishAsync(type, more: $$""","deliverAt":"{{In(3600)}}" """))).Is(200);
        var marker = await Client.PublishAsync("a");
        await Engine.StartDeliveryAsync();

        await Engine.WaitForStatusAsync(Rows.Uuid(marker), DeliveryStatus.Succeeded);
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM all_deliveries)"));
    }
}

public sealed class SchedulingOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : SchedulingTests(postgres, kafka);
