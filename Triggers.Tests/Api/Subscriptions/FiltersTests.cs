using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>Filters as they are given, kept, shown and tried.</summary>
public sealed class FiltersTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Filter = """{"subject":[{"prefix":"order-"}],"data":{"total":[{"numeric":[">=",100]},null]}}""";

    [Fact]
    public async Task A_filter_is_kept_as_given_and_replaced_as_a_whole()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync(
            "/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"],"filter":{{Filter}}}""")).Is(201);

        AssertFilter(Filter, made);
        AssertFilter(Filter, (await client.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200));
        AssertFilter("""{"data":["x"]}""", (await client.PatchAsync($"/subscriptions/{made.Id}", """{"filter":{"data":["x"]}}""")).Is(200));
        AssertFilter("""{"data":["x"]}""", (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200));
        AssertFilter(null, (await client.PatchAsync($"/subscriptions/{made.Id}", """{"filter":null}""")).Is(200));
    }

    [Theory]
    [InlineData("\"x\"", "/filter")]
    [InlineData("""{"data":{"a":[{"prefix":7}]}}""", "/filter/data/a/0/prefix")]
    public async Task A_mistake_is_named_with_its_place(string filter, string place)
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);

        foreach (var answer in new[]
        {
            await client.PostAsync("/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"],"filter":{{filter}}}"""),
            await client.PatchAsync($"/subscriptions/{made.Id}", $$"""{"filter":{{filter}}}"""),
            await client.PostAsync("/subscriptions/filter-test", Try(filter, "{}")),
        })
            Assert.Equal([place], answer.IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_filter_is_tried_on_an_event_that_is_given()
    {
        var client = (await api.NewTenantAsync()).Client;

        var answer = (await client.PostAsync("/subscriptions/filter-test",
            Try(Filter, """{"subject":"order-7","data":{"total":42}}"""))).Is(200);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(
            """
            {"matches":false,"conditions":[
                {"pointer":"/subject","expected":[{"prefix":"order-"}],"found":"\"order-7\"","matches":true},
                {"pointer":"/data/total","expected":[{"numeric":[">=",100]},null],"found":"42","matches":false}]}
            """), answer.Json), answer.Text);
        Assert.Equal("true", (await client.PostAsync("/subscriptions/filter-test",
            Try(Filter, """{"subject":"order-7","data":{"total":null}}"""))).Is(200)["matches"]);
        Assert.Equal("false", (await client.PostAsync(
            "/subscriptions/filter-test", Try(Filter, "{}"))).Is(200)["matches"]);
        foreach (var body in new[] { $"{{\"filter\":{Filter}}}", Try(Filter, $"{{}},\"eventId\":\"{NoEvent}\"") })
            Assert.Equal([""], (await client.PostAsync("/subscriptions/filter-test", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_filter_is_tried_on_a_stored_event_of_the_tenant_by_who_may_read_it()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.PublishAsync(data: """{"total":100}""", more: ""","subject":"order-7" """);
        var body = $$"""{"filter":{{Filter}},"eventId":"{{id}}"}""";

        Assert.Equal("true", (await tenant.Client.PostAsync("/subscriptions/filter-test", body)).Is(200)["matches"]);
        (await (await api.NewTenantAsync()).Client.PostAsync("/subscriptions/filter-test", body))
            .IsProblem(400, "invalid_request");
        using var other = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read"));
        (await other.PostAsync("/subscriptions/filter-test", body)).IsProblem(403, "forbidden");
    }

    private const string NoEvent = "evt_01jd0000000000000000000000";

    private static string Try(string filter, string e) => $"{{\"filter\":{filter},\"event\":{e}}}";

    private static void AssertFilter(string? filter, Answer answer) =>
        Assert.True(JsonNode.DeepEquals(filter is null ? null : JsonNode.Parse(filter), answer.Json["filter"]), answer.Text);
}
