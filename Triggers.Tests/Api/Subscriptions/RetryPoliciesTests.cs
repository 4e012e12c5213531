using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>What a subscription says of its retries, as it is given, kept, changed and shown beforehand.</summary>
public sealed class RetryPoliciesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_policy_is_kept_as_given_and_changed_member_by_member()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = await SubscribeAsync(client, """{"maxAttempts":5,"factor":2.5,"statuses":["429","5xx"],"timeout":"00:00:30"}""");
        AssertPolicy("""{"maxAttempts":5,"factor":2.5,"statuses":["429","5xx"],"timeout":"00:00:30"}""", made);

        AssertPolicy("""{"factor":2.5,"statuses":["503"],"timeout":"00:00:30","maxAge":"1.00:00:00"}""", (await client.PatchAsync(
            $"/subscriptions/{made.Id}", """{"retry":{"maxAttempts":null,"statuses":["503"],"maxAge":"1.00:00:00"}}""")).Is(200));
        AssertPolicy("""{"factor":2.5,"statuses":["503"],"timeout":"00:00:30","maxAge":"1.00:00:00"}""",
            (await client.PatchAsync($"/subscriptions/{made.Id}", """{"description":"d"}""")).Is(200));
        AssertPolicy("""{"schedule":["00:00:05","00:05:00"],"statuses":["503"],"timeout":"00:00:30","maxAge":"1.00:00:00"}""",
            (await client.PatchAsync($"/subscriptions/{made.Id}", """{"retry":{"factor":null,"schedule":["00:00:05","00:05:00"]}}"""))
                .Is(200));
        Assert.Null((await client.PatchAsync($"/subscriptions/{made.Id}", """{"retry":null}""")).Is(200).Json["retry"]);
        Assert.Null((await client.GetAsync($"/subscriptions/{made.Id}")).Is(200).Json["retry"]);
    }

    [Theory]
    [InlineData("""{"schedule":[]}""", "/retry/schedule")]
    [InlineData("""{"schedule":["00:00:05","8.00:00:00"]}""", "/retry/schedule/1")]
    [InlineData("""{"schedule":["00:00:05"],"maxAttempts":3}""", "/retry")]
    [InlineData("""{"schedule":["00:00:05"],"factor":3}""", "/retry")]
    [InlineData("""{"maxAttempts":0}""", "/retry/maxAttempts")]
    [InlineData("""{"maxAttempts":51}""", "/retry/maxAttempts")]
    [InlineData("""{"factor":0.5}""", "/retry/factor")]
    [InlineData("""{"jitter":1.5}""", "/retry/jitter")]
    [InlineData("""{"jitter":"0.1"}""", "/retry/jitter")]
    [InlineData("""{"statuses":["200"]}""", "/retry/statuses/0")]
    [InlineData("""{"statuses":["5x"]}""", "/retry/statuses/0")]
    [InlineData("""{"timeout":"00:00:00.5"}""", "/retry/timeout")]
    [InlineData("""{"timeout":"00:00:31"}""", "/retry/timeout")]
    [InlineData("""{"maxAge":"x"}""", "/retry/maxAge")]
    [InlineData("""{"attempts":3}""", "/retry/attempts")]
    [InlineData("3", "/retry")]
    public async Task A_mistake_is_named_with_its_place(string policy, string place)
    {
        var client = (await api.NewTenantAsync()).Client;
        var body = $$"""{"url":"https://a.example","eventTypes":["*"],"retry":{{policy}}}""";

        Assert.Equal([place], (await client.PostAsync("/subscriptions", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task What_does_not_go_together_is_refused_after_a_merge_too_and_changes_nothing()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = await SubscribeAsync(client, """{"maxAttempts":5}""");

        Assert.Equal(["/retry"], (await client.PatchAsync($"/subscriptions/{made.Id}", """{"retry":{"schedule":["00:00:05"]}}"""))
            .IsProblem(400, "invalid_request").Pointers);

        AssertPolicy("""{"maxAttempts":5}""", (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200));
    }

    [Fact]
    public async Task A_preview_has_every_attempt_with_its_bounds_and_its_end()
    {
        var client = (await api.NewTenantAsync()).Client;
        var id = (await SubscribeAsync(client, """{"schedule":["00:00:10","01:00:00"],"jitter":0.5,"statuses":["503"],"maxRetryAfter":"00:10:00"}""")).Id;

        var preview = (await client.GetAsync($"/subscriptions/{id}/retry-preview")).Is(200);

        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(
            """
            {"timeout":"00:00:15","maxAge":null,"maxRetryAfter":"00:10:00","attempts":[
                {"number":1,"delay":"00:00:00","earliest":"00:00:00","latest":"00:00:00"},
                {"number":2,"delay":"00:00:10","earliest":"00:00:05","latest":"00:00:15"},
                {"number":3,"delay":"01:00:00","earliest":"00:30:05","latest":"01:30:15"}
            ],"then":"dead_lettered","reason":"exhausted","failingHead":null,"key":null}
            """), preview.Json), preview.Text);
        Assert.Equal((3, "dead_lettered", "exhausted"), await EndAsync(client, id, 503));
        Assert.Equal((1, "dead_lettered", "rejected"), await EndAsync(client, id, 500));
        Assert.Equal((1, "cancelled", null), await EndAsync(client, id, 410));
        Assert.Equal((1, "succeeded", null), await EndAsync(client, id, 204));
        Assert.Equal(["?status"], (await client.GetAsync($"/subscriptions/{id}/retry-preview?status=600"))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["?limit"], (await client.GetAsync($"/subscriptions/{id}/retry-preview?limit=1"))
            .IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task Without_a_policy_the_preview_is_that_of_the_service_and_with_an_age_it_ends_by_that()
    {
        var client = (await api.NewTenantAsync()).Client;
        var id = (await SubscribeAsync(client, "null")).Id;

        Assert.Equal((8, "dead_lettered", "exhausted"), await EndAsync(client, id, 500));
        Assert.Equal((3, "dead_lettered", "rejected"), await EndAsync(client, id, 404));
        (await client.PatchAsync($"/subscriptions/{id}", """{"retry":{"maxAge":"01:00:00","timeout":"00:00:02"}}""")).Is(200);
        // 10 s, 60 s, 310 s and 1,560 s are within the hour; 7,810 s are not.
        Assert.Equal((5, "dead_lettered", "too_old"), await EndAsync(client, id, 500));
        Assert.Equal("00:00:02", (await client.GetAsync($"/subscriptions/{id}/retry-preview")).Is(200)["timeout"]);
        (await client.PatchAsync($"/subscriptions/{id}", """{"retry":{"maxAttempts":1}}""")).Is(200);
        Assert.Equal((1, "dead_lettered", "rejected"), await EndAsync(client, id, 404));
    }

    [Theory]
    [InlineData("block", 4, 503, 4, "pending", "exhausted", "held")]
    [InlineData("block", 4, 410, 1, "cancelled", null, "flowing")]
    [InlineData("park_key", 4, 503, 4, "dead_lettered", "exhausted", "held")]
    [InlineData("dead_letter_after", 4, 503, 4, "dead_lettered", "exhausted", "flowing")]
    [InlineData("dead_letter_after", 4, 404, 3, "dead_lettered", "rejected", "flowing")]
    [InlineData("park_key", null, 503, 8, "dead_lettered", "exhausted", "held")]
    public async Task In_order_the_preview_says_what_becomes_of_the_key(
        string failingHead, int? attempts, int status, int made, string then, string? reason, string key)
    {
        var client = (await api.NewTenantAsync()).Client;
        var id = (await client.PostAsync("/subscriptions", $$"""
            {"url":"https://a.example","eventTypes":["*"],"ordering":"per_key","failingHead":"{{failingHead}}",
            "failingHeadAttempts":{{attempts?.ToString() ?? "null"}}}
            """)).Is(201).Id;

        var preview = (await client.GetAsync($"/subscriptions/{id}/retry-preview?status={status}")).Is(200);

        Assert.Equal((made, then, reason), await EndAsync(client, id, status));
        Assert.Equal((failingHead, key), (preview["failingHead"], preview["key"]));
    }

    private static async Task<(int Attempts, string? Then, string? Reason)> EndAsync(ApiClient client, string id, int status)
    {
        var preview = (await client.GetAsync($"/subscriptions/{id}/retry-preview?status={status}")).Is(200);
        return (preview.Json["attempts"]!.AsArray().Count, preview["then"], preview["reason"]);
    }

    private static async Task<Answer> SubscribeAsync(ApiClient client, string policy) =>
        (await client.PostAsync("/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"],"retry":{{policy}}}""")).Is(201);

    private static void AssertPolicy(string expected, Answer actual)
    {
        var said = actual.Json["retry"]!.AsObject().Where(member => member.Value is not null)
            .Select(member => KeyValuePair.Create(member.Key, member.Value?.DeepClone()));
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(expected), new JsonObject(said)), actual.Text);
    }
}
