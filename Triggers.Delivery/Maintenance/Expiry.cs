using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Delivery.Subscriptions;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Maintenance;

/// <summary>
/// Deletes subscriptions whose time is over, and tells their tenants. Every process does; that another was first changes nothing.
/// </summary>
internal sealed class Expiry(
    EngineDataSource dataSource, OperationalEvents events, Readiness readiness, TimeProvider time, ILogger<Expiry> logger)
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
                    await DeleteAsync(stoppingToken);
            }
            Recovered();
            await Task.Delay(s_interval, Time, stoppingToken);
        }
    }

    private async Task DeleteAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var deleted = new List<(Guid TenantId, Guid Id, string Url, DateTimeOffset ExpiresAt)>();
        await using (var command = new NpgsqlCommand(SubscriptionEnds.DeleteThoseOver, connection, transaction))
        await using (var reader = await command.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
                deleted.Add((reader.GetGuid(0), reader.GetGuid(1), reader.GetString(2), reader.GetFieldValue<DateTimeOffset>(3)));
        }
        foreach (var (tenantId, id, url, expiresAt) in deleted)
        {
            await events.TellAsync(connection, tenantId, OperationalEventTypes.Expired,
                new { subscriptionId = TypeId.Format(TypeId.Subscription, id), url, expiresAt }, cancellationToken);
        }
        await transaction.CommitAsync(cancellationToken);
    }
}
