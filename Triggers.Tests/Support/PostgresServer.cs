using Npgsql;
using Triggers.AppHost;
using Triggers.AppHost.Processes;

[assembly: AssemblyFixture(typeof(Triggers.Tests.Support.PostgresServer))]

namespace Triggers.Tests.Support;

/// <summary>
/// A real PostgreSQL, provided and guarded as the AppHost's own: a killed test run leaves neither processes nor data behind. Test
/// classes take the one of the run as a constructor parameter; it starts when the first of them asks for a database. Tests that
/// crash Postgres start their own with <see cref="StartOwnAsync"/> and dispose of it.
/// </summary>
public sealed class PostgresServer : IAsyncDisposable
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(3);

    private readonly string _directory = TestDirectory.New();
    private readonly Lazy<Task<GuardProcess>> _guard;
    private string? _connectionString;

    /// <summary>For the test framework.</summary>
    public PostgresServer() => _guard = new Lazy<Task<GuardProcess>>(StartGuardAsync);

    /// <summary>A server of its own, to be stopped and started by its test.</summary>
    public static async Task<PostgresServer> StartOwnAsync()
    {
        var server = new PostgresServer();
        _ = await server._guard.Value;
        return server;
    }

    /// <summary>Creates an empty database with a name of its own.</summary>
    /// <returns>Its connection string.</returns>
    public async Task<string> CreateDatabaseAsync()
    {
        var connectionString = await ReserveDatabaseAsync();
        var name = new NpgsqlConnectionStringBuilder(connectionString).Database;
        await using var connection = new NpgsqlConnection(ConnectionString("postgres"));
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand($"CREATE DATABASE \"{name}\"", connection);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        return connectionString;
    }

    /// <summary>The connection string of a database that does not exist yet: for what creates its own.</summary>
    public async Task<string> ReserveDatabaseAsync()
    {
        _ = await _guard.Value;
        return ConnectionString("test_" + Guid.NewGuid().ToString("N"));
    }

    /// <summary>Kills Postgres at once, as a crash of the machine would; it stays down until <see cref="StartAsync"/>.</summary>
    public Task StopImmediateAsync() => TellAsync("kill postgres");

    /// <summary>Starts it again on the same data and port, and waits until it has recovered.</summary>
    public Task StartAsync() => TellAsync("start postgres");

    /// <summary>Stops it and deletes its data.</summary>
    public async ValueTask DisposeAsync()
    {
        if (!_guard.IsValueCreated)
            return;
        using var guard = await _guard.Value;
        NpgsqlConnection.ClearAllPools();
        guard.Tell("stop");
        _ = await guard.WaitAsync().WaitAsync(s_bound);
    }

    private string ConnectionString(string database) => new NpgsqlConnectionStringBuilder(_connectionString) { Database = database }.ConnectionString;

    private async Task<GuardProcess> StartGuardAsync()
    {
        var guard = GuardProcess.Start(Clone.AssemblyOf("Triggers.AppHost"), ["--Resources=stores", $"--Data:Directory={_directory}", "--Data:Temporary=true"], captureOutput: true);
        await guard.ExpectAsync("ready", s_bound);
        _connectionString = RunRecord.Read(_directory)!.Addresses[Topology.Database];
        return guard;
    }

    private async Task TellAsync(string command)
    {
        var guard = await _guard.Value;
        guard.Tell(command);
        await guard.ExpectAsync("done", s_bound);
    }
}

/// <summary>Directories of this test run, where the user that Postgres runs as can reach them.</summary>
internal static class TestDirectory
{
    public static string New() => Path.Combine(Unix.IsRoot ? "/var/lib/triggers/tests" : Path.GetTempPath(), "triggers-" + Guid.NewGuid().ToString("N"));
}

/// <summary>Waiting for a guard.</summary>
internal static class GuardExpectations
{
    /// <summary>Reads until the line; anything that means it will not come is an error with all that was said.</summary>
    public static async Task ExpectAsync(this GuardProcess guard, string expected, TimeSpan bound)
    {
        using var timeout = new CancellationTokenSource(bound);
        var said = new List<string>();
        while (await guard.Output.ReadLineAsync(timeout.Token) is { } line)
        {
            if (line == expected)
                return;
            said.Add(line);
        }
        throw new InvalidOperationException($"The guard ended without '{expected}':{Environment.NewLine}{string.Join(Environment.NewLine, said)}");
    }
}
