using System.Diagnostics.Metrics;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Maintenance;
using Triggers.Delivery.Subscriptions;
using Triggers.EventLog;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Delivery;

/// <summary>
/// What the delivery service counts: one method per fact. <c>docs/metrics.md</c> is made from the names and descriptions here.
/// </summary>
internal sealed class DeliveryMetrics
{
    private static readonly InstrumentAdvice<double> Short =
        new() { HistogramBucketBoundaries = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5] };
    private static readonly InstrumentAdvice<double> Requests =
        new() { HistogramBucketBoundaries = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30] };
    // Milliseconds when all is well; up to the end of the retries when it is not.
    private static readonly InstrumentAdvice<double> SinceAccept =
        new() { HistogramBucketBoundaries = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 43200, 86400] };
    private static readonly InstrumentAdvice<int> Sizes =
        new() { HistogramBucketBoundaries = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] };

    private readonly Histogram<int> _batchSize, _requestSize;
    private readonly Histogram<double> _batchDuration, _attemptDuration, _toFirstAttempt, _toDelivered;
    private readonly Counter<long> _staleConnections, _finished, _deadLetters, _leasesExpired, _setAside, _dropped, _circuitsOpened,
        _limitsReached, _expiredInInbox;
    private readonly UpDownCounter<long> _active;
    private volatile Backlog? _backlog;

    public DeliveryMetrics(IMeterFactory meters, Lanes lanes, Subscribers subscribers, LogLags lags)
    {
        var meter = meters.Create("Triggers.Delivery");

        _batchSize = meter.CreateHistogram("triggers.projection.batch.size", "{event}",
            "Events of a batch read from the log and matched, by `log`; the sum counts events.", advice: Sizes);
        _batchDuration = meter.CreateHistogram("triggers.projection.batch.duration", "s",
            "Reading what one transaction takes from the log, matching it, and committing what follows, without the wait for more, "
                + "by `log`.", advice: Short);
        _setAside = meter.CreateCounter<long>("triggers.projection.set_aside", "{record}",
            "Records of the log that could not be projected: those of Kafka are in the topic of invalid records, those of Postgres in the "
                + "inbox.");
        meter.CreateObservableGauge("triggers.log.lag.events", () => lags.Select(lag => Lag(lag.Key, lag.Value.Events)), "{event}",
            "Events in the log that are not projected yet, by `log` and `partition`.");
        meter.CreateObservableGauge("triggers.log.lag.duration", () => lags.Select(lag => Lag(lag.Key, lag.Value.Seconds)), "s",
            "Age of the oldest event that is not projected yet, by `log` and `partition`; 0 when there is none.");

        _active = meter.CreateUpDownCounter<long>(
            "triggers.delivery.attempts.active", "{attempt}", "Webhook requests under way in this process.");
        _attemptDuration = meter.CreateHistogram("triggers.delivery.attempt.duration", "s",
            "How long a webhook request took, by `outcome`; the count counts attempts.", advice: Requests);
        _requestSize = meter.CreateHistogram("triggers.delivery.batch.size", "{event}",
            "Events of a webhook request to a subscription that gets several at once.", advice: Sizes);
        _staleConnections = meter.CreateCounter<long>("triggers.delivery.connections.stale", "{connection}",
            "Kept-alive connections that turned out to be closed when a webhook went out on them; each time it was sent once more, on "
                + "a fresh one, within the same attempt.");
        _finished = meter.CreateCounter<long>("triggers.delivery.finished", "{delivery}",
            "Deliveries that reached a final state, by `status`: `succeeded`, `dead_lettered`, `cancelled` or `expired`.");
        _expiredInInbox = meter.CreateCounter<long>("triggers.inbox.expired", "{event}",
            "Events that nobody subscribes to and that left the inbox because their `expiresAt` had come.");
        _toFirstAttempt = meter.CreateHistogram("triggers.delivery.accept_to_first_attempt", "s",
            "From the acceptance of an event, or its `deliverAt`, to the start of a delivery's first attempt; without replays and "
                + "tests.", advice: SinceAccept);
        _toDelivered = meter.CreateHistogram("triggers.delivery.accept_to_delivered", "s",
            "From the acceptance of an event, or its `deliverAt`, to the receiver's 2xx; without replays and tests.", advice: SinceAccept);
        _leasesExpired = meter.CreateCounter<long>("triggers.delivery.leases.expired", "{delivery}",
            "Claimed deliveries that came due again before a result was written, by `reason`: `timeout` of the lease, or `worker_died`.");
        meter.CreateObservableGauge(
            "triggers.delivery.lanes", () => lanes.CountByState(id => subscribers.Find(id) is { Enabled: false }).Select(state =>
                new Measurement<int>(state.Count, new KeyValuePair<string, object?>("state", state.State))), "{lane}",
            "Lanes (one per subscription) in this process, by `state`: `full` (every place taken), `active`, `waiting` (for a time to "
                + "come), `held` (the receiver fails, or wants to be left alone), `limited` (by its subscription's limits), or `paused` "
                + "(the subscription is disabled).");
        _circuitsOpened = meter.CreateCounter<long>("triggers.delivery.circuits.opened", "{circuit}",
            "Subscriptions whose circuit this process opened, because their receiver failed too often.");
        _limitsReached = meter.CreateCounter<long>("triggers.delivery.limits.reached", "{wait}",
            "Times that a lane of this process began to wait for a limit of its subscription, by `limit`: `rate` or `concurrency`.");
        meter.CreateObservableGauge("triggers.delivery.circuits.open", () => Of(b => b.OpenCircuits), "{circuit}",
            "Subscriptions whose deliveries are held, in the whole system, by request or because their receiver fails.");
        meter.CreateObservableGauge("triggers.delivery.keys.held", () => Of(b => b.HeldKeys), "{key}",
            "Keys of ordered subscriptions that are blocked or parked, since their first delivery failed for good, until somebody releases "
                + $"or skips it, in the whole system; stops counting at {Backlog.MaxCounted}.");

        meter.CreateObservableGauge("triggers.delivery.pending", () => Of(b => b.Pending), "{delivery}",
            $"Deliveries without a final state, in the whole system; stops counting at {Backlog.MaxCounted}.");
        meter.CreateObservableGauge("triggers.delivery.fan_outs", () => Of(b => b.FanOuts), "{event}",
            "Events that so many subscribe to that deliveries of them are still to be made, in the whole system; stops counting at "
            + $"{Backlog.MaxCounted}.");
        meter.CreateObservableGauge("triggers.delivery.due", () => Of(b => b.Due), "{delivery}",
            $"Deliveries that could start now and wait for a place, in the whole system; stops counting at {Backlog.MaxCounted}.");
        meter.CreateObservableGauge("triggers.delivery.oldest_due.age", () => Of(
            b => b.OldestDueSeconds), "s", "How long the delivery that waits longest has been due, in the whole system; 0 when none is.");
        _dropped = meter.CreateCounter<long>("triggers.retention.dropped", "{row}",
            "Rows of days that were dropped because they are older than `Retention` has it, by `table`.");
        _deadLetters = meter.CreateCounter<long>("triggers.dead_letters.written", "{delivery}",
            "Deliveries that failed for good, by `reason`: `exhausted`, `rejected`, `too_old` or `undeliverable`.");
        meter.CreateObservableGauge("triggers.dead_letters.unresolved", () => Of(b => b.UnresolvedDeadLetters), "{delivery}",
            $"Dead letters that nobody resolved or discarded yet, in the whole system; stops counting at {Backlog.MaxCounted}.");
    }

    /// <summary>A batch was read from a log, and what follows from it is committed.</summary>
    /// <param name="log">The log's name, <c>postgres</c> or <c>kafka</c>.</param>
    /// <param name="events">How many there were.</param>
    /// <param name="duration">From the reading to the commit.</param>
    public void Projected(string log, int events, TimeSpan duration)
    {
        var tag = new KeyValuePair<string, object?>("log", log);
        _batchSize.Record(events, tag);
        _batchDuration.Record(duration.TotalSeconds, tag);
    }

    /// <summary>So many records of the log could not be projected.</summary>
    public void SetAside(int records) => _setAside.Add(records);

    /// <summary>What waits in the database; null when that can't be told, so that nothing is reported.</summary>
    public void Waiting(Backlog? backlog) => _backlog = backlog;

    /// <summary>An attempt starts.</summary>
    public void AttemptStarted() => _active.Add(1);

    /// <summary>It ended, or was broken off.</summary>
    public void AttemptEnded() => _active.Add(-1);

    /// <summary>A kept-alive connection was closed, and the request goes out once more on a fresh one.</summary>
    public void StaleConnection() => _staleConnections.Add(1);

    /// <summary>The first attempt of a delivery starts.</summary>
    public void FirstAttempt(TimeSpan sinceAcceptance) => _toFirstAttempt.Record(sinceAcceptance.TotalSeconds);

    /// <summary>An attempt has a result.</summary>
    public void Attempted(AttemptResult result) =>
        _attemptDuration.Record(
            result.Duration.TotalSeconds, new KeyValuePair<string, object?>("outcome", SnakeCase<AttemptOutcome>.Of(result.Outcome)));

    /// <summary>A request with so many events has a result.</summary>
    public void BatchSent(int events) => _requestSize.Record(events);

    /// <summary>The receiver has it.</summary>
    public void Delivered(TimeSpan sinceAcceptance) => _toDelivered.Record(sinceAcceptance.TotalSeconds);

    /// <summary>Deliveries reached a final state.</summary>
    public void Finished(string status, long deliveries) => _finished.Add(deliveries, new KeyValuePair<string, object?>("status", status));

    /// <summary>Events expired that waited for somebody to receive them.</summary>
    public void ExpiredInInbox(long events) => _expiredInInbox.Add(events);

    /// <summary>Deliveries became dead letters.</summary>
    public void DeadLettered(string reason, long deliveries) =>
        _deadLetters.Add(deliveries, new KeyValuePair<string, object?>("reason", reason));

    /// <summary>Deliveries were claimed again whose last claim had come to nothing.</summary>
    public void LeasesTimedOut(int deliveries) => _leasesExpired.Add(deliveries, new KeyValuePair<string, object?>("reason", "timeout"));

    /// <summary>The receiver of a subscription failed too often.</summary>
    public void CircuitOpened() => _circuitsOpened.Add(1);

    /// <summary>A lane waits for a limit of its subscription.</summary>
    public void LimitReached(LimitKind limit) =>
        _limitsReached.Add(1, new KeyValuePair<string, object?>("limit", SnakeCase<LimitKind>.Of(limit)));

    /// <summary>What a dead worker had claimed is due again.</summary>
    public void WorkerDied(int deliveries) => _leasesExpired.Add(deliveries, new KeyValuePair<string, object?>("reason", "worker_died"));

    /// <summary>A day of a table was dropped.</summary>
    public void Dropped(string table, long rows) => _dropped.Add(rows, new KeyValuePair<string, object?>("table", table));

    private IEnumerable<Measurement<T>> Of<T>(Func<Backlog, T> value) where T : struct =>
        _backlog is { } backlog ? [new Measurement<T>(value(backlog))] : [];

    private static Measurement<T> Lag<T>((string Log, int Partition) of, T value) where T : struct =>
        new(value, new KeyValuePair<string, object?>("log", of.Log), new KeyValuePair<string, object?>("partition", of.Partition));
}
