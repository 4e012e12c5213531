using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core.State;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>
/// Once an hour: partitions for the days ahead, idempotency keys, with their answers, whose day is over, and history that is old enough to
/// be dropped. Any process may do it.
/// </summary>
internal sealed partial class Housekeeping(
    NpgsqlDataSource dataSource, Readiness readiness, DeliveryMetrics metrics, IOptions<RetentionOptions> retention, TimeProvider time,
    ILogger<Housekeeping> logger) : BackgroundLoop(time, logger)
{
    private const int DaysAhead = 7;

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await KeepAsync(dataSource, stoppingToken);
        await DropAsync(stoppingToken);
        Recovered();
        await Task.Delay(TimeSpan.FromHours(1), Time, stoppingToken);
    }

    internal static async Task KeepAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using (var connection = await dataSource.OpenConnectionAsync(cancellationToken))
            await Partitions.MakeAsync(connection, DaysAhead, cancellationToken);

        await DeleteAsync(dataSource, "request_keys", "expires_at < now() AND expires_at < 'infinity'", cancellationToken);
        await DeleteAsync(dataSource, "first_answers", "expires_at < now()", cancellationToken);
    }

    private async Task DropAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        foreach (var (table, day, rows) in await Retention.DropAsync(connection, retention.Value.DaysOf, cancellationToken))
        {
            metrics.Dropped(table, rows);
            Log.Dropped(Logger, table, day, rows);
        }
    }

    /// <summary>In portions, so that no transaction is long.</summary>
    private static async Task DeleteAsync(NpgsqlDataSource dataSource, string table, string condition, CancellationToken cancellationToken)
    {
        int deleted;
        do
        {
            await using var command = dataSource.CreateCommand(
                $"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT 5000 FOR UPDATE SKIP "
                    + "LOCKED))");
            deleted = await command.ExecuteNonQueryAsync(cancellationToken);
        }
        while (deleted == 5000);
    }

    private static partial class Log
    {
        [LoggerMessage(
            EventId = 1, Level = LogLevel.Information, Message = "Dropped {Table} of {Day}: {Rows} rows, older than Retention has it")]
        public static partial void Dropped(ILogger logger, string table, DateOnly day, long rows);
    }
}
