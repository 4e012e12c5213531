using Npgsql;
using Triggers.Core.State;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>Deletes subscriptions whose time is over. Every process does; that another was first changes nothing.</summary>
internal sealed class Expiry(EngineDataSource dataSource, Readiness readiness, TimeProvider time, ILogger<Expiry> logger)
    : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(5);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            await using (var look = dataSource.Pool.CreateCommand(SubscriptionEnds.AnyIsOver))
            {
                if (await look.ExecuteScalarAsync(stoppingToken) is true)
                {
                    await using var batch = dataSource.Pool.CreateBatch();
                    batch.BatchCommands.Add(SubscriptionEnds.DeleteThoseOver());
                    await batch.ExecuteNonQueryAsync(stoppingToken);
                }
            }
            Recovered();
            await Task.Delay(s_interval, Time, stoppingToken);
        }
    }
}
