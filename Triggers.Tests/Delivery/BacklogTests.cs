using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery;
using Triggers.Delivery.Maintenance;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What the gauges say waits in the database.</summary>
public sealed class BacklogTests(PostgresServer postgres) : IAsyncLifetime
{
    private Engine _engine = null!;
    private EngineDataSource _pool = null!;

    public async ValueTask InitializeAsync()
    {
        _engine = await Engine.CreateAsync(postgres);
        var pool = Triggers.Core.Storage.Builder(_engine.ConnectionString, "tests").Build();
        _pool = new EngineDataSource(pool, pool);
    }

    public async ValueTask DisposeAsync()
    {
        await _pool.Pool.DisposeAsync();
        await _engine.DisposeAsync();
    }

    [Fact]
    public async Task Nothing_waits_in_an_empty_database() => Assert.Equal(new Backlog(0, 0, 0, 0, 0, 0, 0, 0, 0), await ReadAsync());

    [Fact]
    public async Task Due_is_what_could_start_now_and_pending_is_all()
    {
        var (one, two, paused) = (await _engine.SubscribeAsync("http://a.example"),
            await _engine.SubscribeAsync("http://b.example"), await _engine.SubscribeAsync("http://c.example"));
        await _engine.ExecuteAsync($"UPDATE subscriptions SET enabled = false, disabled_reason = 'test' WHERE id = '{paused}'");
        await AddAsync(one, -90, 3);
        await AddAsync(one, 3600, 2);
        await AddAsync(two, -10, 1);
        await AddAsync(two, 30, 4);
        await AddAsync(paused, -3600, 5);
        var held = await _engine.SubscribeAsync("http://d.example");
        await AddAsync(held, -3600, 2);
        await _engine.ExecuteAsync(CircuitChanges.OpenByRequest(_engine.Tenant, held));
        foreach (var limit in new[] { "rate_requests = 1, rate_seconds = 60", "concurrency = 1" })
        {
            var limited = await _engine.SubscribeAsync("http://e.example");
            await AddAsync(limited, -3600, 1);
            await _engine.ExecuteAsync($"UPDATE subscriptions SET {limit} WHERE id = '{limited}'");
        }

        var backlog = await ReadAsync();

        Assert.Equal((19, 4, 1), (backlog.Pending, backlog.Due, backlog.OpenCircuits));
        Assert.InRange(backlog.OldestDueSeconds, 90, 90 + Wait.Long.TotalSeconds);
    }

    [Fact]
    public async Task An_event_with_deliveries_still_to_be_made_waits_too()
    {
        var events = Enumerable.Range(0, 3).Select(_ => new FanOut(_engine.Tenant, TypeId.NewGuid(), 1, Guid.Empty)).ToList();
        await _engine.ExecuteAsync([FanOuts.Defer(events)]);
        await _engine.ExecuteAsync([FanOuts.Advance([(events[0], null), (events[1], TypeId.NewGuid())])]);

        var backlog = await ReadAsync();

        Assert.Equal((2, 0), (backlog.FanOuts, backlog.Pending));
    }

    [Fact]
    public async Task The_log_lags_by_what_is_not_projected()
    {
        await _engine.AppendAsync("order.created", 7);
        await _engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT min(seq) + 2 FROM events) WHERE log = 'postgres'");

        var backlog = await ReadAsync();

        Assert.Equal(5, backlog.LogLagEvents);
        Assert.InRange(backlog.LogLagSeconds, 0, Wait.Long.TotalSeconds);
    }

    [Fact]
    public async Task A_dead_letter_counts_until_it_is_resolved_or_discarded()
    {
        var subscription = await _engine.SubscribeAsync("http://a.example");
        var died = Enumerable.Range(0, 4).Select(_ => new NewDelivery(_engine.Tenant, TypeId.NewGuid(), TypeId.NewGuid(), subscription))
            .ToList();
        DeliveryResult Result(NewDelivery d, DeliveryStatus status) =>
            new(d.TenantId, d.Id, d.EventId, d.SubscriptionId, 0, status, Rows.Attempt(AttemptOutcome.HttpStatus, 500))
            {
                Reason = "exhausted",
                IsReplay = d.IsReplay,
            };
        await _engine.ExecuteAsync(
            [DeliveryQueue.Enqueue(died), .. DeliveryResults.Apply(died.ConvertAll(d => Result(d, DeliveryStatus.DeadLettered)))]);
        var replay = new NewDelivery(
            _engine.Tenant, TypeId.NewGuid(), died[0].EventId, subscription)
        { IsReplay = true, ReplayOf = died[0].Id };
        await _engine.ExecuteAsync(
        [
            DeadLetterChanges.Discard(_engine.Tenant, [died[1].Id]),
            .. DeliveryQueue.Replay([replay]), .. DeliveryResults.Apply([Result(replay, DeliveryStatus.Succeeded)]),
        ]);

        Assert.Equal(2, (await ReadAsync()).UnresolvedDeadLetters);
    }

    [Fact]
    public async Task A_key_is_held_as_long_as_its_subscription_is_there()
    {
        var (kept, deleted) = (await _engine.SubscribeAsync("http://a.example"), await _engine.SubscribeAsync("http://b.example"));
        foreach (var (subscription, key) in new[] { (kept, "a"), (kept, "b"), (deleted, "a") })
        {
            await _engine.ExecuteAsync(
                $"INSERT INTO held_keys (subscription_id, order_key, tenant_id, delivery_id, reason) "
                    + $"VALUES ('{subscription}', '{key}', '{_engine.Tenant}', '{TypeId.NewGuid()}', 'exhausted')");
        }
        await _engine.ExecuteAsync($"UPDATE subscriptions SET deleted_at = now() WHERE id = '{deleted}'");

        Assert.Equal(2, (await ReadAsync()).HeldKeys);
    }

    [Fact]
    public async Task No_count_goes_past_its_bound()
    {
        var subscription = await _engine.SubscribeAsync("http://a.example");
        await AddAsync(subscription, -1, Backlog.MaxCounted + 10);

        var backlog = await ReadAsync();

        Assert.Equal((Backlog.MaxCounted, Backlog.MaxCounted), (backlog.Pending, backlog.Due));
    }

    private Task<Backlog> ReadAsync() => Backlog.ReadAsync(_pool.Pool, TestContext.Current.CancellationToken);

    private async Task AddAsync(Guid subscription, double dueInSeconds, int count)
    {
        var deliveries = Enumerable.Range(0, count)
            .Select(_ => new NewDelivery(_engine.Tenant, TypeId.NewGuid(), TypeId.NewGuid(), subscription)).ToList();
        await _engine.ExecuteAsync(
        [
            DeliveryQueue.Enqueue(deliveries),
            .. DeliveryResults.Apply(deliveries.ConvertAll(
                d => new DeliveryResult(d.TenantId, d.Id, d.EventId, d.SubscriptionId, 0, DeliveryStatus.Pending, null)
            {
                Delay = TimeSpan.FromSeconds(dueInSeconds),
            })),
        ]);
    }
}
