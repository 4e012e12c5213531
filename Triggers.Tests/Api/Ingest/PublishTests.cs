using System.Net.Http.Headers;
using System.Text;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Ingest;

public sealed class PublishTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Valid = """{"type":"order.created","data":1}""";

    [Fact]
    public async Task An_accepted_event_is_named_located_and_readable_at_once()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync(
            "/events",
            """{"type":"order.created","data":{"a":1},"externalId":"o-1","source":"shop","subject":"orders/1","time":"2026-01-31T10:30:00.5+01:00"}""",
            ("X-Correlation-ID", "checkout-77"))).Is(202);

        Assert.StartsWith("evt_", answer.Id);
        Assert.Equal($"/events/{answer.Id}", answer.Headers["Location"]);
        Assert.Equal("pending", answer["status"]);
        Assert.Equal("order.created", answer["type"]);
        Assert.Equal("checkout-77", answer["correlationId"]);
        Assert.Equal("checkout-77", answer.Headers["X-Correlation-ID"]);
        var read = (await tenant.Client.GetAsync(answer.Headers["Location"])).Is(200);
        Assert.Equal(answer["createdAt"], read["createdAt"]);
        Assert.Equal("o-1", read["externalId"]);
        Assert.Equal("shop", read["source"]);
        Assert.Equal("orders/1", read["subject"]);
        Assert.Equal("2026-01-31T09:30:00.5Z", read["time"]);
        Assert.Equal("checkout-77", read["correlationId"]);
    }

    [Theory]
    [InlineData("null")]
    [InlineData("\"text \\u0000 \\ud83d\\ude00 \\ud800 é\"")]
    [InlineData("1.0e+2")]
    [InlineData("[ 1 ,\n\t{ \"b\" : [ ] , \"b\" : 2 } ]")]
    [InlineData("123456789012345678901234567890.10")]
    public async Task Data_is_kept_byte_for_byte(string data)
    {
        var tenant = await api.NewTenantAsync();

        var id = await tenant.Client.PublishAsync(data: data);

        var kept = await api.Rows.ScalarAsync<byte[]>("SELECT data FROM events WHERE id = @id", ("id", Rows.Uuid(id)));
        Assert.Equal(data, Encoding.UTF8.GetString(kept));
        Assert.Contains($"\"data\":{data}", (await tenant.Client.GetAsync($"/events/{id}")).Text);
    }

    [Theory]
    [InlineData("""{"data":1}""", "/type")]
    [InlineData("""{"type":"a"}""", "/data")]
    [InlineData("""{"type":"","data":1}""", "/type")]
    [InlineData("""{"type":"order created","data":1}""", "/type")]
    [InlineData("""{"type":null,"data":1}""", "/type")]
    [InlineData("""{"type":7,"data":1}""", "/type")]
    [InlineData("""{"type":{"a":[1]},"data":1}""", "/type")]
    [InlineData("""{"type":"a\u0000b","data":1}""", "/type")]
    [InlineData("""{"type":"a","data":1,"extra":[{}]}""", "/extra")]
    [InlineData("""{"type":"a","data":1,"a/b~c":0}""", "/a~1b~0c")]
    [InlineData("""{"type":"a","data":1,"data":2}""", "/data")]
    [InlineData("""{"type":"a","type":"a","data":1}""", "/type")]
    [InlineData("""{"type":"a","data":1,"externalId":""}""", "/externalId")]
    [InlineData("""{"type":"a","data":1,"externalId":"a\u0000b"}""", "/externalId")]
    [InlineData("""{"type":"a","data":1,"source":"\ud800"}""", "/source")]
    [InlineData("""{"type":"a","data":1,"subject":["a"]}""", "/subject")]
    [InlineData("""{"type":"a","data":1,"time":"2026-01-31"}""", "/time")]
    [InlineData("""{"type":"a","data":1,"time":"2026-02-31T00:00:00Z"}""", "/time")]
    [InlineData("""{"type":"a","data":1,"time":"2026-01-31T00:00:00"}""", "/time")]
    [InlineData("""[{"type":"a","data":1}]""", "")]
    [InlineData("\"text\"", "")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events", body)).IsProblem(400, "invalid_request");

        Assert.Equal([place], answer.Pointers);
    }

    [Fact]
    public async Task Types_of_the_system_are_refused_by_a_code_of_their_own()
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal(["/type"], (await tenant.Client.PostAsync("/events", """{"type":"triggers.test","data":1}"""))
            .IsProblem(400, "reserved_event_type").Pointers);
        Assert.Equal(["/type", "/data"], (await tenant.Client.PostAsync("/events", """{"type":"triggers.test"}"""))
            .IsProblem(400, "invalid_request").Pointers);
        var batch = (await tenant.Client.PostAsync(
            "/events/batch", """{"events":[{"type":"triggers.x.y","data":1},{"type":"triggers","data":1}]}""")).Is(202);
        Assert.Equal("reserved_event_type", batch.Json["items"]![0]!["code"]!.GetValue<string>());
        Assert.Equal("accepted", batch.Json["items"]![1]!["status"]!.GetValue<string>());
        Assert.Equal(
            ["triggers"], (await tenant.Client.GetAsync("/events")).Json["items"]!.AsArray().Select(e => e!["type"]!.GetValue<string>()));
    }

    [Fact]
    public async Task Every_mistake_is_named_at_once()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events", """{"type":"no way","time":"soon","zzz":1}"""))
            .IsProblem(400, "invalid_request");

        Assert.Equal(["/type", "/time", "/zzz", "/data"], answer.Pointers);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("""{"type":"a","data":1}}""")]
    [InlineData("""{"type":"a","data":1,}""")]
    [InlineData("""{"type":"a","data":01}""")]
    [InlineData("""{'type':'a'}""")]
    [InlineData("nul")]
    public async Task What_is_no_JSON_is_refused(string body)
    {
        var tenant = await api.NewTenantAsync();

        (await tenant.Client.PostAsync("/events", body)).IsProblem(400, "malformed_json");
    }

    [Fact]
    public async Task What_is_no_UTF8_is_refused()
    {
        var tenant = await api.NewTenantAsync();
        using var request = Request([.. "{\"type\":\"a\",\"data\":\""u8, 0xC3, 0x28, .. "\"}"u8]);

        (await tenant.Client.SendAsync(request)).IsProblem(400, "malformed_json");
    }

    [Theory]
    [InlineData(63, 202)]
    [InlineData(64, 400)]
    [InlineData(900, 400)]
    [InlineData(5000, 400)]
    public async Task Nesting_ends_at_64(int levelsOfData, int status)
    {
        var tenant = await api.NewTenantAsync();
        var data = new string('[', levelsOfData) + new string(']', levelsOfData);

        (await tenant.Client.PostAsync("/events", $$"""{"type":"a","data":{{data}}}""")).Is(status);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_body_may_have_one_MiB_and_no_byte_more(bool chunked)
    {
        var tenant = await api.NewTenantAsync();
        using var fits = Request(BodyOf(1024 * 1024), chunked);
        using var tooLarge = Request(BodyOf(1024 * 1024 + 1), chunked);

        (await tenant.Client.SendAsync(fits)).Is(202);
        (await tenant.Client.SendAsync(tooLarge)).IsProblem(413, "payload_too_large");
    }

    [Theory]
    [InlineData(null, null)]
    [InlineData("text/plain", null)]
    [InlineData("application/problem+json", null)]
    [InlineData("application/json; charset=latin1", null)]
    [InlineData("application/json", "gzip")]
    public async Task Only_plain_JSON_is_taken(string? contentType, string? encoding)
    {
        var tenant = await api.NewTenantAsync();
        using var request = Request(Encoding.UTF8.GetBytes(Valid));
        request.Content!.Headers.ContentType = contentType is null ? null : MediaTypeHeaderValue.Parse(contentType);
        if (encoding is not null)
            request.Content.Headers.ContentEncoding.Add(encoding);

        (await tenant.Client.SendAsync(request)).IsProblem(415, "unsupported_media_type");
    }

    [Theory]
    [InlineData("bad id with spaces")]
    [InlineData("naïve")]
    [InlineData("<script>")]
    public async Task A_correlation_id_that_could_do_harm_is_replaced(string given)
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events", Valid, ("X-Correlation-ID", given))).Is(202);

        Assert.NotEqual(given, answer["correlationId"]);
        Assert.Matches("^[0-9a-f]{32}$", answer["correlationId"]!);
        Assert.Equal(answer.Headers["X-Correlation-ID"], answer["correlationId"]);
    }

    [Fact]
    public async Task The_trace_of_the_request_goes_on_the_event()
    {
        var tenant = await api.NewTenantAsync();
        const string trace = "0af7651916cd43dd8448eb211c80319c";

        var answer = (await tenant.Client.PostAsync("/events", Valid, ("traceparent", $"00-{trace}-b7ad6b7169203331-01"))).Is(202);

        var kept = await api.Rows.ScalarAsync<string>("SELECT trace_parent FROM events WHERE id = @id", ("id", Rows.Uuid(answer.Id)));
        Assert.StartsWith($"00-{trace}-", kept);
    }

    [Fact]
    public async Task An_id_holds_the_moment_of_acceptance()
    {
        var tenant = await api.NewTenantAsync();
        var before = TimeProvider.System.GetUtcNow();

        var id = await tenant.Client.PublishAsync();

        Assert.InRange(TypeId.CreatedAt(Rows.Uuid(id)), before.AddMilliseconds(-1), TimeProvider.System.GetUtcNow());
    }

    private static byte[] BodyOf(int bytes)
    {
        const string start = """{"type":"a","data":"}""";
        return Encoding.UTF8.GetBytes(start[..^1] + new string('x', bytes - start.Length - 1) + "\"}");
    }

    private static HttpRequestMessage Request(byte[] body, bool chunked = false) => new(HttpMethod.Post, "/events")
    {
        Content = new ByteArrayContent(body) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } },
        Headers = { TransferEncodingChunked = chunked },
    };
}
