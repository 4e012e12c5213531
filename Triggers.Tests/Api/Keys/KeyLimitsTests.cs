using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

/// <summary>Who may write keys gets no more with them than they have; who administers the tenant decides.</summary>
public sealed class KeyLimitsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private static readonly string s_soon = TimeProvider.System.GetUtcNow().AddDays(1).ToString("O");
    private static readonly string s_later = TimeProvider.System.GetUtcNow().AddDays(2).ToString("O");

    [Fact]
    public async Task A_key_with_keys_write_tightens_limits_and_expiries_and_loosens_none()
    {
        var tenant = await api.NewTenantAsync();
        using var writer = api.Host.Client(await api.NewKeyAsync(tenant.Id, "keys:write", "events:read"));
        var id = (await writer.PostAsync("/api-keys",
            $$"""{"name":"k","scopes":["events:read"],"requestsPerSecond":50,"burst":60,"expiresAt":"{{s_soon}}"}""")).Is(201).Id;

        foreach (var looser in new[]
            {
                """{"requestsPerSecond":51}""", """{"requestsPerSecond":null}""",
                """{"burst":61}""", """{"burst":null}""", """{"expiresAt":null}""",
                $$"""{"expiresAt":"{{s_later}}"}""",
            })
        {
            Assert.Contains("tenant:admin", (await writer.PatchAsync($"/api-keys/{id}", looser)).IsProblem(403, "forbidden")["detail"]);
        }
        // Without a burst of its own it has two seconds' worth.
        var plain = (await writer.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"],"requestsPerSecond":5}""")).Is(201).Id;
        (await writer.PatchAsync($"/api-keys/{plain}", """{"burst":11}""")).IsProblem(403, "forbidden");
        (await writer.PatchAsync($"/api-keys/{plain}", """{"burst":10}""")).Is(200);
        var tightened = (await writer.PatchAsync($"/api-keys/{id}", """{"requestsPerSecond":5,"burst":6}""")).Is(200);
        Assert.Equal(("5", "6"), (tightened["requestsPerSecond"], tightened["burst"]));
        var loosened = (await tenant.Client.PatchAsync(
            $"/api-keys/{id}", $$"""{"requestsPerSecond":500,"burst":null,"expiresAt":"{{s_later}}"}""")).Is(200);
        Assert.Equal(("500", null), (loosened["requestsPerSecond"], loosened["burst"]));
    }

    [Fact]
    public async Task The_keys_that_a_limited_key_makes_share_its_limit_and_expire_with_it()
    {
        var tenant = await api.NewTenantAsync();
        var own = (await tenant.Client.PostAsync("/api-keys",
            $$"""{"name":"k","scopes":["keys:write","events:read"],"requestsPerSecond":1,"burst":8,"expiresAt":"{{s_soon}}"}""")).Is(201);
        using var limited = api.Host.Client(own["secret"]);

        (await limited.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"],"burst":9}""")).IsProblem(403, "forbidden");
        (await limited.PostAsync("/api-keys", $$"""{"name":"k","scopes":["events:read"],"expiresAt":"{{s_later}}"}"""))
            .IsProblem(403, "forbidden");
        var made = (await limited.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201);
        var rotated = (await limited.PostAsync($"/api-keys/{own.Id}/rotate")).Is(201);

        Assert.Equal(("1", "8"), (made["requestsPerSecond"], made["burst"]));
        Assert.Equal(own["expiresAt"], made["expiresAt"]);
        Assert.Equal(own["expiresAt"], rotated["expiresAt"]);
        using var second = api.Host.Client(made["secret"]);
        using var third = api.Host.Client(rotated["secret"]);
        // Half of the bucket is used up; what comes back in the meantime is one a second.
        var statuses = new List<int>();
        for (var i = 0; i < 12; i++)
            statuses.Add((await (i % 2 == 0 ? second : third).GetAsync("/events")).Status);
        Assert.InRange(statuses.Count(s => s == 200), 4, 8);
        // They are changed together.
        (await tenant.Client.PatchAsync($"/api-keys/{made.Id}", """{"requestsPerSecond":100,"burst":100}""")).Is(200);
        foreach (var id in new[] { own.Id, rotated.Id })
            Assert.Equal("100", (await tenant.Client.GetAsync($"/api-keys/{id}"))["burst"]);
        await Wait.UntilAsync("the bucket is filled by the new rate", async () =>
            await third.GetAsync("/events") is { Status: 200 } let && let.Headers["RateLimit-Policy"].Contains("\"key\";q=100"));
    }

    [Fact]
    public async Task A_limited_key_does_not_take_over_a_sibling_that_has_more()
    {
        var tenant = await api.NewTenantAsync();
        using var limited = api.Host.Client((await tenant.Client.PostAsync("/api-keys",
            """{"name":"k","scopes":["keys:write","events:read"],"requestsPerSecond":100}""")).Is(201)["secret"]);
        using var ending = api.Host.Client((await tenant.Client.PostAsync("/api-keys",
            $$"""{"name":"k","scopes":["keys:write","events:read"],"expiresAt":"{{s_soon}}"}""")).Is(201)["secret"]);
        var sibling = (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201);

        (await limited.PostAsync($"/api-keys/{sibling.Id}/rotate")).IsProblem(403, "forbidden");
        (await ending.PostAsync($"/api-keys/{sibling.Id}/rotate")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync($"/api-keys/{sibling.Id}/rotate")).Is(201);
    }

    [Fact]
    public async Task The_admin_of_a_tenant_administers_that_and_nothing_else()
    {
        var tenant = await api.NewTenantAsync();
        var other = await api.NewTenantAsync();
        using var admin = api.Host.Client(await api.NewKeyAsync(tenant.Id, "tenant:admin"));
        using var platform = api.Host.Client();

        foreach (var path in new[] { "/events", "/inbox", "/subscriptions", "/deliveries",
            "/dead-letters", "/api-keys", $"/tenants/{tenant.Id}", $"/tenants/{tenant.Id}/usage" })
            (await admin.GetAsync(path)).Is(200);
        (await admin.GetAsync($"/tenants/{other.Id}")).IsProblem(404, "not_found");
        (await admin.GetAsync($"/tenants/{other.Id}/usage")).IsProblem(404, "not_found");
        foreach (var path in new[] { "/tenants", "/usage-plans", $"/api-keys?tenantId={other.Id}" })
            (await admin.GetAsync(path)).IsProblem(403, "forbidden");
        (await admin.PatchAsync($"/tenants/{tenant.Id}", """{"usagePlanId":null}""")).IsProblem(403, "forbidden");
        (await platform.GetAsync($"/tenants/{other.Id}/usage")).Is(200);
        // The platform's admin is made where that is, and nowhere else.
        Assert.Equal(["/scopes/1"], (await platform.PostAsync(
            "/api-keys", $$"""{"name":"k","scopes":["events:read","admin"],"tenantId":"{{tenant.Id}}"}"""))
                .IsProblem(400, "invalid_request").Pointers);
    }
}
