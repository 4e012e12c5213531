using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using CloudNative.CloudEvents;
using CloudNative.CloudEvents.Http;
using CloudNative.CloudEvents.SystemTextJson;
using Triggers.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>
/// The formats of subscriptions, from the API to the receiver, where CloudEvents are read by implementations that are not ours.
/// </summary>
public abstract class FormatsTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private const string Subject = "Größe \"7\" 100%";
    private const string Data = """{ "n" : 1.0 , "name":"Ä" }""";
    private static readonly string[] s_formats = ["envelope", "data", "cloudevents", "cloudevents_binary"];

    [Fact]
    public async Task Each_subscription_gets_an_event_in_its_format_signed_as_it_is_sent()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var secrets = new Dictionary<string, string>();
        foreach (var format in s_formats)
        {
            var made = (await client.PostAsync("/subscriptions",
                $$"""{"url":"{{Receiver.Url}}/{{format}}","eventTypes":["*"],"format":"{{format}}"}""")).Is(201);
            secrets["/" + format] = made["secret"]!;
        }
        await Engine.StartDeliveryAsync();

        const string Parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        var id = (await client.PostAsync("/events",
            $$"""
            {"type":"order.created","data":{{Data}},"source":"the shop","subject":{{JsonSerializer.Serialize(Subject)}},
            "time":"2026-01-31T09:30:00.5+01:00","externalId":"7"}
            """, ("traceparent", Parent), ("tracestate", "vendor=1"))).Is(202).Id;
        var bare = await client.PublishAsync(data: "[]");
        await Wait.UntilAsync("every receiver has both", () => Receiver.Received.Count == 2 * s_formats.Length);

        foreach (var webhook in Receiver.Received)
        {
            Assert.Equal(webhook.Headers["webhook-signature"], WebhookSignature.Sign(
                [secrets[webhook.Path]], webhook.EventId, long.Parse(webhook.Headers["webhook-timestamp"]), webhook.Body));
        }
        Assert.EndsWith($"\"data\":{Data}}}", Text(At("/envelope", id)), StringComparison.Ordinal);
        Assert.Equal(Data, Text(At("/data", id)));
        Assert.Equal("order.created", At("/data", id).Headers["triggers-event-type"]);
        Assert.EndsWith($"\"data\":{Data}}}", Text(At("/cloudevents", id)), StringComparison.Ordinal);
        Assert.Equal("application/cloudevents+json", At("/cloudevents", id).Headers["Content-Type"]);
        Assert.Equal(Data, Text(At("/cloudevents_binary", id)));
        foreach (var mode in new[] { "/cloudevents", "/cloudevents_binary" })
        {
            var read = await ReadAsync(At(mode, id));
            Assert.Equal(id, read.Id);
            Assert.Equal("the%20shop", read.Source!.OriginalString);
            Assert.Equal("order.created", read.Type);
            Assert.Equal(Subject, read.Subject);
            Assert.Equal(new DateTimeOffset(2026, 1, 31, 8, 30, 0, 500, TimeSpan.Zero), read.Time);
            Assert.Equal("application/json", read.DataContentType);
            Assert.Equal("7", read["externalid"]);
            Assert.Equal("vendor=1", read["tracestate"]);
            Assert.Equal("vendor=1", At(mode, id).Headers["tracestate"]);
            Assert.True(JsonElement.DeepEquals(JsonElement.Parse(Data), (JsonElement)read.Data!));
            var other = await ReadAsync(At(mode, bare));
            Assert.StartsWith("/tenants/ten_", other.Source!.OriginalString, StringComparison.Ordinal);
            Assert.Null(other.Subject);
            Assert.NotNull(other.Time);
        }
    }

    [Fact]
    public async Task A_format_is_changed_for_what_is_still_to_be_sent_and_tests_are_sent_in_it()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var subscription = (await client.PostAsync(
            "/subscriptions", $$"""{"url":"{{Receiver.Url}}/","eventTypes":["*"],"enabled":false}""")).Is(201);
        Assert.Equal("envelope", subscription["format"]);
        await Engine.StartDeliveryAsync();

        (await client.PatchAsync($"/subscriptions/{subscription.Id}", """{"format":"data"}""")).Is(200);
        (await client.PostAsync($"/subscriptions/{subscription.Id}/test")).Is(200);
        Assert.Equal("data", (await client.PatchAsync($"/subscriptions/{subscription.Id}", """{"enabled":true}""")).Is(200)["format"]);
        var first = await client.PublishAsync(data: Data);
        await Wait.UntilAsync("it is sent", () => Receiver.Received.Any(w => w.EventId == first));
        (await client.PatchAsync($"/subscriptions/{subscription.Id}", """{"format":"envelope"}""")).Is(200);
        var second = await client.PublishAsync(data: Data);
        await Wait.UntilAsync("the next is sent", () => Receiver.Received.Any(w => w.EventId == second));

        Assert.Equal("""{"test":true}""", Text(Receiver.Received.First()));
        Assert.Equal(Data, Text(At("/", first)));
        Assert.Equal(second, JsonNode.Parse(At("/", second).Body)!["id"]!.GetValue<string>());
    }

    private protected ReceivedWebhook At(string path, string id) => Assert.Single(Receiver.At(path), w => w.EventId == id);

    private static string Text(ReceivedWebhook webhook) => Encoding.UTF8.GetString(webhook.Body);

    private static async Task<CloudEvent> ReadAsync(ReceivedWebhook webhook)
    {
        using var request = new HttpRequestMessage { Content = new ByteArrayContent(webhook.Body) };
        request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(webhook.Headers["Content-Type"]);
        foreach (var (name, value) in webhook.Headers)
            request.Headers.TryAddWithoutValidation(name, value);
        var read = await request.ToCloudEventAsync(new JsonEventFormatter());
        Assert.True(read.IsValid);
        return read;
    }
}

