using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Schema;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.EventLog;
using Triggers.EventLog.Postgres;

namespace Triggers.Bench;

/// <summary>
/// What the tables alone cost. An event goes its way by the statements of the product, on the Postgres log: appended, projected, its one
/// delivery completed. Nothing is sent, and nobody else is there.
/// </summary>
internal sealed class TableCosts : IAsyncDisposable
{
    public const string Help =
        """
        table-costs: CPU of Postgres and WAL per event, with the product's statements, on a Postgres of its own; medians.
          --events N         events of a run                                3000
          --runs N           runs of each kind                              3
          --days N           daily partitions of each table                 9
        """;

    // As Triggers.Delivery has it for its hot path.
    private const string IndexPlansOnly =
        "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_sort=off -c jit=off "
            + "-c plan_cache_mode=force_generic_plan";

    private static readonly byte[] s_data = Publisher.DataOf(Publisher.DefaultSize);

    private readonly Guid _tenant = TypeId.NewGuid();
    private readonly Guid _subscription = TypeId.NewGuid();
    private readonly NpgsqlDataSource _appending;
    private readonly NpgsqlDataSource _engine;
    private readonly NpgsqlDataSource _watching;
    private readonly PostgresEventLog _log;
    private readonly PostgresEventSource _source =
        new((_, _) => Task.FromResult(true), TimeProvider.System, NullLogger<PostgresEventSource>.Instance);
    private readonly List<DeliveryResult> _done = [];

    private TableCosts(string connectionString)
    {
        // A backend each, so that what they use can be told.
        _appending = Storage.Builder(connectionString + ";Maximum Pool Size=1", "bench").Build();
        _engine = Storage.Builder(
            $"{connectionString};Maximum Pool Size=1;No Reset On Close=true;Options={IndexPlansOnly}", "bench").Build();
        _watching = NpgsqlDataSource.Create(connectionString);
        _log = new PostgresEventLog(_appending, TimeProvider.System, NullLogger<PostgresEventLog>.Instance);
    }

    /// <summary>How many events are appended and projected at once, and how many are completed.</summary>
    public static IReadOnlyList<(int AtOnce, int Completed)> Kinds { get; } = [(1, 1), (1, 8), (10, 10), (200, 200)];

