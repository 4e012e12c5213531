using System.Net.Http.Headers;
using System.Text;
using CsCheck;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Contract;

/// <summary>2,000 requests that nobody should send: each is the client's mistake, and none is ours.</summary>
public sealed class MalformedRequestsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private static readonly string[] s_paths =
    [
        "/events", "/events/batch", "/inbox/acknowledge", "/subscriptions",
        "/tenants", "/api-keys", "/events/{0}/acknowledge", "/events/{0}/replay",
        "/deliveries/{0}/replay", "/dead-letters/{0}/replay",
        "/dead-letters/{0}/discard", "/subscriptions/{0}/test", "/api-keys/{0}/rotate",
        "/events/{0}", "/inbox", "/deliveries", "/deliveries/{0}", "/dead-letters", "/subscriptions/{0}", "/nowhere/{0}",
        "/replays", "/replays/{0}/cancel", "/deliveries/{0}/send-now", "/subscriptions/{0}/send-now", "/subscriptions/{0}/secret/rotate",
    ];

    private static readonly string[] s_valid =
    [
        """{"type":"order.created","data":{"a":[1,2,{"b":null}]},"externalId":"x","time":"2026-01-31T09:30:00Z"}""",
        """{"events":[{"type":"order.created","data":1},{"type":"b","data":"x"}]}""",
        """{"ids":["evt_01jd0000000000000000000000"]}""",
        """{"url":"https://receiver.example/hooks","eventTypes":["*"],"headers":{"x":"1"}}""",
        """{"name":"k","scopes":["events:write"],"expiresAt":"2099-01-01T00:00:00Z"}""",
        """{"subscriptionIds":["sub_01jd0000000000000000000000"]}""",
        """{"subscriptionId":"sub_01jd0000000000000000000000","from":"2026-01-31T09:30:00Z","to":"2026-02-01T09:30:00Z","include":"all","eventTypes":["a.*"]}""",
        """{"overlap":"01:00:00","secret":"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"}""",
    ];

    private static readonly string[] s_types =
        ["application/json", "application/json", "application/json", "application/json; charset=utf-16", "text/plain", "*/*"];

    private static readonly string[] s_methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

    // A body that was right, and has one byte changed, lost or too many; or that never was right.
    private static readonly Gen<byte[]> s_body = Gen.OneOf(
        Gen.Select(OneOf(s_valid), Gen.Int[0, 1000], Gen.Byte).Select((text, at, value) =>
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            bytes[at % bytes.Length] = value;
            return bytes;
        }),
        Gen.Select(OneOf(s_valid), Gen.Int[0, 1000]).Select((text, length) => Encoding.UTF8.GetBytes(text)[..(length % text.Length)]),
        Gen.Select(OneOf(s_valid), OneOf("null", "7", "[]", "{}", "\"\\u0000\"", "\"\\ud800\"", "true", "1e999", "-0"), Gen.Int[0, 20])
            .Select((text, value, member) => Encoding.UTF8.GetBytes(ReplaceValue(text, value, member))),
        Gen.Byte.Array[0, 200],
        Gen.String.Select(Encoding.UTF8.GetBytes),
        Gen.Int[1, 3000].Select(depth => Encoding.UTF8.GetBytes("{\"type\":\"a\",\"data\":" + new string('[', depth))));

    private static readonly Gen<string> s_query = Gen.OneOf(
        Gen.Const(""),
        Gen.Select(OneOf("limit", "cursor", "order", "type", "wait", "status", "createdAfter", "eventId", "tenantId", "zzz"), Gen.String)
            .Select((name, value) => $"?{name}={Uri.EscapeDataString(new string([.. value.Where(c => !char.IsSurrogate(c))]))}"));

    private static readonly Gen<Malformed> s_requests = Gen.Select(
        OneOf(s_paths), OneOf("evt_01jd0000000000000000000000", "evt_", "x", "%F0%9F%98%80", "'; DROP TABLE events; --"),
        s_query, OneOf(s_methods), OneOf(s_types), s_body)
        .Select((path, id, query, method, type, body) =>
            new Malformed(method, string.Format(path, Uri.EscapeDataString(id)) + query, type, body));

    [Fact]
    public async Task None_of_2000_malformed_requests_is_answered_with_an_error_of_ours()
    {
        using var client = api.Host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id, "tenant:admin"));
        var requests = Sequence(2_000);
        var statuses = new Dictionary<int, int>();

        foreach (var batch in requests.Chunk(50))
        {
            foreach (var (request, answer) in await Task.WhenAll(batch.Select(async r => (r, await SendAsync(client, r)))))
            {
                Assert.True(answer.Status < 500, $"{request} was answered {answer.Status}: {answer.Text}");
                // What a mutation left valid is accepted; everything else is a problem of the one shape.
                if (answer.Status >= 400)
                    answer.IsProblem(answer.Status, answer["code"]!);
                statuses[answer.Status] = statuses.GetValueOrDefault(answer.Status) + 1;
            }
        }

        var refused = statuses.Where(s => s.Key is >= 400 and < 500).Sum(s => s.Value);
        Assert.True(refused > 1_600, $"most are meant to be refused: {string.Join(", ", statuses)}");
        Assert.Superset(new HashSet<int> { 400, 404, 405, 415 }, statuses.Keys.ToHashSet());
    }

    private static async Task<Answer> SendAsync(ApiClient client, Malformed malformed)
    {
        using var request = new HttpRequestMessage(new HttpMethod(malformed.Method), malformed.Path);
        if (malformed.Method is not ("GET" or "TRACE"))
        {
            request.Content = new ByteArrayContent(malformed.Body);
            request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(malformed.ContentType);
        }
        return await client.SendAsync(request);
    }

    private static Gen<string> OneOf(params string[] values) => Gen.Int[0, values.Length - 1].Select(i => values[i]);

    // Always the same ones: a failure can be looked at again.
    private static List<Malformed> Sequence(int count)
    {
        var random = new PCG(17, 20260131);
        return [.. Enumerable.Range(0, count).Select(_ => s_requests.Generate(random, null, out Size _))];
    }

    private static string ReplaceValue(string json, string value, int member)
    {
        var colons = json.Select((c, i) => (c, i)).Where(p => p.c == ':').Select(p => p.i).ToArray();
        var at = colons[member % colons.Length] + 1;
        var end = json.IndexOfAny([',', '}'], at);
        return json[..at] + value + json[end..];
    }

    private sealed record Malformed(string Method, string Path, string ContentType, byte[] Body)
    {
        public override string ToString() => $"{Method} {Path} {ContentType} {Convert.ToBase64String(Body)}";
    }
}
