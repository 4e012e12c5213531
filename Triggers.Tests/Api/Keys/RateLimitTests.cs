using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class RateLimitTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_key_that_sends_too_much_is_told_so_and_no_other_is()
    {
        using var admin = api.Host.Client();
        var made = (await admin.PostAsync("/api-keys", """{"name":"slow","scopes":["events:read"],"requestsPerSecond":1,"burst":3}"""))
            .Is(201);
        using var client = api.Host.Client(made["secret"]);

        var answers = new List<Answer>();
        for (var i = 0; i < 6; i++)
            answers.Add(await client.GetAsync("/events"));

        Assert.All(answers.Take(3), a => a.Is(200));
        var refused = answers.Last(a => a.Status != 200).IsProblem(429, "rate_limited");
        Assert.Equal("1", refused.Headers["Retry-After"]);
        Assert.Contains("\"key\";q=3;w=3", refused.Headers["RateLimit-Policy"]);
        Assert.Matches("\"key\";r=0;t=[23]", refused.Headers["RateLimit"]);
        Assert.Contains("\"key\";r=2;t=1", answers[0].Headers["RateLimit"]);
        (await admin.GetAsync("/events")).Is(200);
        await Wait.UntilAsync("it is let in again", async () => (await client.GetAsync("/events")).Status == 200, TimeSpan.FromSeconds(5));
    }

    [Fact]
    public async Task Without_a_plan_a_tenant_has_the_limits_of_the_settings()
    {
        await using var host = new ApiHost(api.ConnectionString,
            ("RateLimiting:RequestsPerSecond", "10"), ("RateLimiting:Burst", "25"),
            ("RateLimiting:EventsPerSecond", "50"), ("RateLimiting:BytesPerSecond", "0"));
        using var client = host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id));

        Assert.Equal("\"default\";q=25;w=3, \"events\";q=50;w=1", (await client.GetAsync("/events")).Is(200).Headers["RateLimit-Policy"]);
    }

    [Fact]
    public async Task What_is_refused_counts_too()
    {
        using var admin = api.Host.Client();
        var made = (await admin.PostAsync("/api-keys", """{"name":"slow","scopes":["events:read"],"requestsPerSecond":1,"burst":2}"""))
            .Is(201);
        using var client = api.Host.Client(made["secret"]);

        var statuses = new List<int>();
        for (var i = 0; i < 5; i++)
            statuses.Add((await client.PostAsync("/events", "{")).Status);

        Assert.Equal([403, 403], statuses.Take(2));
        Assert.Contains(429, statuses);
    }
}
