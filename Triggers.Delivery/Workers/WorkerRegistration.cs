using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Waking;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Workers;

/// <summary>
/// This process's entry among the workers. One connection holds an advisory lock on it, and hears what is appended; when the
/// process dies the lock goes with the connection, and any other process that can take it frees what the dead one had claimed.
/// </summary>
internal sealed partial class WorkerRegistration(
    EngineDataSource dataSource,
    Wakeups wakeups,
    DeliveryMetrics metrics,
    Readiness readiness,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<WorkerRegistration> logger) : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan IdleLookInterval = TimeSpan.FromSeconds(5);

    private readonly TaskCompletionSource _registered = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile int _number;

    /// <summary>Names this process in <c>delivery_queue.claimed_by</c>.</summary>
    public int Number => _number;

    /// <summary>Ends when there is a number to claim by.</summary>
    public Task Registered => _registered.Task;

    /// <summary>Which of the living workers this is, from 0, and how many there are.</summary>
    public async Task<(int Rank, int Of)> ShareAsync(CancellationToken cancellationToken)
    {
        await using var command = dataSource.Pool.CreateCommand(
            "SELECT count(*) FILTER (WHERE number < $1)::int, greatest(count(*), 1)::int FROM workers");
        command.Parameters.AddWithValue(_number);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (reader.GetInt32(0), reader.GetInt32(1));
    }

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.OpenUnpooledAsync(stoppingToken);
        await RegisterAsync(connection, stoppingToken);
        _registered.TrySetResult();
        Recovered();
        wakeups.All();
        await ListenAsync(connection, stoppingToken);
    }

    /// <summary>Called when all that was claimed has ended: leaves nothing behind.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        if (_number == 0)
            return;
        try
        {
            await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
            await FreeAsync(connection, [_number], cancellationToken);
        }
        catch (Exception e) when (IsAway(e) || e is ObjectDisposedException)
        {
            // Whoever can take the lock, which goes with this process, frees what is left.
            Log.NotFreed(Logger, e.Message);
        }
    }

    /// <summary>After a broken connection the old number is taken again, if nobody declared this process dead meanwhile.</summary>
    private async Task RegisterAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        connection.Notification += (_, e) => wakeups.Heard(e.Channel);
        await using (var listen = new NpgsqlCommand(
            $"LISTEN {Notifications.Events}; LISTEN {Notifications.Deliveries}; LISTEN {Notifications.Subscriptions}", connection))
            await listen.ExecuteNonQueryAsync(cancellationToken);

        if (_number != 0)
        {
            await using var again = new NpgsqlCommand(
                $"SELECT pg_try_advisory_lock({AdvisoryLocks.WorkerClass}, number) FROM workers WHERE number = $1", connection)
            { Parameters = { new() { Value = _number } } };
            if (await again.ExecuteScalarAsync(cancellationToken) is true)
            {
                await using var stillThere = new NpgsqlCommand("SELECT count(*) FROM workers WHERE number = $1", connection)
                { Parameters = { new() { Value = _number } } };
                if (await stillThere.ExecuteScalarAsync(cancellationToken) is 1L)
                    return;
            }
        }

        // The number is locked before anyone can see it.
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var register = new NpgsqlCommand("INSERT INTO workers (host) VALUES ($1) RETURNING number", connection)
        { Parameters = { new() { Value = $"{Environment.MachineName}:{Environment.ProcessId}" } } };
        var number = (int)(await register.ExecuteScalarAsync(cancellationToken))!;
        await using (var take = new NpgsqlCommand($"SELECT pg_advisory_lock({AdvisoryLocks.WorkerClass}, {number})", connection))
            await take.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        _number = number;
        Log.Registered(Logger, number);
    }

    private async Task ListenAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        var lookedAt = 0L;
        while (true)
        {
            // Once a second while anything moves, for then something may be leased; else as rarely as the sweep.
            var interval = Time.GetElapsedTime(wakeups.LastHeard) < options.Value.Lease ? LookInterval : IdleLookInterval;
            var wait = lookedAt == 0 ? TimeSpan.Zero : interval - Time.GetElapsedTime(lookedAt);
            if (wait > TimeSpan.Zero)
            {
                // In whole milliseconds, upwards: Npgsql cuts the rest off, and takes zero for no bound at all.
                await connection.WaitAsync((int)Math.Ceiling(wait.TotalMilliseconds), cancellationToken);
                continue;
            }
            await FreeDeadAsync(connection, cancellationToken);
            lookedAt = Time.GetTimestamp();
        }
    }

    /// <summary>Frees what workers had claimed whose lock can be taken: nobody holds it, so they are dead.</summary>
    private async Task FreeDeadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        // Most looks find nobody dead, and end here: without a transaction the locks are let go with the statement.
        if ((await LockDeadAsync(connection, cancellationToken)).Length == 0)
            return;
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var dead = await LockDeadAsync(connection, cancellationToken);
        var freed = dead.Length > 0 ? await FreeAsync(connection, dead, cancellationToken) : 0;
        await transaction.CommitAsync(cancellationToken);
        if (dead.Length > 0)
            Log.Freed(Logger, string.Join(", ", dead), freed);
        metrics.WorkerDied(freed);
        wakeups.All();
    }

    private async Task<int[]> LockDeadAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var find = new NpgsqlCommand(
            $"SELECT number FROM workers WHERE number <> $1 AND pg_try_advisory_xact_lock({AdvisoryLocks.WorkerClass}, number)",
            connection)
        { Parameters = { new() { Value = _number } } };
        await using var reader = await find.ExecuteReaderAsync(cancellationToken);
        var dead = new List<int>();
        while (await reader.ReadAsync(cancellationToken))
            dead.Add(reader.GetInt32(0));
        return [.. dead];
    }

    private static async Task<int> FreeAsync(NpgsqlConnection connection, int[] numbers, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { DeliveryQueue.Rescue(numbers) } };
        return await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "This is worker {Number}")]
        public static partial void Registered(ILogger logger, int number);

        [LoggerMessage(EventId = 2, Level = LogLevel.Warning, Message = "Worker {Numbers} died; {Rows} rows of it are free again")]
        public static partial void Freed(ILogger logger, string numbers, int rows);

        [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "What this worker had claimed was not freed: {Problem}")]
        public static partial void NotFreed(ILogger logger, string problem);
    }
}
