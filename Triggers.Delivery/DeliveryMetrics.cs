using System.Diagnostics;
using System.Diagnostics.Metrics;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Retries;

namespace Triggers.Delivery;

/// <summary>What the delivery service counts. One method for a fact.</summary>
internal sealed class DeliveryMetrics
{
    /// <summary>Name of the meter and of the source of traces.</summary>
    public const string Name = "Triggers.Delivery";

    /// <summary>Traces of attempts.</summary>
    public static readonly ActivitySource Activities = new(Name);

    private readonly Counter<long> _projected, _attempts, _deadLetters, _leasesExpired, _setAside;
    private readonly Histogram<double> _attemptDuration, _toFirstAttempt, _toDelivered;

    public DeliveryMetrics(IMeterFactory meters)
    {
        var meter = meters.Create(Name);
        _projected = meter.CreateCounter<long>("triggers.delivery.projected", "{event}", "Events read from the log and matched.");
        _setAside = meter.CreateCounter<long>("triggers.delivery.invalid_records", "{record}", "Records of the log that could not be projected and were set aside.");
        _attempts = meter.CreateCounter<long>("triggers.delivery.attempts", "{attempt}", "Webhook requests, by outcome.");
        _deadLetters = meter.CreateCounter<long>("triggers.delivery.dead_letters", "{delivery}", "Deliveries that failed for good, by reason.");
        _leasesExpired = meter.CreateCounter<long>("triggers.delivery.leases_expired", "{delivery}", "Claims too old to start an attempt under.");
        _attemptDuration = meter.CreateHistogram<double>("triggers.delivery.attempt.duration", "s", "How long a webhook request took, by outcome.");
        _toFirstAttempt = meter.CreateHistogram<double>("triggers.delivery.accept_to_first_attempt", "s", "From the acceptance of an event to its first attempt.");
        _toDelivered = meter.CreateHistogram<double>("triggers.delivery.accept_to_delivered", "s", "From the acceptance of an event to its delivery.");
    }

    public void Projected(int events) => _projected.Add(events);

    public void SetAside() => _setAside.Add(1);

    public void FirstAttempt(TimeSpan sinceAcceptance) => _toFirstAttempt.Record(sinceAcceptance.TotalSeconds);

    public void Attempted(AttemptResult result, Transition transition, TimeSpan sinceAcceptance)
    {
        var outcome = new KeyValuePair<string, object?>("outcome", SnakeCase<AttemptOutcome>.Of(result.Outcome));
        _attempts.Add(1, outcome);
        _attemptDuration.Record(result.Duration.TotalSeconds, outcome);
        if (transition.Status == DeliveryStatus.Succeeded)
            _toDelivered.Record(sinceAcceptance.TotalSeconds);
    }

    public void DeadLettered(string reason) => _deadLetters.Add(1, new KeyValuePair<string, object?>("reason", reason));

    public void LeaseTooShort() => _leasesExpired.Add(1);
}
