using System.Net;
using System.Text;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>Two delivery processes of which one after the other is killed while they send in order.</summary>
[Collection(nameof(CrashCollection))]
public abstract class OrderingCrashTests(bool kafka)
{
    private const string Key = "trg_order-order-order-order";
    private const int Keys = 30;
    private const int OfEach = 100;

    /// <summary>How many of each request go to who gets them in batches.</summary>
    private const int InBatches = 5;

    private const int Scheduled = 200;
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    [Fact]
    public async Task What_is_sent_in_order_stays_in_order_whoever_is_killed()
    {
        await using var system = await RunningSystem.CreateAsync(onDemand: false,
        [
            $"--Kafka:Home={(kafka ? KafkaServer.Home : "")}", "--Kafka:Partitions=6", $"--Auth:BootstrapAdminKey={Key}", "--replicas=2",
            "--Delivery:Retry:BaseDelay=00:00:00.05", "--Delivery:Retry:Factor=1", "--Delivery:Retry:MaxAttempts=50",
            "--Delivery:Circuit:ConsecutiveFailures=1000", "--Delivery:Circuit:MinimumThroughput=100000",
        ]);
        foreach (var service in new[] { "api", "delivery" })
            await system.ReadyAsync(service);
        await using var database = Storage.Builder(await system.ConnectionStringAsync("triggersdb"), "tests").Build();
        var (receiver, batches) = (new OrderedReceiver(database, strict: false), new OrderedReceiver(database, strict: true));
        var byKey = new OrderedReceiver(database, strict: false);
        await using var socket = await TestReceiver.StartAsync();
        socket.Respond = (webhook, context) =>
            (webhook.Path == "/batches" ? batches : webhook.Path == "/by-key" ? byKey : receiver).RespondAsync(webhook, context);
        using var api = new HttpClient { BaseAddress = system.UrlOf("api-1"), Timeout = TimeSpan.FromSeconds(30) };
        api.DefaultRequestHeaders.Add("X-API-Key", Key);
        await PostAsync(api, "/subscriptions", HttpStatusCode.Created, "subscribe",
            $$"""{"url":"{{socket.Url}}/hook","eventTypes":["load.*"],"ordering":"per_key"}""");

        await PostAsync(api, "/subscriptions", HttpStatusCode.Created, "subscribe to batches",
            $$$"""
            {"url":"{{{socket.Url}}}/batches","eventTypes":["batch.*"],"ordering":"strict","batch":{"max":20,"wait":0.05}}
            """);

        // Of every tenth key.
        await PostAsync(api, "/subscriptions", HttpStatusCode.Created, "subscribe to batches by key",
            $$$"""
            {"url":"{{{socket.Url}}}/by-key","eventTypes":["load.*"],"filter":{"subject":[{"suffix":"5"}]},"ordering":"per_key",
            "batch":{"max":20,"wait":0.05}}
            """);

        // Some wait for their time, which comes while processes are killed: see below.
        await using var scheduled = await TestReceiver.StartAsync();
        await PostAsync(api, "/subscriptions", HttpStatusCode.Created, "subscribe-scheduled",
            $$"""{"url":"{{scheduled.Url}}/hook","eventTypes":["later"]}""");
        var later = string.Join(',', Enumerable.Range(0, Scheduled).Select(i =>
            $$"""{"type":"later","data":{{i}},"deliverAt":"{{TimeProvider.System.GetUtcNow().AddMilliseconds(2_000 + 50 * i):O}}"}"""));
        await PostAsync(api, "/events/batch", HttpStatusCode.Accepted, "scheduled", $$"""{"events":[{{later}}]}""");

        var publishing = PublishAsync(api);
        for (var round = 1; round <= 4; round++)
        {
            var part = $"delivery-{round % 2 + 1}";
            await ArrivedAsync(receiver, Keys * OfEach * round / 6);
            await system.KillAsync(part);
            await ArrivedAsync(receiver, Keys * OfEach * round / 6 + 50);
            await system.StartAsync(part);
        }
        await publishing;
        await ArrivedAsync(receiver, Keys * OfEach);
        await Wait.UntilAsync("nothing is left", async () =>
        {
            await using var count = database.CreateCommand("SELECT count(*) FROM delivery_queue");
            return await count.ExecuteScalarAsync() is 0L;
        }, s_patience);
        Assert.Empty(receiver.Wrong);
        Assert.Equal(Keys * OfEach, receiver.Count);
        Assert.Empty(batches.Wrong);
        Assert.Equal(OfEach * InBatches, batches.Count);
        Assert.Empty(byKey.Wrong);
        Assert.Equal(Keys / 10 * OfEach, byKey.Count);

        Assert.Equal(Scheduled, scheduled.Received.Select(webhook => webhook.EventId).Distinct().Count());
        await using var early = database.CreateCommand(
            "SELECT count(*) FROM all_attempts a JOIN deliveries d ON d.id = a.delivery_id "
            + "JOIN events e ON e.id = d.event_id WHERE a.started_at < e.deliver_at");
        Assert.Equal(0L, await early.ExecuteScalarAsync(TestContext.Current.CancellationToken));
    }

    private static Task ArrivedAsync(OrderedReceiver receiver, int count) =>
        Wait.UntilAsync($"{count} have arrived in order", () => receiver.Count >= count || receiver.Wrong.Count > 0, s_patience);

    /// <summary>One number of each subject after the other, each batch when the one before is accepted.</summary>
    private static async Task PublishAsync(HttpClient api)
    {
        for (var number = 0; number < OfEach; number++)
        {
            var events = string.Join(',', Enumerable.Range(0, Keys)
                .Select(key => $$"""{"type":"load.ordered","subject":"key-{{key}}","data":{{number}}}""")
                .Concat(Enumerable.Range(number * InBatches, InBatches)
                    .Select(n => $$"""{"type":"batch.ordered","subject":"key","data":{{n}}}""")));
            await PostAsync(api, "/events/batch", HttpStatusCode.Accepted, $"batch-{number}", $$"""{"events":[{{events}}]}""");
        }
    }

    /// <summary>Repeats it, as the same request, until it is answered as expected.</summary>
    private static Task PostAsync(HttpClient api, string path, HttpStatusCode expected, string key, string body) =>
        Wait.UntilAsync($"{key} is accepted", async () =>
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, path)
            {
                Content = new StringContent(body, Encoding.UTF8, "application/json"),
                Headers = { { "Idempotency-Key", key } },
            };
            try
            {
                using var response = await api.SendAsync(request, TestContext.Current.CancellationToken);
                return response.StatusCode == expected;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, s_patience);
}

public sealed class OrderingCrashOnPostgresTests() : OrderingCrashTests(kafka: false);

public sealed class OrderingCrashOnKafkaTests : OrderingCrashTests
{
    public OrderingCrashOnKafkaTests() : base(kafka: true) => KafkaServer.SkipIfMissing();
}
