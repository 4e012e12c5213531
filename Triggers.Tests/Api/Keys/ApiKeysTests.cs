using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Keys;

public sealed class ApiKeysTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_key_is_shown_once_and_stored_as_a_hash()
    {
        using var admin = api.Host.Client();

        var made = (await admin.PostAsync("/api-keys",
            """{"name":"checkout","scopes":["events:write","events:write"],"expiresAt":"2099-01-01T00:00:00Z","requestsPerSecond":5,"burst":7}""")).Is(201);

        var secret = made["secret"]!;
        Assert.Matches("^trg_[A-Za-z0-9_-]{43}$", secret);
        Assert.Equal($"/api-keys/{made.Id}", made.Headers["Location"]);
        Assert.Equal(secret[..12], made["prefix"]);
        Assert.Equal("""["events:write"]""", made.Json["scopes"]!.ToJsonString());
        var read = (await admin.GetAsync($"/api-keys/{made.Id}")).Is(200);
        Assert.DoesNotContain(secret, read.Text + (await admin.GetAsync("/api-keys")).Text);
        Assert.Equal(7, read.Json["burst"]!.GetValue<int>());
        Assert.Equal(0L, await api.Rows.ScalarAsync<long>(
            "SELECT count(*) FROM api_keys k WHERE k::text LIKE '%' || @secret || '%'", ("secret", secret)));
        using var client = api.Host.Client(secret);
        (await client.PostAsync("/events", """{"type":"a","data":1}""")).Is(202);
        (await client.GetAsync("/events")).IsProblem(403, "forbidden");
    }

    [Theory]
    [InlineData("Bearer")]
    [InlineData("bearer")]
    public async Task A_key_can_come_as_a_bearer_token(string scheme)
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        using var client = api.Host.Client(null);

        (await client.SendAsync(HttpMethod.Get, "/events", null, ("Authorization", $"{scheme} {key}"))).Is(200);
    }

    [Theory]
    [InlineData("X-API-Key", "")]
    [InlineData("X-API-Key", "trg_unknown")]
    [InlineData("Authorization", "Bearer ")]
    [InlineData("Authorization", "Bearer trg_unknown")]
    [InlineData("Authorization", "Basic YTpi")]
    public async Task Without_a_valid_key_nobody_is_let_in(string header, string value)
    {
        using var client = api.Host.Client(null);

        var answer = (await client.SendAsync(HttpMethod.Get, "/events", null, (header, value))).IsProblem(401, "unauthenticated");

        Assert.StartsWith("Bearer", answer.Headers["WWW-Authenticate"]);
    }

    [Fact]
    public async Task A_revoked_key_is_refused_everywhere_within_5_seconds()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        await using var otherHost = new ApiHost(api.ConnectionString);
        using var here = api.Host.Client(key);
        using var there = otherHost.Client(key);
        (await here.GetAsync("/events")).Is(200);
        (await there.GetAsync("/events")).Is(200);
        using var admin = api.Host.Client();
        var id = (await admin.GetAsync($"/api-keys?tenantId={tenant.Id}&limit=1")).Ids.Single();

        (await admin.DeleteAsync($"/api-keys/{id}?tenantId={tenant.Id}")).Is(204);

        (await here.GetAsync("/events")).IsProblem(401, "unauthenticated");
        await Wait.UntilAsync(
            "the other process refuses it", async () => (await there.GetAsync("/events")).Status == 401, TimeSpan.FromSeconds(5));
        (await admin.DeleteAsync($"/api-keys/{id}?tenantId={tenant.Id}")).Is(204);
        Assert.NotNull((await admin.GetAsync($"/api-keys/{id}?tenantId={tenant.Id}")).Is(200)["revokedAt"]);
    }

    [Fact]
    public async Task An_expired_key_is_refused()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        await api.Rows.ExecuteAsync(
            "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE tenant_id = @tenant", ("tenant", tenant.Key));
        using var client = api.Host.Client(key);

        (await client.GetAsync("/events")).IsProblem(401, "unauthenticated");
    }

    [Fact]
    public async Task Rotating_makes_a_new_key_and_lets_the_old_one_expire()
    {
        var tenant = await api.NewTenantAsync();
        var old = (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"],"requestsPerSecond":5}""")).Is(201);

        var overlapping = (await tenant.Client.PostAsync($"/api-keys/{old.Id}/rotate")).Is(201);
        var expires = DateTimeOffset.Parse((await tenant.Client.GetAsync($"/api-keys/{old.Id}")).Is(200)["expiresAt"]!);
        Assert.InRange(expires - TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(23.9), TimeSpan.FromHours(24.1));
        Assert.NotEqual(old.Id, overlapping.Id);
        Assert.Equal("5", overlapping["requestsPerSecond"]);
        Assert.Equal(old.Json["scopes"]!.ToJsonString(), overlapping.Json["scopes"]!.ToJsonString());
        foreach (var secret in new[] { old["secret"], overlapping["secret"] })
        {
            using var client = api.Host.Client(secret);
            (await client.GetAsync("/events")).Is(200);
        }

        (await tenant.Client.PostAsync($"/api-keys/{old.Id}/rotate", """{"overlapSeconds":0}""")).Is(201);
        using var ended = api.Host.Client(old["secret"]);
        (await ended.GetAsync("/events")).IsProblem(401, "unauthenticated");
        (await tenant.Client.PostAsync($"/api-keys/{old.Id}/rotate")).IsProblem(404, "not_found");
        Assert.Equal(["/overlapSeconds"], (await tenant.Client.PostAsync(
            $"/api-keys/{overlapping.Id}/rotate", """{"overlapSeconds":604801}""")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task Nobody_makes_or_takes_over_a_key_that_may_do_more()
    {
        var tenant = await api.NewTenantAsync("keys:write", "events:read");
        using var strong = api.Host.Client(await api.NewKeyAsync(tenant.Id, "tenant:admin"));
        var strongId = (await tenant.Client.GetAsync("/api-keys?limit=1")).Ids.Single();

        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:write"]}""")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["admin"]}""")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["tenant:admin"]}""")).IsProblem(403, "forbidden");
        (await tenant.Client.PatchAsync($"/api-keys/{strongId}", """{"name":"mine"}""")).IsProblem(403, "forbidden");
        (await strong.PostAsync("/api-keys", """{"name":"k","scopes":["admin"]}""")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync($"/api-keys/{strongId}/rotate")).IsProblem(403, "forbidden");
        (await tenant.Client.DeleteAsync($"/api-keys/{strongId}")).IsProblem(403, "forbidden");
        (await strong.GetAsync("/events")).Is(200);
        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201);
    }

    [Fact]
    public async Task Only_an_admin_names_another_tenant()
    {
        var tenant = await api.NewTenantAsync();
        var other = await api.NewTenantAsync();
        var id = (await other.Client.GetAsync("/api-keys")).Ids.Single();

        (await tenant.Client.GetAsync($"/api-keys?tenantId={other.Id}")).IsProblem(403, "forbidden");
        (await tenant.Client.GetAsync($"/api-keys/{id}?tenantId={other.Id}")).IsProblem(403, "forbidden");
        (await tenant.Client.DeleteAsync($"/api-keys/{id}?tenantId={other.Id}")).IsProblem(403, "forbidden");
        (await tenant.Client.PostAsync("/api-keys", $$"""{"name":"k","scopes":["events:read"],"tenantId":"{{other.Id}}"}"""))
            .IsProblem(403, "forbidden");
        (await tenant.Client.GetAsync($"/api-keys/{id}")).IsProblem(404, "not_found");
        using var admin = api.Host.Client();
        (await admin.GetAsync($"/api-keys/{id}")).IsProblem(404, "not_found");
        (await admin.GetAsync($"/api-keys/{id}?tenantId={other.Id}")).Is(200);
        (await admin.GetAsync("/api-keys?tenantId=ten_01jd0000000000000000000000")).IsProblem(400, "invalid_request");
        (await admin.GetAsync("/api-keys?tenantId=x")).IsProblem(400, "invalid_request");
        // Elsewhere even an admin sees its own tenant alone.
        var e = await tenant.Client.PublishAsync();
        (await admin.GetAsync($"/events/{e}")).IsProblem(404, "not_found");
    }

    [Theory]
    [InlineData("""{"scopes":["admin"]}""", "/name")]
    [InlineData("""{"name":"k"}""", "/scopes")]
    [InlineData("""{"name":"k","scopes":[]}""", "/scopes")]
    [InlineData("""{"name":"k","scopes":["root"]}""", "/scopes/0")]
    [InlineData("""{"name":"k","scopes":["admin"],"expiresAt":"2020-01-01T00:00:00Z"}""", "/expiresAt")]
    [InlineData("""{"name":"k","scopes":["admin"],"burst":0}""", "/burst")]
    [InlineData("""{"name":"k","scopes":["admin"],"requestsPerSecond":1.5}""", "/requestsPerSecond")]
    [InlineData("""{"name":"k","scopes":["admin"],"tenantId":"ten_x"}""", "/tenantId")]
    [InlineData("""{"name":"k","scopes":["admin"],"secret":"mine"}""", "/secret")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        using var admin = api.Host.Client();

        Assert.Equal([place], (await admin.PostAsync("/api-keys", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task When_a_key_was_used_is_noted_to_about_a_minute()
    {
        var tenant = await api.NewTenantAsync();
        var id = (await tenant.Client.GetAsync("/api-keys")).Ids.Single();

        await Wait.UntilAsync("the use is noted", async () =>
            (await tenant.Client.GetAsync($"/api-keys/{id}")).Is(200)["lastUsedAt"] is { } used
            && TimeProvider.System.GetUtcNow() - DateTimeOffset.Parse(used) < TimeSpan.FromMinutes(1));
        var noted = (await tenant.Client.GetAsync($"/api-keys/{id}"))["lastUsedAt"];
        for (var i = 0; i < 20; i++)
            Assert.Equal(noted, (await tenant.Client.GetAsync($"/api-keys/{id}"))["lastUsedAt"]);
    }

    [Fact]
    public async Task Tenants_have_unique_names()
    {
        using var admin = api.Host.Client();

        var made = (await admin.PostAsync("/tenants", """{"name":"unique"}""")).Is(201);

        Assert.Equal($"/tenants/{made.Id}", made.Headers["Location"]);
        Assert.Equal(made.Text, (await admin.GetAsync($"/tenants/{made.Id}")).Is(200).Text);
        Assert.Contains(made.Id, (await admin.GetAsync("/tenants")).Is(200).Ids);
        Assert.Equal(["/name"], (await admin.PostAsync("/tenants", """{"name":"unique"}""")).IsProblem(409, "name_taken").Pointers);
        Assert.Equal(["/name"], (await admin.PostAsync("/tenants", """{"name":""}""")).IsProblem(400, "invalid_request").Pointers);
        (await admin.GetAsync("/tenants/ten_01jd0000000000000000000000")).IsProblem(404, "not_found");
        var page = (await admin.GetAsync("/tenants?limit=1")).Is(200);
        Assert.NotEqual(page.Ids, (await admin.GetAsync($"/tenants?limit=1&cursor={page.NextCursor}")).Is(200).Ids);
    }
}
