using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using CloudNative.CloudEvents;
using CloudNative.CloudEvents.Http;
using CloudNative.CloudEvents.SystemTextJson;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Ingest;

/// <summary>CloudEvents 1.0 as they are published, in each mode of the HTTP protocol binding.</summary>
public abstract class CloudEventsTests(ApiFixture api)
{
    private const string Required = "\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/shop\",\"type\":\"a\"";

    /// <summary>The examples of sections 3.1 to 3.3 of the binding, with attributes and data where it has dots, and those of section 3.2 of
    /// the JSON format that are another case; then what is to be seen of the event.</summary>
    public static TheoryData<string, string> Examples => new()
    {
        {
            """
            ce-specversion: 1.0
            ce-type: com.example.someevent
            ce-time: 2018-04-05T03:56:24Z
            ce-id: 1234-1234-1234
            ce-source: /mycontext/subcontext
            Content-Type: application/json; charset=utf-8

            { "a" : 1.0 }
            """,
            """
            {"type":"com.example.someevent","externalId":"1234-1234-1234","source":"/mycontext/subcontext","time":"2018-04-05T03:56:24Z",
            "dataContentType":"application/json; charset=utf-8","data":{ "a" : 1.0 }}
            """
        },
        {
            """
            ce-specversion: 1.0
            ce-type: com.example.someevent
            ce-id: 1
            ce-source: /mycontext
            ce-subject: Euro%20%E2%82%AC%20%F0%9F%98%80
            ce-comment: "Euro € \"%41%2525"

            """,
            """{"subject":"Euro € 😀","extensions":{"comment":"Euro € \"A%25"},"data":null}"""
        },
        {
            """
            Content-Type: application/cloudevents+json; charset=utf-8

            {
                "specversion" : "1.0",
                "type" : "com.example.someevent",
                "id" : "1", "source" : "/mycontext", "time" : null,
                "data" : {
                    "a" : 1.0
                }
            }
            """,
            """{"type":"com.example.someevent","externalId":"1","time":null,"specVersion":"1.0","data":{"a":1.0}}"""
        },
        {
            """
            Content-Type: application/cloudevents-batch+json; charset=utf-8

            [
                {
                    "specversion" : "1.0",
                    "type" : "com.example.someevent",
                    "id" : "1", "source" : "/mycontext",
                    "data" : 1
                },
                {
                    "specversion" : "1.0",
                    "type" : "com.example.someotherevent",
                    "id" : "2", "source" : "/mycontext",
                    "data" : 2
                }
            ]
            """,
            """{"type":"com.example.someevent","data":1}{"type":"com.example.someotherevent","data":2}"""
        },
        {
            """
            Content-Type: application/cloudevents+json

            {
                "specversion" : "1.0",
                "type" : "com.example.someevent",
                "source" : "/mycontext",
                "id" : "A234-1234-1234",
                "time" : "2018-04-05T17:31:00Z",
                "comexampleextension1" : "value",
                "comexampleothervalue" : 5,
                "datacontenttype" : "application/vnd.apache.thrift.binary",
                "data_base64" : "AQID"
            }
            """,
            """
            {"dataContentType":"application/vnd.apache.thrift.binary","dataBase64":"AQID","data":null,
            "extensions":{"comexampleextension1":"value","comexampleothervalue":5}}
            """
        },
        {
            """
            Content-Type: application/cloudevents+json

            {
                "specversion" : "1.0",
                "type" : "com.example.someevent",
                "source" : "/mycontext",
                "id" : "B234-1234-1234",
                "unsetextension": null,
                "datacontenttype" : "application/xml",
                "data" : "<much wow=\"xml\"/>"
            }
            """,
            """{"dataContentType":"application/xml","data":"<much wow=\"xml\"/>","extensions":null}"""
        },
        {
            """
            ce-specversion: 1.0
            ce-type: com.example.someevent
            ce-source: /mycontext
            ce-id: B234-1234-1234
            ce-comexampleothervalue: 5
            Content-Type: application/xml

            <much wow="xml"/>
            """,
            """{"dataContentType":"application/xml","dataBase64":"PG11Y2ggd293PSJ4bWwiLz4=","extensions":{"comexampleothervalue":"5"}}"""
        },
        {
            """
            ce-specversion: 1.0
            ce-type: com.example.someevent
            ce-source: /mycontext
            ce-id: D234-1234-1234
            Content-Type: application/json

            "I'm just a string"
            """,
            """{"dataContentType":"application/json","data":"I'm just a string"}"""
        },
        {
            """
            Content-Type: application/cloudevents+json

            {
                "specversion" : "1.0",
                "type" : "com.example.someevent",
                "source" : "/mycontext",
                "id" : "D234-1234-1234",
                "data_base64" : "eyAieHl6IjogMTIzIH0="
            }
            """,
            """{"dataBase64":"eyAieHl6IjogMTIzIH0=","dataContentType":null,"data":null}"""
        },
        {
            """
            ce-specversion: 1.0
            ce-type: com.example.someevent
            ce-source: /mycontext
            ce-id: D234-1234-1234

            { "xyz": 123 }
            """,
            """{"dataBase64":"eyAieHl6IjogMTIzIH0=","dataContentType":null,"data":null}"""
        },
    };

