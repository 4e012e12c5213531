using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Schema;

[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.PostgresServer))]

namespace Triggers.Tests.Support;

/// <summary>
/// A real PostgreSQL, as the AppHost starts it. Test classes take the one of the run as a constructor parameter; it starts when the first
/// of them asks for a database. Tests that crash Postgres start their own with <see cref="StartOwnAsync"/> and dispose of it.
/// </summary>
public sealed class PostgresServer : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private RunningSystem? _own;
    private Task<string>? _migrated;

    /// <summary>A server of its own, to be stopped and started by its test.</summary>
    public static async Task<PostgresServer> StartOwnAsync()
    {
        var server = new PostgresServer { _own = await RunningSystem.CreateAsync(onDemand: false, "--Resources=postgres") };
        await server._own.ReadyAsync("postgres");
        return server;
    }

    /// <summary>Creates an empty database with a name of its own.</summary>
    /// <returns>Its connection string.</returns>
    public Task<string> CreateDatabaseAsync() => CreateDatabaseAsync("template1");

    /// <summary>Creates one that has the newest schema: a copy of the first, which is quicker than a migration.</summary>
    /// <returns>Its connection string.</returns>
    public async Task<string> CreateMigratedDatabaseAsync()
    {
        Task<string> migrated;
        lock (_lock)
            migrated = _migrated ??= MigrateAsync();
        return await CreateDatabaseAsync(await migrated);
    }

    /// <summary>The connection string of a database that does not exist yet: for what creates its own.</summary>
    public Task<string> ReserveDatabaseAsync() => ConnectionStringAsync("test_" + Guid.NewGuid().ToString("N"));

    /// <summary>Kills Postgres at once, as a crash of the machine would; it stays down until <see cref="StartAsync"/>.</summary>
    public Task StopImmediateAsync() => _own!.KillAsync("postgres");

    /// <summary>Starts it again on the same data and port, and waits until it has recovered.</summary>
    public Task StartAsync() => _own!.StartAsync("postgres");

    /// <summary>Stops it and deletes its data.</summary>
    public async ValueTask DisposeAsync()
    {
        NpgsqlConnection.ClearAllPools();
        await (_own is null ? SharedStores.StopAsync() : _own.DisposeAsync().AsTask());
    }

    /// <returns>The name of a database with the newest schema that nobody is connected to.</returns>
    private async Task<string> MigrateAsync()
    {
        var connectionString = await CreateDatabaseAsync() + ";Pooling=false";
        await using var dataSource = Storage.Builder(connectionString, "tests").Build();
        var options = new DbContextOptionsBuilder<TriggersDbContext>();
        options.UseTriggers(dataSource);
        await using var db = new TriggersDbContext(options.Options);
        await SchemaVersion.MigrateAsync(db, CancellationToken.None);
        return new NpgsqlConnectionStringBuilder(connectionString).Database!;
    }

    private async Task<string> CreateDatabaseAsync(string template)
    {
        var connectionString = await ReserveDatabaseAsync();
        var name = new NpgsqlConnectionStringBuilder(connectionString).Database;
        await using var connection = new NpgsqlConnection(await ConnectionStringAsync("postgres"));
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand($"CREATE DATABASE \"{name}\" TEMPLATE \"{template}\"", connection);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        return connectionString;
    }

    private async Task<string> ConnectionStringAsync(string database)
    {
        var system = _own ?? await SharedStores.StartedAsync("postgres");
        return new NpgsqlConnectionStringBuilder(await system.ConnectionStringAsync("postgres")) { Database = database }.ConnectionString;
    }
}
