using System.Diagnostics;
using System.Text.RegularExpressions;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;

namespace Triggers.Bench;

/// <summary>What this machine can do at best, measured in the same run: the ground that ratios stand on.</summary>
internal static partial class Ceilings
{
    private const int Connections = 16;
    private const int Scale = 10;
    private const int Accounts = 100_000 * Scale;

    private static readonly byte[] s_body = Publisher.DataOf(Publisher.DefaultSize);

    /// <summary>Requests a second that a bare endpoint answers: of <c>/accept</c> as an API, of <c>/hook</c> as a receiver.</summary>
    public static async Task<double> HttpAsync(string path, TimeSpan duration)
    {
        await using var receiver = await WebhookReceiver.StartAsync(new Ledger());
        using var client = Publisher.Client(receiver.Url, "none");
        var load = await new Load(client, _ => s_body, _ => { }).FlatOutAsync(path, Publisher.DefaultClients, duration, default);
        return (load.Accepted + load.Refused.GetValueOrDefault("204")) / load.Elapsed.TotalSeconds;
    }

    /// <summary>
    /// Transactions a second of <c>pgbench -N -c 16</c>, on the same server; where there is none, of a loop with the same statements.
    /// </summary>
    /// <returns>And which of the two it was.</returns>
    public static async Task<(double Rate, string By)> SimpleUpdatesAsync(SystemUnderTest system, TimeSpan duration)
    {
        await using var admin = NpgsqlDataSource.Create(system.ConnectionString);
        await using (var create = admin.CreateCommand("CREATE DATABASE pgbench"))
            await create.ExecuteNonQueryAsync();
        var paths = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':');
        var program = paths.Select(path => Path.Combine(path, "pgbench")).FirstOrDefault(File.Exists);
        var result = program is null
            ? (await OwnLoopAsync(system.ConnectionString + ";Database=pgbench", duration), "own loop of pgbench -N, 16 connections")
            : (await PgbenchAsync(program, system, duration), "pgbench -N -c 16");
        await using (var drop = admin.CreateCommand("DROP DATABASE pgbench WITH (FORCE)"))
            await drop.ExecuteNonQueryAsync();
        return result;
    }

    private static async Task<double> PgbenchAsync(string program, SystemUnderTest system, TimeSpan duration)
    {
        await RunAsync("-i", "-q", "-s", $"{Scale}");
        var said = await RunAsync("-N", "-c", $"{Connections}", "-j", "2", "-T", $"{duration.TotalSeconds:0}");
        return double.Parse(Tps().Match(said).Groups[1].ValueSpan);

        async Task<string> RunAsync(params string[] arguments)
        {
            var start = new ProcessStartInfo(program, [.. arguments, "pgbench"])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                Environment =
                {
                    ["PGHOST"] = "127.0.0.1", ["PGPORT"] = $"{system.PostgresPort}", ["PGUSER"] = "postgres",
                    ["PGPASSWORD"] = system.Password,
                },
            };
            using var process = Process.Start(start)!;
            var errors = process.StandardError.ReadToEndAsync();
            var output = await process.StandardOutput.ReadToEndAsync();
            await process.WaitForExitAsync();
            return process.ExitCode == 0 ? output : throw new InvalidOperationException($"pgbench failed: {await errors}");
        }
    }

    [GeneratedRegex("tps = ([0-9.]+)")]
    private static partial Regex Tps();

    internal static async Task<double> OwnLoopAsync(string connectionString, TimeSpan duration)
    {
        await using var pool = NpgsqlDataSource.Create($"{connectionString};Maximum Pool Size={Connections}");
        await using (var create = pool.CreateCommand(
            $"""
            CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
            CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
            INSERT INTO pgbench_accounts SELECT i, 1 + (i - 1) / 100000, 0, '' FROM generate_series(1, {Accounts}) i;
            """))
            await create.ExecuteNonQueryAsync();
        var transactions = 0;
        var started = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, Connections).Select(_ => Task.Run(async () =>
        {
            await using var connection = await pool.OpenConnectionAsync();
            while (Stopwatch.GetElapsedTime(started) < duration)
            {
                var (account, delta) = (Random.Shared.Next(1, Accounts + 1), Random.Shared.Next(-5000, 5001));
                // As pgbench does: each a round trip.
                foreach (var sql in new[]
                {
                    "BEGIN", $"UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account}",
                    $"SELECT abalance FROM pgbench_accounts WHERE aid = {account}",
                    $"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, {account}, {delta}, CURRENT_TIMESTAMP)",
                    "COMMIT",
                })
                {
                    await using var command = new NpgsqlCommand(sql, connection);
                    await command.ExecuteNonQueryAsync();
                }
                Interlocked.Increment(ref transactions);
            }
        })));
        return transactions / Stopwatch.GetElapsedTime(started).TotalSeconds;
    }

    /// <summary>Rows a second of binary COPY, one connection, into a table like <c>events</c> with its indexes, of today.</summary>
    public static async Task<double> CopyAsync(string connectionString, int rows)
    {
        await using var connection = new NpgsqlConnection(connectionString);
        await connection.OpenAsync();
        await ExecuteAsync("CREATE TABLE bench_copy (LIKE events INCLUDING ALL)");
        var started = Stopwatch.GetTimestamp();
        await CopyEventsAsync(connection, "bench_copy", Guid.NewGuid(), "bench.copy", rows);
        var elapsed = Stopwatch.GetElapsedTime(started);
        await ExecuteAsync("DROP TABLE bench_copy");
        return rows / elapsed.TotalSeconds;

        async Task ExecuteAsync(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync();
        }
    }

    /// <summary>Stores events as another log would have had them stored, in COPYs of ten thousand rows each.</summary>
    /// <returns>Their ids.</returns>
    public static async Task<List<Guid>> CopyEventsAsync(NpgsqlConnection connection, string table, Guid tenant, string type, int rows)
    {
        var ids = new List<Guid>(rows);
        while (ids.Count < rows)
        {
            await using var copy = await connection.BeginBinaryImportAsync(
                $"COPY {table} (tenant_id, id, type, correlation_id, data) FROM STDIN (FORMAT binary)");
            for (var i = 0; i < 10_000 && ids.Count < rows; i++)
            {
                var id = TypeId.NewGuid();
                ids.Add(id);
                await copy.StartRowAsync();
                await copy.WriteAsync(tenant, NpgsqlDbType.Uuid);
                await copy.WriteAsync(id, NpgsqlDbType.Uuid);
                await copy.WriteAsync(type, NpgsqlDbType.Text);
                await copy.WriteAsync(TypeId.Format(TypeId.Event, id), NpgsqlDbType.Text);
                await copy.WriteAsync(s_body, NpgsqlDbType.Bytea);
            }
            await copy.CompleteAsync();
        }
        return ids;
    }
}
