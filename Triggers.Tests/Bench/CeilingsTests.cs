using Npgsql;
using Triggers.Bench;
using Triggers.Tests.Support;

namespace Triggers.Tests.Bench;

public sealed class CeilingsTests(PostgresServer postgres)
{
    [Fact]
    public async Task Events_can_be_copied_into_the_schema_of_today()
    {
        var database = await postgres.CreateMigratedDatabaseAsync();
        await using var connection = new NpgsqlConnection(database + ";Pooling=false");
        await connection.OpenAsync(TestContext.Current.CancellationToken);

        var ids = await Ceilings.CopyEventsAsync(connection, "events", Guid.NewGuid(), "bench.copy", 100);

        await using var stored = new NpgsqlCommand("SELECT count(*) FROM events WHERE id = ANY($1)", connection)
        {
            Parameters = { new() { Value = ids.ToArray() } },
        };
        Assert.Equal(100L, await stored.ExecuteScalarAsync(TestContext.Current.CancellationToken));
        Assert.True(await Ceilings.CopyAsync(database + ";Pooling=false", 100) > 0);
    }
}