    [Theory]
    [MemberData(nameof(Examples))]
    public async Task The_examples_of_the_specification_are_taken_and_kept_as_they_are(string request, string expected)
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);

        var answer = (await SendAsync(key, request)).Is(202);

        await api.CaughtUpAsync();
        var events = (await tenant.Client.GetAsync("/events?order=asc")).Is(200).Json["items"]!.AsArray();
        var ids = answer.Json["items"] is JsonArray items ? items.Select(i => i!["id"]!.ToString()) : [answer.Id];
        Assert.Equal(ids, events.Select(e => e!["id"]!.ToString()));
        var reader = new Utf8JsonReader(Encoding.UTF8.GetBytes(expected), new JsonReaderOptions { AllowMultipleValues = true });
        foreach (var seen in events)
        {
            Assert.True(reader.Read());
            foreach (var (name, value) in JsonNode.Parse(ref reader)!.AsObject())
                Assert.True(JsonNode.DeepEquals(value, seen![name]), $"{name} is {seen[name]?.ToJsonString()}");
            Assert.Equal("1.0", seen!["specVersion"]!.ToString());
        }
        Assert.False(reader.Read());
    }

    [Fact]
    public async Task The_sdk_of_dotnet_publishes_in_every_mode()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        var formatter = new JsonEventFormatter();
        var number = CloudEventAttribute.CreateExtension("sequence", CloudEventAttributeType.Integer);
        var events = Enumerable.Range(0, 4).Select(i => new CloudEvent([number])
        {
            Id = $"{i} \"é\" 100%",
            Source = new Uri("https://shop.example/a?b=c#d"),
            Type = "order.created",
            Subject = "Größe 😀",
            Time = new DateTimeOffset(2026, 1, 31, 9, 30, 0, 125, TimeSpan.Zero),
            DataSchema = new Uri("https://shop.example/schema"),
            DataContentType = "application/json",
            Data = new { n = i },
            ["sequence"] = i,
            ["partitionkey"] = "k",
        }).ToArray();

        var structured = await SendAsync(key, events[0].ToHttpContent(ContentMode.Structured, formatter));
        var binary = await SendAsync(key, events[1].ToHttpContent(ContentMode.Binary, formatter));
        var batch = await SendAsync(key, events[2..].ToHttpContent(formatter));

        Assert.Equal(202, structured.Status);
        Assert.Equal(202, binary.Status);
        Assert.Equal(["accepted", "accepted"], batch.Is(202).Json["items"]!.AsArray().Select(i => i!["status"]!.ToString()));
        await api.CaughtUpAsync();
        var seen = (await tenant.Client.GetAsync("/events?order=asc")).Is(200).Json["items"]!.AsArray();
        Assert.Equal(events.Length, seen.Count);
        foreach (var (sent, e) in events.Zip(seen))
        {
            Assert.Equal(sent.Id, e!["externalId"]!.ToString());
            Assert.Equal("https://shop.example/a?b=c#d", e["source"]!.ToString());
            Assert.Equal("Größe 😀", e["subject"]!.ToString());
            Assert.Equal("2026-01-31T09:30:00.125Z", e["time"]!.ToString());
            Assert.Equal("https://shop.example/schema", e["dataSchema"]!.ToString());
            Assert.Equal("application/json", e["dataContentType"]!.ToString());
            Assert.Equal(sent["sequence"]!.ToString(), e["extensions"]!["sequence"]!.ToString());
            Assert.Equal("k", e["extensions"]!["partitionkey"]!.ToString());
        }
        Assert.Equal(["0", "1", "2", "3"], seen.Select(e => e!["data"]!["n"]!.ToString()));
    }

    [Fact]
    public async Task Id_and_source_name_an_event_once()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        const string Trace = "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01";
        Task<Answer> Send(string source, string more) => SendAsync(
            key, $"Content-Type: application/cloudevents+json\n\n{{{Required.Replace("/shop", source)}{more}}}");

        var first = (await Send("/a", ",\"x\":1,\"y\":2,\"data\":1")).Is(202);
        // In another order, and in another trace.
        var again = (await Send("/a", $",\"data\":1,\"y\":2,\"x\":1,\"traceparent\":\"{Trace}\"")).Is(202);
        Assert.Equal((first.Id, "true"), (again.Id, again.Headers["Idempotency-Replayed"]));
        Assert.Equal(["/id"], (await Send("/a", ",\"x\":1,\"y\":2,\"data\":2")).IsProblem(409, "external_id_conflict").Pointers);
        Assert.Equal(["/id"], (await Send("/a", ",\"x\":1,\"data\":1")).IsProblem(409, "external_id_conflict").Pointers);
        var other = (await Send("/b", ",\"data\":1")).Is(202);
        // An external id is another name.
        var native = (await tenant.Client.PostAsync("/events", """{"type":"a","data":1,"externalId":"1","source":"/a"}""")).Is(202);
        Assert.Equal(3, new[] { first.Id, other.Id, native.Id }.Distinct().Count());
        var batch = (await SendAsync(key,
            $"Content-Type: application/cloudevents-batch+json\n\n[{{{Required}}},{{{Required},\"data\":1}},{{\"id\":1}}]")).Is(202);
        Assert.Equal(["accepted", "refused", "refused"], batch.Json["items"]!.AsArray().Select(i => i!["status"]!.ToString()));
        Assert.Equal("/1/id", batch.Json["items"]![1]!["errors"]![0]!["pointer"]!.ToString());
        Assert.Equal("/2/id", batch.Json["items"]![2]!["errors"]![0]!["pointer"]!.ToString());

        await api.CaughtUpAsync();
        Assert.Equal([first.Id], (await tenant.Client.GetAsync("/events?externalId=1&source=%2Fa&type=a&order=asc")).Is(200).Ids.Take(1));
        Assert.Equal([other.Id], (await tenant.Client.GetAsync("/events?externalId=1&source=%2Fb")).Is(200).Ids);
        Assert.Equal([native.Id], (await tenant.Client.GetAsync("/events?externalId=1")).Is(200).Ids);
    }

    private protected async Task<Answer> SendAsync(string key, HttpContent content)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(api.Host.Address, "/events")) { Content = content };
        return await SendAsync(key, request);
    }

    /// <summary>A request as it is written down: headers, an empty line, the body.</summary>
    private protected async Task<Answer> SendAsync(string key, string text, params (string Name, string Value)[] headers)
    {
        var parts = text.ReplaceLineEndings("\n").Split("\n\n", 2);
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(api.Host.Address, "/events"))
        {
            Content = new ByteArrayContent(Encoding.UTF8.GetBytes(parts.ElementAtOrDefault(1) ?? "")),
        };
        var lines = parts[0].Trim().Split('\n').Select(line => line.Split(": ", 2)).Select(line => (line[0], line[1]));
        foreach (var (name, value) in lines.Concat(headers))
        {
            if (name == "Content-Type")
                request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(value);
            else
                request.Headers.TryAddWithoutValidation(name, value);
        }
        return await SendAsync(key, request);
    }

    private static async Task<Answer> SendAsync(string key, HttpRequestMessage request)
    {
        // Not held against the contract: no document says what is in the headers of the binary mode.
        request.Headers.Add("X-API-Key", key);
        using var http = new HttpClient(new SocketsHttpHandler { RequestHeaderEncodingSelector = (_, _) => Encoding.UTF8 });
        using var response = await http.SendAsync(request, TestContext.Current.CancellationToken);
        return new Answer(
            (int)response.StatusCode, await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken),
            response.Content.Headers.ContentType?.MediaType,
            response.Headers.ToDictionary(h => h.Key, h => string.Join(",", h.Value), StringComparer.OrdinalIgnoreCase));
    }
}

