using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.RateLimiting;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Replays;

/// <summary>
/// Charges tenants for what their replays of ranges of time make, while they make it: an event of the day each. A replay of a tenant that
/// has too few left takes those and is held up, if need be until the next day; the delivery service makes only so much ahead of what is
/// charged. While no replay runs the database is asked rarely: the process in which one begins is woken, and what that leaves undone when
/// it dies is found by the others.
/// </summary>
internal sealed class ReplayCharges(
    NpgsqlDataSource dataSource, RateLimits rates, IOptions<RateLimitingOptions> defaults, Readiness readiness, TimeProvider time,
    ILogger<ReplayCharges> logger)
    : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan IdleLook = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan HoldUp = TimeSpan.FromSeconds(3);

    private TaskCompletionSource _begun = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>A replay begins.</summary>
    public void Wake() => Volatile.Read(ref _begun).TrySetResult();

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Volatile.Write(ref _begun, begun);
        if (!await IsAnyAsync(stoppingToken))
        {
            Recovered();
            await begun.Task.WaitAsync(IdleLook, Time, stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            return;
        }
        while (await ChargeNextAsync(stoppingToken))
            Recovered();
        Recovered();
        await Task.Delay(Pause, Time, stoppingToken);
    }

    /// <summary>Whether a replay runs, or has made what is to be charged now.</summary>
    private async Task<bool> IsAnyAsync(CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            """
            SELECT EXISTS (SELECT FROM replay_jobs WHERE status = 'running')
                OR EXISTS (SELECT FROM replay_jobs WHERE deliveries > charged AND charge_at <= now())
            """);
        return (bool)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>Charges one replay.</summary>
    /// <returns>Whether there was one to charge.</returns>
    private async Task<bool> ChargeNextAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var find = new NpgsqlCommand(
            """
            SELECT j.tenant_id, j.id, (j.deliveries - j.charged)::int, p.requests_per_second, p.burst, p.events_per_day
            FROM replay_jobs j JOIN tenants t ON t.id = j.tenant_id LEFT JOIN usage_plans p ON p.id = t.usage_plan_id
            WHERE j.deliveries > j.charged AND j.charge_at <= now()
            ORDER BY j.charge_at LIMIT 1 FOR NO KEY UPDATE OF j SKIP LOCKED
            """, connection, transaction);
        Guid tenantId, jobId;
        int made;
        PlanLimits? plan;
        await using (var reader = await find.ExecuteReaderAsync(cancellationToken))
        {
            if (!await reader.ReadAsync(cancellationToken))
                return false;
            (tenantId, jobId, made) = (reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2));
            plan = reader.IsDBNull(3) ? null
                : new PlanLimits(reader.GetInt32(3), reader.GetInt32(4), null, null, reader.IsDBNull(5) ? null : reader.GetInt32(5));
        }
        var taken = await rates.TakeOfDayAsync(Limits.OfTenant(tenantId, plan, defaults.Value), made);
        await using var write = new NpgsqlCommand(
            """
            UPDATE replay_jobs SET charged = charged + @taken, charge_at = clock_timestamp() + @holdUp
            WHERE tenant_id = @tenant AND id = @id
            """, connection, transaction);
        write.Parameters.AddWithValue("taken", taken);
        write.Parameters.AddWithValue("holdUp", taken == made ? TimeSpan.Zero : HoldUp);
        write.Parameters.AddWithValue("tenant", tenantId);
        write.Parameters.AddWithValue("id", jobId);
        await write.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return true;
    }
}
