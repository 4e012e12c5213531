using System.Data;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.State;

/// <summary>What the engine's statements read of indexes, where they read too much if they are planned or asked wrongly.</summary>
public sealed class PlansTests(PostgresServer postgres) : IAsyncLifetime
{
    private const int Rows = 3_000;

    private static readonly Guid s_tenant = TypeId.NewGuid();
    private static readonly Guid s_subscription = TypeId.NewGuid();

    private NpgsqlDataSource _dataSource = null!;
    private NpgsqlConnection _engine = null!;

    /// <summary>Of today, where events belong.</summary>
    private static string Prefix { get; } = TypeId.NewGuid().ToString()[..13];

    public async ValueTask InitializeAsync()
    {
        _dataSource = NpgsqlDataSource.Create(
            new NpgsqlConnectionStringBuilder(await postgres.CreateMigratedDatabaseAsync()) { Options = EngineDataSource.IndexPlansOnly });
        _engine = await _dataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await ExecuteAsync(
            $"""
            INSERT INTO tenants (id, name) VALUES ('{s_tenant}', 'shop');
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets)
            VALUES ('{s_subscription}', '{s_tenant}', 'http://127.0.0.1/', ARRAY['*'], '[]');
            """);
    }

    public async ValueTask DisposeAsync()
    {
        await _engine.DisposeAsync();
        await _dataSource.DisposeAsync();
    }

    /// <summary>
    /// Statements are prepared once, and their plans kept, while tables grow and shrink: what was planned when nothing was there must not
    /// read all that is there later.
    /// </summary>
    [Theory]
    [InlineData("tables that are new", "SELECT 1")]
    [InlineData("tables that were empty when they were analyzed", "ANALYZE")]
    public async Task What_is_planned_while_nothing_is_there_reads_no_more_than_it_needs_later(string when, string before)
    {
        await ExecuteAsync(before);
        var (id, other, of) = (Uuid("d", Rows), Uuid("d", Rows - 1), Uuid("e", Rows));
        NpgsqlBatch[] batches =
        [
            Batch(Claim(places: 1, from: default)),
            Batch(DeliveryResults.Apply([new(s_tenant, id, of, s_subscription, 1, DeliveryStatus.Succeeded, null)])),
            Batch(DeliveryResults.Apply([new(s_tenant, other, of, s_subscription, 1, DeliveryStatus.Pending, null)])),
            Batch(DeliveryQueue.Enqueue([new(s_tenant, TypeId.NewGuid(), of, s_subscription)])),
            Batch(EventState.Settle([(s_tenant, of)])),
        ];
        foreach (var batch in batches)
        {
            await batch.PrepareAsync(TestContext.Current.CancellationToken);
            await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }
        await ExecuteAsync(
            $"""
            DELETE FROM delivery_queue;
            INSERT INTO events (tenant_id, id, type, correlation_id, data)
            SELECT '{s_tenant}', {Row("e")}, 'order.created', 'c-' || n, '1' FROM generate_series(1, {Rows}) n;
            INSERT INTO inbox (tenant_id, event_id) SELECT tenant_id, id FROM events;
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, claim, claimed_by, next_attempt_at)
            SELECT '{s_tenant}', {Row("d")}, {Row("e")}, '{s_subscription}', 1, 1, now() + interval '1 minute'
            FROM generate_series(1, {Rows}) n;
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at)
            SELECT '{s_tenant}', gen_random_uuid(), gen_random_uuid(), '{s_subscription}', now() FROM generate_series(1, {Rows}) n;
            """);

        foreach (var batch in batches)
        {
            var read = await ReadAsync();
            await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            read = await ReadAsync() - read;
            Assert.True(read < 100, $"{when}: {read} entries of indexes read by {batch.BatchCommands[^1].CommandText}");
        }
        // They were not merely quick because they found nothing.
        Assert.Equal(1, await CountAsync("SELECT count(*) FROM deliveries WHERE status = 'succeeded'"));
        Assert.Equal(1, await CountAsync($"SELECT count(*) FROM delivery_queue WHERE id = '{other}' AND claimed_by IS NULL"));
        Assert.Equal(Rows - 1, await CountAsync("SELECT count(*) FROM inbox"));
    }

    /// <summary>
    /// What is claimed and done stays in the index as long as anybody has an old snapshot; the next claim of that lane must not read it
    /// again.
    /// </summary>
    [Fact]
    public async Task A_claim_reads_nothing_of_those_before_it_while_nothing_can_be_vacuumed()
    {
        await ExecuteAsync(
            $"""
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at)
            SELECT '{s_tenant}', {Row("d")}, {Row("e")}, '{s_subscription}', now() - interval '1 hour' + n * interval '1 second'
            FROM generate_series(1, {Rows}) n;
            """);
        await using var old = await _dataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var snapshot = await old.BeginTransactionAsync(IsolationLevel.RepeatableRead, TestContext.Current.CancellationToken);
        await using (var look = new NpgsqlCommand("SELECT count(*) FROM tenants", old))
            await look.ExecuteScalarAsync(TestContext.Current.CancellationToken);

        var (first, from) = await ClaimAsync(places: 1_000, from: default);
        await ExecuteAsync("DELETE FROM delivery_queue WHERE claimed_by = 1");
        var before = await ReadAsync();
        var (second, _) = await ClaimAsync(places: 10, from);
        var read = await ReadAsync() - before;

        Assert.Equal((1_000, 10), (first, second));
        Assert.True(read < 100, $"{read} entries of indexes read");
    }

    /// <summary>The uuid of row n, in the order of n.</summary>
    private static string Row(string kind) => $"('{Uuid(kind, 0).ToString()[..24]}' || lpad(to_hex(n), 12, '0'))::uuid";

    private static Guid Uuid(string kind, int n) => Guid.Parse($"{Prefix}-700{kind}-8000-{n:x12}");

    private static NpgsqlBatchCommand Claim(int places, DateTime from) => DeliveryQueue.Claim(
        tests: false, [s_subscription], [places], [long.MaxValue], [true], [from], worker: 1, TimeSpan.FromHours(1));

    private NpgsqlBatch Batch(params IEnumerable<NpgsqlBatchCommand> commands)
    {
        var batch = new NpgsqlBatch(_engine);
        foreach (var command in commands)
            batch.BatchCommands.Add(command);
        return batch;
    }

    /// <returns>How many were claimed, and from when on the next claim may look.</returns>
    private async Task<(int Claimed, DateTime To)> ClaimAsync(int places, DateTime from)
    {
        await using var batch = Batch(Claim(places, from));
        await using var reader = await batch.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        var (claimed, to) = (0, DateTime.MinValue);
        for (; await reader.ReadAsync(TestContext.Current.CancellationToken); claimed++)
            to = reader.GetDateTime(13) is var at && at > to ? at : to;
        return (claimed, to);
    }

    /// <summary>Entries that were read of all indexes so far.</summary>
    private async Task<long> ReadAsync()
    {
        await using (var flush = new NpgsqlCommand("SELECT pg_stat_force_next_flush()", _engine))
            await flush.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        return await CountAsync("SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes");
    }

    private async Task ExecuteAsync(string sql)
    {
        await using var command = _dataSource.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }

    private async Task<long> CountAsync(string sql)
    {
        await using var command = _dataSource.CreateCommand(sql);
        return (long)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
    }
}
