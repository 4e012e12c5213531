using System.Diagnostics;
using Microsoft.Extensions.Options;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Projection;
using Triggers.Delivery.Retries;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Dispatch;

/// <summary>
/// Claims what is due, a lane per subscription, and makes the attempts. It sleeps until something is due or somebody rings; every
/// few seconds it sweeps the index for what nobody told it of.
/// </summary>
internal sealed partial class Dispatcher(
    EngineDataSource dataSource,
    Subscribers subscribers,
    WorkerRegistration worker,
    Lanes lanes,
    Wakeups wakeups,
    WebhookSender sender,
    Completions completions,
    DeliveryMetrics metrics,
    Readiness readiness,
    IOptions<DeliveryOptions> options,
    TimeProvider time,
    ILogger<Dispatcher> logger) : BackgroundService
{
    private static readonly TimeSpan SweepInterval = TimeSpan.FromSeconds(5);

    private readonly CancellationTokenSource _abort = new();

    /// <summary>Starts a delivery for which a place was kept.</summary>
    public void Start(DueDelivery delivery) => _ = AttemptAsync(delivery);

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

    /// <summary>Claims nothing more, lets attempts finish while there is time, then breaks them off: those come due again at once.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await using (cancellationToken.Register(_abort.Cancel))
        {
            while (lanes.Busy > 0)
                await wakeups.Dispatch.WaitAsync(TimeSpan.FromMilliseconds(100), CancellationToken.None);
        }
    }

    public override void Dispose()
    {
        _abort.Dispose();
        base.Dispose();
    }

    /// <summary>A disabled subscription's deliveries wait. Those of a deleted one are claimed, to be cancelled.</summary>
    private bool MayClaim(Guid subscriptionId) => subscribers.Find(subscriptionId) is not { Enabled: false };

    private async Task SweepAsync(CancellationToken cancellationToken)
    {
        await subscribers.RefreshAsync(dataSource.Pool, cancellationToken);
        lanes.Trim();
        // A loose index scan: one probe a lane, however much is due in it.
        await using var command = dataSource.Pool.CreateCommand(
            """
            WITH RECURSIVE lanes AS (
                (SELECT subscription_id, next_attempt_at FROM deliveries WHERE status = 'pending' ORDER BY subscription_id, next_attempt_at LIMIT 1)
                UNION ALL
                SELECT n.subscription_id, n.next_attempt_at
                FROM lanes l CROSS JOIN LATERAL (
                    SELECT subscription_id, next_attempt_at FROM deliveries
                    WHERE status = 'pending' AND subscription_id > l.subscription_id
                    ORDER BY subscription_id, next_attempt_at LIMIT 1) n
            )
            SELECT subscription_id, greatest(extract(epoch FROM next_attempt_at - clock_timestamp()), 0)::float8 FROM lanes
            """);
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
        var filled = new Dictionary<Guid, int>();
        var timedOut = 0;
        var failed = true;
        try
        {
            var claimedAt = time.GetTimestamp();
            await using var command = dataSource.Pool.CreateCommand(ClaimSql);
            command.Parameters.Add(new("lanes", NpgsqlDbType.Uuid | NpgsqlDbType.Array) { Value = due });
            command.Parameters.Add(new("free", NpgsqlDbType.Integer | NpgsqlDbType.Array) { Value = free });
            command.Parameters.Add(new("worker", NpgsqlDbType.Integer) { Value = worker.Number });
            command.Parameters.Add(new("lease", NpgsqlDbType.Interval) { Value = options.Value.Lease });
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                var delivery = Read(reader, claimedAt);
                claimed.Add(delivery);
                if (reader.GetBoolean(8))
                    timedOut++;
                filled[delivery.SubscriptionId] = filled.GetValueOrDefault(delivery.SubscriptionId) + 1;
            }
            failed = false;
        }
        finally
        {
            // A failed claim may have been made all the same; its deliveries then come due when the lease ends.
            if (failed)
            {
                claimed.Clear();
                filled.Clear();
            }
            for (var i = 0; i < due.Length; i++)
            {
                var count = filled.GetValueOrDefault(due[i]);
                lanes.Unreserve(due[i], free[i] - count, mayHaveMore: failed || count == free[i]);
            }
        }
        if (timedOut > 0)
            metrics.LeasesTimedOut(timedOut);
        foreach (var delivery in claimed)
            Start(delivery);
    }

    private static DueDelivery Read(NpgsqlDataReader reader, long claimedAt) => new(
        reader.GetGuid(0), reader.GetGuid(1), reader.GetGuid(2), reader.GetInt32(3), reader.GetInt32(4),
        reader.IsDBNull(5) ? null : reader.GetGuid(5), reader.GetBoolean(6), claimedAt,
        EventRow.Read(reader, 9))
    { LastTraceParent = reader.IsDBNull(7) ? null : reader.GetString(7) };

    /// <summary>
    /// Each lane is asked for as many as it can start now, so one with a million due costs no more than one with ten. The rows are
    /// locked inside a materialized CTE: as a plain join the planner may lock more rows than the limit lets through.
    /// </summary>
    private const string ClaimSql =
        $"""
        WITH due AS MATERIALIZED (
            SELECT d.tenant_id, d.id, d.claimed_by IS NOT NULL AS timed_out
            FROM unnest(@lanes, @free) AS l (subscription_id, free)
            CROSS JOIN LATERAL (
                SELECT tenant_id, id, claimed_by FROM deliveries
                WHERE subscription_id = l.subscription_id AND status = 'pending' AND next_attempt_at <= now()
                ORDER BY next_attempt_at
                LIMIT l.free
                FOR UPDATE SKIP LOCKED) d
        ),
        claimed AS (
            UPDATE deliveries d SET claim = d.claim + 1, claimed_by = @worker, next_attempt_at = clock_timestamp() + @lease
            FROM due WHERE d.tenant_id = due.tenant_id AND d.id = due.id
            RETURNING d.tenant_id, d.id, d.event_id, d.subscription_id, d.claim, d.retry_count, d.replay_of, d.test,
                d.last_trace_parent, due.timed_out
        )
        SELECT c.tenant_id, c.id, c.subscription_id, c.claim, c.retry_count, c.replay_of, c.test, c.last_trace_parent, c.timed_out, {EventRow.Columns}
        FROM claimed c JOIN events e ON e.tenant_id = c.tenant_id AND e.id = c.event_id
        """;

    private async Task AttemptAsync(DueDelivery delivery)
    {
        // Whoever calls goes on at once; and nothing below may throw, for nobody would see it.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using var scope = Log.Attempt(logger, delivery.Event.CorrelationId);
        try
        {
            if (await CompleteAsync(delivery) is { } completion)
                await completions.AddAsync(completion);
        }
        catch (Exception e)
        {
            Log.Broken(logger, e, TypeId.Format(TypeId.Delivery, delivery.Id));
        }
        finally
        {
            if (lanes.Release(delivery.SubscriptionId) || _abort.IsCancellationRequested)
                wakeups.Dispatch.Set();
        }
    }

    /// <summary>Null when nothing was done and nothing is to be written: the lease brings the delivery back.</summary>
    private async Task<Completion?> CompleteAsync(DueDelivery delivery)
    {
        var subscriber = subscribers.Find(delivery.SubscriptionId);
        if (subscriber is null)
        {
            // Deleted, or so new that this process has not read it.
            await subscribers.RefreshAsync(dataSource.Pool, _abort.Token);
            subscriber = subscribers.Find(delivery.SubscriptionId);
            if (subscriber is null)
                return new Completion(delivery, Transition.Cancelled(), null, 0, time.GetTimestamp());
        }
        if (!subscriber.Enabled)
            return new Completion(delivery, Transition.Released(), null, 0, time.GetTimestamp());
        // Too late to be sure to end within the lease.
        if (time.GetElapsedTime(delivery.ClaimedAt) + options.Value.AttemptTimeout + DeliveryOptions.LeaseMargin >= options.Value.Lease)
            return null;

        var number = delivery.RetryCount + 1;
        using var activity = DeliveryTraces.StartAttempt(delivery, subscriber.Url, number);
        try
        {
            return await SendAsync(delivery, subscriber, number, activity);
        }
        catch (Exception e)
        {
            // Here, and not only by the caller, so that the line is in the attempt's trace.
            activity?.SetStatus(ActivityStatusCode.Error, e.Message);
            Log.Broken(logger, e, TypeId.Format(TypeId.Delivery, delivery.Id));
            return null;
        }
    }

    private async Task<Completion> SendAsync(DueDelivery delivery, Subscriber subscriber, int number, Activity? activity)
    {
        var started = time.GetTimestamp();
        // A replay and a test begin long after the event: they say nothing of how fast events get through.
        var counts = delivery is { ReplayOf: null, Test: false };
        if (number == 1 && counts)
            metrics.FirstAttempt(SinceAcceptance(delivery));
        AttemptResult result;
        metrics.AttemptStarted();
        try
        {
            result = await sender.SendAsync(delivery, subscriber, number, activity, _abort.Token);
        }
        catch (OperationCanceledException)
        {
            return new Completion(delivery, Transition.Released(), null, number, started);
        }
        finally
        {
            metrics.AttemptEnded();
        }

        var transition = RetrySchedule.After(
            options.Value.Retry, number, result.Outcome, result.StatusCode, result.RetryAfter, Random.Shared.NextDouble());
        if (delivery.Test && result.Outcome != AttemptOutcome.Delivered)
            transition = Transition.Cancelled();
        metrics.Attempted(result);
        if (result.Outcome == AttemptOutcome.Delivered && counts)
            metrics.Delivered(SinceAcceptance(delivery));
        DeliveryTraces.Attempted(activity, result, transition.Status);
        if (transition.Status != DeliveryStatus.Succeeded)
        {
            Log.Failed(logger, TypeId.Format(TypeId.Delivery, delivery.Id), TypeId.Format(TypeId.Event, delivery.Event.Id),
                TypeId.Format(TypeId.Subscription, delivery.SubscriptionId), number, SnakeCase<AttemptOutcome>.Of(result.Outcome),
                result.Cause, SnakeCase<DeliveryStatus>.Of(transition.Status), transition.Delay.TotalSeconds);
        }
        return new Completion(delivery, transition, result, number, started)
        {
            // What is not recorded can't be linked to.
            TraceParent = activity is { Recorded: true } && transition.Status == DeliveryStatus.Pending ? activity.Id : null,
        };
    }

    private TimeSpan SinceAcceptance(DueDelivery delivery) => time.GetUtcNow() - TypeId.CreatedAt(delivery.Event.Id);

    private static partial class Log
    {
        // As in the API's requests: in every line that is written during an attempt.
        private static readonly Func<ILogger, string, IDisposable?> AttemptScope = LoggerMessage.DefineScope<string>("CorrelationId:{CorrelationId}");

        public static IDisposable? Attempt(ILogger logger, string correlationId) => AttemptScope(logger, correlationId);

        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Postgres is away; dispatch waits")]
        public static partial void Away(ILogger logger, Exception exception);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Delivery {DeliveryId} broke off; its lease brings it back")]
        public static partial void Broken(ILogger logger, Exception exception, string deliveryId);

        [LoggerMessage(EventId = 3, Level = LogLevel.Information,
            Message = "delivery.attempted {DeliveryId} of {EventId} to {SubscriptionId}: attempt {Attempt} ended {Outcome} ({Cause}), now {Status}, due in {DelaySeconds} s")]
        public static partial void Failed(ILogger logger, string deliveryId, string eventId, string subscriptionId, int attempt, string outcome,
            string cause, string status, double delaySeconds);
    }
}
