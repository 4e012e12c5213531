using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Makes the deliveries of events that many subscribe to, a portion at a time and beside the log, so that what comes after such an event
/// does not wait behind it.
/// </summary>
internal sealed class FanOutLoop(
    EngineDataSource dataSource,
    Projection projection,
    WorkerRegistration worker,
    Wakeups wakeups,
    TimeProvider time,
    ILogger<FanOutLoop> logger) : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(stoppingToken);
        while (true)
        {
            while (await projection.FanOutAsync(connection, stoppingToken))
            {
            }
            Recovered();
            await wakeups.FanOuts.WaitAsync(LookInterval, stoppingToken);
        }
    }
}
