using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
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
    Subscribers subscribers,
    WorkerRegistration worker,
    Lanes lanes,
    Wakeups wakeups,
    Attempter attempter,
    Completions completions,
    Circuits.Circuits circuits,
    DeliveryMetrics metrics,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<Dispatcher> logger) : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan SweepInterval = TimeSpan.FromSeconds(5);

    /// <summary>The most deliveries of one claim: whoever is due next waits no longer than such a claim takes.</summary>
    private const int MaxClaimed = 500;

    /// <summary>
    /// While so many steps of attempts wait for a thread no more is claimed. Attempts that wait for a receiver don't count.
    /// </summary>
    private static readonly int MaxWaitingForCpu = 10 * Environment.ProcessorCount;

    /// <summary>Tests that one subscription may have in flight, beside what its lane has.</summary>
    private const int TestConcurrency = 4;

    /// <summary>
    /// Somebody waits for a test: it has places of its own, however full the lane is, and whether or not the subscription is enabled.
    /// </summary>
    private readonly Lanes _tests = new(TestConcurrency, time);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        // First of all which receivers are held: the projection goes by that too.
        await SweepAsync(stoppingToken);
        await FreeAsync(stoppingToken);
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
            // What is claimed beyond what this process can work on would only stand in the way of others, in no order but its own.
            if (ThreadPool.PendingWorkItemCount > MaxWaitingForCpu)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(1), Time, stoppingToken);
                continue;
            }
            await ClaimAsync(_tests, TestedTenant, stoppingToken);
            await ClaimAsync(lanes, Tenant, stoppingToken);
            Recovered();
            var untilSweep = SweepInterval - Time.GetElapsedTime(sweptAt);
            var wait = lanes.UntilNextDue(untilSweep > TimeSpan.Zero ? untilSweep : TimeSpan.Zero, Tenant);
            wait = _tests.UntilNextDue(wait, TestedTenant);
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

    /// <summary>
    /// Whose a lane is, to take tenants in turn. A disabled subscription's deliveries wait, and so do those of an inbox. Those of a
    /// deleted one are claimed, to be cancelled.
    /// </summary>
    private Guid? Tenant(Guid subscriptionId) =>
        subscribers.Find(subscriptionId) is { Enabled: false } or { IsInbox: true } ? null : TestedTenant(subscriptionId);

    private Guid? TestedTenant(Guid subscriptionId) => subscribers.Find(subscriptionId)?.TenantId ?? Guid.Empty;

    /// <summary>Before anything is claimed: after Postgres was away, what was claimed without our knowing is free again.</summary>
    private async Task FreeAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        var claimed = new List<(Guid Id, int Claim)>();
        await using (var batch = new NpgsqlBatch(connection) { BatchCommands = { DeliveryQueue.ClaimedBy(worker.Number) } })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
                claimed.Add((reader.GetGuid(0), reader.GetInt32(1)));
        }
        // Asked only now: the projection begins its attempts before it writes that they are claimed, and goes on meanwhile.
        if (completions.NotHeld(claimed) is not { Count: > 0 } lost)
            return;
        await using var free = new NpgsqlBatch(connection) { BatchCommands = { DeliveryQueue.Free(worker.Number, lost) } };
        await free.ExecuteNonQueryAsync(cancellationToken);
    }

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(dataSource.Pool, cancellationToken);
        await circuits.RefreshAsync(dataSource.Pool, cancellationToken);
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

    private async Task ClaimAsync(Lanes of, Func<Guid, Guid?> tenantOf, CancellationToken cancellationToken)
    {
        var request = of.ReserveDue(tenantOf, MaxClaimed);
        if (request.Lanes.Length == 0)
            return;

        if (Array.Exists(request.Batches, batch => batch is not null))
            request = await ClaimBatchesAsync(of, request, cancellationToken);
        var claimed = new List<DueDelivery>();
        var (tooLarge, to) = (new Dictionary<Guid, int>(), new Dictionary<Guid, DateTime>());
        var failed = true;
        try
        {
            if (request.Lanes.Length > 0)
                await ClaimAsync(of == _tests, request, claimed, tooLarge, to, cancellationToken);
            failed = false;
        }
        finally
        {
            var filled = claimed.GroupBy(d => d.SubscriptionId)
                .ToDictionary(g => g.Key, g => (Count: g.Count(), Bytes: g.Sum(d => (long)d.DataBytes)));
            for (var i = 0; i < request.Lanes.Length; i++)
            {
                var (lane, places) = (request.Lanes[i], request.Places[i]);
                var (count, bytes) = filled.GetValueOrDefault(lane);
                // A failed claim may have been made all the same; its deliveries then come due when the lease ends.
                if (failed)
                    of.NotClaimed(lane, places);
                else
                    of.Claimed(
                        lane, places, count, bytes, tooLarge.TryGetValue(lane, out var next) ? next : null, to.GetValueOrDefault(lane));
            }
        }
        foreach (var delivery in claimed)
            attempter.Start(delivery, of);
    }

    /// <summary>Claims a batch of each lane that takes them.</summary>
    /// <returns>What is asked for by the others.</returns>
    private async Task<ClaimRequest> ClaimBatchesAsync(Lanes of, ClaimRequest request, CancellationToken cancellationToken)
    {
        var byBatches = Enumerable.Range(0, request.Lanes.Length).ToLookup(i => request.Batches[i] is not null);
        int[] batched = [.. byBatches[true]];
        int[] others = [.. byBatches[false]];
        var taken = batched.ToDictionary(
            i => request.Lanes[i], _ => (Batch: new List<DueDelivery>(), Gathered: (0, 0L), AskIn: (TimeSpan?)null));
        var failed = true;
        try
        {
            var claimedAt = Time.GetTimestamp();
            var timedOut = 0;
            await using (var batch = dataSource.Pool.CreateBatch())
            {
                batch.BatchCommands.Add(DeliveryQueue.ClaimBatches(
                    [.. batched.Select(i => request.Lanes[i])], [.. batched.Select(i => request.Batches[i]!.Max)],
                    [.. batched.Select(i => request.Batches[i]!.Wait)], options.Value.BatchBytes, worker.Number, options.Value.Lease));
                await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
                while (await reader.ReadAsync(cancellationToken))
                {
                    var lane = reader.GetGuid(3);
                    if (reader.IsDBNull(0))
                    {
                        taken[lane] = taken[lane] with
                        {
                            Gathered = (reader.GetInt32(5), reader.GetInt32(10)),
                            AskIn = reader.IsDBNull(15) ? null : TimeSpan.FromSeconds(reader.GetDouble(15)),
                        };
                        continue;
                    }
                    taken[lane].Batch.Add(Read(reader, claimedAt) with { IsBehind = reader.GetBoolean(13) });
                    if (reader.GetBoolean(11))
                        timedOut++;
                }
            }
            if (timedOut > 0)
                metrics.LeasesTimedOut(timedOut);
            failed = false;
        }
        finally
        {
            foreach (var (lane, (batch, gathered, askIn)) in taken)
            {
                if (failed)
                    of.NotClaimed(lane, 1);
                else
                    of.ClaimedBatch(
                        lane, batch.Count == 0 ? null : batch.Sum(d => (long)d.DataBytes), options.Value.BatchBytes, gathered, askIn);
            }
            if (failed)
            {
                foreach (var i in others)
                    of.NotClaimed(request.Lanes[i], request.Places[i]);
            }
        }
        foreach (var (batch, _, _) in taken.Values)
        {
            if (batch.Count > 0)
                attempter.Start(batch, of);
        }
        return new ClaimRequest(
            [.. others.Select(i => request.Lanes[i])], [.. others.Select(i => request.Places[i])],
            [.. others.Select(i => request.Bytes[i])], [.. others.Select(i => request.Idle[i])],
            [.. others.Select(i => request.From[i])], new Batching?[others.Length]);
    }

    private async Task ClaimAsync(
        bool tests, ClaimRequest request, List<DueDelivery> claimed, Dictionary<Guid, int> tooLarge, Dictionary<Guid, DateTime> to,
        CancellationToken cancellationToken)
    {
        var claimedAt = Time.GetTimestamp();
        var timedOut = 0;
        await using (var batch = dataSource.Pool.CreateBatch())
        {
            batch.BatchCommands.Add(DeliveryQueue.Claim(
                tests, request.Lanes, request.Places, request.Bytes, request.Idle, request.From, worker.Number, options.Value.Lease));
            await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                if (reader.IsDBNull(0))
                {
                    tooLarge.Add(reader.GetGuid(3), reader.GetInt32(10));
                    continue;
                }
                var due = Read(reader, claimedAt);
                claimed.Add(due);
                if (reader.GetDateTime(13) is var from && from > to.GetValueOrDefault(due.SubscriptionId))
                    to[due.SubscriptionId] = from;
                if (reader.GetBoolean(11))
                    timedOut++;
            }
        }
        if (timedOut > 0)
            metrics.LeasesTimedOut(timedOut);
    }

    private static DueDelivery Read(NpgsqlDataReader reader, long claimedAt) => new(
        reader.GetGuid(1), reader.GetGuid(0), reader.GetGuid(2), reader.GetGuid(3), reader.GetInt32(4), reader.GetInt32(5),
        reader.IsDBNull(7) ? null : reader.GetGuid(7), reader.GetBoolean(8), claimedAt, reader.GetInt32(10))
    {
        IsReplay = reader.GetBoolean(6),
        LastTraceParent = reader.IsDBNull(9) ? null : reader.GetString(9),
        OrderKey = reader.IsDBNull(12) ? null : reader.GetString(12),
    };
}
