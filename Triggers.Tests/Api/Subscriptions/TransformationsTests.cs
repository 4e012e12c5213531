using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>Transformations as they are given, kept, shown and tried.</summary>
public sealed class TransformationsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Preview = "/subscriptions/transformation-preview";

    [Fact]
    public async Task A_transformation_is_kept_replaced_and_removed_and_its_headers_are_shown_to_who_may_change_it()
    {
        var tenant = await api.NewTenantAsync();
        var client = tenant.Client;
        var made = (await client.PostAsync("/subscriptions", Subscription(
            """{"template":"{{ event.data | json }}","headers":{"x-key":"secret-7"},"method":"PUT","contentType":"application/json"}"""))).Is(201);
        AssertTransformation(
            """{"template":"{{ event.data | json }}","contentType":"application/json","headers":{"x-key":"secret-7"},"method":"PUT"}""", made);

        using var reader = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read"));
        var seen = (await reader.GetAsync($"/subscriptions/{made.Id}")).Is(200);
        Assert.Equal("***", seen.Json["transformation"]!["headers"]!["x-key"]!.GetValue<string>());
        await using var command = api.DataSource.CreateCommand(
            "SELECT count(*) FROM subscriptions WHERE transformation LIKE '%secret-7%'");
        Assert.Equal(0L, await command.ExecuteScalarAsync(TestContext.Current.CancellationToken));

        var changed = (await client.PatchAsync($"/subscriptions/{made.Id}", """{"transformation":{"template":"{}"}}""")).Is(200);
        AssertTransformation("""{"template":"{}","contentType":"application/json","headers":{},"method":"POST"}""", changed);
        AssertTransformation(
            """{"template":"{}","contentType":"application/json","headers":{},"method":"POST"}""",
            (await client.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200));
        AssertTransformation(null, (await client.PatchAsync($"/subscriptions/{made.Id}", """{"transformation":null}""")).Is(200));
    }

    [Fact]
    public async Task A_transformation_goes_with_the_envelope_only()
    {
        var client = (await api.NewTenantAsync()).Client;
        var formatted = (await client.PostAsync("/subscriptions", Subscription(null, ""","format":"data" """))).Is(201);
        var transformed = (await client.PostAsync("/subscriptions", Subscription("""{"template":"{}"}""", ""","format":"envelope" """))).Is(201);

        Assert.Equal(["/format"], (await client.PostAsync(
            "/subscriptions", Subscription("""{"template":"{}"}""", ""","format":"data" """))).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/format"], (await client.PatchAsync(
            $"/subscriptions/{transformed.Id}", """{"format":"cloudevents"}""")).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/transformation"], (await client.PatchAsync(
            $"/subscriptions/{formatted.Id}", """{"transformation":{"template":"{}"}}""")).IsProblem(400, "invalid_request").Pointers);
        var swapped = (await client.PatchAsync(
            $"/subscriptions/{transformed.Id}", """{"format":"cloudevents","transformation":null}""")).Is(200);
        Assert.Equal("cloudevents", swapped["format"]);
    }

    [Theory]
    [InlineData("""{"template":"a\n {{ event | }}"}""", "/transformation/template", "Line 2, column ")]
    [InlineData("""{"template":"{}","headers":{"x-a":"{{ event"}}""", "/transformation/headers/x-a", "Line 1, column ")]
    [InlineData("""{"template":"{}","headers":{"webhook-id":"1"}}""", "/transformation/headers/webhook-id", "not the subscription's")]
    [InlineData("""{"template":"{}","contentType":"nonsense"}""", "/transformation/contentType", "media type")]
    [InlineData("""{"template":"{}","contentType":"text/plain; charset=utf-16"}""", "/transformation/contentType", "utf-8")]
    [InlineData("""{"template":"{}","method":"GET"}""", "/transformation/method", "POST, PUT or PATCH")]
    public async Task A_mistake_is_named_with_its_place(string transformation, string place, string says)
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync("/subscriptions", Subscription(null))).Is(201);

        foreach (var answer in new[]
        {
            await client.PostAsync("/subscriptions", Subscription(transformation)),
            await client.PatchAsync($"/subscriptions/{made.Id}", $$"""{"transformation":{{transformation}}}"""),
            await client.PostAsync(Preview, $$$"""{"transformation":{{{transformation}}},"event":{}}"""),
        })
        {
            Assert.Equal([place], answer.IsProblem(400, "invalid_request").Pointers);
            Assert.Contains(says, answer.Text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_transformation_is_tried_on_an_event_that_is_given()
    {
        var client = (await api.NewTenantAsync()).Client;

        var made = (await client.PostAsync(Preview,
            """
            {"transformation":{"template":"{\"t\":\"{{ event.type }}\",\"n\":{{ event.data.n | json }}}","method":"PATCH","headers":{"x-n":"{{ event.data.n }}"}},
            "event":{"type":"order.created","data":{"n":7}}}
            """)).Is(200);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(
            """
            {"method":"PATCH","contentType":"application/json","headers":{"x-n":"7"},"body":"{\"t\":\"order.created\",\"n\":7}","error":null}
            """), made.Json), made.Text);

        var failed = (await client.PostAsync(Preview,
            """{"transformation":{"template":"{\n{{ event.data.n | divided_by: 0 }}}"},"event":{"data":{"n":7}}}""")).Is(200);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(
            """
            {"method":null,"contentType":null,"headers":null,"body":null,"error":{"line":2,"column":3,"detail":"Attempted to divide by zero."}}
            """), failed.Json), failed.Text);
        Assert.Equal([""], (await client.PostAsync(
            Preview, """{"transformation":{"template":"{}"}}""")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_transformation_is_tried_on_a_stored_event_of_the_tenant_by_who_may_read_it()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.PublishAsync(data: """{"n":100}""");
        var body = $$$"""{"transformation":{"template":"[\"{{ event.id }}\",{{ event.data.n }}]"},"eventId":"{{{id}}}"}""";

        Assert.Equal($"[\"{id}\",100]", (await tenant.Client.PostAsync(Preview, body)).Is(200)["body"]);
        (await (await api.NewTenantAsync()).Client.PostAsync(Preview, body)).IsProblem(400, "invalid_request");
        using var other = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read"));
        (await other.PostAsync(Preview, body)).IsProblem(403, "forbidden");
    }

    private static string Subscription(string? transformation, string more = "") =>
        $$"""{"url":"https://a.example","eventTypes":["*"]{{(transformation is null ? "" : ",\"transformation\":" + transformation)}}{{more}}}""";

    private static void AssertTransformation(string? transformation, Answer answer) => Assert.True(
        JsonNode.DeepEquals(transformation is null ? null : JsonNode.Parse(transformation), answer.Json["transformation"]), answer.Text);
}
