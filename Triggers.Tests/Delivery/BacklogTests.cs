using Triggers.Core;
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
    public async Task Nothing_waits_in_an_empty_database() => Assert.Equal(new Backlog(0, 0, 0, 0, 0, 0), await ReadAsync());

    [Fact]
    public async Task Due_is_what_could_start_now_and_pending_is_all()
    {
        var (one, two, paused) = (await _engine.SubscribeAsync("http://a.example"), await _engine.SubscribeAsync("http://b.example"), await _engine.SubscribeAsync("http://c.example"));
        await _engine.ExecuteAsync($"UPDATE subscriptions SET enabled = false, disabled_reason = 'test' WHERE id = '{paused}'");
        await AddAsync(one, "-90 s", 3);
        await AddAsync(one, "1 h", 2);
        await AddAsync(two, "-10 s", 1);
        await AddAsync(two, "30 s", 4);
        await AddAsync(paused, "-1 h", 5);

        var backlog = await ReadAsync();

        Assert.Equal((15, 4), (backlog.Pending, backlog.Due));
        Assert.InRange(backlog.OldestDueSeconds, 90, 90 + Wait.Long.TotalSeconds);
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
        foreach (var (state, closed) in new[] { ("open", "NULL"), ("resolved", "now()"), ("discarded", "now()"), ("open", "NULL") })
        {
            await _engine.ExecuteAsync(
                $"""
                INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, state, reason, attempts, closed_at)
                VALUES ('{_engine.Tenant}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', '{subscription}', '{state}', 'exhausted', 1, {closed})
                """);
        }

        Assert.Equal(2, (await ReadAsync()).UnresolvedDeadLetters);
    }

    [Fact]
    public async Task No_count_goes_past_its_bound()
    {
        var subscription = await _engine.SubscribeAsync("http://a.example");
        await AddAsync(subscription, "-1 s", Backlog.MaxCounted + 10);

        var backlog = await ReadAsync();

        Assert.Equal((Backlog.MaxCounted, Backlog.MaxCounted), (backlog.Pending, backlog.Due));
    }

    private Task<Backlog> ReadAsync() => Backlog.ReadAsync(_pool.Pool, TestContext.Current.CancellationToken);

    private Task<int> AddAsync(Guid subscription, string dueIn, int count) => _engine.ExecuteAsync(
        $"""
        INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at)
        SELECT '{_engine.Tenant}', (substr(uuid_at(now())::text, 1, 24) || lpad(to_hex(n + {count} * 1000000::bigint), 12, '0'))::uuid, gen_random_uuid(), '{subscription}', now() + interval '{dueIn}'
        FROM generate_series(1, {count}) n
        """);
}
