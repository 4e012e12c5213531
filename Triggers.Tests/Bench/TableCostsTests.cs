using Npgsql;
using Triggers.Bench;
using Triggers.Tests.Support;

namespace Triggers.Tests.Bench;

public sealed class TableCostsTests(PostgresServer postgres)
{
    [Fact]
    public async Task Every_event_goes_its_whole_way()
    {
        var database = await postgres.ReserveDatabaseAsync();
        await using var costs = await TableCosts.StartAsync(database);

        foreach (var (atOnce, completed) in TableCosts.Kinds)
            // Of the whole server: others may write meanwhile.
            Assert.True((await costs.MeasureAsync(atOnce, completed, 200)).Wal > 1_000);

        await using var pool = NpgsqlDataSource.Create(database);
        await using var left = pool.CreateCommand(
            """
            SELECT (SELECT count(*) FROM deliveries d JOIN events e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
                    WHERE d.status = 'succeeded' AND d.attempt_number = 1),
                (SELECT count(*) FROM delivery_queue)
            """);
        await using var reader = await left.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        await reader.ReadAsync(TestContext.Current.CancellationToken);
        Assert.Equal((200L * TableCosts.Kinds.Count, 0L), (reader.GetInt64(0), reader.GetInt64(1)));
    }
}
