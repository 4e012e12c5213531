using System.Text;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Contract;

/// <summary>What HTTP allows is taken, whatever a library makes of it.</summary>
public sealed class WireTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Event = """{"type":"order.created","data":1}""";

    [Theory]
    [InlineData("application/json")]
    [InlineData("application/json;")]
    [InlineData("application/json; charset=utf-8;")]
    [InlineData("Application/JSON ;charset=\"UTF-8\"")]
    [InlineData("application/json; charset=utf8")]
    public async Task A_content_type_may_be_written_as_HTTP_has_it(string contentType)
    {
        var tenant = await api.NewTenantAsync();

        (await SendAsync(tenant.Client, HttpMethod.Post, "/events", contentType, Event)).Is(202);
    }

    [Theory]
    [InlineData("application/json; charset=utf-16")]
    [InlineData("application/merge-patch+json")]
    [InlineData(";")]
    [InlineData("json")]
    public async Task Another_content_type_is_refused(string contentType)
    {
        var tenant = await api.NewTenantAsync();

        (await SendAsync(tenant.Client, HttpMethod.Post, "/events", contentType, Event)).IsProblem(415, "unsupported_media_type");
    }

    [Theory]
    [InlineData("application/merge-patch+json")]
    [InlineData("application/merge-patch+json; charset=utf-8")]
    [InlineData("application/json")]
    public async Task A_patch_is_a_merge_patch_under_either_name(string contentType)
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        using var admin = api.Host.Client();
        var plan = (await admin.PostAsync("/usage-plans", $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":1,"burst":1}"""))
            .Is(201).Id;
        var key = (await tenant.Client.GetAsync("/api-keys")).Ids[0];

        (await SendAsync(tenant.Client, HttpMethod.Patch, $"/subscriptions/{subscription}", contentType, """{"enabled":false}""")).Is(200);
        (await SendAsync(tenant.Client, HttpMethod.Patch, $"/api-keys/{key}", contentType, """{"name":"renamed"}""")).Is(200);
        (await SendAsync(admin, HttpMethod.Patch, $"/usage-plans/{plan}", contentType, """{"burst":2}""")).Is(200);
    }

    [Fact]
    public async Task A_byte_order_mark_is_left_out()
    {
        var tenant = await api.NewTenantAsync();

        (await tenant.Client.PostAsync("/events", "\uFEFF" + Event)).Is(202);
        (await tenant.Client.PostAsync("/subscriptions", "\uFEFF" + """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);
    }

    [Fact]
    public async Task Whole_numbers_may_be_written_as_JSON_has_them()
    {
        using var admin = api.Host.Client();

        var plan = (await admin.PostAsync("/usage-plans", $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":1e1,"burst":20.0}"""))
            .Is(201);

        Assert.Equal("10", plan["requestsPerSecond"]);
        Assert.Equal("20", plan["burst"]);
        Assert.Equal(["/requestsPerSecond", "/burst"],
            (await admin.PostAsync("/usage-plans", """{"name":"x","requestsPerSecond":1.5,"burst":1e99}"""))
                .IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_limit_counts_characters_and_not_what_they_are_stored_in()
    {
        var tenant = await api.NewTenantAsync();
        var longest = string.Concat(Enumerable.Repeat("🙂", 256));

        (await tenant.Client.PostAsync("/events", $$"""{"type":"a","data":1,"subject":"{{longest}}"}""")).Is(202);
        (await tenant.Client.PostAsync("/events", $$"""{"type":"a","data":1,"subject":"{{longest}}x"}"""))
            .IsProblem(400, "invalid_request");
        (await tenant.Client.GetAsync($"/events?subject={Uri.EscapeDataString(longest)}")).Is(200);
        (await tenant.Client.GetAsync($"/events?subject={Uri.EscapeDataString(longest)}x")).IsProblem(400, "invalid_request");
    }

    [Theory]
    [InlineData("99999999999999999999")]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("ten")]
    [InlineData("")]
    public async Task A_number_that_is_none_or_too_large_is_told_what_it_should_be(string limit)
    {
        var tenant = await api.NewTenantAsync();

        var refused = (await tenant.Client.GetAsync($"/events?limit={limit}")).IsProblem(400, "invalid_request");

        Assert.Equal("Must be a whole number from 1 to 200.", refused.Json["errors"]![0]!["detail"]!.GetValue<string>());
    }

    [Theory]
    [InlineData("/events/{0}?include=data")]
    [InlineData("/events/{0}?")]
    [InlineData("/subscriptions/{0}?tenantId=x")]
    public async Task A_parameter_that_no_operation_knows_is_refused_everywhere(string path)
    {
        var tenant = await api.NewTenantAsync();
        var id = path.StartsWith("/events", StringComparison.Ordinal) ? await tenant.Client.PublishAsync()
            : await tenant.Client.SubscribeAsync();

        var answer = await tenant.Client.GetAsync(string.Format(path, id));

        if (path.EndsWith('?'))
            answer.Is(200);
        else
            Assert.StartsWith("?", Assert.Single(answer.IsProblem(400, "invalid_request").Pointers));
    }

    [Theory]
    [InlineData("FFFFFFFFFFFFFFFFF")]
    [InlineData("7FFFFFFFFFFFFFFF")]
    [InlineData("x")]
    public async Task A_chunk_of_no_possible_size_is_the_clients_mistake(string size)
    {
        using var client = await RawClient.ConnectAsync(api.Host.Address);
        await client.SendHeadAsync("POST /events", ApiHost.AdminKey, "Content-Type: application/json", "Transfer-Encoding: chunked");
        await client.SendAsync(Encoding.ASCII.GetBytes(size + "\r\n{"));

        Assert.InRange((await client.ReadHeadAsync()).Status, 400, 413);
    }

    [Fact]
    public async Task HEAD_answers_what_GET_would_without_the_body()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.PublishAsync();
        using var stranger = api.Host.Client(null);

        string[] paths = ["/events", $"/events/{id}", "/inbox", "/health", "/health/live", "/health/ready", "/openapi/v1.json", "/"];
        foreach (var path in paths)
        {
            var head = (await tenant.Client.SendAsync(HttpMethod.Head, path, null)).Is(200);
            Assert.Empty(head.Text);
            Assert.Equal((await tenant.Client.GetAsync(path)).ContentType, head.ContentType);
        }
        (await tenant.Client.SendAsync(HttpMethod.Head, "/nowhere", null)).Is(404);
        (await tenant.Client.SendAsync(HttpMethod.Head, "/inbox/acknowledge", null)).Is(405);
        (await stranger.SendAsync(HttpMethod.Head, "/events", null)).Is(401);
    }

    [Fact]
    public async Task The_root_says_where_the_reference_is()
    {
        using var client = api.Host.Client(null);

        var root = (await client.GetAsync("/")).Is(200);

        (await client.GetAsync(root["reference"]!)).Is(200);
        (await client.GetAsync(root["openApi"]!)).Is(200);
        (await client.GetAsync(root["health"]!)).Is(200);
        Assert.Contains("</openapi/v1.json>; rel=\"service-desc\"", root.Headers["Link"]);
    }

    [Fact]
    public async Task The_contract_is_made_once_and_not_sent_to_whoever_has_it()
    {
        using var client = api.Host.Client(null);
        var first = (await client.GetAsync("/openapi/v1.json")).Is(200);
        var tag = first.Headers["ETag"];

        var again = await client.SendAsync(HttpMethod.Get, "/openapi/v1.json", null, ("If-None-Match", tag));
        var other = await client.SendAsync(HttpMethod.Get, "/openapi/v1.json", null, ("If-None-Match", "\"other\""));

        Assert.Empty(again.Is(304).Text);
        Assert.Equal(first.Text, other.Is(200).Text);
    }

    private static async Task<Answer> SendAsync(ApiClient client, HttpMethod method, string path, string contentType, string body)
    {
        using var request = new HttpRequestMessage(method, path) { Content = new ByteArrayContent(Encoding.UTF8.GetBytes(body)) };
        request.Content.Headers.TryAddWithoutValidation("Content-Type", contentType);
        return await client.SendAsync(request);
    }
}
