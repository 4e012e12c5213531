using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class UsagePlansTests(ApiFixture api, PostgresServer postgres) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_plan_is_made_read_listed_changed_and_deleted()
    {
        using var admin = api.Host.Client();

        var made = (await admin.PostAsync("/usage-plans", """{"name":"starter","requestsPerSecond":5,"burst":10,"eventsPerDay":100}"""))
            .Is(201);
        Assert.StartsWith("pln_", made.Id);
        Assert.Equal($"/usage-plans/{made.Id}", made.Headers["Location"]);
        Assert.Equal(made.Text, (await admin.GetAsync($"/usage-plans/{made.Id}")).Is(200).Text);
        Assert.Equal(["/name"], (await admin.PostAsync("/usage-plans", """{"name":"starter","requestsPerSecond":5,"burst":10}"""))
            .IsProblem(409, "name_taken").Pointers);
        var second = (await admin.PostAsync("/usage-plans", """{"name":"unlimited","requestsPerSecond":5,"burst":10}""")).Is(201);
        Assert.Null(second["eventsPerDay"]);
        Assert.Equal(["/name"], (await admin.PatchAsync($"/usage-plans/{second.Id}", """{"name":"starter"}"""))
            .IsProblem(409, "name_taken").Pointers);

        Assert.Equal(
            [second.Id, made.Id], (await admin.GetAsync("/usage-plans")).Is(200).Ids.Where(id => id == made.Id || id == second.Id));
        var page = (await admin.GetAsync("/usage-plans?limit=1&order=asc")).Is(200);
        Assert.NotEqual(page.Ids, (await admin.GetAsync($"/usage-plans?limit=1&order=asc&cursor={page.NextCursor}")).Is(200).Ids);

        var changed = (await admin.PatchAsync($"/usage-plans/{made.Id}", """{"burst":20}""")).Is(200);
        Assert.Equal(
            ("starter", "5", "20", "100"), (changed["name"], changed["requestsPerSecond"], changed["burst"], changed["eventsPerDay"]));
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
            $"/usage-plans/{plan}", """{"name":null,"requestsPerSecond":null,"burst":null}"""))
                .IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_plan_that_a_tenant_has_is_not_deleted()
    {
        using var admin = api.Host.Client();
        var plan = await NewPlanAsync(admin, 5, 10);
        var tenant = (await admin.PostAsync("/tenants", $$"""{"name":"{{Guid.NewGuid()}}","usagePlanId":"{{plan}}"}""")).Is(201);
        Assert.Equal(plan, tenant["usagePlanId"]);

        (await admin.DeleteAsync($"/usage-plans/{plan}")).IsProblem(409, "usage_plan_in_use");
        Assert.Null((await admin.PatchAsync($"/tenants/{tenant.Id}", """{"usagePlanId":null}""")).Is(200)["usagePlanId"]);
        (await admin.DeleteAsync($"/usage-plans/{plan}")).Is(204);
    }

    [Fact]
    public async Task The_keys_of_a_tenant_have_the_limits_of_its_plan_together()
    {
        using var admin = api.Host.Client();
        var plan = (await admin.PostAsync("/usage-plans",
            $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":5,"burst":10,"eventsPerSecond":20,"bytesPerSecond":4096,"eventsPerDay":30}""")).Is(201).Id;
        var tenant = await api.NewTenantAsync();
        var key = (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201);
        using var client = api.Host.Client(key["secret"]);

        (await admin.PatchAsync($"/tenants/{tenant.Id}", $$"""{"usagePlanId":"{{plan}}"}""")).Is(200);
        Assert.Equal(
            "\"default\";q=10;w=2, \"events\";q=20;w=1, \"bytes\";q=4096;w=1, \"events-per-day\";q=30;w=86400", await PolicyAsync());
        (await tenant.Client.PatchAsync($"/api-keys/{key.Id}", """{"requestsPerSecond":2}""")).Is(200);
        Assert.StartsWith("\"default\";q=10;w=2, \"key\";q=4;w=2,", await PolicyAsync());
        (await admin.PatchAsync($"/usage-plans/{plan}",
            """{"requestsPerSecond":100,"burst":50,"eventsPerSecond":null,"bytesPerSecond":null,"eventsPerDay":null}""")).Is(200);
        Assert.Equal("\"default\";q=50;w=1, \"key\";q=4;w=2", await PolicyAsync());
        var renamed = (await admin.PatchAsync($"/tenants/{tenant.Id}", $$"""{"name":"renamed-{{tenant.Id}}"}""")).Is(200);
        Assert.Equal(plan, renamed["usagePlanId"]);
        var usage = (await tenant.Client.GetAsync($"/tenants/{tenant.Id}/usage")).Is(200);
        Assert.Equal((
            plan, "100", null, null), (usage["usagePlanId"], usage["requestsPerSecond"], usage["eventsPerSecond"], usage["eventsPerDay"]));

        async Task<string> PolicyAsync() => (await client.GetAsync("/events")).Is(200).Headers["RateLimit-Policy"];
    }

    [Fact]
    public async Task A_plan_binds_no_admin_of_the_platform()
    {
        await using var fresh = await FreshAsync();
        using var admin = fresh.Host.Client();
        var plan = await NewPlanAsync(admin, 1, 1);
        var id = (await admin.GetAsync("/tenants")).Ids.Single();

        (await admin.PatchAsync($"/tenants/{id}", $$"""{"usagePlanId":"{{plan}}"}""")).Is(200);

        for (var i = 0; i < 5; i++)
            (await admin.GetAsync("/tenants")).Is(200);
        (await admin.PatchAsync($"/tenants/{id}", """{"usagePlanId":null}""")).Is(200);
    }

    [Fact]
    public async Task A_plan_that_is_not_there_is_refused()
    {
        using var admin = api.Host.Client();
        const string unknown = "pln_01jd0000000000000000000000";
        var tenant = await api.NewTenantAsync();

        foreach (var plan in new[] { unknown, "basic" })
        {
            Assert.Equal(["/usagePlanId"], (await admin.PostAsync("/tenants",
                $$"""{"name":"{{Guid.NewGuid()}}","usagePlanId":"{{plan}}"}""")).IsProblem(400, "invalid_request").Pointers);
            Assert.Equal(["/usagePlanId"], (await admin.PatchAsync($"/tenants/{tenant.Id}", $$"""{"usagePlanId":"{{plan}}"}"""))
                .IsProblem(400, "invalid_request").Pointers);
        }
        (await admin.PatchAsync("/tenants/ten_01jd0000000000000000000000", """{"name":"nobody"}""")).IsProblem(404, "not_found");
        Assert.Equal(
            ["/name"], (await admin.PatchAsync($"/tenants/{tenant.Id}", """{"name":"default"}""")).IsProblem(409, "name_taken").Pointers);
        Assert.Equal(
            ["/name"], (await admin.PatchAsync($"/tenants/{tenant.Id}", """{"name":null}""")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_plan_that_is_deleted_while_it_is_given_to_tenants_fails_nobody()
    {
        using var admin = api.Host.Client();
        for (var round = 0; round < 10; round++)
        {
            var plan = await NewPlanAsync(admin, 5, 10);

            var tenants = Enumerable.Range(0, 4)
                .Select(_ => admin.PostAsync("/tenants", $$"""{"name":"{{Guid.NewGuid()}}","usagePlanId":"{{plan}}"}""")).ToArray();
            var deleted = await admin.DeleteAsync($"/usage-plans/{plan}");

            var made = await Task.WhenAll(tenants);
            Assert.All(made, t => Assert.True(t.Status is 201 or 400, $"{t.Status} {t.Text}"));
            Assert.True(deleted.Status == (made.Any(t => t.Status == 201) ? 409 : 204), $"{deleted.Status} {deleted.Text}");
        }
    }

    [Fact]
    public async Task What_makes_deliveries_again_costs_an_event()
    {
        using var admin = api.Host.Client();
        var tenant = await api.NewTenantAsync();
        var plan = (await admin.PostAsync("/usage-plans",
            $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":1000,"burst":1000,"eventsPerDay":5}""")).Is(201).Id;
        var subscription = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        var delivery = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.DieAsync(delivery);
        (await admin.PatchAsync($"/tenants/{tenant.Id}", $$"""{"usagePlanId":"{{plan}}"}""")).Is(200);

        (await tenant.Client.PostAsync($"/dead-letters/{delivery}/replay")).Is(202);
        await ExpectUsedAsync(2);
        // What is refused costs nothing.
        (await tenant.Client.PostAsync("/events/evt_01jd0000000000000000000000/replay")).IsProblem(404, "not_found");
        await ExpectUsedAsync(2);
        (await tenant.Client.PostAsync(
            "/events/batch", """{"events":[{"type":"a","data":1},{"type":"a","data":1},{"type":"a","data":1}]}""")).Is(202);
        await ExpectUsedAsync(5);
        foreach (var path in new[]
            {
                $"/events/{e}/replay", $"/deliveries/{delivery}/replay",
                $"/dead-letters/{delivery}/replay", $"/deliveries/{delivery}/send-now",
                $"/subscriptions/{subscription}/test",
            })
        {
            (await tenant.Client.PostAsync(path)).IsProblem(429, "quota_exceeded");
        }

        // What waits for its next attempt costs what it is.
        await api.Rows.ClaimAsync(Rows.Uuid(subscription), worker: 1, TimeSpan.FromHours(1));
        await api.Rows.PutOffAsync(tenant.Key, TimeSpan.FromHours(1));
        (await tenant.Client.PostAsync($"/subscriptions/{subscription}/send-now")).IsProblem(429, "quota_exceeded");
        (await admin.PatchAsync($"/usage-plans/{plan}", """{"eventsPerDay":6}""")).Is(200);
        Assert.Equal("1", (await tenant.Client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202)["deliveries"]);
        await ExpectUsedAsync(6);
        Assert.Equal("0", (await tenant.Client.PostAsync($"/subscriptions/{subscription}/send-now")).Is(202)["deliveries"]);

        Task ExpectUsedAsync(int events) => Wait.UntilAsync($"{events} events are counted", async () =>
            (await admin.GetAsync($"/tenants/{tenant.Id}/usage")).Is(200)["eventsToday"] == events.ToString());
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
    }

    private async Task<ApiFixture> FreshAsync()
    {
        var fixture = new ApiFixture(postgres);
        await fixture.InitializeAsync();
        return fixture;
    }

    private static async Task<string> NewPlanAsync(ApiClient admin, int perSecond, int burst) => (await admin.PostAsync(
        "/usage-plans", $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":{{perSecond}},"burst":{{burst}}}""")).Is(201).Id;
}
