using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core.Subscriptions;
using Triggers.ServiceDefaults.Redis;
using Triggers.Tests.Api.RateLimiting;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>Limits of a subscription, as they are given, kept, changed and shown.</summary>
public sealed class LimitsTests(ApiFixture api, RedisServer redis) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Limits_are_kept_as_given_and_changed_one_by_one()
    {
        var client = (await api.NewTenantAsync()).Client;
        var made = await SubscribeAsync(client, ""","rateLimit":{"requests":10},"concurrency":3""");
        AssertLimits("""{"requests":10,"perSeconds":1}""", "3", made);

        async Task<Answer> ChangeAsync(string change) => (await client.PatchAsync($"/subscriptions/{made.Id}", change)).Is(200);
        AssertLimits("""{"requests":10,"perSeconds":1}""", "3", await ChangeAsync("""{"description":"d"}"""));
        AssertLimits("""{"requests":2,"perSeconds":60}""", "3", await ChangeAsync("""{"rateLimit":{"requests":2,"perSeconds":60}}"""));
        AssertLimits(null, "3", await ChangeAsync("""{"rateLimit":null}"""));
        AssertLimits(null, "7", await ChangeAsync("""{"concurrency":7}"""));
        AssertLimits(null, null, await ChangeAsync("""{"concurrency":null}"""));
        AssertLimits(null, null, (await client.GetAsync($"/subscriptions/{made.Id}")).Is(200));
    }

    [Theory]
    [InlineData(""","rateLimit":{"requests":0}""", "/rateLimit/requests")]
    [InlineData(""","rateLimit":{"requests":10001}""", "/rateLimit/requests")]
    [InlineData(""","rateLimit":{"perSeconds":1}""", "/rateLimit/requests")]
    [InlineData(""","rateLimit":{"requests":1,"perSeconds":0}""", "/rateLimit/perSeconds")]
    [InlineData(""","rateLimit":{"requests":1,"perSeconds":3601}""", "/rateLimit/perSeconds")]
    [InlineData(""","rateLimit":{"requests":1,"burst":3}""", "/rateLimit/burst")]
    [InlineData(""","rateLimit":10""", "/rateLimit")]
    [InlineData(""","concurrency":0""", "/concurrency")]
    [InlineData(""","concurrency":1001""", "/concurrency")]
    [InlineData(""","concurrency":"2" """, "/concurrency")]
    public async Task A_mistake_is_named_with_its_place(string limits, string place)
    {
        var client = (await api.NewTenantAsync()).Client;
        var body = $$"""{"url":"https://a.example","eventTypes":["*"]{{limits}}}""";

        Assert.Equal([place], (await client.PostAsync("/subscriptions", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task What_is_in_use_is_shown_with_whether_something_waits()
    {
        await using var host = new ApiHost(api.ConnectionString, ("ConnectionStrings:redis", await redis.ConnectionStringAsync()));
        await host.RedisIsAsync("healthy");
        using var client = host.Client();
        var id = (await SubscribeAsync(client, ""","rateLimit":{"requests":4,"perSeconds":3600},"concurrency":3""")).Id;
        var uuid = Rows.Uuid(id);
        var limits = SubscriptionLimits.Of(4, 3600, 3)!;
        var connection = host.Services.GetRequiredService<RedisConnection>();
        var (one, other) = (new SharedPermits(connection), new SharedPermits(connection));

        Assert.Equal((2, LimitKind.None), await AskAsync(one, held: 0, wanted: 2));
        await AssertInUseAsync(2, 2, false);
        Assert.Equal((1, LimitKind.Concurrency), await AskAsync(other, held: 0, wanted: 2));
        Assert.Equal((0, LimitKind.Concurrency), await AskAsync(other, held: 1, wanted: 2));
        await AssertInUseAsync(3, 3, true);
        Assert.Equal((0, LimitKind.None), await AskAsync(one, held: 0, wanted: 0));
        Assert.Equal((1, LimitKind.Rate), await AskAsync(other, held: 1, wanted: 2));
        Assert.Equal((0, LimitKind.Rate), await AskAsync(other, held: 0, wanted: 1));
        await AssertInUseAsync(4, 0, true);

        async Task<(int, LimitKind)> AskAsync(SharedPermits permits, int held, int wanted) =>
            await permits.AskAsync(new PermitRequest(uuid, limits, held, wanted)) is var answer ? (answer.Permits, answer.Limit) : default;

        async Task AssertInUseAsync(int requests, int concurrency, bool waiting) => Assert.True(
            JsonNode.DeepEquals(
                JsonNode.Parse($$"""{"requests":{{requests}},"concurrency":{{concurrency}},"waiting":{{(waiting ? "true" : "false")}}}"""),
                (await client.GetAsync($"/subscriptions/{id}")).Is(200).Json["limitsInUse"]));
    }

    [Fact]
    public async Task What_was_not_used_can_be_used_by_others()
    {
        await using var host = new ApiHost(api.ConnectionString, ("ConnectionStrings:redis", await redis.ConnectionStringAsync()));
        await host.RedisIsAsync("healthy");
        var connection = host.Services.GetRequiredService<RedisConnection>();
        var (one, other) = (new SharedPermits(connection), new SharedPermits(connection));
        var request = new PermitRequest(Guid.CreateVersion7(), SubscriptionLimits.Of(5, 3600, null)!, 0, 5);

        var all = await one.AskAsync(request);
        Assert.Equal((5, 0), (all.Permits, (await other.AskAsync(request)).Permits));
        await one.AskAsync(request with { Wanted = 0, GivenBack = 3, Counted = all.Counted });

        Assert.Equal(3, (await other.AskAsync(request)).Permits);
        var none = await other.AskAsync(request);
        Assert.Equal((0, LimitKind.Rate), (none.Permits, none.Limit));
        Assert.InRange(none.Wait, TimeSpan.FromMinutes(40), TimeSpan.FromMinutes(64));
    }

    private static async Task<Answer> SubscribeAsync(ApiClient client, string limits) =>
        (await client.PostAsync("/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"]{{limits}}}""")).Is(201);

    private static void AssertLimits(string? rate, string? concurrency, Answer answer)
    {
        Assert.True(JsonNode.DeepEquals(rate is null ? null : JsonNode.Parse(rate), answer.Json["rateLimit"]), answer.Text);
        Assert.Equal(concurrency, answer.Json["concurrency"]?.ToString());
    }
}
