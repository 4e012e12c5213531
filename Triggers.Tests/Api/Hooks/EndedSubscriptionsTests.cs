using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Hooks;

/// <summary>
/// Subscriptions whose time is over count as deleted at once: here nobody runs who deletes them. And hooks, as far as nothing is sent.
/// </summary>
public sealed class EndedSubscriptionsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Url = "https://hooks.example.com/1";

    [Fact]
    public async Task What_has_ended_is_nowhere()
    {
        var client = (await api.NewTenantAsync()).Client;
        var id = (await HookAsync(client)).Id;
        await EndAsync(id);

        Assert.Empty((await client.GetAsync("/subscriptions")).Is(200).Ids);
        foreach (var path in new[] { "", "/retry-preview" })
            (await client.GetAsync($"/subscriptions/{id}{path}")).IsProblem(404, "not_found");
        foreach (var path in new[] { "/test", "/verify", "/send-now", "/secret/rotate", "/circuit/open" })
            (await client.PostAsync($"/subscriptions/{id}{path}")).IsProblem(404, "not_found");
        (await client.PatchAsync($"/subscriptions/{id}", """{"expiresAt":null}""")).IsProblem(404, "not_found");
        (await client.DeleteAsync($"/subscriptions/{id}")).IsProblem(404, "not_found");
        (await client.PostAsync("/replays", $$"""{"subscriptionId":"{{id}}","from":"2026-01-01T00:00:00Z"}"""))
            .IsProblem(409, "subscription_gone");
        var e = await client.PublishAsync();
        await api.Rows.ProjectAsync();
        (await client.PostAsync($"/events/{e}/replay", $$"""{"subscriptionIds":["{{id}}"]}""")).IsProblem(409, "subscription_gone");
        // Its address is free.
        Assert.NotEqual(id, (await HookAsync(client)).Id);
    }

    [Fact]
    public async Task An_end_must_be_to_come_and_can_be_taken_away()
    {
        var client = (await api.NewTenantAsync()).Client;
        foreach (var (path, name) in new[] { ("/hooks", "targetUrl"), ("/subscriptions", "url") })
        {
            Assert.Equal(["/expiresAt"], (await client.PostAsync(
                path, $$"""{"{{name}}":"{{Url}}","eventTypes":["*"],"expiresAt":"2020-01-01T00:00:00Z"}"""))
                .IsProblem(400, "invalid_request").Pointers);
        }
        var id = (await HookAsync(client)).Id;
        (await client.PatchAsync($"/subscriptions/{id}", """{"expiresAt":"2020-01-01T00:00:00Z"}""")).IsProblem(400, "invalid_request");

        Assert.Equal("2099-01-01T00:00:00Z", (await client.PatchAsync($"/subscriptions/{id}", """{"description":"d"}""")).Is(200)["expiresAt"]);
        Assert.Null((await client.PatchAsync($"/subscriptions/{id}", """{"expiresAt":null}""")).Is(200)["expiresAt"]);
    }

    [Fact]
    public async Task A_hook_is_one_of_its_tenant()
    {
        var (owner, stranger) = ((await api.NewTenantAsync()).Client, (await api.NewTenantAsync()).Client);
        var id = (await HookAsync(owner)).Id;

        (await stranger.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Url}}"}""")).Is(204);
        Assert.NotEqual(id, (await HookAsync(stranger)).Id);
        (await stranger.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Url}}"}""")).Is(204);

        Assert.Equal([id], (await owner.GetAsync("/subscriptions")).Is(200).Ids);
    }

    [Fact]
    public async Task Subscribing_again_enables_what_failed_and_not_what_somebody_disabled()
    {
        var client = (await api.NewTenantAsync()).Client;
        var id = (await HookAsync(client)).Id;
        await api.Rows.ExecuteAsync(
            $"UPDATE subscriptions SET enabled = false, disabled_reason = 'failing' WHERE id = '{Rows.Uuid(id)}'");
        Assert.True((await HookAsync(client)).Json["enabled"]!.GetValue<bool>());

        (await client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).Is(200);

        Assert.False((await HookAsync(client)).Json["enabled"]!.GetValue<bool>());
        Assert.Equal("requested", (await client.GetAsync($"/subscriptions/{id}")).Is(200)["disabledReason"]);

        // Who disables what has failed means it as well.
        await api.Rows.ExecuteAsync($"UPDATE subscriptions SET disabled_reason = 'failing' WHERE id = '{Rows.Uuid(id)}'");
        (await client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).Is(200);
        Assert.False((await HookAsync(client)).Json["enabled"]!.GetValue<bool>());
    }

    [Fact]
    public async Task A_hook_gets_no_address_of_another_until_that_has_ended()
    {
        var client = (await api.NewTenantAsync()).Client;
        var there = (await HookAsync(client)).Id;
        var other = (await client.PostAsync("/hooks", $$"""{"targetUrl":"{{Url}}/other","eventTypes":["*"]}""")).Is(201).Id;
        Task<Answer> MoveAsync(string id) => client.PatchAsync($"/subscriptions/{id}", $$"""{"url":"{{Url}}"}""");

        Assert.Equal(["/url"], (await MoveAsync(other)).IsProblem(409, "name_taken").Pointers);
        // It is there already, and what is no hook may be at any address.
        (await MoveAsync(there)).Is(200);
        (await MoveAsync(await client.SubscribeAsync())).Is(200);

        await EndAsync(there);
        Assert.Equal(Url, (await MoveAsync(other)).Is(200)["url"]);
    }

    [Fact]
    public async Task The_same_request_gets_the_same_secret_once_more()
    {
        var client = (await api.NewTenantAsync()).Client;

        var (first, again) = (await HookAsync(client, ("Idempotency-Key", "k")), await HookAsync(client, ("Idempotency-Key", "k")));

        Assert.NotNull(first["secret"]);
        Assert.Equal(first.Text, again.Text);
    }

    private static async Task<Answer> HookAsync(ApiClient client, params (string Name, string Value)[] headers) =>
        (await client.PostAsync(
            "/hooks", $$"""{"targetUrl":"{{Url}}","eventTypes":["*"],"expiresAt":"2099-01-01T00:00:00Z"}""", headers)).Is(201);

    private Task EndAsync(string id) =>
        api.Rows.ExecuteAsync($"UPDATE subscriptions SET expires_at = now() - interval '1 second' WHERE id = '{Rows.Uuid(id)}'");
}
