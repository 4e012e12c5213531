using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class UsagePlansTests(ApiFixture api, PostgresServer postgres) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_plan_is_made_read_listed_changed_and_deleted()
    {
        using var admin = api.Host.Client();

        var made = (await admin.PostAsync("/usage-plans", """{"name":"starter","requestsPerSecond":5,"burst":10,"eventsPerDay":100}""")).Is(201);
        Assert.StartsWith("pln_", made.Id);
        Assert.Equal($"/usage-plans/{made.Id}", made.Headers["Location"]);
        Assert.Equal(made.Text, (await admin.GetAsync($"/usage-plans/{made.Id}")).Is(200).Text);
        Assert.Equal(["/name"], (await admin.PostAsync("/usage-plans", """{"name":"starter","requestsPerSecond":5,"burst":10}""")).IsProblem(409, "name_taken").Pointers);
        var second = (await admin.PostAsync("/usage-plans", """{"name":"unlimited","requestsPerSecond":5,"burst":10}""")).Is(201);
        Assert.Null(second["eventsPerDay"]);
        Assert.Equal(["/name"], (await admin.PatchAsync($"/usage-plans/{second.Id}", """{"name":"starter"}""")).IsProblem(409, "name_taken").Pointers);

        Assert.Equal([second.Id, made.Id], (await admin.GetAsync("/usage-plans")).Is(200).Ids.Where(id => id == made.Id || id == second.Id));
        var page = (await admin.GetAsync("/usage-plans?limit=1&order=asc")).Is(200);
        Assert.NotEqual(page.Ids, (await admin.GetAsync($"/usage-plans?limit=1&order=asc&cursor={page.NextCursor}")).Is(200).Ids);

        var changed = (await admin.PatchAsync($"/usage-plans/{made.Id}", """{"burst":20}""")).Is(200);
        Assert.Equal(("starter", "5", "20", "100"), (changed["name"], changed["requestsPerSecond"], changed["burst"], changed["eventsPerDay"]));
        Assert.Null((await admin.PatchAsync($"/usage-plans/{made.Id}", """{"eventsPerDay":null}""")).Is(200)["eventsPerDay"]);

        (await admin.DeleteAsync($"/usage-plans/{made.Id}")).Is(204);
        (await admin.GetAsync($"/usage-plans/{made.Id}")).IsProblem(404, "not_found");
        (await admin.PatchAsync($"/usage-plans/{made.Id}", "{}")).IsProblem(404, "not_found");
        (await admin.DeleteAsync($"/usage-plans/{made.Id}")).IsProblem(404, "not_found");
    }

    [Theory]
    [InlineData("""{"requestsPerSecond":1,"burst":1}""", "/name")]
    [InlineData("""{"name":"x","burst":1}""", "/requestsPerSecond")]
    [InlineData("""{"name":"x","requestsPerSecond":1}""", "/burst")]
    [InlineData("""{"name":"x","requestsPerSecond":0,"burst":1}""", "/requestsPerSecond")]
    [InlineData("""{"name":"x","requestsPerSecond":1,"burst":1000001}""", "/burst")]
    [InlineData("""{"name":"x","requestsPerSecond":1,"burst":1,"eventsPerDay":0}""", "/eventsPerDay")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        using var admin = api.Host.Client();

        Assert.Equal([place], (await admin.PostAsync("/usage-plans", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task What_a_plan_needs_can_not_be_removed()
    {
        using var admin = api.Host.Client();
        var plan = await NewPlanAsync(admin, 1, 1);

        Assert.Equal(["/name", "/requestsPerSecond", "/burst"], (await admin.PatchAsync(
            $"/usage-plans/{plan}", """{"name":null,"requestsPerSecond":null,"burst":null}""")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_plan_that_a_valid_key_has_is_not_deleted()
    {
        using var admin = api.Host.Client();
        var plan = await NewPlanAsync(admin, 5, 10);
        var key = (await admin.PostAsync("/api-keys", $$"""{"name":"k","scopes":["events:read"],"usagePlanId":"{{plan}}"}""")).Is(201);
        Assert.Equal(plan, key["usagePlanId"]);

        (await admin.DeleteAsync($"/usage-plans/{plan}")).IsProblem(409, "usage_plan_in_use");
        (await admin.DeleteAsync($"/api-keys/{key.Id}")).Is(204);
        (await admin.DeleteAsync($"/usage-plans/{plan}")).Is(204);

        Assert.Null((await admin.GetAsync($"/api-keys/{key.Id}")).Is(200)["usagePlanId"]);
    }

    [Fact]
    public async Task A_key_has_the_limits_of_its_plan_unless_it_has_its_own()
    {
        using var admin = api.Host.Client();
        var plan = await NewPlanAsync(admin, 5, 10);
        var key = (await admin.PostAsync("/api-keys", $$"""{"name":"k","scopes":["events:read"],"usagePlanId":"{{plan}}"}""")).Is(201);
        using var client = api.Host.Client(key["secret"]);

        Assert.Equal("\"default\";q=10;w=2", await PolicyAsync());
        (await admin.PatchAsync($"/api-keys/{key.Id}", """{"burst":20}""")).Is(200);
        Assert.Equal("\"default\";q=20;w=4", await PolicyAsync());
        (await admin.PatchAsync($"/usage-plans/{plan}", """{"requestsPerSecond":10,"burst":5}""")).Is(200);
        Assert.Equal("\"default\";q=20;w=2", await PolicyAsync());
        var changed = (await admin.PatchAsync($"/api-keys/{key.Id}", """{"burst":null,"name":"renamed"}""")).Is(200);
        Assert.Equal(("renamed", plan, null), (changed["name"], changed["usagePlanId"], changed["burst"]));
        Assert.Equal("\"default\";q=5;w=1", await PolicyAsync());
        (await admin.PatchAsync($"/api-keys/{key.Id}", """{"usagePlanId":null}""")).Is(200);
        Assert.Equal("\"default\";q=2000;w=2", await PolicyAsync());

        async Task<string> PolicyAsync() => (await client.GetAsync("/events")).Is(200).Headers["RateLimit-Policy"];
    }

    [Fact]
    public async Task Nobody_but_an_admin_chooses_a_plan_or_gets_rid_of_one()
    {
        using var admin = api.Host.Client();
        var plan = await NewPlanAsync(admin, 500, 1_000);
        var tenant = await api.NewTenantAsync();
        var id = (await tenant.Client.GetAsync("/api-keys")).Ids.Single();

        (await tenant.Client.PatchAsync($"/api-keys/{id}", $$"""{"usagePlanId":"{{plan}}"}""")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync("/api-keys", $$"""{"name":"k","scopes":["events:read"],"usagePlanId":"{{plan}}"}""")).IsProblem(403, "forbidden");
        (await tenant.Client.GetAsync($"/usage-plans/{plan}")).IsProblem(403, "forbidden");
        (await tenant.Client.PatchAsync($"/api-keys/{id}", """{"burst":3000}""")).Is(200);

        (await admin.PatchAsync($"/api-keys/{id}?tenantId={tenant.Id}", $$"""{"usagePlanId":"{{plan}}"}""")).Is(200);
        foreach (var change in new[] { """{"burst":null}""", """{"requestsPerSecond":1000000}""", """{"usagePlanId":null}""" })
            (await tenant.Client.PatchAsync($"/api-keys/{id}", change)).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"],"burst":1000000}""")).IsProblem(403, "forbidden");
        // Nor by a new key.
        Assert.Equal(plan, (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201)["usagePlanId"]);
        Assert.Equal(plan, (await tenant.Client.PostAsync($"/api-keys/{id}/rotate")).Is(201)["usagePlanId"]);
        (await tenant.Client.PatchAsync($"/api-keys/{id}", """{"name":"mine"}""")).Is(200);
    }

    [Fact]
    public async Task A_plan_that_is_not_there_is_refused()
    {
        using var admin = api.Host.Client();
        const string unknown = "pln_01jd0000000000000000000000";

        Assert.Equal(["/usagePlanId"], (await admin.PostAsync("/api-keys",
            $$"""{"name":"k","scopes":["admin"],"usagePlanId":"{{unknown}}"}""")).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/usagePlanId"], (await admin.PostAsync("/api-keys",
            """{"name":"k","scopes":["admin"],"usagePlanId":"basic"}""")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_key_that_is_over_stays_as_it_is_and_the_last_admin_key_never_ends()
    {
        await using var fresh = await FreshAsync();
        using var admin = fresh.Host.Client();
        var id = (await admin.GetAsync("/api-keys")).Ids.Single();

        (await admin.PatchAsync($"/api-keys/{id}", """{"expiresAt":"2099-01-01T00:00:00Z"}""")).IsProblem(409, "last_admin_key");
        var other = (await admin.PostAsync("/api-keys", """{"name":"other","scopes":["admin"]}""")).Is(201);
        Assert.NotNull((await admin.PatchAsync($"/api-keys/{other.Id}", """{"expiresAt":"2099-01-01T00:00:00Z"}""")).Is(200)["expiresAt"]);
        Assert.Null((await admin.PatchAsync($"/api-keys/{other.Id}", """{"expiresAt":null}""")).Is(200)["expiresAt"]);
        (await admin.DeleteAsync($"/api-keys/{other.Id}")).Is(204);
        (await admin.PatchAsync($"/api-keys/{other.Id}", """{"name":"again"}""")).IsProblem(404, "not_found");
        Assert.Equal(["/name", "/expiresAt"], (await admin.PatchAsync(
            $"/api-keys/{id}", """{"name":null,"expiresAt":"2020-01-01T00:00:00Z"}""")).IsProblem(400, "invalid_request").Pointers);

        async Task<ApiFixture> FreshAsync()
        {
            var fixture = new ApiFixture(postgres);
            await fixture.InitializeAsync();
            return fixture;
        }
    }

    private static async Task<string> NewPlanAsync(ApiClient admin, int perSecond, int burst) => (await admin.PostAsync(
        "/usage-plans", $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":{{perSecond}},"burst":{{burst}}}""")).Is(201).Id;
}