/// <summary>On the Postgres log, and read by the SDK of JavaScript too.</summary>
public sealed class PostgresFormatsTests(PostgresServer postgres) : FormatsTests(postgres)
{
    [Fact]
    public async Task The_sdk_of_JavaScript_reads_both_modes()
    {
        using var node = await NodeProject.CreateAsync("cloudevents@10.0.0");
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        foreach (var format in new[] { "cloudevents", "cloudevents_binary" })
        {
            (await client.PostAsync(
                "/subscriptions", $$"""{"url":"{{Receiver.Url}}/","eventTypes":["*"],"format":"{{format}}"}""")).Is(201);
        }
        await Engine.StartDeliveryAsync();

        var id = await client.PublishAsync(
            data: """{"name":"Ä"}""", more: ""","source":"/shop","subject":"a b","time":"2026-01-31T09:30:00Z" """);
        await Wait.UntilAsync("both modes came", () => Receiver.Received.Count == 2);
        await node.WriteAsync("received.json", JsonSerializer.Serialize(Receiver.Received.Select(w => new
        {
            headers = w.Headers.ToDictionary(h => h.Key.ToLowerInvariant(), h => h.Value),
            body = Encoding.UTF8.GetString(w.Body),
        })));
        var read = await node.RunAsync(
            """
            const { HTTP } = require("cloudevents");
            for (const { headers, body } of JSON.parse(require("fs").readFileSync("received.json", "utf8"))) {
              const e = HTTP.toEvent({ headers, body });
              e.validate();
              console.log([e.specversion, e.id, e.source, e.type, decodeURIComponent(e.subject), e.time, e.data.name].join("|"));
            }
            """);

        var expected = $"1.0|{id}|/shop|order.created|a b|2026-01-31T09:30:00.000Z|Ä";
        Assert.Equal([expected, expected], read.Split('\n').Select(line => line.Trim()));
    }
}

/// <summary>On the Kafka log.</summary>
public sealed class KafkaFormatsTests(PostgresServer postgres, KafkaServer kafka) : FormatsTests(postgres, kafka);
