using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Lists;

/// <summary>A cursor never passes a row that is committed later with an earlier id.</summary>
public sealed class UpwardsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Theory]
    [InlineData("/deliveries")]
    [InlineData("/deliveries", "&status=pending")]
    [InlineData("/deliveries", "&subscriptionId={subscription}")]
    [InlineData("/events/{event}/deliveries")]
    public async Task Deliveries(string path, string filter = "")
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync(matched: true);
        NewDelivery New() => new(tenant.Key, TypeId.NewGuid(), Rows.Uuid(e), Rows.Uuid(subscription));

        await ExpectAsync(tenant, path.Replace("{event}", e), filter.Replace("{subscription}", subscription), TypeId.Delivery,
            New, made => [DeliveryQueue.Enqueue([made])], made => made.Id);
    }

    [Theory]
    [InlineData("")]
    [InlineData("&state=open")]
    public async Task Dead_letters(string filter)
    {
        var tenant = await api.NewTenantAsync();
        var subscription = Rows.Uuid(await tenant.Client.SubscribeAsync());
        NewDelivery New() => new(tenant.Key, TypeId.NewGuid(), TypeId.NewGuid(), subscription);

        await ExpectAsync(tenant, "/dead-letters", filter, TypeId.Delivery, New, made =>
        [
            DeliveryQueue.Enqueue([made]),
            .. DeliveryResults.Apply(
            [
                new DeliveryResult(made.TenantId, made.Id, made.EventId, made.SubscriptionId, 0, DeliveryStatus.DeadLettered,
                    Rows.Attempt(AttemptOutcome.HttpStatus, 500)) { Reason = "exhausted" },
            ]),
        ], made => made.Id);
    }

    [Fact]
    public async Task Replays()
    {
        var tenant = await api.NewTenantAsync();
        var subscriptions = new Queue<string>(
            [await tenant.Client.SubscribeAsync(), await tenant.Client.SubscribeAsync(), await tenant.Client.SubscribeAsync()]);

        await ExpectAsync(tenant, "/replays", "", TypeId.Replay, TypeId.NewGuid, id =>
        [
            new NpgsqlBatchCommand(
                """
                INSERT INTO replay_jobs (tenant_id, id, subscription_id, starts_at, ends_at, include, next_event, end_event)
                VALUES (@tenant, @id, @subscription, now(), now(), 'all', @id, @id)
                """)
            {
                Parameters = { new("tenant", tenant.Key), new("id", id), new("subscription", Rows.Uuid(subscriptions.Dequeue())) },
            },
        ], id => id);
    }

    /// <summary>Somebody has made a row and not committed it, while others make and commit two: the page of the first must wait.</summary>
    private async Task ExpectAsync<T>(
        TestTenant tenant, string path, string filter, string prefix, Func<T> make, Func<T, NpgsqlBatchCommand[]> insert,
        Func<T, Guid> id)
    {
        await using var connection = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        var late = make();
        await using (var batch = new NpgsqlBatch(connection))
        {
            foreach (var command in insert(late))
                batch.BatchCommands.Add(command);
            await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }
        var later = new[] { make(), make() };
        foreach (var row in later)
            await api.Rows.ExecuteAsync(insert(row));

        (await tenant.Client.GetAsync($"{path}?order=asc&limit=1{filter}")).IsProblem(503, "event_not_yet_visible");

        await transaction.CommitAsync(TestContext.Current.CancellationToken);
        var ids = new List<string>();
        for (string? cursor = ""; cursor is not null;)
        {
            var page = (await tenant.Client.GetAsync(
                $"{path}?order=asc&limit=1{filter}{(cursor == "" ? "" : $"&cursor={cursor}")}")).Is(200);
            ids.AddRange(page.Ids);
            cursor = page.NextCursor;
        }
        Assert.Equal([TypeId.Format(prefix, id(late)), .. later.Select(row => TypeId.Format(prefix, id(row)))], ids);
    }
}
