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
internal sealed class Dispatcher(
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
    ILogger<Dispatcher> logger) : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan SweepInterval = TimeSpan.FromSeconds(5);

    /// <summary>Tests that one subscription may have in flight, beside what its lane has.</summary>
    private const int TestConcurrency = 4;

    /// <summary>Somebody waits for a test: it has places of its own, however full the lane is, and whether or not the subscription is enabled.</summary>
    private readonly Lanes _tests = new(TestConcurrency, time);

    protected override async Task PrepareAsync(CancellationToken stoppingToken)
    {
        await readiness.SchemaIsThere.WaitAsync(stoppingToken);
        await worker.Registered.WaitAsync(stoppingToken);
    }

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        // The first look of a round, the one after Postgres was away too, sweeps.
        var sweptAt = 0L;
        while (true)
        {
            if (wakeups.TakeSweep() || sweptAt == 0 || Time.GetElapsedTime(sweptAt) >= SweepInterval)
            {
                await SweepAsync(stoppingToken);
                sweptAt = Time.GetTimestamp();
            }
            if (completions.IsFull)
            {
                await wakeups.Dispatch.WaitAsync(TimeSpan.FromMilliseconds(20), stoppingToken);
                continue;
            }
            await ClaimAsync(_tests, _ => true, stoppingToken);
            await ClaimAsync(lanes, MayClaim, stoppingToken);
            Recovered();
            var untilSweep = SweepInterval - Time.GetElapsedTime(sweptAt);
            var wait = lanes.UntilNextDue(untilSweep > TimeSpan.Zero ? untilSweep : TimeSpan.Zero, MayClaim);
            wait = _tests.UntilNextDue(wait, _ => true);
            if (wait > TimeSpan.Zero)
                await wakeups.Dispatch.WaitAsync(wait, stoppingToken);
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
        await SweepAsync(lanes, DeliveryQueue.NextDue, cancellationToken);
        await SweepAsync(_tests, DeliveryQueue.NextTestsDue, cancellationToken);
    }

    private async Task SweepAsync(Lanes swept, string nextDue, CancellationToken cancellationToken)
    {
        swept.Trim();
        await using var command = dataSource.Pool.CreateCommand(nextDue);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            swept.DueIn(reader.GetGuid(0), TimeSpan.FromSeconds(Math.Min(reader.GetDouble(1), 3600)));
    }

    private async Task ClaimAsync(Lanes of, Func<Guid, bool> mayClaim, CancellationToken cancellationToken)
    {
        var (due, free) = of.ReserveDue(mayClaim);
        if (due.Length == 0)
            return;

        var claimed = new List<DueDelivery>();
        var failed = true;
        try
        {
            claimed = await ClaimAsync(of == _tests, due, free, cancellationToken);
            failed = false;
        }
        finally
        {
            // A failed claim may have been made all the same; its deliveries then come due when the lease ends.
            var filled = claimed.CountBy(d => d.SubscriptionId).ToDictionary();
            for (var i = 0; i < due.Length; i++)
            {
                var count = filled.GetValueOrDefault(due[i]);
                of.Unreserve(due[i], free[i] - count, mayHaveMore: failed || count == free[i]);
            }
        }
        foreach (var delivery in claimed)
            attempter.Start(delivery, of);
    }

    private async Task<List<DueDelivery>> ClaimAsync(bool tests, Guid[] due, int[] free, CancellationToken cancellationToken)
    {
        var claimedAt = Time.GetTimestamp();
        var claimed = new List<(Guid Tenant, Guid Event, DueDelivery Delivery)>();
        var timedOut = 0;
        await using (var batch = dataSource.Pool.CreateBatch())
        {
            batch.BatchCommands.Add(DeliveryQueue.Claim(
                tests, due, free, Array.ConvertAll(due, _ => long.MaxValue), Array.ConvertAll(due, _ => true), worker.Number, options.Value.Lease));
            await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                claimed.Add((reader.GetGuid(1), reader.GetGuid(2), new DueDelivery(
                    reader.GetGuid(1), reader.GetGuid(0), reader.GetGuid(3), reader.GetInt32(4), reader.GetInt32(5),
                    reader.IsDBNull(7) ? null : reader.GetGuid(7), reader.GetBoolean(8), claimedAt, null!)
                { IsReplay = reader.GetBoolean(6), LastTraceParent = reader.IsDBNull(9) ? null : reader.GetString(9) }));
                if (reader.GetBoolean(11))
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
}
