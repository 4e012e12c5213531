using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Events;

/// <summary>On the Kafka log an event is accepted before it is stored; who asks for it does not notice, or is told.</summary>
public sealed class KafkaVisibilityTests : IClassFixture<KafkaApiFixture>, IAsyncLifetime
{
    private readonly KafkaApiFixture _api;

    public KafkaVisibilityTests(KafkaApiFixture api)
    {
        KafkaServer.SkipIfMissing();
        _api = api;
    }

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        await _api.StopDeliveryAsync();
        _api.StartDelivery();
    }

    [Fact]
    public async Task What_was_accepted_can_be_used_at_once()
    {
        var tenant = await _api.NewTenantAsync();
        await _api.CaughtUpAsync();

        for (var i = 0; i < 10; i++)
        {
            Assert.Equal("pending", (await tenant.Client.GetAsync($"/events/{await tenant.Client.PublishAsync()}")).Is(200)["status"]);
            (await tenant.Client.PostAsync($"/events/{await tenant.Client.PublishAsync()}/acknowledge")).Is(200);
            (await tenant.Client.PostAsync($"/events/{await tenant.Client.PublishAsync()}/replay")).Is(202);
        }
        var batch = new[] { await tenant.Client.PublishAsync(), await tenant.Client.PublishAsync() };
        var acknowledged = (await tenant.Client.PostAsync("/inbox/acknowledge", $$"""{"ids":["{{batch[0]}}","{{batch[1]}}"]}""")).Is(200);
        Assert.All(acknowledged.Json["items"]!.AsArray(), item => Assert.Equal("acknowledged", item!["status"]!.GetValue<string>()));
    }

    [Fact]
    public async Task What_does_not_exist_is_not_found()
    {
        var tenant = await _api.NewTenantAsync();
        var other = await _api.NewTenantAsync();
        await _api.CaughtUpAsync();
        var theirs = await other.Client.PublishAsync();

        foreach (var id in new[] { TypeId.Format(TypeId.Event, TypeId.NewGuid()), theirs })
        {
            (await tenant.Client.GetAsync($"/events/{id}")).IsProblem(404, "not_found");
            (await tenant.Client.PostAsync($"/events/{id}/acknowledge")).IsProblem(404, "not_found");
            (await tenant.Client.PostAsync($"/events/{id}/replay")).IsProblem(404, "not_found");
        }
    }

    [Fact]
    public async Task What_is_not_projected_in_time_is_said_to_be_accepted()
    {
        var tenant = await _api.NewTenantAsync();
        await _api.StopDeliveryAsync();
        var id = await tenant.Client.PublishAsync();

        Assert.Equal("1", (await tenant.Client.GetAsync($"/events/{id}")).IsProblem(503, "event_not_yet_visible").Headers["Retry-After"]);
        (await tenant.Client.PostAsync($"/events/{id}/acknowledge")).IsProblem(503, "event_not_yet_visible");
        (await tenant.Client.PostAsync($"/events/{id}/replay")).IsProblem(503, "event_not_yet_visible");
        var many = (await tenant.Client.PostAsync("/inbox/acknowledge", $$"""{"ids":["{{id}}"]}""")).Is(200);
        Assert.Equal("not_yet_visible", many.Json["items"]![0]!["status"]!.GetValue<string>());

        _api.StartDelivery();
        await Wait.UntilAsync("it can be read", async () => (await tenant.Client.GetAsync($"/events/{id}")).Status == 200);
    }

    [Fact]
    public async Task Who_waits_at_the_inbox_is_woken_by_the_projection()
    {
        var tenant = await _api.NewTenantAsync();
        var waiting = tenant.Client.GetAsync("/inbox?wait=20");

        var id = await tenant.Client.PublishAsync();

        Assert.Equal([id], (await waiting).Is(200).Ids);
    }

    [Fact]
    public async Task A_list_that_is_read_upwards_passes_nothing_that_is_still_on_its_way()
    {
        var tenant = await _api.NewTenantAsync();
        var ids = new List<string>();
        for (var i = 0; i < 5; i++)
            ids.Add(await tenant.Client.PublishAsync());
        await _api.CaughtUpAsync();
        await Wait.UntilAsync(
            "the first page is certain", async () => (await tenant.Client.GetAsync("/events?order=asc&limit=3")).Status == 200);
        await _api.StopDeliveryAsync();
        ids.Add(await tenant.Client.PublishAsync());

        (await tenant.Client.GetAsync("/events?order=asc&limit=3")).IsProblem(503, "event_not_yet_visible");

        _api.StartDelivery();
        Answer? page = null;
        await Wait.UntilAsync("the first page is certain again", async () =>
            (page = await tenant.Client.GetAsync("/events?order=asc&limit=3")).Status == 200);
        Assert.Equal(ids[..3], page!.Ids);
        var rest = (await tenant.Client.GetAsync($"/events?order=asc&limit=3&cursor={page.NextCursor}")).Is(200);
        Assert.Equal(ids[3..], rest.Ids);
    }

    /// <summary>Again where the machine is so busy that the page is not certain in time.</summary>
    [Fact]
    public Task A_page_that_is_read_upwards_ends_earlier_by_what_was_on_its_way() =>
        Wait.UntilAsync("a page is certain when it has waited", async () =>
        {
            var tenant = await _api.NewTenantAsync();
            // Accepted a while ago, by their ids.
            var at = DateTimeOffset.UtcNow.AddSeconds(-20);
            var ids = Enumerable.Range(0, 4).Select(i => TypeId.Add(TypeId.At(at.AddSeconds(i)), 1)).ToArray();
            Task AppendAsync(Guid id) => _api.Host.Services.GetRequiredService<IEventLog>().AppendAsync(
                new AppendRequest(
                    tenant.Key, id, "test", null, null, [new NewEvent(id, "order.paid", null, null, null, null, null, "1"u8.ToArray())]),
                TestContext.Current.CancellationToken);
            foreach (var id in (Guid[])[ids[0], ids[2], ids[3]])
                await AppendAsync(id);
            await _api.CaughtUpAsync();
            // As if what was projected had come before all this.
            await new Rows(_api.DataSource).ExecuteAsync("UPDATE log_positions SET passed_at = NULL WHERE log <> 'postgres'");
            await using var connection = await _api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
            await using var held = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
            await using (var hold = new NpgsqlCommand("SELECT FROM log_positions WHERE log <> 'postgres' FOR UPDATE", connection))
                await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            await AppendAsync(ids[1]);

            var asked = DateTime.UtcNow;
            var asking = tenant.Client.GetAsync("/events?order=asc&limit=2");
            await Wait.UntilAsync("the page waits", async () =>
            {
                await using var command = _api.DataSource.CreateCommand(
                    """
                    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query_start > $1
                        AND query LIKE 'SELECT partition, next, passed_at FROM log_positions%'
                    """);
                command.Parameters.AddWithValue(asked);
                return asking.IsCompleted || await command.ExecuteScalarAsync(TestContext.Current.CancellationToken) is > 0L;
            });
            await held.RollbackAsync(TestContext.Current.CancellationToken);
            var page = await asking;
            if (page.Status == 503)
                return false;

            var names = ids.Select(id => TypeId.Format(TypeId.Event, id)).ToList();
            Assert.Equal(names[..2], page.Is(200).Ids);
            Assert.Equal(names[2..], (await tenant.Client.GetAsync($"/events?order=asc&limit=2&cursor={page.NextCursor}")).Is(200).Ids);
            return true;
        });

    [Fact]
    public async Task A_mistake_in_looking_is_told_to_who_waits_and_the_next_who_asks_is_served()
    {
        var tenant = await _api.NewTenantAsync();
        await tenant.Client.PublishAsync();
        await _api.CaughtUpAsync();
        await _api.StopDeliveryAsync();
        var id = await tenant.Client.PublishAsync();
        await ChangeAsync("passed_at::text", "text");
        try
        {
            (await tenant.Client.GetAsync($"/events/{id}")).IsProblem(500, "internal_error");
        }
        finally
        {
            await ChangeAsync("passed_at::timestamptz", "timestamptz");
        }

        (await tenant.Client.GetAsync($"/events/{id}")).IsProblem(503, "event_not_yet_visible");
        _api.StartDelivery();
        await Wait.UntilAsync("it can be read", async () => (await tenant.Client.GetAsync($"/events/{id}")).Status == 200);
    }

    /// <summary>Makes the positions something that can't be read, or takes that back.</summary>
    private async Task ChangeAsync(string value, string type)
    {
        await new Rows(_api.DataSource).ExecuteAsync($"ALTER TABLE log_positions ALTER COLUMN passed_at TYPE {type} USING {value}");
        // What was prepared before knows the type from before.
        _api.Host.Services.GetRequiredService<NpgsqlDataSource>().Clear();
    }
}
