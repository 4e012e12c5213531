using System.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Api.Inbox;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Inbox;

public sealed class InboxTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task What_nobody_got_is_in_the_inbox_oldest_first_until_it_is_acknowledged()
    {
        var tenant = await api.NewTenantAsync();
        var first = await tenant.Client.PublishAsync("a", "{\"n\":  1}");
        var second = await tenant.Client.PublishAsync("b");
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
        await api.Rows.ProjectAsync();

        var inbox = (await tenant.Client.GetAsync("/inbox")).Is(200);
        Assert.Equal([first, second], inbox.Ids);
        Assert.Contains("{\"n\":  1}", inbox.Text);
        Assert.Equal([second], (await tenant.Client.GetAsync("/inbox?type=b")).Ids);

        var acknowledged = (await tenant.Client.PostAsync($"/events/{first}/acknowledge")).Is(200);
        Assert.Equal(first, acknowledged.Id);
        Assert.Equal("delivered", acknowledged["status"]);
        Assert.Equal(acknowledged.Text, (await tenant.Client.PostAsync($"/events/{first}/acknowledge")).Is(200).Text);
        Assert.Equal([second], (await tenant.Client.GetAsync("/inbox")).Ids);
    }

    [Fact]
    public async Task The_inbox_is_read_page_by_page()
    {
        var tenant = await api.NewTenantAsync();
        var ids = new List<string>();
        for (var i = 0; i < 5; i++)
            ids.Add(await tenant.Client.PublishAsync());
        await api.Rows.ProjectAsync();

        var page = (await tenant.Client.GetAsync("/inbox?limit=3")).Is(200);
        var next = (await tenant.Client.GetAsync($"/inbox?limit=3&cursor={page.NextCursor}")).Is(200);

        Assert.Equal(ids, [.. page.Ids, .. next.Ids]);
        Assert.Null(next.NextCursor);
    }

    [Fact]
    public async Task A_push_that_succeeded_empties_it_and_one_that_died_takes_its_event_out_too()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var delivered = await tenant.Client.PublishAsync();
        var dead = await tenant.Client.PublishAsync();
        var pending = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        await api.Rows.SucceedAsync(await api.Rows.AddDeliveryAsync(tenant, delivered, subscription));
        await api.Rows.DieAsync(await api.Rows.AddDeliveryAsync(tenant, dead, subscription));
        await api.Rows.AddDeliveryAsync(tenant, pending, subscription);

        Assert.Equal([pending], (await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
        (await tenant.Client.PostAsync($"/events/{delivered}/acknowledge")).Is(200);
        // Acknowledging cancels no push, and hides no dead letter.
        Assert.Equal("pending", (await tenant.Client.PostAsync($"/events/{pending}/acknowledge")).Is(200)["status"]);
        Assert.Equal("dead_lettered", (await tenant.Client.PostAsync($"/events/{dead}/acknowledge")).Is(200)["status"]);
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
        Assert.Single((await tenant.Client.GetAsync($"/deliveries?eventId={pending}&status=pending")).Ids);
    }

    [Fact]
    public async Task Many_are_acknowledged_with_a_result_for_each()
    {
        var tenant = await api.NewTenantAsync();
        var other = await api.NewTenantAsync();
        var mine = await tenant.Client.PublishAsync();
        var foreign = await other.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        const string nobodys = "evt_01jd0000000000000000000000";

        var answer = (await tenant.Client.PostAsync(
            "/inbox/acknowledge", $$"""{"ids":["{{nobodys}}","{{mine}}","{{foreign}}","{{mine}}"]}""")).Is(200);

        Assert.Equal([nobodys, mine, foreign, mine], answer.Ids);
        Assert.Equal(["not_found", "acknowledged", "not_found", "acknowledged"], answer.Json["items"]!.AsArray()
            .Select(i => i!["status"]!.GetValue<string>()));
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Ids);
        Assert.Equal([foreign], (await other.Client.GetAsync("/inbox")).Ids);
    }

    [Theory]
    [InlineData("""{}""", "/ids")]
    [InlineData("""{"ids":[]}""", "/ids")]
    [InlineData("""{"ids":["x"]}""", "/ids/0")]
    [InlineData("""{"ids":[1]}""", "/ids/0")]
    [InlineData("""{"ids":"evt_01jd0000000000000000000000"}""", "/ids")]
    [InlineData("""{"eventIds":[]}""", "/eventIds")]
    public async Task Ids_that_are_none_are_refused(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Contains(place, (await tenant.Client.PostAsync("/inbox/acknowledge", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task An_event_that_is_not_processed_yet_can_be_acknowledged_and_never_comes_into_the_inbox()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.PublishAsync();

        (await tenant.Client.PostAsync($"/events/{id}/acknowledge")).Is(200);
        await api.Rows.ProjectAsync();

        Assert.Equal("delivered", (await tenant.Client.GetAsync($"/events/{id}")).Is(200)["status"]);
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Ids);
    }

    [Fact]
    public async Task What_nobody_got_comes_into_the_inbox_unless_somebody_acknowledged_it()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var cancelled = await tenant.Client.PublishAsync();
        var acknowledged = await tenant.Client.PublishAsync();
        var halfDelivered = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync(matched: true);
        (await tenant.Client.PostAsync($"/events/{acknowledged}/acknowledge")).Is(200);
        await api.Rows.SucceedAsync(await api.Rows.AddDeliveryAsync(tenant, halfDelivered, subscription));

        foreach (var e in new[] { cancelled, acknowledged, halfDelivered })
            await api.Rows.CancelAsync(await api.Rows.AddDeliveryAsync(tenant, e, subscription));

        Assert.Equal([cancelled], (await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
        Assert.Equal([cancelled], (await tenant.Client.GetAsync("/events?status=pending")).Is(200).Ids);
        Assert.Equal([halfDelivered, acknowledged], (await tenant.Client.GetAsync("/events?status=delivered")).Is(200).Ids);
    }

    [Fact]
    public async Task Waiting_ends_with_the_event_that_comes()
    {
        var tenant = await api.NewTenantAsync();
        var watch = Stopwatch.StartNew();
        var waiting = tenant.Client.GetAsync("/inbox?wait=30");
        await Wait.UntilAsync("the request waits", () => api.Host.RequestsUnderWay > 0);

        var id = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();

        Assert.Equal([id], (await waiting).Is(200).Ids);
        // By the signal: without one it looks again only after 5 s.
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(4));
    }

    [Fact]
    public async Task Waiting_ends_with_its_time()
    {
        var tenant = await api.NewTenantAsync();
        var watch = Stopwatch.StartNew();

        Assert.Empty((await tenant.Client.GetAsync("/inbox?wait=3")).Is(200).Ids);

        Assert.InRange(watch.Elapsed, TimeSpan.FromSeconds(2.9), TimeSpan.FromSeconds(5));
        Assert.Equal(["?wait"], (await tenant.Client.GetAsync("/inbox?wait=31")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task Waiting_ends_when_the_service_does()
    {
        var tenant = await api.NewTenantAsync();
        var other = new ApiHost(api.ConnectionString);
        using var client = other.Client(await api.NewKeyAsync(tenant.Id, "inbox:read"));
        await client.WaitUntilReadyAsync();
        (await client.GetAsync("/inbox")).Is(200);
        var watch = Stopwatch.StartNew();
        var waiting = client.GetAsync("/inbox?wait=30");
        await Wait.UntilAsync("the request waits", () => other.RequestsUnderWay > 0);

        await other.DisposeAsync();

        Assert.Empty((await waiting).Is(200).Ids);
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(10));
    }

    [Fact]
    public async Task More_requests_of_a_tenant_than_may_wait_are_told_so()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:WaitingRequestsPerTenant", "2"));
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        using var client = host.Client(key);
        await client.WaitUntilReadyAsync();
        var waiting = new[] { WhenLetInAsync(), WhenLetInAsync() };
        await Wait.UntilAsync("both wait", () => host.RequestsUnderWay >= 2);

        // Until both have come so far.
        Answer? refused = null;
        await Wait.UntilAsync("a third is refused", async () => (refused = await client.GetAsync("/inbox?wait=1")).Status != 200);

        Assert.Equal("1", refused!.IsProblem(429, "too_many_concurrent").Headers["Retry-After"]);
        (await client.GetAsync("/inbox")).Is(200);
        using var other = host.Client(await api.NewKeyAsync((await api.NewTenantAsync()).Id));
        (await other.GetAsync("/inbox?wait=1")).Is(200);
        var id = await client.PublishAsync();
        await api.Rows.ProjectAsync();
        foreach (var answer in await Task.WhenAll(waiting))
            Assert.Equal([id], answer.Is(200).Ids);
        (await client.GetAsync("/inbox?wait=1")).Is(200);

        // On a busy machine the first thing that it asks Postgres may take too long.
        async Task<Answer> WhenLetInAsync()
        {
            var answer = await client.GetAsync("/inbox?wait=30");
            return answer.Status == 503 ? await WhenLetInAsync() : answer;
        }
    }

    /// <summary>Every append would wake the connection, and this process.</summary>
    [Fact]
    public async Task Postgres_is_listened_to_only_while_somebody_waits()
    {
        var name = Guid.NewGuid().ToString("N");
        await using var host = new ApiHost($"{api.ConnectionString};Application Name={name}");
        var tenant = await api.NewTenantAsync();
        using var client = host.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();
        (await client.GetAsync("/inbox")).Is(200);
        Assert.Equal(0, await ListeningAsync());

        var waiting = client.GetAsync("/inbox?wait=30");
        await Wait.UntilAsync("it listens", async () => await ListeningAsync() == 1);
        var id = await client.PublishAsync();
        await api.Rows.ProjectAsync();

        Assert.Equal([id], (await waiting).Is(200).Ids);

        async Task<long> ListeningAsync()
        {
            await using var command = api.DataSource.CreateCommand(
                $"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND query LIKE 'LISTEN%'");
            return (long)(await command.ExecuteScalarAsync())!;
        }
    }

    [Fact]
    public async Task Only_those_who_wait_for_the_tenant_are_woken()
    {
        var tenant = await api.NewTenantAsync();
        var quiet = await api.NewTenantAsync();
        var signal = api.Host.Services.GetRequiredService<InboxSignal>();
        // From when it listens.
        await Wait.UntilAsync("it listens", async () =>
        {
            var listening = signal.NextOf(tenant.Key);
            await tenant.Client.PublishAsync();
            return await Task.WhenAny(listening, Task.Delay(TimeSpan.FromSeconds(1))) == listening;
        });
        var (loud, silent) = (signal.NextOf(tenant.Key), signal.NextOf(quiet.Key));

        await tenant.Client.PublishAsync();

        await loud.WaitAsync(TimeSpan.FromSeconds(5), TestContext.Current.CancellationToken);
        Assert.False(silent.IsCompleted);
        await quiet.Client.PublishAsync();
        await silent.WaitAsync(TimeSpan.FromSeconds(5), TestContext.Current.CancellationToken);
    }

    [Fact]
    public void What_concerns_too_many_tenants_is_for_everybody()
    {
        var tenants = Enumerable.Range(0, 200).Select(_ => TypeId.NewGuid()).ToArray();

        Assert.True(Notifications.TryReadTenants(Notifications.TenantsOf([.. tenants, .. tenants]), out var read));
        Assert.Equal(tenants, read);
        Assert.InRange(Notifications.TenantsOf(tenants).Length, 1, 7_999);
        Assert.Equal("", Notifications.TenantsOf([.. tenants, TypeId.NewGuid()]));
        Assert.False(Notifications.TryReadTenants("", out read));
        Assert.Empty(read);
    }
}
