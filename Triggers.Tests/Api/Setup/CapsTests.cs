using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

/// <summary>There is never more than there may be, whoever makes it at the same time.</summary>
public sealed class CapsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Of_many_that_subscribe_at_once_those_get_through_that_there_is_room_for()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:SubscriptionsPerTenant", "3"));
        var tenant = await api.NewTenantAsync();
        using var client = host.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 12).Select(_ =>
            client.PostAsync("/subscriptions", """{"url":"https://receiver.example/","eventTypes":["*"]}""")));

        var made = answers.Where(a => a.Status == 201).ToArray();
        Assert.Equal(3, made.Length);
        Assert.All(answers.Except(made), a => a.IsProblem(409, "limit_reached"));
        (await client.DeleteAsync($"/subscriptions/{made[0].Id}")).Is(204);
        await client.SubscribeAsync();
        // Another tenant has its own.
        using var other = host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id));
        await other.SubscribeAsync();
    }

    [Fact]
    public async Task Of_many_that_make_keys_at_once_those_get_through_that_there_is_room_for()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:KeysPerTenant", "4"));
        var tenant = await api.NewTenantAsync();
        using var client = host.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();

        // The tenant has two.
        var answers = await Task.WhenAll(
            Enumerable.Range(0, 12).Select(i => client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")));

        var made = answers.Where(a => a.Status == 201).ToArray();
        Assert.Equal(2, made.Length);
        Assert.All(answers.Except(made), a => a.IsProblem(409, "limit_reached"));
        (await client.PostAsync($"/api-keys/{made[0].Id}/rotate")).IsProblem(409, "limit_reached");
        using (var stays = host.Client(made[0]["secret"]))
            (await stays.GetAsync("/events")).Is(200);
        // One that ends at once leaves its place to the other.
        (await client.PostAsync($"/api-keys/{made[0].Id}/rotate", """{"overlapSeconds":0}""")).Is(201);
        (await client.DeleteAsync($"/api-keys/{made[1].Id}")).Is(204);
        (await client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""")).Is(201);
    }

    [Fact]
    public async Task Of_many_that_make_tenants_at_once_those_get_through_that_there_is_room_for()
    {
        using var admin = api.Host.Client();
        var there = (await admin.GetAsync("/tenants?limit=200")).Ids.Length;
        await using var host = new ApiHost(api.ConnectionString, ("Limits:Tenants", $"{there + 2}"));
        using var client = host.Client();
        await client.WaitUntilReadyAsync();

        var answers = await Task.WhenAll(
            Enumerable.Range(0, 12).Select(_ => client.PostAsync("/tenants", $$"""{"name":"{{Guid.NewGuid()}}"}""")));

        Assert.Equal(2, answers.Count(a => a.Status == 201));
        Assert.All(answers.Where(a => a.Status != 201), a => a.IsProblem(409, "limit_reached"));
    }

    [Fact]
    public async Task A_subscription_has_as_many_patterns_headers_and_events_of_a_batch_as_it_may()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:EventTypesPerSubscription", "2"),
            ("Limits:HeadersPerSubscription", "1"), ("Limits:EventsPerBatch", "5"));
        using var client = host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id));
        await client.WaitUntilReadyAsync();
        const string url = "\"url\":\"https://receiver.example/\"";
        var id = (await client.PostAsync("/subscriptions", $$$"""{{{{url}}},"eventTypes":["a","b"],"headers":{"x-a":"1"}}""")).Is(201).Id;

        Assert.Equal(["/eventTypes"], (await client.PostAsync(
            "/subscriptions", $$"""{{{url}},"eventTypes":["a","b","c"]}""")).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/headers"], (await client.PostAsync(
            "/subscriptions", $$$"""{{{{url}}},"eventTypes":["a"],"headers":{"x-a":"1","x-b":"2"}}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/eventTypes"], (await client.PatchAsync($"/subscriptions/{id}", """{"eventTypes":["a","b","c"]}"""))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/headers"], (await client.PatchAsync(
            $"/subscriptions/{id}", """{"headers":{"x-a":"1","x-b":"2"}}""")).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/batch/max"], (await client.PostAsync(
            "/subscriptions", $$$"""{{{{url}}},"eventTypes":["a"],"batch":{"max":6}}""")).IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/batch/max"], (await client.PatchAsync($"/subscriptions/{id}", """{"batch":{"max":6}}"""))
            .IsProblem(400, "invalid_request").Pointers);
        (await client.PatchAsync($"/subscriptions/{id}", """{"batch":{"max":5}}""")).Is(200);
    }
}
