using Npgsql;
using Triggers.Core.State;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>Once an hour: partitions for the days ahead, and idempotency keys, with their answers, whose day is over. Any process may do it.</summary>
internal sealed class Housekeeping(NpgsqlDataSource dataSource, Readiness readiness, TimeProvider time, ILogger<Housekeeping> logger)
    : BackgroundLoop(time, logger)
{
    private const int DaysAhead = 7;

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await KeepAsync(dataSource, stoppingToken);
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

    /// <summary>In portions, so that no transaction is long.</summary>
    private static async Task DeleteAsync(NpgsqlDataSource dataSource, string table, string condition, CancellationToken cancellationToken)
    {
        int deleted;
        do
        {
            await using var command = dataSource.CreateCommand(
                $"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT 5000 FOR UPDATE SKIP LOCKED))");
            deleted = await command.ExecuteNonQueryAsync(cancellationToken);
        }
        while (deleted == 5000);
    }
}
