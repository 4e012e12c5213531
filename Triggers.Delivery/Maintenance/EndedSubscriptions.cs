using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>
/// Deletes subscriptions whose time is over, and tells tenants of those that ended, whatever ended them. Every process does; that another
/// was first changes nothing.
/// </summary>
internal sealed class EndedSubscriptions(
    EngineDataSource dataSource, Subscribers subscribers, OperationalEvents events, Wakeups wakeups, Readiness readiness,
    TimeProvider time, ILogger<EndedSubscriptions> logger)
    : BackgroundLoop(time, logger)
{
    private const int MaxAtOnce = 100;
    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(5);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            bool isMore;
            do
            {
                var (isOver, isUntold) = await LookAsync(stoppingToken);
                if (isOver)
                {
                    await using var delete = dataSource.Pool.CreateCommand(SubscriptionEnds.DeleteThoseOver());
                    await delete.ExecuteNonQueryAsync(stoppingToken);
                }
                isMore = (isOver || isUntold) && await TellAsync(stoppingToken) == MaxAtOnce;
            }
            while (isMore);
            Recovered();
            await wakeups.Subscriptions.WaitAsync(s_interval, stoppingToken);
        }
    }

    private async Task<(bool IsOver, bool IsUntold)> LookAsync(CancellationToken cancellationToken)
    {
        await using var command = dataSource.Pool.CreateCommand(SubscriptionEnds.Look);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        return (reader.GetBoolean(0), reader.GetBoolean(1));
    }

    private async Task<int> TellAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var ends = new List<SubscriptionEnd>();
        await using (var batch = new NpgsqlBatch(connection) { BatchCommands = { SubscriptionEnds.TakeUntold(MaxAtOnce) } })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
            {
                ends.Add(new SubscriptionEnd(
                    reader.GetGuid(0), reader.GetGuid(1), reader.GetString(2), reader.GetString(3),
                    reader.IsDBNull(4) ? null : reader.GetString(4), reader.GetFieldValue<DateTimeOffset?>(5)));
            }
        }
        // Whoever subscribed before these ended is told.
        await subscribers.RefreshAsync(dataSource.Pool, cancellationToken);
        foreach (var (tenantId, id, url, type, reason, expiresAt) in ends)
        {
            await events.TellAsync(connection, tenantId, type,
                new { subscriptionId = TypeId.Format(TypeId.Subscription, id), url, reason, expiresAt }, cancellationToken);
        }
        await transaction.CommitAsync(cancellationToken);
        return ends.Count;
    }
}
