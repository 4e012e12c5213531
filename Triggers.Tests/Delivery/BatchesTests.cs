using System.Diagnostics.Metrics;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Several events in one request. What is to be full waits so long that no clock has a say in what goes together.</summary>
public abstract class BatchesTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private const string Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    private static readonly TimeSpan s_long = TimeSpan.FromSeconds(Batching.MaxWaitSeconds);

    [Fact]
    public async Task A_batch_goes_when_it_is_full_or_has_waited_with_one_signature_and_each_event_as_it_would_be_alone()
    {
        var full = await SubscribeAsync("/full", max: 5, s_long);
        await SubscribeAsync("/waiting", max: 100, TimeSpan.FromMilliseconds(300));
        var cloudEvents = await SubscribeAsync("/cloudevents", max: 10, s_long);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET format = 'cloudevents' WHERE id = '{cloudEvents}'");
        await Engine.SubscribeAsync($"{Receiver.Url}/alone");
        await Engine.StartDeliveryAsync();

        var ids = await Engine.AppendAsync("order.created", 10);

        await Wait.UntilAsync("all have all", () =>
            IdsAt("/full").Count == 10 && IdsAt("/waiting").Count == 10 && IdsAt("/cloudevents").Count == 10
            && Receiver.At("/alone").Count() == 10);
        Assert.Equal("application/cloudevents-batch+json", Assert.Single(Receiver.At("/cloudevents")).Headers["Content-Type"]);
        Assert.Equal([5, 5], Receiver.At("/full").Select(w => Events(w).Count));
        var alone = Receiver.At("/alone").ToDictionary(w => w.EventId, w => Encoding.UTF8.GetString(w.Body));
        foreach (var batch in Receiver.At("/full").Concat(Receiver.At("/waiting")))
        {
            var (id, timestamp) = (batch.Headers["webhook-id"], long.Parse(batch.Headers["webhook-timestamp"]));
            Assert.Equal(WebhookSignature.Sign([Secret], id, timestamp, batch.Body), batch.Headers["webhook-signature"]);
            Assert.Equal($"[{string.Join(',', Ids(batch).Select(e => alone[e]))}]", Encoding.UTF8.GetString(batch.Body));
            Assert.Equal($"{Events(batch).Count}", batch.Headers["triggers-batch-size"]);
        }
        await Engine.WaitUntilSettledAsync();
        Assert.Equal(ids.Select(id => TypeId.Format(TypeId.Event, id)).Order(), IdsAt("/full").Order());
        // Each delivery says which request it was in.
        Assert.Equal(2, await Engine.ScalarAsync<long>(
            $"SELECT count(DISTINCT batch_id) FROM deliveries WHERE subscription_id = '{full}'"));
        var attempt = await Engine.ScalarAsync<Guid>($"SELECT a.batch_id FROM all_attempts a JOIN deliveries d ON d.id = a.delivery_id "
            + $"WHERE d.event_id = '{Rows.Uuid(Ids(Receiver.At("/full").First())[0])}' AND subscription_id = '{full}'");
        Assert.Equal(Receiver.At("/full").First().Headers["webhook-id"], TypeId.Format(TypeId.Batch, attempt));
    }

    [Fact]
    public async Task A_batch_that_fails_is_tried_again_with_what_came_since_and_each_delivery_counts_the_attempt()
    {
        var failing = true;
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = Volatile.Read(ref failing) ? 503 : 200;
            return Task.CompletedTask;
        };
        await SubscribeAsync("/", max: 4, s_long);
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "01:00:00"));
        await Engine.AppendAsync("order.created", 4);
        await Wait.UntilAsync("the attempt is recorded", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE retry_count = 1 AND claimed_by IS NULL") == 4);
        Assert.Equal(4, await Engine.ScalarAsync<long>("SELECT count(*) FROM attempts WHERE status_code = 503 AND batch_id IS NOT NULL"));

        Volatile.Write(ref failing, false);
        // Before its time it stays as it is, though there is enough for a batch.
        await Engine.AppendAsync("order.created", 2);
        await Wait.UntilAsync("they wait", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == 6);
        await Engine.ExecuteAsync(DeliveryQueue.SendNow(Engine.Tenant, null, await SubscriptionAsync(), most: 100));

        await Engine.WaitUntilSettledAsync();
        Assert.Equal(6, IdsAt("/").Skip(4).Distinct().Count());
        Assert.Equal(4, await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded' AND retry_count = 1"));
        Assert.Equal(2, await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded' AND retry_count = 0"));
        // What is sent again is known by its id.
        Assert.Equal(
            Receiver.Received.Select(w => string.Join(' ', Ids(w))).Distinct().Count(),
            Receiver.Received.Select(w => w.Headers["webhook-id"]).Distinct().Count());
    }

    [Theory]
    [InlineData(422, "rejected")]
    [InlineData(500, "exhausted")]
    public async Task An_event_that_the_receiver_chokes_on_is_found_and_fails_alone(int status, string reason)
    {
        Receiver.Respond = (webhook, context) =>
        {
            if (Events(webhook).Any(e => e["type"]!.ToString() == "order.poison"))
                context.Response.StatusCode = status;
            return Task.CompletedTask;
        };
        await SubscribeAsync("/", max: 16, s_long);
        await Engine.StartDeliveryAsync(
            ("Delivery:Retry:MaxAttempts", "2"), ("Delivery:Retry:MaxRejectedAttempts", "2"), ("Delivery:Retry:BaseDelay", "00:00:00.02"));

        await AppendAsync([.. Enumerable.Range(0, 16).Select(i => (i == 10 ? "order.poison" : "order.created", "s"))]);

        await Wait.UntilAsync("nothing is left", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries") == 16);
        Assert.Equal(15, await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'"));
        Assert.Equal("order.poison", await Engine.ScalarAsync<string>(
            $"SELECT e.type FROM dead_letters l JOIN events e ON e.id = l.event_id WHERE l.reason = '{reason}' AND l.attempts = 2"));
        Assert.All(Receiver.Received.TakeLast(1), w => Assert.Single(Events(w)));
        // 16, 8, 4, 2, 1 with it, the other halves, and the attempts that count.
        Assert.InRange(Receiver.Received.Count, 8, 16);
        if (status == 422)
            Assert.Equal(0, await Engine.ScalarAsync<long>(
                "SELECT count(*) FROM deliveries WHERE status = 'succeeded' AND retry_count > 0"));
    }

    [Fact]
    public async Task A_limit_counts_requests_and_a_batch_is_bounded_in_bytes()
    {
        var limited = await SubscribeAsync("/limited", max: 5, s_long);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET rate_requests = 2, rate_seconds = 3600 WHERE id = '{limited}'");
        await SubscribeAsync("/bytes", max: 100, s_long);
        await Engine.StartDeliveryAsync(("Delivery:BatchBytes", "2048"));

        await Engine.AppendAsync("order.created", 15, $$"""{"text":"{{new string('x', 400)}}"}""");

        await Wait.UntilAsync("the rate is used up", () => IdsAt("/limited").Count == 8 && Receiver.At("/limited").Count() == 2
            || IdsAt("/limited").Count > 8);
        await Wait.UntilAsync("what is full is sent", () => IdsAt("/bytes").Count == 12);
        Assert.Equal([4, 4], Receiver.At("/limited").Select(w => Events(w).Count));
        Assert.Equal([4, 4, 4], Receiver.At("/bytes").Select(w => Events(w).Count));
        await Wait.UntilAsync("the rest waits, and nobody works on it", async () => await Engine.ScalarAsync<long>(
            $"SELECT count(*) FROM delivery_queue WHERE subscription_id = '{limited}' AND claimed_by IS NULL AND claim = 0") == 7);
    }

    [Fact]
    public async Task What_expires_before_its_batch_is_sent_is_not_in_it_and_is_counted()
    {
        var expired = 0L;
        var subscription = await SubscribeAsync("/", max: 100, s_long);
        var host = await Engine.StartDeliveryAsync();
        var meters = host.Services.GetRequiredService<IMeterFactory>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, listener) =>
            {
                if (instrument.Name == "triggers.delivery.finished" && instrument.Meter.Scope == meters)
                    listener.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<long>((_, count, tags, _) =>
        {
            foreach (var tag in tags)
            {
                if (tag.Value is "expired")
                    Interlocked.Add(ref expired, count);
            }
        });
        listener.Start();
        var ids = await Engine.AppendAsync("order.created", 4);
        await Wait.UntilAsync("they wait for others", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == 4);

        // Not that of the delivery: whoever sends it is to find out.
        await Engine.ExecuteAsync($"UPDATE events SET expires_at = now() WHERE id IN ('{ids[0]}', '{ids[2]}')");
        await Engine.ExecuteAsync(DeliveryQueue.SendNow(Engine.Tenant, null, subscription, most: 100));

        await Engine.WaitForStatusAsync(ids[0], DeliveryStatus.Expired);
        await Engine.WaitForStatusAsync(ids[2], DeliveryStatus.Expired);
        await Engine.WaitForStatusAsync(ids[3], DeliveryStatus.Succeeded);
        Assert.Equal(
            [TypeId.Format(TypeId.Event, ids[1]), TypeId.Format(TypeId.Event, ids[3])], Ids(Assert.Single(Receiver.Received)).Order());
        Assert.Equal("2", Receiver.Received.Single().Headers["triggers-batch-size"]);
        Assert.Equal("expired", await Engine.StatusAsync(ids[2]));
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM all_attempts a JOIN deliveries d ON d.id = a.delivery_id "
            + "WHERE d.status = 'expired'"));
        await Wait.UntilAsync("both are counted", () => Interlocked.Read(ref expired) == 2);
    }

    [Fact]
    public async Task A_test_is_an_array_of_one_at_once_and_what_waits_goes_alone_when_batches_are_given_up()
    {
        var subscription = await SubscribeAsync("/", max: 100, s_long);
        await Engine.StartDeliveryAsync();
        var waiting = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("it waits", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == 1);
        var test = (await Engine.AppendAsync(TestEvents.Genuine))[0];
        await Wait.UntilAsync("the test is there", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM events") == 2);
        await Engine.ExecuteAsync(
            DeliveryQueue.Enqueue([new NewDelivery(Engine.Tenant, TypeId.NewGuid(), test, subscription) { Test = true }]));
        await Engine.ExecuteAsync("SELECT pg_notify('triggers_deliveries', '')");
        await Wait.UntilAsync("the test has come", () => Receiver.Received.Count == 1);
        Assert.Equal([TypeId.Format(TypeId.Event, test)], Ids(Receiver.Received.Single()));

        await Engine.ExecuteAsync("UPDATE subscriptions SET batch_max = NULL, batch_wait = NULL");
        var next = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("what came since has come, alone", () => Receiver.Received.Count == 2);
        Assert.Equal(TypeId.Format(TypeId.Event, next), Receiver.Received.Last().EventId);
        await Engine.ExecuteAsync(DeliveryQueue.SendNow(Engine.Tenant, null, subscription, most: 100));

        await Wait.UntilAsync("what waited has come", () => Receiver.Received.Count == 3);
        Assert.Equal(TypeId.Format(TypeId.Event, waiting), Receiver.Received.Last().EventId);
    }

    private Task<Guid> SubscriptionAsync() => Engine.ScalarAsync<Guid>("SELECT id FROM subscriptions");

    private async Task<Guid> SubscribeAsync(string path, int max, TimeSpan wait)
    {
        var id = await Engine.SubscribeAsync(Receiver.Url + path);
        await Engine.ExecuteAsync(
            $"UPDATE subscriptions SET batch_max = {max}, batch_wait = interval '{wait.TotalSeconds} seconds' WHERE id = '{id}'");
        return id;
    }

    private async Task AppendAsync((string Type, string Subject)[] events)
    {
        var first = TypeId.NewGuid();
        await Engine.Log.AppendAsync(new AppendRequest(Engine.Tenant, first, "test", null, null, [.. events.Select((e, i) =>
            new NewEvent(TypeId.Add(first, i), e.Type, null, null, null, e.Subject, null, "1"u8.ToArray()))]),
            TestContext.Current.CancellationToken);
    }

    private List<string> IdsAt(string path) => [.. Receiver.At(path).SelectMany(Ids)];

    private static List<string> Ids(ReceivedWebhook webhook) => Events(webhook).ConvertAll(e => e["id"]!.ToString());

    private static List<JsonNode> Events(ReceivedWebhook webhook) => [.. JsonNode.Parse(webhook.Body)!.AsArray().Select(e => e!)];
}

public sealed class BatchesOnPostgresTests(PostgresServer postgres) : BatchesTests(postgres);

public sealed class BatchesOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : BatchesTests(postgres, kafka);
