using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>What waits in the database, over all processes. Counts end at <see cref="MaxCounted"/>.</summary>
/// <param name="Pending">Deliveries without a final state.</param>
/// <param name="Due">Those whose time has come and that nobody has claimed; without those that wait on purpose: of disabled
/// subscriptions, and behind open circuits.</param>
/// <param name="OldestDueSeconds">How long the one that waits longest has been due; 0 when none is.</param>
/// <param name="UnresolvedDeadLetters">Dead letters that are open or being replayed.</param>
/// <param name="LogLagEvents">Events in the Postgres log that are not projected; numbers that were never used count.</param>
/// <param name="LogLagSeconds">Age of the oldest of them; 0 when there is none.</param>
/// <param name="FanOuts">Events of which deliveries are still to be made; these are not pending before that.</param>
/// <param name="OpenCircuits">Subscriptions whose deliveries are held.</param>
/// <param name="HeldKeys">Keys of ordered subscriptions of which nothing is sent until somebody releases or skips them.</param>
internal sealed record Backlog(
    long Pending, long Due, double OldestDueSeconds, long UnresolvedDeadLetters, long LogLagEvents, double LogLagSeconds, long FanOuts,
    long OpenCircuits, long HeldKeys)
{
    /// <summary>
    /// No count goes further, so that no reading is long however much waits: past this, "a lot" is all there is to know.
    /// </summary>
    public const int MaxCounted = 50_000;

    /// <summary>Reads it, by the due index and other small indexes alone. The pool must offer index plans only.</summary>
    public static async Task<Backlog> ReadAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(DeliveryQueue.Backlog);
        command.Parameters.AddWithValue("max", MaxCounted);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var lagSeconds = reader.IsDBNull(6) ? 0
            : (reader.GetFieldValue<DateTimeOffset>(5) - TypeId.CreatedAt(reader.GetGuid(6))).TotalSeconds;
        return new Backlog(
            reader.GetInt64(0), reader.GetInt64(1), reader.GetDouble(2), reader.GetInt64(3), reader.GetInt64(4), Math.Max(lagSeconds, 0),
            reader.GetInt64(7), reader.GetInt64(8), reader.GetInt64(9));
    }
}

/// <summary>
/// Reads the backlog every 15 seconds for the gauges. Every process does, and reports the same: which of them is asked does not matter,
/// none has to lead, and the question is cheap. While Postgres does not answer nothing is reported, rather than what was true once.
/// </summary>
internal sealed class BacklogWatch(
    EngineDataSource dataSource, DeliveryMetrics metrics, LogLags lags, Readiness readiness, TimeProvider time,
    ILogger<BacklogWatch> logger)
    : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(15);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        try
        {
            var backlog = await Backlog.ReadAsync(dataSource.Pool, stoppingToken);
            metrics.Waiting(backlog);
            lags[("postgres", 0)] = (backlog.LogLagEvents, backlog.LogLagSeconds);
        }
        catch
        {
            metrics.Waiting(null);
            lags.TryRemove(("postgres", 0), out _);
            throw;
        }
        Recovered();
        await Task.Delay(Interval, Time, stoppingToken);
    }
}
