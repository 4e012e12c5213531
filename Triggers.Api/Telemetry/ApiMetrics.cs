using System.Diagnostics.Metrics;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Telemetry;

/// <summary>What this service counts: one method per fact. <c>docs/metrics.md</c> is made from the names and descriptions here.</summary>
internal sealed class ApiMetrics
{
    private readonly Counter<long> _accepted, _refused, _violations;
    private readonly Histogram<double> _append;
    private readonly Counter<long> _limited;
    private readonly UpDownCounter<long> _bodyBytes;

    public ApiMetrics(IMeterFactory meters)
    {
        var meter = meters.Create("Triggers.Api");
        _accepted = meter.CreateCounter<long>("triggers.events.accepted", "{event}", "Events that are in the log and were answered 202.");
        _refused = meter.CreateCounter<long>("triggers.events.refused", "{event}",
            "Requests with events that were refused, and events of batches; by `reason`, which is the error's code.");
        _violations = meter.CreateCounter<long>("triggers.events.schema_violations", "{event}",
            "Events that did not match the schema of their type, by `mode`: accepted with `warn`, refused with `enforce`.");
        _append = meter.CreateHistogram("triggers.log.append.duration", "s", "From handing events to the log to their being durable.",
            advice: new InstrumentAdvice<double>
            {
                HistogramBucketBoundaries = [
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
            });
        _limited = meter.CreateCounter<long>("triggers.rate_limit.decisions", "{decision}", "What the rate limiter said to requests.");
        _bodyBytes = meter.CreateUpDownCounter<long>("triggers.requests.body.size", "By",
            "Bytes that the bodies of requests under way hold in this process; bounded by `Requests:MaxBodyBytes`.");
    }

    /// <summary>New events are durable.</summary>
    public void Accepted(int events) => _accepted.Add(events);

    /// <summary>A request with events, or an event of a batch, was refused.</summary>
    /// <param name="reason">The error code.</param>
    public void Refused(string reason) => _refused.Add(1, new KeyValuePair<string, object?>("reason", reason));

    /// <summary>An event did not match the schema of its type.</summary>
    public void SchemaViolated(ContractMode mode) =>
        _violations.Add(1, new KeyValuePair<string, object?>("mode", SnakeCase<ContractMode>.Of(mode)));

    /// <summary>An append took this long.</summary>
    public void Appended(TimeSpan duration) => _append.Record(duration.TotalSeconds);

    /// <summary>Bodies of requests hold so many bytes more, or less.</summary>
    public void BodyBytesHeld(long bytes) => _bodyBytes.Add(bytes);

    /// <summary>The limiter decided about a request.</summary>
    /// <param name="result"><c>allowed</c>, <c>limited</c> or <c>quota_exceeded</c>.</param>
    /// <param name="source"><c>redis</c>, or <c>local</c> without it.</param>
    public void RateLimitDecided(string result, string source) =>
        _limited.Add(1, new KeyValuePair<string, object?>("result", result), new KeyValuePair<string, object?>("source", source));
}
