using Npgsql;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>Deletes subscriptions whose time is over. Every process does; that another was first changes nothing.</summary>
internal sealed class Expiry(EngineDataSource dataSource, Readiness readiness, TimeProvider time, ILogger<Expiry> logger)
    : BackgroundLoop(time, logger)
{
    private const string IsOver = "expires_at <= now() AND deleted_at IS NULL";
    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(5);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        // Every write to subscriptions has them read again, also one that writes none.
        await using (var look = dataSource.Pool.CreateCommand($"SELECT EXISTS (SELECT FROM subscriptions WHERE {IsOver})"))
        {
            if (await look.ExecuteScalarAsync(stoppingToken) is true)
            {
                await using var delete = dataSource.Pool.CreateCommand($"UPDATE subscriptions SET deleted_at = now() WHERE {IsOver}");
                await delete.ExecuteNonQueryAsync(stoppingToken);
            }
        }
        Recovered();
        await Task.Delay(s_interval, Time, stoppingToken);
    }
}
