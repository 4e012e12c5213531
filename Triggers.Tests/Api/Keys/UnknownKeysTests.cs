using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class UnknownKeysTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task An_address_that_sends_too_many_unknown_keys_is_told_so_and_known_keys_go_on()
    {
        var tenant = await api.NewTenantAsync();
        var late = await api.NewKeyAsync(tenant.Id);
        await using var host = new ApiHost(api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"), ("Auth:KeepKeys", "00:00:00.1"));
        using var known = host.Client();
        await known.WaitUntilReadyAsync();
        (await known.GetAsync("/tenants")).Is(200);

        var statuses = new List<int>();
        for (var i = 0; i < 20; i++)
            statuses.Add((await GetAsync(host, $"unknown-{i}")).Status);

        Assert.InRange(statuses.Count(s => s == 401), 10, 15);
        (await GetAsync(host, "unknown-again")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "unknown-0")).IsProblem(401, "unauthenticated");
        Assert.Equal("1", (await GetAsync(host, late)).IsProblem(429, "rate_limited").Headers["Retry-After"]);
        // However old what is known of it.
        for (var i = 0; i < 3; i++)
        {
            (await known.GetAsync("/tenants")).Is(200);
            await Wait.UntilAsync("the next answer is a new one", async () => (await known.PostAsync($"/tenants", "{")).Status == 400);
        }
        (await GetAsync(host, "unknown-0", "/health")).Is(200);
        await Wait.UntilAsync("a new key is let in", async () => (await GetAsync(host, late)).Status == 200, TimeSpan.FromSeconds(5));
    }

    [Fact]
    public async Task Behind_a_trusted_proxy_the_address_is_the_clients()
    {
        await using var host = new ApiHost(
            api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"), ("Auth:TrustedProxies", "127.0.0.0/8,::1/128,10.0.0.0/8"));
        using (var client = host.Client())
            await client.WaitUntilReadyAsync();
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"stranger-{i}", "/events", "203.0.113.7");

        (await GetAsync(host, "stranger", "/events", "203.0.113.7")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "stranger", "/events", "203.0.113.8")).IsProblem(401, "unauthenticated");
        (await GetAsync(host, "stranger-by-v6", "/events", "2001:db8::1")).IsProblem(401, "unauthenticated");
        // Somebody has all addresses of a network.
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"v6-stranger-{i}", "/events", $"2001:db8::{i}");
        (await GetAsync(host, "v6-stranger", "/events", "2001:db8::ffff")).IsProblem(429, "rate_limited");
        // By way of another trusted one, which says where it comes from; what is before that is only said by the client.
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"far-stranger-{i}", "/events", $"192.0.2.{i}, 198.51.100.1, 10.0.0.9");
        (await GetAsync(host, "far-stranger", "/events", "198.51.100.1, 10.0.0.9")).IsProblem(429, "rate_limited");
        (await GetAsync(host, "far-stranger", "/events", "198.51.100.2, 10.0.0.9")).IsProblem(401, "unauthenticated");
    }

    [Fact]
    public async Task Without_a_trusted_proxy_nobody_chooses_their_address()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Auth:UnknownKeysPerSecond", "1"));
        using (var client = host.Client())
            await client.WaitUntilReadyAsync();
        for (var i = 0; i < 12; i++)
            await GetAsync(host, $"pretender-{i}", "/events", $"203.0.113.{i}");

        (await GetAsync(host, "pretender", "/events", "203.0.113.99")).IsProblem(429, "rate_limited");
    }

    private static async Task<Answer> GetAsync(ApiHost host, string key, string path = "/events", string? forwardedFor = null)
    {
        using var client = host.Client(key);
        return await client.SendAsync(HttpMethod.Get, path, null, forwardedFor is null ? [] : [("X-Forwarded-For", forwardedFor)]);
    }
}
