using Npgsql;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core;

/// <summary>What counts as Postgres being away, by what really happens.</summary>
public sealed class StorageTests(PostgresServer postgres) : IAsyncLifetime
{
    private NpgsqlDataSource _dataSource = null!;

    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() =>
        _dataSource = Storage.Builder($"{await postgres.CreateDatabaseAsync()};Keepalive=1", "tests").Build();

    public ValueTask DisposeAsync() => _dataSource.DisposeAsync();

    [Fact]
    public async Task A_connection_that_broke_while_nobody_used_it_is_away()
    {
        await using var connection = await _dataSource.OpenConnectionAsync(Cancelled);
        await BreakAsync(connection);
        await using var command = new NpgsqlCommand("SELECT 1", connection);

        var failure = await Assert.ThrowsAnyAsync<Exception>(() => command.ExecuteScalarAsync(Cancelled));

        Assert.True(Storage.IsAway(failure), failure.ToString());
    }

    [Fact]
    public async Task So_is_one_that_broke_inside_a_transaction()
    {
        await using var connection = await _dataSource.OpenConnectionAsync(Cancelled);
        var transaction = await connection.BeginTransactionAsync(Cancelled);
        await using var command = new NpgsqlCommand("SELECT 1", connection);
        await command.ExecuteScalarAsync(Cancelled);
        await BreakAsync(connection);

        var failure = await Assert.ThrowsAnyAsync<Exception>(() => transaction.CommitAsync(Cancelled));

        Assert.True(Storage.IsAway(failure), failure.ToString());
    }

    [Fact]
    public async Task So_is_one_whose_statement_failed_while_it_was_being_prepared()
    {
        await using var connection = await _dataSource.OpenConnectionAsync(Cancelled);
        Assert.Equal(7, await DivideAsync(1));
        await Assert.ThrowsAsync<PostgresException>(() => DivideAsync(0));

        var failure = await Assert.ThrowsAnyAsync<Exception>(() => DivideAsync(1));

        Assert.True(Storage.IsAway(failure), failure.ToString());

        async Task<object?> DivideAsync(int by)
        {
            await using var command = new NpgsqlCommand("SELECT 7 / $1", connection) { Parameters = { new() { Value = by } } };
            return await command.ExecuteScalarAsync(Cancelled);
        }
    }

    [Theory]
    [InlineData("SELECT * FROM nowhere", false, false)]
    [InlineData("SELECT 1 / 0", false, true)]
    [InlineData("CREATE TEMP TABLE t (id int) PARTITION BY RANGE (id); INSERT INTO t VALUES (1)", false, true)]
    [InlineData("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$", true, false)]
    [InlineData("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55P03'; END $$", true, false)]
    [InlineData("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P03'; END $$", true, false)]
    [InlineData("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX000'; END $$", false, false)]
    public async Task What_Postgres_says_is_away_a_refusal_or_a_mistake_of_ours(string sql, bool away, bool refused)
    {
        await using var command = _dataSource.CreateCommand(sql);

        var failure = await Assert.ThrowsAsync<PostgresException>(() => command.ExecuteNonQueryAsync(Cancelled));

        Assert.Equal((away, refused), (Storage.IsAway(failure), Storage.IsRefusal(failure)));
        Assert.Equal(away, Storage.IsAway(new InvalidOperationException("EF says so.", failure)));
    }

    private async Task BreakAsync(NpgsqlConnection connection)
    {
        await using var terminate = _dataSource.CreateCommand($"SELECT pg_terminate_backend({connection.ProcessID})");
        await terminate.ExecuteNonQueryAsync(Cancelled);
        await Wait.UntilAsync("the connection is found broken", () => connection.FullState.HasFlag(System.Data.ConnectionState.Broken));
    }
}
