using System.Text;
using Triggers.Delivery.Attempts;
using Triggers.Tests.Support;
using Answer = Triggers.Tests.Support.Answer;

namespace Triggers.Tests.Delivery;

/// <summary>Transformations of subscriptions, from the API to the receiver.</summary>
public abstract class TransformationsTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    [Fact]
    public async Task A_transformed_request_is_signed_as_it_is_sent_and_others_get_the_envelope()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var made = await SubscribeAsync(client, "/shaped",
            """
            {"template":"<order id=\"{{ event.data.id }}\">{{ event.data.name }}</order>","contentType":"application/xml","method":"PUT",
            "headers":{"x-order":"{{ event.data.id }}","x-team":"{{ event.type }}"}}
            """, ""","headers":{"x-team":"warehouse"}""");
        await SubscribeAsync(client, "/plain", "null");
        string? method = null;
        Receiver.Respond = (webhook, context) =>
        {
            if (webhook.Path == "/shaped")
                method = context.Request.Method;
            return Task.CompletedTask;
        };
        await Engine.StartDeliveryAsync();

        var id = await client.PublishAsync(data: """{"id":7,"name":"A & B"}""");
        await Wait.UntilAsync("both have it", () => Receiver.Received.Count == 2);

        var shaped = Assert.Single(Receiver.At("/shaped"));
        Assert.Equal("<order id=\"7\">A &amp; B</order>", Encoding.UTF8.GetString(shaped.Body));
        Assert.Equal(("PUT", "application/xml", "7", "order.created", id),
            (method, shaped.Headers["Content-Type"], shaped.Headers["x-order"], shaped.Headers["x-team"], shaped.EventId));
        Assert.Equal(shaped.Headers["webhook-signature"], WebhookSignature.Sign(
            [made["secret"]!], id, long.Parse(shaped.Headers["webhook-timestamp"]), shaped.Body));
        Assert.EndsWith("\"data\":{\"id\":7,\"name\":\"A & B\"}}", Encoding.UTF8.GetString(Assert.Single(Receiver.At("/plain")).Body),
            StringComparison.Ordinal);
        var test = (await client.PostAsync($"/subscriptions/{made.Id}/test")).Is(200);
        Assert.Equal("<order id=\"\"></order>", Encoding.UTF8.GetString(Receiver.At("/shaped").Last().Body));
        Assert.Equal("delivered", test.Json["attempt"]!["outcome"]!.GetValue<string>());
    }

    [Fact]
    public async Task What_a_template_fails_on_is_a_dead_letter_at_once_and_goes_out_once_it_is_mended()
    {
        (string, string) limit = ("Transformations:Statements", "5000");
        await using var host = new ApiHost(Engine.ConnectionString, [.. Engine.Settings, limit]);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var made = await SubscribeAsync(client, "/shaped", """{"template":"{\"half\":\n  {{ event.data.n | divided_by: event.data.by }}}"}""");
        const string Endless = """{"template":"{% for i in (1..999) %}{% for j in (1..999) %}{% endfor %}{% endfor %}"}""";
        var endless = await SubscribeAsync(client, "/endless", Endless);
        await SubscribeAsync(client, "/plain", "null");
        await Engine.StartDeliveryAsync(limit);

        var good = await client.PublishAsync(data: """{"n":8,"by":2}""");
        var bad = await client.PublishAsync(data: """{"n":8,"by":0}""");
        await Wait.UntilAsync("what can be made has come", () => Receiver.Received.Count == 3);
        await Wait.UntilAsync("what can't be made is a dead letter", async () =>
            (await client.GetAsync("/dead-letters?state=open")).Is(200).Ids.Length == 3);

        Assert.Equal(good, Assert.Single(Receiver.At("/shaped")).EventId);
        Assert.Equal(2, Receiver.At("/plain").Count());
        Assert.Empty(Receiver.At("/endless"));
        var letters = (await client.GetAsync("/dead-letters?state=open")).Is(200).Json["items"]!.AsArray();
        var letter = Assert.Single(letters, l => l!["subscriptionId"]!.GetValue<string>() == made.Id)!;
        Assert.Equal((bad, "undeliverable", 1, "invalid_request"), (
            letter["eventId"]!.GetValue<string>(), letter["reason"]!.GetValue<string>(), letter["attempts"]!.GetValue<int>(),
            letter["lastOutcome"]!.GetValue<string>()));
        var stopped = letters.Where(l => l!["subscriptionId"]!.GetValue<string>() == endless.Id)
            .Select(l => l!["lastError"]!.GetValue<string>()).Distinct();
        Assert.EndsWith("Runs more than 5000 statements.", Assert.Single(stopped), StringComparison.Ordinal);
        Assert.Equal("Runs more than 5000 statements.", (await client.PostAsync("/subscriptions/transformation-preview",
            $$"""{"transformation":{{Endless}},"event":{"data":1} }""")).Is(200).Json["error"]!["detail"]!.GetValue<string>());
        Assert.Equal(
            "The transformation failed. Line 2, column 5: Attempted to divide by zero.", letter["lastError"]!.GetValue<string>());
        Assert.Equal("closed", (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200).Json["circuit"]!["state"]!.GetValue<string>());

        (await client.PatchAsync(
            $"/subscriptions/{made.Id}", """{"transformation":{"template":"{\"by\":{{ event.data.by }}}"}}""")).Is(200);
        (await client.PostAsync($"/dead-letters/{letter["id"]!.GetValue<string>()}/replay")).Is(202);
        await Wait.UntilAsync("it is sent", () => Receiver.At("/shaped").Count() == 2);
        Assert.Equal("{\"by\":0}", Encoding.UTF8.GetString(Receiver.At("/shaped").Last().Body));
    }

    private async Task<Answer> SubscribeAsync(ApiClient client, string path, string transformation, string more = "") =>
        (await client.PostAsync("/subscriptions",
            $$"""{"url":"{{Receiver.Url}}{{path}}","eventTypes":["*"],"transformation":{{transformation}}{{more}}}""")).Is(201);
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresTransformationsTests(PostgresServer postgres) : TransformationsTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaTransformationsTests(PostgresServer postgres, KafkaServer kafka) : TransformationsTests(postgres, kafka);
