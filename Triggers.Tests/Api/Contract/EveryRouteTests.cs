using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Api.Auth;
using Triggers.Api.Operations;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Contract;

/// <summary>Walks every route there is, so that one that is added is held to the same without anybody remembering.</summary>
public sealed class EveryRouteTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private static readonly string[] s_open =
        ["/", "/health", "/health/live", "/health/ready", "/openapi/v1.json", "/scalar", "/.well-known/webhooks-keys"];

    [Fact]
    public void Every_route_says_what_it_is_and_who_may_call_it()
    {
        var open = api.Host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            .Where(e => e.Metadata.GetMetadata<RequiredScope>() is null).ToArray();

        Assert.All(open, e => Assert.NotNull(e.Metadata.GetMetadata<IAllowAnonymous>()));
        Assert.All(open, e => Assert.Contains(s_open, path => IsAt(path, "/" + e.RoutePattern.RawText!.TrimStart('/'))));
        Assert.True(Routes().Count >= 30, "routes are missing");
        Assert.All(Routes(), route => Assert.Contains(route.Scope, Scopes.All));
        Assert.Equal(Routes().Count, Routes().Select(r => r.Operation.Id).Distinct().Count());
    }

    [Fact]
    public async Task Without_a_key_every_route_answers_401()
    {
        using var client = api.Host.Client(null);

        foreach (var route in Routes())
            (await client.SendAsync(route.Method, route.PathWith("evt_01jd0000000000000000000000"), route.Body))
                .IsProblem(401, "unauthenticated");
    }

    [Fact]
    public async Task Without_its_scope_every_route_answers_403_and_names_it()
    {
        var tenant = await api.NewTenantAsync();
        foreach (var scope in Scopes.All)
        {
            // Every scope of a tenant but this one.
            using var client = api.Host.Client(
                await api.NewKeyAsync(tenant.Id, [.. Scopes.All.Where(s => s != scope && s is not (Scopes.Admin or Scopes.TenantAdmin))]));
            foreach (var route in Routes().Where(r => r.Scope == scope))
            {
                var answer = (await client.SendAsync(route.Method, route.PathWith("evt_01jd0000000000000000000000"), route.Body))
                    .IsProblem(403, "forbidden");
                Assert.Contains(scope, answer["detail"]);
            }
        }
    }

    [Fact]
    public async Task Another_tenants_things_are_404_on_every_route_and_stay_as_they_are()
    {
        var owner = await api.NewTenantAsync();
        var ids = await ThingsOfAsync(owner);
        var before = await SnapshotAsync(owner, ids);
        var stranger = await api.NewTenantAsync();
        // Even an admin is a stranger to other tenants, unless it names them.
        using var admin = api.Host.Client();

        var walked = 0;
        foreach (var route in Routes().Where(r => r.TakesId && r.Scope != Scopes.Admin))
        {
            var path = route.PathWith(ids[route.Noun]);
            (await stranger.Client.SendAsync(route.Method, path, route.Body)).IsProblem(404, "not_found");
            // It names a tenant by asking for it.
            if (route.Noun != "tenants")
                (await admin.SendAsync(route.Method, path, route.Body)).IsProblem(404, "not_found");
            walked++;
        }

        Assert.True(walked >= 15, $"only {walked} routes take an id");
        Assert.Equal(before, await SnapshotAsync(owner, ids));
    }

    [Fact]
    public async Task Another_tenants_things_are_on_no_list()
    {
        var owner = await api.NewTenantAsync();
        var ids = await ThingsOfAsync(owner);
        var stranger = await api.NewTenantAsync();
        var mine = (await stranger.Client.GetAsync("/api-keys")).Ids;

        foreach (var route in Routes().Where(r => r.Operation.IsList && !r.TakesId && r.Scope != Scopes.Admin))
            Assert.Equal(route.Noun == "api-keys" ? mine : [], (await stranger.Client.GetAsync(route.Path)).Is(200).Ids);
        Assert.Empty((await stranger.Client.GetAsync("/asyncapi.json")).Is(200).Json["channels"]!.AsObject());
        foreach (var filter in new[] { $"eventId={ids["events"]}", $"subscriptionId={ids["subscriptions"]}" })
        {
            Assert.Empty((await stranger.Client.GetAsync($"/deliveries?{filter}")).Is(200).Ids);
            Assert.Empty((await stranger.Client.GetAsync($"/dead-letters?{filter}")).Is(200).Ids);
        }
        var e = await stranger.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        (await stranger.Client.PostAsync($"/events/{e}/replay", $$"""{"subscriptionIds":["{{ids["subscriptions"]}}"]}"""))
            .IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task A_body_that_is_no_JSON_or_no_object_is_refused_by_every_route_that_takes_one()
    {
        var tenant = await api.NewTenantAsync();
        var ids = await ThingsOfAsync(tenant);
        using var platform = api.Host.Client();

        foreach (var route in Routes().Where(r => r.Operation.Body is not null))
        {
            var admin = route.Scope == Scopes.Admin ? platform : tenant.Client;
            var path = route.PathWith(ids.GetValueOrDefault(route.Noun, ""));
            (await admin.SendAsync(route.Method, path, "{")).IsProblem(400, "malformed_json");
            (await admin.SendAsync(route.Method, path, "[]")).IsProblem(400, "invalid_request");
            (await admin.SendAsync(route.Method, path, "{\"no such member\":1}")).IsProblem(400, "invalid_request");
            using var text = new HttpRequestMessage(route.Method, path) { Content = new StringContent("{}") };
            (await admin.SendAsync(text)).IsProblem(415, "unsupported_media_type");
            using var large = new HttpRequestMessage(route.Method, path) { Content = new ByteArrayContent(new byte[4 * 1024 * 1024 + 1]) };
            large.Content.Headers.ContentType = new("application/json");
            (await admin.SendAsync(large)).IsProblem(413, "payload_too_large");
        }
    }

    [Fact]
    public async Task Unknown_paths_and_methods_have_the_shape_of_every_error()
    {
        var tenant = await api.NewTenantAsync();

        (await tenant.Client.GetAsync("/nowhere")).IsProblem(404, "not_found");
        (await tenant.Client.SendAsync(HttpMethod.Put, "/events", "{}")).IsProblem(405, "method_not_allowed");
        var allowed = (await tenant.Client.DeleteAsync("/events")).IsProblem(405, "method_not_allowed").Headers["Allow"];
        Assert.Equal(["GET", "HEAD", "POST"], allowed.Split(',', StringSplitOptions.TrimEntries).Order());
    }

    private static bool IsAt(string open, string path) => path == open || open != "/" && path.StartsWith(open, StringComparison.Ordinal);

    private async Task<Dictionary<string, string>> ThingsOfAsync(TestTenant tenant)
    {
        var subscription = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        var delivery = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.DieAsync(delivery);
        return new Dictionary<string, string>
        {
            ["events"] = e,
            ["subscriptions"] = subscription,
            ["deliveries"] = delivery,
            ["dead-letters"] = delivery,
            ["api-keys"] = (await tenant.Client.GetAsync("/api-keys")).Ids[0],
            ["tenants"] = tenant.Id,
            ["inboxes"] = (await tenant.Client.PostAsync("/inboxes", """{"name":"mine","eventTypes":["*"]}""")).Is(201)["name"]!,
            ["event-types"] = (await tenant.Client.PostAsync("/event-types", """{"name":"mine","schema":true}""")).Is(201)["name"]!,
            ["usage-plans"] = await UsagePlanAsync(),
            ["replays"] = (await tenant.Client.PostAsync(
                "/replays", $$"""{"subscriptionId":"{{subscription}}","from":"2026-01-01T00:00:00Z"}""")).Is(202).Id,
        };
    }

    private async Task<string> UsagePlanAsync()
    {
        using var admin = api.Host.Client();
        return (await admin.PostAsync("/usage-plans", $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":1000,"burst":1000}"""))
            .Is(201).Id;
    }

    private static async Task<string> SnapshotAsync(TestTenant tenant, Dictionary<string, string> ids)
    {
        var parts = new List<string>();
        foreach (var (noun, id) in ids.Where(pair => pair.Key is not ("tenants" or "usage-plans")))
        {
            var answer = (await tenant.Client.GetAsync($"/{noun}/{id}")).Is(200).Json.AsObject();
            answer.Remove("lastUsedAt");
            parts.Add(answer.ToJsonString());
        }
        return string.Join("\n", parts);
    }

    private List<Route> Routes() =>
    [
        .. from endpoint in api.Host.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
           let scope = endpoint.Metadata.GetMetadata<RequiredScope>()
           where scope is not null
           from method in endpoint.Metadata.GetRequiredMetadata<IHttpMethodMetadata>().HttpMethods
           select new Route(new HttpMethod(method), "/"
               + endpoint.RoutePattern.RawText!.TrimStart('/'), scope.Scope, endpoint.Metadata.GetRequiredMetadata<Operation>()),
    ];

    private sealed record Route(HttpMethod Method, string Path, string Scope, Operation Operation)
    {
        public bool TakesId => Path.Contains("{id}") || Path.Contains("{name}");

        public string Noun => Path.Split('/')[1];

        /// <summary>A body that is well-formed, so that it is not the body that is refused.</summary>
        public string? Body => Operation.Body is null ? null : JsonNode.Parse(Operation.Body.Example)!.ToJsonString();

        public string PathWith(string id) => Path.Replace("{id}", id).Replace("{name}", id);
    }
}
