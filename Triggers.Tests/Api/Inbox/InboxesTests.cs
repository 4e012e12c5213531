using System.Globalization;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Inbox;

/// <summary>Making, changing and deleting inboxes. What is received from them is in <see cref="LeasesTests"/>.</summary>
public sealed class InboxesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task An_inbox_is_made_found_changed_and_deleted()
    {
        var tenant = await api.NewTenantAsync();

        var made = (await tenant.Client.PostAsync("/inboxes", """{"name":"billing","eventTypes":["order.*"]}""")).Is(201);
        Assert.Equal("/inboxes/billing", made.Headers["Location"]);
        Assert.Equal(("billing", "30", "10", "0"), (made["name"], made["lease"], made["maxDeliveries"], made["waiting"]));
        Assert.Equal(made.Text, (await tenant.Client.GetAsync("/inboxes/billing")).Is(200).Text);
        Assert.Equal([made.Id], (await tenant.Client.GetAsync("/inboxes")).Is(200).Ids);

        var changed = (await tenant.Client.PatchAsync(
            "/inboxes/billing", """{"eventTypes":["*"],"description":"Bills","lease":60,"maxDeliveries":3}""")).Is(200);
        Assert.Equal(("Bills", "60", "3"), (changed["description"], changed["lease"], changed["maxDeliveries"]));
        Assert.Equal("*", changed.Json["eventTypes"]!.AsArray().Single()!.GetValue<string>());
        Assert.Null(changed.Json["filter"]);
        foreach (var change in new[] { """{"filter":{"subject":["a"]}}""", """{"lease":61}""" })
        {
            Assert.Equal("""{"subject":["a"]}""", (await tenant.Client.PatchAsync("/inboxes/billing", change)).Is(200)
                .Json["filter"]!.ToJsonString());
        }
        Assert.Null((await tenant.Client.PatchAsync("/inboxes/billing", """{"filter":null}""")).Is(200).Json["filter"]);

        (await tenant.Client.DeleteAsync("/inboxes/billing")).Is(204);
        (await tenant.Client.GetAsync("/inboxes/billing")).IsProblem(404, "not_found");
        (await tenant.Client.DeleteAsync("/inboxes/billing")).IsProblem(404, "not_found");
        Assert.Empty((await tenant.Client.GetAsync("/inboxes")).Ids);
    }

    [Fact]
    public async Task It_is_no_webhook_subscription()
    {
        var tenant = await api.NewTenantAsync();
        var id = (await tenant.Client.PostAsync("/inboxes", """{"name":"billing","eventTypes":["*"]}""")).Is(201).Id;

        Assert.Empty((await tenant.Client.GetAsync("/subscriptions")).Is(200).Ids);
        (await tenant.Client.GetAsync($"/subscriptions/{id}")).IsProblem(404, "not_found");
        (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).IsProblem(404, "not_found");
        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).IsProblem(404, "not_found");
        (await tenant.Client.PostAsync($"/subscriptions/{id}/test")).IsProblem(404, "not_found");
        (await tenant.Client.PostAsync($"/subscriptions/{id}/secret/rotate")).IsProblem(404, "not_found");
    }

    [Fact]
    public async Task A_name_is_had_once_and_default_is_there_already()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/inboxes", """{"name":"a","eventTypes":["*"]}""")).Is(201);

        (await tenant.Client.PostAsync("/inboxes", """{"name":"a","eventTypes":["*"]}""")).IsProblem(409, "name_taken");
        (await tenant.Client.PostAsync("/inboxes", """{"name":"default","eventTypes":["*"]}""")).IsProblem(409, "name_taken");

        Assert.Empty((await tenant.Client.GetAsync("/inboxes/default")).Is(200).Json["eventTypes"]!.AsArray());
        Assert.Equal("90", (await tenant.Client.PatchAsync("/inboxes/default", """{"lease":90}""")).Is(200)["lease"]);
        Assert.Equal(["/eventTypes"], (await tenant.Client.PatchAsync("/inboxes/default", """{"eventTypes":["*"]}"""))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/filter"], (await tenant.Client.PatchAsync("/inboxes/default", """{"filter":{"subject":["a"]}}"""))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Single((await tenant.Client.GetAsync("/inboxes")).Is(200).Ids);
    }

    [Fact]
    public async Task There_are_no_more_than_may_be()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:InboxesPerTenant", "1"));
        var tenant = await api.NewTenantAsync();
        using var client = host.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();
        (await client.GetAsync("/inboxes/default")).Is(200);
        (await client.PostAsync("/inboxes", """{"name":"a","eventTypes":["*"]}""")).Is(201);

        (await client.PostAsync("/inboxes", """{"name":"b","eventTypes":["*"]}""")).IsProblem(409, "limit_reached");
    }

    [Theory]
    [InlineData("/inboxes", """{"name":"a b","eventTypes":["*"]}""", "/name")]
    [InlineData("/inboxes", """{"name":"","eventTypes":[]}""", "/name", "/eventTypes")]
    [InlineData("/inboxes", """{"name":"a","eventTypes":["triggers.test"],"lease":0,"maxDeliveries":0,"filter":{"data":{"a":[{"x":1}]}}}""",
        "/filter/data/a/0", "/eventTypes/0", "/lease", "/maxDeliveries")]
    [InlineData("/inboxes/default/receive", """{"max":0,"wait":31,"lease":43201,"types":["a b"],"more":1}""",
        "/max", "/wait", "/lease", "/types/0", "/more")]
    [InlineData("/inboxes/default/acknowledge", """{"leases":[]}""", "/leases")]
    [InlineData("/inboxes/default/acknowledge", """{"leases":["dlv_01jd0000000000000000000000.0","x","dlv_01jd0000000000000000000000"]}""",
        "/leases/0", "/leases/1", "/leases/2")]
    [InlineData("/inboxes/default/release", """{"leases":["dlv_01jd0000000000000000000000.1"],"delay":-1}""", "/delay")]
    [InlineData("/inboxes/default/extend", """{"leases":["dlv_01jd0000000000000000000000.1"]}""", "/lease")]
    public async Task What_makes_no_sense_is_refused_at_its_place(string path, string body, params string[] pointers)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal(pointers.Order(), (await tenant.Client.PostAsync(path, body)).IsProblem(400, "invalid_request").Pointers.Order());
    }

    [Fact]
    public async Task The_oldest_event_of_the_default_inbox_is_known_wherever_it_waits()
    {
        var tenant = await api.NewTenantAsync();
        Assert.Null(await OldestAsync());
        var old = await tenant.Client.PublishAsync("old");
        await tenant.Client.PublishAsync("new");
        await api.Rows.ProjectAsync();
        Assert.Equal(TypeId.CreatedAt(Rows.Uuid(old)), await OldestAsync());

        // One that was received is in the queue, where those that were not are not.
        foreach (var type in new[] { "new", "old" })
        {
            Assert.Single((await tenant.Client.PostAsync("/inbox/receive", $$"""{"types":["{{type}}"]}""")).Is(200)
                .Json["items"]!.AsArray());
            Assert.Equal(TypeId.CreatedAt(Rows.Uuid(old)), await OldestAsync());
        }

        async Task<DateTimeOffset?> OldestAsync() =>
            (await tenant.Client.GetAsync("/inboxes/default")).Is(200)["oldestEventAt"] is { Length: > 0 } oldest
                ? DateTimeOffset.Parse(oldest, CultureInfo.InvariantCulture) : null;
    }

    [Fact]
    public async Task A_lease_of_another_inbox_is_not_found()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/inboxes", """{"name":"a","eventTypes":["*"]}""")).Is(201);
        await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        var lease = (await tenant.Client.PostAsync("/inbox/receive")).Is(200).Json["items"]![0]!["lease"]!.GetValue<string>();
        var stranger = await api.NewTenantAsync();

        Assert.Equal("not_found", await AcknowledgeAsync(tenant.Client, "a"));
        Assert.Equal("not_found", await AcknowledgeAsync(stranger.Client, "default"));
        Assert.Equal("acknowledged", await AcknowledgeAsync(tenant.Client, "default"));

        async Task<string> AcknowledgeAsync(ApiClient client, string inbox) =>
            (await client.PostAsync($"/inboxes/{inbox}/acknowledge", $$"""{"leases":["{{lease}}"]}""")).Is(200)
                .Json["items"]![0]!["status"]!.GetValue<string>();
    }
}
