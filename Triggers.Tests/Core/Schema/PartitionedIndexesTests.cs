using Npgsql;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.Schema;

/// <summary>Indexes that are built and dropped after a migration, beside those who read and write.</summary>
public sealed class PartitionedIndexesTests(PostgresServer postgres) : IAsyncLifetime
{
    private Engine _engine = null!;

    public async ValueTask InitializeAsync() => _engine = await Engine.CreateAsync(postgres);

    public ValueTask DisposeAsync() => _engine.DisposeAsync();

    /// <summary>As an upgrade leaves it that was killed after it had built the new ones.</summary>
    [Fact]
    public async Task What_is_superseded_goes_once_nobody_reads_and_holds_up_nobody_who_writes()
    {
        await _engine.AppendAsync("order.created");
        await _engine.ExecuteAsync("CREATE INDEX events_type ON events (tenant_id, type, id)");
        Task migrating;
        await using (var reader = await _engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        {
            await using var reading = await reader.BeginTransactionAsync(TestContext.Current.CancellationToken);
            await using (var read = new NpgsqlCommand("SELECT count(*) FROM events", reader))
                await read.ExecuteScalarAsync(TestContext.Current.CancellationToken);

            migrating = _engine.MigrateAsync();
            await Wait.UntilAsync("the index is to be dropped", async () => await _engine.ScalarAsync<long>(
                """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND query = 'DROP INDEX events_type' AND wait_event_type = 'Lock'
                """) == 1);
            // It would wait until the reader ends.
            await _engine.AppendAsync("order.created");
            Assert.False(migrating.IsCompleted);
        }
        await migrating;

        Assert.False(await _engine.ScalarAsync<bool>("SELECT to_regclass('events_type') IS NOT NULL"));
        Assert.Equal(2, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }
}