/// <summary>On the Postgres log, where also all mistakes are made.</summary>
public sealed class PostgresCloudEventsTests(ApiFixture api) : CloudEventsTests(api), IClassFixture<ApiFixture>
{
    private readonly ApiFixture _api = api;

    [Theory]
    [InlineData("""{"specversion":"0.3","id":"1","source":"s","type":"a"}""", "/specversion")]
    [InlineData("""{"specversion":1,"id":"1","source":"s","type":"a"}""", "/specversion")]
    [InlineData("""{"id":"1","source":"s","type":"a"}""", "/specversion")]
    [InlineData("""{"specversion":"1.0","source":"s","type":"a"}""", "/id")]
    [InlineData("""{"specversion":"1.0","id":null,"source":"s","type":"a"}""", "/id")]
    [InlineData("""{"specversion":"1.0","id":"","source":"s","type":"a"}""", "/id")]
    [InlineData("""{"specversion":"1.0","id":"1","type":"a"}""", "/source")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s"}""", "/type")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a b"}""", "/type")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","time":"yesterday"}""", "/time")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","dataschema":"schema"}""", "/dataschema")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","datacontenttype":"json"}""", "/datacontenttype")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","myExtension":"a"}""", "/myExtension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","my_extension":"a"}""", "/my_extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","extension":{}}""", "/extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","extension":1.5}""", "/extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","extension":2147483648}""", "/extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","extension":"\u0001"}""", "/extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","extension":"\ud800"}""", "/extension")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","x":"a","x":"a"}""", "/x")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","data":1,"data_base64":"AQID"}""", "")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","data_base64":"AQI"}""", "/data_base64")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","data_base64":"AQID","datacontenttype":"text/json"}""", "/data_base64")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","data":{},"datacontenttype":"text/xml"}""", "/data")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"the shop","type":"a"}""", "/source")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","expirytime":"tomorrow"}""", "/expirytime")]
    [InlineData("""{"specversion":"1.0","id":"1","source":"s","type":"a","expirytime":7}""", "/expirytime")]
    [InlineData("[]", "")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var key = await _api.NewKeyAsync((await _api.NewTenantAsync()).Id);

        var refused = await SendAsync(key, "Content-Type: application/cloudevents+json\n\n" + body);

        Assert.Equal([place], refused.IsProblem(400, "invalid_request").Pointers);
    }

    [Theory]
    [InlineData("ce-id: 1\nce-source: s\nce-type: a", "ce-specversion")]
    [InlineData("ce-specversion: 1.0\nce-source: s\nce-type: a", "ce-id")]
    [InlineData("ce-specversion: 1.0\nce-id: %C0%A0\nce-source: s\nce-type: a", "ce-id")]
    [InlineData("ce-specversion: 1.0\nce-id: \"1\nce-source: s\nce-type: a", "ce-id")]
    [InlineData("ce-specversion: 1.0\nce-id: 1%00\nce-source: s\nce-type: a", "ce-id")]
    [InlineData("ce-specversion: 1.0\nce-id: 1\nce-source: s\nce-type: a b", "ce-type")]
    [InlineData("ce-specversion: 1.0\nce-id: 1\nce-source: a%20b\nce-type: a", "ce-source")]
    [InlineData("ce-specversion: 1.0\nce-id: 1\nce-source: s\nce-type: a\nce-my-extension: x", "ce-my-extension")]
    [InlineData("ce-specversion: 1.0\nce-id: 1\nce-source: s\nce-type: a\nce-datacontenttype: text/xml", "Content-Type")]
    public async Task A_mistake_in_a_header_is_named_by_it(string headers, string place)
    {
        var key = await _api.NewKeyAsync((await _api.NewTenantAsync()).Id);

        var refused = (await SendAsync(key, headers + "\nContent-Type: text/xml\n\n<a/>")).IsProblem(400, "invalid_request");

        Assert.Equal(place, refused.Pointers.Distinct().Single());
    }

    [Fact]
    public async Task All_that_holds_for_other_events_holds_for_them()
    {
        var tenant = await _api.NewTenantAsync();
        var key = await _api.NewKeyAsync(tenant.Id);
        (await tenant.Client.PostAsync(
            "/event-types", """{"name":"a","schema":{"properties":{"n":{"type":"integer"}}},"mode":"enforce"}""")).Is(201);
        const string Headers = "ce-specversion: 1.0\nce-id: 1\nce-source: s\nce-type: ";

        // The body is the data.
        Assert.Equal(["/n"], (await SendAsync(key, Headers + "a\nContent-Type: application/json\n\n{\"n\":\"x\"}"))
            .IsProblem(422, "schema_violation").Pointers);
        (await SendAsync(key, Headers + "a\nContent-Type: text/xml\n\n<a/>")).IsProblem(422, "schema_violation");
        (await SendAsync(key, Headers + "b\nContent-Type: application/json\n\n{\"n\":")).IsProblem(400, "malformed_json");
        Assert.Equal(["ce-type"], (await SendAsync(key, Headers + "triggers.test\n\n")).IsProblem(400, "reserved_event_type").Pointers);
        Assert.Equal(["ce-expirytime"], (await SendAsync(key, Headers + "b\nce-expirytime: 2026-01-31T09:30:00Z\n\n"))
            .IsProblem(422, "invalid_schedule").Pointers);
        (await SendAsync(key, "Content-Type: application/cloudevents+xml\n\n<a/>")).IsProblem(415, "unsupported_media_type");
        (await SendAsync(key, "Content-Type: application/cloudevents-batch+json\n\n[]")).IsProblem(400, "invalid_request");
        Assert.Equal("refused", (await SendAsync(key, "Content-Type: application/cloudevents-batch+json\n\n[1]"))
            .IsProblem(400, "batch_refused").Json["items"]![0]!["status"]!.ToString());
        const string Text = "\nContent-Type: text/plain\n\n";
        (await SendAsync(key, Headers + "b" + Text + new string('x', 1_048_577))).IsProblem(413, "payload_too_large");
        (await SendAsync(await _api.NewKeyAsync(tenant.Id, "events:read"), Headers + "b\n\n")).IsProblem(403, "forbidden");

        // The key stands for the headers too.
        var first = (await SendAsync(key, Headers + "b" + Text + "x", ("Idempotency-Key", "k"))).Is(202);
        Assert.Equal(first.Id, (await SendAsync(key, Headers + "b" + Text + "x", ("Idempotency-Key", "k"))).Is(202).Id);
        (await SendAsync(key, Headers + "c" + Text + "x", ("Idempotency-Key", "k"))).IsProblem(422, "idempotency_key_reused");
    }

    [Fact]
    public async Task The_sdk_of_JavaScript_publishes_in_every_mode()
    {
        var tenant = await _api.NewTenantAsync();
        var key = await _api.NewKeyAsync(tenant.Id);
        using var node = await NodeProject.CreateAsync("cloudevents@10.0.0");

        await node.RunAsync(
            $$"""
            const { CloudEvent, HTTP } = require("cloudevents");
            const event = id => new CloudEvent({ id, source: "/shop", type: "order.created", subject: "orders/7", time: "2026-01-31T09:30:00.000Z",
              datacontenttype: "application/json", sequence: "5", data: { name: "Ä" } });
            const post = async ({ headers, body }) => {
              const answer = await fetch("{{new Uri(_api.Host.Address, "/events")}}", { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body),
                headers: { ...headers, "X-API-Key": "{{key}}" } });
              if (answer.status !== 202) throw new Error(await answer.text());
            };
            (async () => {
              await post(HTTP.structured(event("1")));
              await post(HTTP.binary(event("2")));
              await post({ headers: { "Content-Type": "application/cloudevents-batch+json" }, body: [event("3"), event("4")] });
            })().catch(e => { console.error(e); process.exit(1); });
            """);

        var seen = (await tenant.Client.GetAsync("/events?order=asc")).Is(200).Json["items"]!.AsArray();
        Assert.Equal(["1", "2", "3", "4"], seen.Select(e => e!["externalId"]!.ToString()));
        Assert.All(seen, e => Assert.Equal(
            ("/shop", "order.created", "orders/7", "2026-01-31T09:30:00Z", "5", "Ä"),
            (e!["source"]!.ToString(), e["type"]!.ToString(), e["subject"]!.ToString(), e["time"]!.ToString(),
                e["extensions"]!["sequence"]!.ToString(), e["data"]!["name"]!.ToString())));
    }
}

/// <summary>On the Kafka log.</summary>
public sealed class KafkaCloudEventsTests : CloudEventsTests, IClassFixture<KafkaApiFixture>
{
    public KafkaCloudEventsTests(KafkaApiFixture api) : base(api) => KafkaServer.SkipIfMissing();
}
