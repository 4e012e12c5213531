using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Completion;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Dispatch;

/// <summary>
/// Claims what is due, a lane per subscription, and hands it to be attempted. It sleeps until something is due or somebody rings; every
/// few seconds it sweeps the index for what nobody told it of.
/// </summary>
internal sealed partial class Dispatcher(
    EngineDataSource dataSource,
    NpgsqlDataSource events,
    Subscribers subscribers,
    WorkerRegistration worker,
    Lanes lanes,
    Wakeups wakeups,
    Attempter attempter,
    Completions completions,
    DeliveryMetrics metrics,
    Readiness readiness,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<Dispatcher> logger) : BackgroundService
{
    private static readonly TimeSpan SweepInterval = TimeSpan.FromSeconds(5);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await readiness.SchemaIsThere.WaitAsync(stoppingToken);
        await worker.Registered.WaitAsync(stoppingToken);
        var sweptAt = 0L;
        var wasAway = false;
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                if (wakeups.TakeSweep() || sweptAt == 0 || time.GetElapsedTime(sweptAt) >= SweepInterval)
                {
                    await SweepAsync(stoppingToken);
                    sweptAt = time.GetTimestamp();
                }
                await ClaimAsync(stoppingToken);
                wasAway = false;
                var untilSweep = SweepInterval - time.GetElapsedTime(sweptAt);
                var wait = lanes.UntilNextDue(untilSweep > TimeSpan.Zero ? untilSweep : TimeSpan.Zero, MayClaim);
                if (wait > TimeSpan.Zero)
                    await wakeups.Dispatch.WaitAsync(wait, stoppingToken);
            }
            catch (Exception e) when (Postgres.IsAway(e) && !stoppingToken.IsCancellationRequested)
            {
                if (!wasAway)
                    Log.Away(logger, e);
                wasAway = true;
                sweptAt = 0;
                await wakeups.Dispatch.WaitAsync(TimeSpan.FromMilliseconds(500), stoppingToken);
            }
        }
    }

    /// <summary>Claims nothing more, and ends with the last attempt.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await attempter.DrainAsync(cancellationToken);
    }

    /// <summary>A disabled subscription's deliveries wait. Those of a deleted one are claimed, to be cancelled.</summary>
    private bool MayClaim(Guid subscriptionId) => subscribers.Find(subscriptionId) is not { Enabled: false };

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(dataSource.Pool, cancellationToken);
        lanes.Trim();
        await using var command = dataSource.Pool.CreateCommand(DeliveryQueue.NextDue);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            lanes.DueIn(reader.GetGuid(0), TimeSpan.FromSeconds(Math.Min(reader.GetDouble(1), 3600)));
    }

    private async Task ClaimAsync(CancellationToken cancellationToken)
    {
        if (completions.IsFull)
        {
            await wakeups.Dispatch.WaitAsync(TimeSpan.FromMilliseconds(20), cancellationToken);
            return;
        }
        var (due, free) = lanes.ReserveDue(MayClaim);
        if (due.Length == 0)
            return;

        var claimed = new List<DueDelivery>();
        var failed = true;
        try
        {
            claimed = await ClaimAsync(due, free, cancellationToken);
            failed = false;
        }
        finally
        {
            // A failed claim may have been made all the same; its deliveries then come due when the lease ends.
            var filled = claimed.CountBy(d => d.SubscriptionId).ToDictionary();
            for (var i = 0; i < due.Length; i++)
            {
                var count = filled.GetValueOrDefault(due[i]);
                lanes.Unreserve(due[i], free[i] - count, mayHaveMore: failed || count == free[i]);
            }
        }
        foreach (var delivery in claimed)
            attempter.Start(delivery);
    }

    private async Task<List<DueDelivery>> ClaimAsync(Guid[] due, int[] free, CancellationToken cancellationToken)
    {
        var claimedAt = time.GetTimestamp();
        var claimed = new List<(Guid Tenant, Guid Event, DueDelivery Delivery)>();
        var timedOut = 0;
        await using (var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken))
        await using (var batch = new NpgsqlBatch(connection))
        {
            batch.BatchCommands.Add(DeliveryQueue.Claim(
                due, free, Array.ConvertAll(due, _ => long.MaxValue), Array.ConvertAll(due, _ => true), worker.Number, options.Value.Lease));
            await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                claimed.Add((reader.GetGuid(1), reader.GetGuid(2), new DueDelivery(
                    reader.GetGuid(1), reader.GetGuid(0), reader.GetGuid(3), reader.GetInt32(4), reader.GetInt32(5),
                    reader.IsDBNull(6) ? null : reader.GetGuid(6), reader.GetBoolean(7), claimedAt, null!)
                { LastTraceParent = reader.IsDBNull(8) ? null : reader.GetString(8) }));
                if (reader.GetBoolean(10))
                    timedOut++;
            }
        }
        if (timedOut > 0)
            metrics.LeasesTimedOut(timedOut);
        if (claimed.Count == 0)
            return [];

        var read = new Dictionary<Guid, EventToSend>();
        await using (var command = events.CreateCommand($"SELECT {EventRow.Columns} FROM events e WHERE e.tenant_id = ANY ($1) AND e.id = ANY ($2)"))
        {
            command.Parameters.Add(new() { Value = claimed.Select(c => c.Tenant).Distinct().ToArray() });
            command.Parameters.Add(new() { Value = claimed.Select(c => c.Event).Distinct().ToArray() });
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                var e = EventRow.Read(reader, 0);
                read[e.Id] = e;
            }
        }
        return [.. claimed.Where(c => read.ContainsKey(c.Event)).Select(c => c.Delivery with { Event = read[c.Event] })];
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Postgres is away; dispatch waits")]
        public static partial void Away(ILogger logger, Exception exception);
    }
}
