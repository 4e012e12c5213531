using Triggers.Core;
using Triggers.Core.State;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Events;

public sealed class EventsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_list_walked_by_its_cursor_shows_everything_once_in_either_order()
    {
        var tenant = await api.NewTenantAsync();
        var ids = new List<string>();
        for (var i = 0; i < 7; i++)
            ids.Add(await tenant.Client.PublishAsync());

        Assert.Equal(ids, await WalkAsync(tenant, "/events?order=asc&limit=3"));
        Assert.Equal(Enumerable.Reverse(ids), await WalkAsync(tenant, "/events?limit=3"));
        Assert.Equal(Enumerable.Reverse(ids), await WalkAsync(tenant, "/events?order=desc&limit=7"));
    }

    [Fact]
    public async Task A_list_walked_upwards_does_not_pass_an_event_whose_append_is_under_way()
    {
        var tenant = await api.NewTenantAsync();
        await using var connection = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using var append = connection.CreateCommand();
        append.CommandText = "SELECT pg_current_xact_id()";
        await append.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        var late = TypeId.NewGuid();
        var later = new[] { await tenant.Client.PublishAsync(), await tenant.Client.PublishAsync() };
        append.CommandText =
            $"""
            SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Append});
            {StoredEvents.Append($"SELECT '{tenant.Key}'::uuid, '{late}'::uuid, NULL, 'a.b', NULL, NULL, NULL::timestamptz, 'c', NULL, '1'::bytea, NULL::timestamptz, NULL::timestamptz")}
            """;
        await append.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        (await tenant.Client.GetAsync("/events?order=asc&limit=1")).IsProblem(503, "event_not_yet_visible");

        await transaction.CommitAsync(TestContext.Current.CancellationToken);
        Assert.Equal([TypeId.Format(TypeId.Event, late), .. later], await WalkAsync(tenant, "/events?order=asc&limit=1"));
    }

    [Fact]
    public async Task The_link_leads_to_the_next_page_with_the_same_filters()
    {
        var tenant = await api.NewTenantAsync();
        var first = await tenant.Client.PublishAsync("order.created");
        await tenant.Client.PublishAsync("other");
        await tenant.Client.PublishAsync("order.created");

        var page = (await tenant.Client.GetAsync("/events?type=order.*&limit=1")).Is(200);
        var link = page.Headers["Link"];
        Assert.Matches("^</events\\?.*>; rel=\"next\"$", link);
        var next = (await tenant.Client.GetAsync(link[1..link.IndexOf('>')])).Is(200);

        Assert.Equal([first], next.Ids);
        Assert.Null(next.NextCursor);
        Assert.DoesNotContain("Link", next.Headers.Keys);
    }

    [Theory]
    [InlineData("type=order.created", "a")]
    [InlineData("type=order.*", "ab")]
    [InlineData("type=order", "")]
    [InlineData("type=*", "abc")]
    [InlineData("source=shop", "a")]
    [InlineData("source=SHOP", "")]
    [InlineData("subject=orders%2F2", "b")]
    [InlineData("correlationId=third", "c")]
    [InlineData("externalId=b", "b")]
    [InlineData("type=order.*&source=shop", "a")]
    [InlineData("status=pending", "abc")]
    [InlineData("status=delivered", "")]
    public async Task Filters_narrow_the_list(string query, string expected)
    {
        var tenant = await api.NewTenantAsync();
        await tenant.Client.PublishAsync("order.created", more: ",\"externalId\":\"a\",\"source\":\"shop\"");
        await tenant.Client.PublishAsync("order.paid", more: ",\"externalId\":\"b\",\"subject\":\"orders/2\"");
        (await tenant.Client.PostAsync("/events", """{"type":"invoice","data":1,"externalId":"c"}""", ("X-Correlation-ID", "third")))
            .Is(202);

        var found = (await tenant.Client.GetAsync($"/events?order=asc&{query}")).Is(200).Json["items"]!.AsArray();

        Assert.Equal(expected, string.Concat(found.Select(e => e!["externalId"]!.GetValue<string>())));
    }

    [Fact]
    public async Task CreatedAfter_is_inclusive_and_createdBefore_is_not()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.PublishAsync();
        var createdAt = (await tenant.Client.GetAsync($"/events/{id}"))["createdAt"]!;

        Assert.Equal([id], (await tenant.Client.GetAsync($"/events?createdAfter={createdAt}")).Is(200).Ids);
        Assert.Empty((await tenant.Client.GetAsync($"/events?createdBefore={createdAt}")).Is(200).Ids);
        var later = DateTimeOffset.Parse(createdAt).AddMilliseconds(1).ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'");
        Assert.Empty((await tenant.Client.GetAsync($"/events?createdAfter={later}")).Is(200).Ids);
        Assert.Equal([id], (await tenant.Client.GetAsync($"/events?createdBefore={later}")).Is(200).Ids);
    }

    [Theory]
    [InlineData("limit=0", "?limit")]
    [InlineData("limit=201", "?limit")]
    [InlineData("limit=ten", "?limit")]
    [InlineData("limit=", "?limit")]
    [InlineData("order=up", "?order")]
    [InlineData("status=done", "?status")]
    [InlineData("type=a%20b", "?type")]
    [InlineData("createdAfter=yesterday", "?createdAfter")]
    [InlineData("cursor=nonsense", "?cursor")]
    [InlineData("cursor=eyJmIjoiYSIsImsiOjF9", "?cursor")]
    [InlineData("source=%00", "?source")]
    [InlineData("Limit=1", "?Limit")]
    [InlineData("page=2", "?page")]
    [InlineData("limit=1&limit=2", "?limit")]
    public async Task A_bad_parameter_is_named(string query, string name)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Contains(name, (await tenant.Client.GetAsync($"/events?{query}")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_cursor_belongs_to_its_filters()
    {
        var tenant = await api.NewTenantAsync();
        await tenant.Client.PublishAsync();
        await tenant.Client.PublishAsync();
        var cursor = (await tenant.Client.GetAsync("/events?limit=1&type=order.*")).NextCursor;

        (await tenant.Client.GetAsync($"/events?limit=2&type=order.*&cursor={cursor}")).Is(200);
        (await tenant.Client.GetAsync($"/events?limit=1&cursor={cursor}")).IsProblem(400, "invalid_request");
        (await tenant.Client.GetAsync($"/events?limit=1&type=order.*&order=asc&cursor={cursor}")).IsProblem(400, "invalid_request");
        (await tenant.Client.GetAsync($"/inbox?type=order.*&cursor={cursor}")).IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task A_page_ends_early_when_its_events_are_large()
    {
        var tenant = await api.NewTenantAsync();
        var ids = new List<string>();
        for (var i = 0; i < 12; i++)
            ids.Add(await tenant.Client.PublishAsync(data: $"\"{new string('x', 1_000_000)}\""));

        var page = (await tenant.Client.GetAsync("/events?limit=200")).Is(200);

        Assert.InRange(page.Ids.Length, 8, 9);
        Assert.Equal(Enumerable.Reverse(ids),
            [.. page.Ids, .. (await tenant.Client.GetAsync($"/events?limit=200&cursor={page.NextCursor}")).Is(200).Ids]);
    }

    [Fact]
    public async Task The_status_follows_the_deliveries()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var id = await tenant.Client.PublishAsync();
        await ExpectAsync(tenant, id, "pending", 0, 0, 0);

        await api.Rows.ProjectAsync();
        await ExpectAsync(tenant, id, "pending", 0, 0, 0);
        var first = await api.Rows.AddDeliveryAsync(tenant, id, subscription);
        var second = await api.Rows.AddDeliveryAsync(tenant, id, subscription);
        await ExpectAsync(tenant, id, "pending", 2, 0, 0);

        await api.Rows.DieAsync(first);
        await ExpectAsync(tenant, id, "dead_lettered", 1, 0, 1);
        await api.Rows.SucceedAsync(second);
        await ExpectAsync(tenant, id, "dead_lettered", 0, 1, 1);

        (await tenant.Client.PostAsync($"/dead-letters/{first}/discard")).Is(200);
        await ExpectAsync(tenant, id, "delivered", 0, 1, 1);
    }

    [Fact]
    public async Task What_is_not_there_is_404()
    {
        var tenant = await api.NewTenantAsync();

        string[] ids =
            ["evt_01jd0000000000000000000000", "evt_", "sub_01jd0000000000000000000000", "1", "evt_01JD0000000000000000000000", "%20"];
        foreach (var id in ids)
        {
            (await tenant.Client.GetAsync($"/events/{id}")).IsProblem(404, "not_found");
            (await tenant.Client.GetAsync($"/events/{id}/deliveries")).IsProblem(404, "not_found");
        }
    }

    private static async Task ExpectAsync(TestTenant tenant, string id, string status, int pending, int succeeded, int dead)
    {
        var read = (await tenant.Client.GetAsync($"/events/{id}")).Is(200);
        Assert.Equal(status, read["status"]);
        Assert.Equal(pending, read.Json["deliveries"]!["pending"]!.GetValue<int>());
        Assert.Equal(succeeded, read.Json["deliveries"]!["succeeded"]!.GetValue<int>());
        Assert.Equal(dead, read.Json["deliveries"]!["deadLettered"]!.GetValue<int>());
        foreach (var other in new[] { "pending", "delivered", "dead_lettered" })
            Assert.Equal(other == status ? [id] : [], (await tenant.Client.GetAsync($"/events?status={other}")).Is(200).Ids);
    }

    private static async Task<List<string>> WalkAsync(TestTenant tenant, string path)
    {
        var ids = new List<string>();
        for (string? cursor = null; ;)
        {
            var page = (await tenant.Client.GetAsync(cursor is null ? path : $"{path}&cursor={cursor}")).Is(200);
            ids.AddRange(page.Ids);
            cursor = page.NextCursor;
            if (cursor is null)
                return ids;
        }
    }
}
