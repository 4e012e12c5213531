using Npgsql;

namespace Triggers.Tests.Support;

public sealed class PostgresServerTests(PostgresServer shared)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_database_is_new_and_empty()
    {
        var first = await shared.CreateDatabaseAsync();
        var second = await shared.CreateDatabaseAsync();

        Assert.NotEqual(first, second);
        Assert.Equal(0L, await QueryAsync(first, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"));
    }

    [Fact]
    public async Task It_is_the_pinned_version_with_durable_settings_and_the_builtin_locale()
    {
        var database = await shared.CreateDatabaseAsync();

        Assert.StartsWith("18.4", (string?)await QueryAsync(database, "SHOW server_version"));
        Assert.Equal("on", await QueryAsync(database, "SHOW fsync"));
        Assert.Equal("on", await QueryAsync(database, "SHOW synchronous_commit"));
        Assert.Equal("b|C.UTF-8|UTF8", await QueryAsync(
            database,
            "SELECT datlocprovider::text || '|' || datlocale || '|' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = "
                + "current_database()"));
    }

    [Fact]
    public async Task What_was_committed_is_there_after_a_crash()
    {
        await using var server = await PostgresServer.StartOwnAsync();
        var database = await server.CreateDatabaseAsync();
        await QueryAsync(database, "CREATE TABLE kept AS SELECT 42 AS value");

        await server.StopImmediateAsync();
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => QueryAsync(database, "SELECT 1"));
        await server.StartAsync();

        Assert.Equal(42, await QueryAsync(database, "SELECT value FROM kept"));
    }

    private static async Task<object?> QueryAsync(string connectionString, string sql)
    {
        await using var connection = new NpgsqlConnection(connectionString + ";Pooling=false");
        await connection.OpenAsync(Cancellation);
        await using var command = new NpgsqlCommand(sql, connection);
        return await command.ExecuteScalarAsync(Cancellation);
    }
}
