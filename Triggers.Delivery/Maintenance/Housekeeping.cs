using Npgsql;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>Once an hour: partitions for the days ahead, and idempotency keys whose day is over. Any process may do it.</summary>
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
        await using (var partitions = dataSource.CreateCommand($"SELECT ensure_partitions({DaysAhead})"))
            await partitions.ExecuteNonQueryAsync(cancellationToken);

        // In portions, so that no transaction is long.
        int deleted;
        do
        {
            await using var keys = dataSource.CreateCommand(
                """
                DELETE FROM request_keys WHERE ctid = ANY(ARRAY(
                    SELECT ctid FROM request_keys WHERE expires_at < now() AND expires_at < 'infinity' LIMIT 5000 FOR UPDATE SKIP LOCKED))
                """);
            deleted = await keys.ExecuteNonQueryAsync(cancellationToken);
        }
        while (deleted == 5000);
    }
}
