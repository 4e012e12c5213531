using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using CloudNative.CloudEvents.Http;
using CloudNative.CloudEvents.SystemTextJson;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Data that is no JSON, from the API to whoever gets it.</summary>
public abstract class DataFormatsTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    [Fact]
    public async Task Bytes_text_and_data_elsewhere_are_the_same_wherever_they_are_seen()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        var refuses = true;
        Receiver.Respond = (webhook, context) =>
        {
            context.Response.StatusCode = refuses && webhook.Path == "/refusing" ? 503 : 200;
            return Task.CompletedTask;
        };
        await client.SubscribeAsync(url: Receiver.Url + "/all");
        await client.SubscribeAsync("\"bytes\"", Receiver.Url + "/refusing");
        (await client.PostAsync("/inboxes", """{"name":"work","eventTypes":["*"]}""")).Is(201);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "1"));
        // More than the projection carries along, and than a byte of each value.
        var bytes = RandomNumberGenerator.GetBytes(100_000);
        var forms = new Dictionary<string, string>
        {
            ["bytes"] = $"\"dataBase64\":\"{Convert.ToBase64String(bytes)}\",\"dataContentType\":\"image/png\"",
            ["nothing"] = "\"dataBase64\":\"\"",
            ["text"] = """ "data":"<a b=\"c\"/>","dataContentType":"text/xml; charset=utf-8" """,
            ["json"] = """ "data":{"a": 1.0},"dataContentType":"application/vnd.shop.order+json" """,
            ["elsewhere"] =
                $$""" "dataUrl":"https://files.example/a%20b?c=d&e=f","dataSize":5000000000,"dataSha256":"{{new string('a', 64)}}" """,
        };
        var ids = new Dictionary<string, string>();
        foreach (var (name, form) in forms)
        {
            var body = $"{{\"type\":\"{name}\",{form},\"externalId\":\"{name}\"}}";
            ids[name] = (await client.PostAsync("/events", body)).Is(202).Id;
            Assert.Equal(ids[name], (await client.PostAsync("/events", body)).Is(202).Id);
        }
        var other = forms["text"].Replace("xml", "css");
        (await client.PostAsync("/events", $$"""{"type":"text",{{other}},"externalId":"text"}""")).IsProblem(409, "external_id_conflict");

        await Wait.UntilAsync("all are sent", () => Receiver.At("/all").Count() == forms.Count);
        var received = new Dictionary<string, JsonNode>();
        await Wait.UntilAsync("all are received", async () =>
        {
            foreach (var item in (await client.PostAsync("/inboxes/work/receive", """{"lease":600}""")).Is(200).Json["items"]!.AsArray())
                received[item!["event"]!["type"]!.ToString()] = item["event"]!;
            return received.Count == forms.Count;
        });
        foreach (var (name, form) in forms)
        {
            var expected = JsonNode.Parse($"{{{form}}}")!.AsObject();
            Same(expected, JsonNode.Parse(Receiver.At("/all").Single(w => w.EventId == ids[name]).Body)!, alsoData: false);
            Same(expected, received[name], alsoData: true);
            Same(expected, (await client.GetAsync($"/events/{ids[name]}")).Is(200).Json, alsoData: true);
            Same(expected, (await client.GetAsync($"/events?type={name}")).Is(200).Json["items"]![0]!, alsoData: true);
            Same(expected, (await client.GetAsync($"/hooks/samples?type={name}")).Is(200).Json["items"]![0]!, alsoData: false);
        }
        Assert.Contains("\"data\":{\"a\": 1.0}", Encoding.UTF8.GetString(Receiver.At("/all").Single(w => w.EventId == ids["json"]).Body));

        await Wait.UntilAsync(
            "there is a dead letter", async () => (await client.GetAsync("/dead-letters")).Is(200).Json["items"]!.AsArray().Count == 1);
        var letter = (await client.GetAsync("/dead-letters")).Is(200).Json["items"]![0]!;
        refuses = false;
        (await client.PostAsync($"/dead-letters/{letter["id"]}/replay")).Is(202);
        await Wait.UntilAsync("the replay is sent", () => Receiver.At("/refusing").Count() == 2);
        Assert.Single(Receiver.At("/refusing").Select(w => Convert.ToHexString(SHA256.HashData(w.Body))).Distinct());
    }

    [Fact]
    public async Task Filters_see_no_data_where_it_is_no_JSON()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        foreach (var (path, filter) in new[]
        {
            ("/any", """{"data":[{"anything-but":"x"}]}"""), ("/none", """{"data":[{"exists":false}]}"""),
            ("/subject", """{"subject":["s"]}"""),
        })
            (await client.PostAsync(
                "/subscriptions", $$"""{"url":"{{Receiver.Url}}{{path}}","eventTypes":["*"],"filter":{{filter}}}""")).Is(201);
        await Engine.StartDeliveryAsync();

        var json = await client.PublishAsync(data: "\"text\"");
        var bytes = (await client.PostAsync("/events", """{"type":"a","dataBase64":"AQID","subject":"s"}""")).Is(202).Id;
        var text = (await client.PostAsync("/events", """{"type":"a","data":"b","dataContentType":"text/plain"}""")).Is(202).Id;
        var url = (await client.PostAsync("/events", """{"type":"a","dataUrl":"https://files.example/a"}""")).Is(202).Id;

        await Wait.UntilAsync("all are sent", () => Receiver.Received.Count == 5);
        Assert.Equal([json], Receiver.At("/any").Select(w => w.EventId));
        Assert.Equal(new[] { bytes, text, url }.Order(), Receiver.At("/none").Select(w => w.EventId).Order());
        Assert.Equal([bytes], Receiver.At("/subject").Select(w => w.EventId));
        Assert.Equal("false", (await client.PostAsync(
            "/subscriptions/filter-test", $$$"""{"eventId":"{{{bytes}}}","filter":{"data":[{"exists":true}]}}""")).Is(200)["matches"]);
    }

    [Fact]
    public async Task A_CloudEvent_is_sent_with_all_it_brought_in_the_trace_that_it_names()
    {
        const string Trace = "0af7651916cd43dd8448eb211c80319c";
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        foreach (var format in new[] { "envelope", "data", "cloudevents", "cloudevents_binary" })
            (await client.PostAsync(
                "/subscriptions", $$"""{"url":"{{Receiver.Url}}/{{format}}","eventTypes":["*"],"format":"{{format}}"}""")).Is(201);
        await Engine.StartDeliveryAsync();

        using var request = new HttpRequestMessage(HttpMethod.Post, "/events")
        {
            Content = new StringContent(
            $$"""
            {"specversion":"1.0","id":"1","source":"/shop","type":"a","subject":"s","time":"2026-01-31T09:30:00Z","sequence":7,"last":true,
            "traceparent":"00-{{Trace}}-b9c7c989f97918e1-01","tracestate":"a=1,b=2",
            "expirytime":"2126-01-31T10:30:00+01:00","dataschema":"urn:a","datacontenttype":"image/png","data_base64":"AQID"}
            """, new MediaTypeHeaderValue("application/cloudevents+json"))
        };
        var id = (await client.SendAsync(request)).Is(202).Id;

        await Wait.UntilAsync("it is sent to all", () => Receiver.Received.Count == 4);
        var webhook = Receiver.At("/envelope").Single();
        Assert.Equal((Trace, "a=1,b=2"), (webhook.Headers["traceparent"].Split('-')[1], webhook.Headers["tracestate"]));
        Assert.Equal(
            $$$"""
            {"id":"{{{id}}}","type":"a","timestamp":"2026-01-31T09:30:00Z","source":"/shop","subject":"s","externalId":"1",
            "expiresAt":"2126-01-31T09:30:00Z","dataContentType":"image/png","dataSchema":"urn:a","specVersion":"1.0",
            "extensions":{"last":true,"sequence":7,"traceparent":"00-{{{Trace}}}-b9c7c989f97918e1-01","tracestate":"a=1,b=2"},"dataBase64":"AQID"}
            """.ReplaceLineEndings(""), Encoding.UTF8.GetString(webhook.Body));
        Assert.Equal("image/png", Receiver.At("/data").Single().Headers["Content-Type"]);
        Assert.Equal([1, 2, 3], Receiver.At("/data").Single().Body);
        foreach (var mode in new[] { "/cloudevents", "/cloudevents_binary" })
        {
            var sent = Receiver.At(mode).Single();
            using var read = new HttpRequestMessage { Content = new ByteArrayContent(sent.Body) };
            read.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(sent.Headers["Content-Type"]);
            foreach (var (name, value) in sent.Headers)
                read.Headers.TryAddWithoutValidation(name, value);
            var e = await read.ToCloudEventAsync(new JsonEventFormatter());
            Assert.True(e.IsValid);
            Assert.Equal(
                ("1", "/shop", "a", "s", "image/png", "urn:a"),
                (e.Id, e.Source!.ToString(), e.Type, e.Subject, e.DataContentType, e.DataSchema!.ToString()));
            Assert.Equal(("7", Trace), (e["sequence"]!.ToString(), e["traceparent"]!.ToString()!.Split('-')[1]));
            Assert.Equal("true", e["last"]!.ToString(), ignoreCase: true);
            Assert.Equal(("a=1,b=2", "2126-01-31T09:30:00Z"), (e["tracestate"], e["expirytime"]));
            Assert.Equal([1, 2, 3], (byte[])e.Data!);
        }
        var got = (await GetAsync("application/json;q=0.5, application/cloudevents+json")).Is(200);
        Assert.Equal(
            ("application/cloudevents+json", "Accept", Encoding.UTF8.GetString(Receiver.At("/cloudevents").Single().Body)),
            (got.ContentType, got.Headers["Vary"], got.Text));
        foreach (var accept in new[] { "text/html", "application/cloudevents+json;q=0.5, */*" })
            Assert.Equal((id, "2126-01-31T09:30:00Z"), ((await GetAsync(accept)).Is(200).Id, (await GetAsync(accept))["expiresAt"]));

        Task<Answer> GetAsync(string accept) => client.SendAsync(HttpMethod.Get, $"/events/{id}", null, ("Accept", accept));
    }

    [Fact]
    public async Task What_is_elsewhere_or_text_is_so_in_each_format()
    {
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        foreach (var format in new[] { "data", "cloudevents", "cloudevents_binary" })
            (await client.PostAsync(
                "/subscriptions", $$"""{"url":"{{Receiver.Url}}/{{format}}","eventTypes":["*"],"format":"{{format}}"}""")).Is(201);
        await Engine.StartDeliveryAsync();
        const string Url = "https://files.example/a?b=c";

        var elsewhere = (await client.PostAsync("/events", $$"""{"type":"a","dataUrl":"{{Url}}","dataContentType":"text/csv"}""")).Is(202).Id;
        var text = (await client.PostAsync("/events", """{"type":"a","data":"<ß/>","dataContentType":"text/xml"}""")).Is(202).Id;
        await Wait.UntilAsync("both are sent to all", () => Receiver.Received.Count == 6);

        Assert.Equal((0, Url), (At("/data", elsewhere).Body.Length, At("/data", elsewhere).Headers["triggers-data-url"]));
        Assert.Equal((0, Url), (
            At("/cloudevents_binary", elsewhere).Body.Length, At("/cloudevents_binary", elsewhere).Headers["ce-dataref"]));
        var structured = JsonNode.Parse(At("/cloudevents", elsewhere).Body)!.AsObject();
        Assert.Equal((Url, "text/csv", false), (
            structured["dataref"]!.ToString(), structured["datacontenttype"]!.ToString(), structured.ContainsKey("data")));
        foreach (var path in new[] { "/data", "/cloudevents_binary" })
        {
            Assert.Equal("<ß/>", Encoding.UTF8.GetString(At(path, text).Body));
            Assert.Equal("text/xml", At(path, text).Headers["Content-Type"]);
        }
        structured = JsonNode.Parse(At("/cloudevents", text).Body)!.AsObject();
        Assert.Equal(("<ß/>", "text/xml"), (structured["data"]!.ToString(), structured["datacontenttype"]!.ToString()));
    }

    private ReceivedWebhook At(string path, string id) => Assert.Single(Receiver.At(path), w => w.EventId == id);

    /// <summary>Whether what is seen of an event has the members it was published with, and no other form of data.</summary>
    private static void Same(JsonObject published, JsonNode seen, bool alsoData)
    {
        foreach (var name in new[] { "dataBase64", "dataUrl", "dataContentType", "dataSize", "dataSha256" })
            Assert.Equal(published[name]?.ToJsonString(), seen[name]?.ToJsonString());
        Assert.Equal(published["data"]?.ToJsonString(), seen["data"]?.ToJsonString());
        Assert.Equal(alsoData || published.ContainsKey("data"), seen.AsObject().ContainsKey("data"));
    }
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresDataFormatsTests(PostgresServer postgres) : DataFormatsTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaDataFormatsTests(PostgresServer postgres, KafkaServer kafka) : DataFormatsTests(postgres, kafka);
