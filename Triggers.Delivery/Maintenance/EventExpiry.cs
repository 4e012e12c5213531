using Npgsql;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery.Completion;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>
/// Ends what is too late and nobody claims: deliveries that are held, wait in order or in an inbox, and events that nobody wanted. What is
/// claimed is found to be too late by whoever is to send it. Every process does; that another was first changes nothing.
/// </summary>
internal sealed class EventExpiry(
    EngineDataSource dataSource, Completions completions, DeliveryMetrics metrics, Readiness readiness, TimeProvider time,
    ILogger<EventExpiry> logger)
    : BackgroundLoop(time, logger)
{
    private const int AtOnce = 500;
    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(5);

    /// <summary>While there is more: what was found has ended by then, as a rule.</summary>
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(200);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            var (late, unclaimed) = await FindAsync(stoppingToken);
            foreach (var result in late)
                await completions.AddAsync(new Completed(result, Time.GetTimestamp()));
            if (unclaimed > 0)
                metrics.ExpiredInInbox(unclaimed);
            Recovered();
            await Task.Delay(late.Count == AtOnce || unclaimed == AtOnce ? s_pause : s_interval, Time, stoppingToken);
        }
    }

    private async Task<(List<DeliveryResult> Late, long Unclaimed)> FindAsync(CancellationToken cancellationToken)
    {
        await using var batch = dataSource.Pool.CreateBatch();
        batch.BatchCommands.Add(EventTimes.TooLate(AtOnce));
        batch.BatchCommands.Add(EventTimes.ExpireUnclaimed(AtOnce));
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        var late = new List<DeliveryResult>();
        while (await reader.ReadAsync(cancellationToken))
        {
            late.Add(new DeliveryResult(
                reader.GetGuid(0), reader.GetGuid(1), reader.GetGuid(2), reader.GetGuid(3), reader.GetInt32(4),
                DeliveryStatus.Expired, null)
            {
                IsReplay = reader.GetBoolean(5),
                OrderKey = reader.IsDBNull(6) ? null : reader.GetString(6),
            });
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (late, reader.GetInt64(0));
    }
}