    public static async Task<int> RunAsync(Options options)
    {
        await using var system = await SystemUnderTest.StartPostgresAsync();
        await using var costs = await StartAsync(system.ConnectionString);
        await costs.MakePartitionsAsync(options.NumberOf("--days", 9));
        Console.WriteLine("| appended and projected at once | completed at once | µs an event: append, rest | WAL, bytes an event |");
        Console.WriteLine("| --- | --- | --- | --- |");
        foreach (var (atOnce, completed) in Kinds)
        {
            await costs.MeasureAsync(atOnce, completed, 40 * atOnce);
            var runs = new List<Cost>();
            for (var i = 0; i < options.NumberOf("--runs", 3); i++)
                runs.Add(await costs.MeasureAsync(atOnce, completed, options.NumberOf("--events", 3000)));
            var median = runs.OrderBy(run => run.Append + run.Rest).ElementAt(runs.Count / 2);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {atOnce} | {completed} | {median.Append + median.Rest:0}: {median.Append:0}, {median.Rest:0} | {median.Wal:n0} |"));
        }
        foreach (var events in (int[])[0, 50])
        {
            if (events > 0)
                await costs.AppendAsync(events);
            await costs.ReadAsync(events, times: 200);
            var micros = await costs.ReadAsync(events, times: 3_000);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"Reading the log, {events} events: {micros:0} µs"));
        }
        return 0;
    }

    /// <param name="connectionString">Of a database that need not exist; its tables are made.</param>
    public static async Task<TableCosts> StartAsync(string connectionString)
    {
        var costs = new TableCosts(connectionString);
        await using (var db = new TriggersDbContext(
            (DbContextOptions<TriggersDbContext>)new DbContextOptionsBuilder<TriggersDbContext>().UseTriggers(costs._watching).Options))
            await SchemaVersion.MigrateAsync(db, default);
        await costs.ExecuteAsync(
            $"""
            INSERT INTO tenants (id, name) VALUES ('{costs._tenant}', 'bench');
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets)
            VALUES ('{costs._subscription}', '{costs._tenant}', 'http://127.0.0.1/', ARRAY['*'], '[]');
            """);
        await costs._log.StartAsync(default);
        return costs;
    }

    /// <summary>Sends so many events their way.</summary>
    public async Task<Cost> MeasureAsync(int atOnce, int completed, int events)
    {
        int appending, engine;
        await using (var connection = await _appending.OpenConnectionAsync())
            appending = connection.ProcessID;
        await using (var connection = await _engine.OpenConnectionAsync())
            engine = connection.ProcessID;
        var (wal, append, rest) = (await WalAsync(), Ticks(appending), Ticks(engine));
        for (var i = 0; i < events; i += atOnce)
        {
            await AppendAsync(atOnce);
            await ProjectAsync(atOnce);
            if (_done.Count >= completed)
                await CompleteAsync();
        }
        if (_done.Count > 0)
            await CompleteAsync();
        return new Cost((Ticks(appending) - append) / events, (Ticks(engine) - rest) / events, (await WalAsync() - wal) / events);

        static double Ticks(int process) => SystemUnderTest.Ticks(process, withEndedChildren: false) * 1e4;
    }

    public async ValueTask DisposeAsync()
    {
        await _log.StopAsync(default);
        await _appending.DisposeAsync();
        await _engine.DisposeAsync();
        await _watching.DisposeAsync();
    }

    private async Task AppendAsync(int count)
    {
        var first = TypeId.NewGuid();
        await _log.AppendAsync(new AppendRequest(_tenant, first, TypeId.Format(TypeId.Event, first), null, null,
            [.. Enumerable.Range(0, count).Select(i =>
                new NewEvent(TypeId.Add(first, i), "bench.event", null, null, null, null, null, s_data))]),
            new TimeLimit(TimeProvider.System, RequestBudget.Request), default);
    }

    private async Task ProjectAsync(int count)
    {
        await using var connection = await _engine.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        var read = (await _source.ReadAsync(connection, count, default))!;
        var deliveries = read.Events.Select(e =>
            new NewDelivery(_tenant, TypeId.NewGuid(), e.Event.Id, _subscription) { DataBytes = e.DataBytes, Claimed = true }).ToList();
        await using (var write = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                DeliveryQueue.Enqueue(deliveries, worker: 1, lease: TimeSpan.FromMinutes(1)),
                read.Advance[0],
            },
        })
            await write.ExecuteNonQueryAsync();
        await transaction.CommitAsync();
        // From the position again.
        await _source.WaitAsync(connection, default);
        _done.AddRange(deliveries.Select(d => new DeliveryResult(
            _tenant, d.Id, d.EventId, _subscription, 1, DeliveryStatus.Succeeded,
            new AttemptMade(TypeId.NewGuid(), 1, TimeSpan.FromMilliseconds(5), TimeSpan.FromMilliseconds(2), AttemptOutcome.Delivered, null,
                204, """{"date":"Thu, 01 Jan 2026 00:00:00 GMT","server":"Kestrel"}""", []))));
    }

    /// <summary>So many days, up to as many ahead as there always are.</summary>
    private async Task MakePartitionsAsync(int days)
    {
        var today = DateOnly.FromDateTime(TimeProvider.System.GetUtcNow().UtcDateTime);
        await using var connection = await _watching.OpenConnectionAsync();
        await Partitions.MakeAsync(connection, today.AddDays(8 - days), today.AddDays(7), default);
    }

    /// <summary>Reads so many events from the log, again and again, and passes none.</summary>
    /// <returns>Microseconds of the backend for each time.</returns>
    private async Task<double> ReadAsync(int events, int times)
    {
        await using var connection = await _engine.OpenConnectionAsync();
        var before = SystemUnderTest.Ticks(connection.ProcessID, withEndedChildren: false);
        for (var i = 0; i < times; i++)
        {
            await using var transaction = await connection.BeginTransactionAsync();
            if ((await _source.ReadAsync(connection, 500, default))?.Events.Count is var read && (read ?? 0) != events)
                throw new InvalidOperationException($"{read} events were read, and not {events}.");
            await transaction.RollbackAsync();
            await _source.WaitAsync(connection, default);
        }
        return (SystemUnderTest.Ticks(connection.ProcessID, withEndedChildren: false) - before) * 1e4 / times;
    }

    private async Task CompleteAsync()
    {
        await using var connection = await _engine.OpenConnectionAsync();
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in DeliveryResults.Apply([.. _done.OrderBy(result => result.Id)]))
            batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync();
        _done.Clear();
    }

    private async Task<double> WalAsync()
    {
        await using var command = _watching.CreateCommand("SELECT (pg_current_wal_lsn() - '0/0')::float8");
        return (double)(await command.ExecuteScalarAsync())!;
    }

    private async Task ExecuteAsync(string sql)
    {
        await using var command = _watching.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>Of one event.</summary>
    /// <param name="Append">Microseconds of the backend that appends.</param>
    /// <param name="Rest">Microseconds of the backend that projects and completes.</param>
    /// <param name="Wal">Bytes.</param>
    internal sealed record Cost(double Append, double Rest, double Wal);
}
