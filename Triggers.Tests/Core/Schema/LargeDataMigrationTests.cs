using Npgsql;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.Schema;

/// <summary>What 0016_large_data.sql makes of the table that everybody writes to.</summary>
public sealed class LargeDataMigrationTests(PostgresServer postgres)
{
    [Fact]
    public async Task Data_is_compressed_by_pglz_in_no_partition()
    {
        await using var engine = await Engine.CreateAsync(postgres);
        await engine.AppendAsync("large", data: $"\"{new string('x', 100_000)}\"");

        Assert.NotEqual("pglz", await engine.ScalarAsync<string>("SELECT coalesce(pg_column_compression(data), 'none') FROM events"));
        Assert.Equal("0 of 10", await engine.ScalarAsync<string>(
            """
            SELECT format('%s of %s', count(*) FILTER (WHERE a.attstorage <> 'e' AND a.attcompression <> 'l'), count(*))
            FROM pg_inherits i JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attname = 'data'
            WHERE i.inhparent = 'events'::regclass
            """));
    }

    [Fact]
    public async Task While_somebody_reads_events_it_gives_up_and_lets_everybody_write()
    {
        await using var engine = await Engine.CreateAsync(postgres, schema: "0015_inboxes");
        await using (var reader = await engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (await reader.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            await using var read = new NpgsqlCommand("SELECT count(*) FROM events", reader);
            await read.ExecuteScalarAsync(TestContext.Current.CancellationToken);

            var refused = await Assert.ThrowsAnyAsync<Exception>(engine.MigrateAsync);
            Assert.Equal(
                PostgresErrorCodes.LockNotAvailable, Assert.IsType<PostgresException>(refused.GetBaseException()).SqlState);
            // As the version before appends.
            await engine.ExecuteAsync(
                $"""
                INSERT INTO events (seq, tenant_id, id, type, correlation_id, data)
                VALUES (nextval('events_seq'), '{engine.Tenant}', uuidv7(), 'order.created', 'c', '1')
                """);
        }

        await engine.MigrateAsync();

        Assert.Equal(1, await engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }
}
