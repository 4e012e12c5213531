using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>Batches of a subscription, as they are asked for, kept, changed and shown.</summary>
public sealed class BatchesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Batches_are_kept_as_asked_for_and_replaced_as_a_whole()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = (await client.PostAsync("/subscriptions", Body(""","batch":{"max":100}"""))).Is(201);
        AssertBatch("""{"max":100,"wait":1}""", made);

        async Task<Answer> ChangeAsync(string change) => (await client.PatchAsync($"/subscriptions/{made.Id}", change)).Is(200);
        AssertBatch("""{"max":100,"wait":1}""", await ChangeAsync("""{"description":"d"}"""));
        AssertBatch("""{"max":2,"wait":0.25}""", await ChangeAsync("""{"batch":{"max":2,"wait":0.25}}"""));
        AssertBatch(null, await ChangeAsync("""{"batch":null}"""));
        AssertBatch(null, (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200));
    }

    [Theory]
    [InlineData(""","batch":{"max":1}""", "/batch/max")]
    [InlineData(""","batch":{"max":1001}""", "/batch/max")]
    [InlineData(""","batch":{"wait":1}""", "/batch/max")]
    [InlineData(""","batch":{"max":10,"wait":30.5}""", "/batch/wait")]
    [InlineData(""","batch":{"max":10,"wait":-1}""", "/batch/wait")]
    [InlineData(""","batch":{"max":10,"bytes":1}""", "/batch/bytes")]
    [InlineData(""","batch":10""", "/batch")]
    public async Task A_mistake_is_named_with_its_place(string batch, string place)
    {
        var client = (await api.NewTenantAsync()).Client;

        Assert.Equal([place], (await client.PostAsync("/subscriptions", Body(batch))).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task What_has_its_attributes_in_headers_goes_alone()
    {
        var client = (await api.NewTenantAsync()).Client;
        var both = Body(""","batch":{"max":10},"format":"cloudevents_binary" """);
        Assert.Equal(["/batch"], (await client.PostAsync("/subscriptions", both)).IsProblem(400, "invalid_request").Pointers);

        var batched = (await client.PostAsync("/subscriptions", Body(""","batch":{"max":10},"format":"cloudevents" """))).Is(201);

        var change = await client.PatchAsync($"/subscriptions/{batched.Id}", """{"format":"cloudevents_binary"}""");
        Assert.Equal(["/format"], change.IsProblem(400, "invalid_request").Pointers);
    }

    private static string Body(string rest) => $$"""{"url":"https://a.example","eventTypes":["*"]{{rest}}}""";

    private static void AssertBatch(string? expected, Answer answer) =>
        Assert.True(JsonNode.DeepEquals(expected is null ? null : JsonNode.Parse(expected), answer.Json["batch"]), answer.Text);
}
