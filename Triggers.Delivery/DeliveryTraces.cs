using System.Diagnostics;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.EventLog;

namespace Triggers.Delivery;

/// <summary>
/// The spans of this service. All of them are in the trace of the request that brought the event, whatever process made them;
/// attributes follow the semantic conventions for messaging and for HTTP clients.
/// </summary>
internal static class DeliveryTraces
{
    /// <summary>More links than that are dropped by what exports spans.</summary>
    private const int MaxLinks = 128;

    private static readonly ActivitySource Source = new("Triggers.Delivery");

    /// <summary>
    /// A batch was read from the log, and what follows from it is committed: a span, of the same length, for each of its events whose
    /// trace is sampled. Those that are not cost nothing but the look at their flag.
    /// </summary>
    /// <param name="log">The log's name, <c>postgres</c> or <c>kafka</c>.</param>
    /// <param name="events">The events that are new.</param>
    /// <param name="duration">From reading the batch to its commit.</param>
    /// <param name="now">The moment after the commit.</param>
    public static void Projected(string log, IReadOnlyCollection<LoggedEvent> events, TimeSpan duration, DateTimeOffset now)
    {
        if (!Source.HasListeners())
            return;
        foreach (var (_, e, _, partition) in events)
        {
            if (!ActivityContext.TryParse(e.TraceParent, e.TraceState, isRemote: true, out var parent)
                || !parent.TraceFlags.HasFlag(ActivityTraceFlags.Recorded))
                continue;
            using var activity = Source.StartActivity("project triggers.events", ActivityKind.Consumer, parent, startTime: now - duration);
            if (activity is null)
                continue;
            activity.SetTag("messaging.system", log);
            activity.SetTag("messaging.destination.name", "triggers.events");
            activity.SetTag("messaging.destination.partition.id", partition.ToString());
            activity.SetTag("messaging.operation.name", "project");
            activity.SetTag("messaging.operation.type", "process");
            activity.SetTag("messaging.batch.message_count", events.Count);
            activity.SetTag("messaging.message.id", TypeId.Format(TypeId.Event, e.Id));
            activity.SetTag("triggers.event_type", e.Type);
            activity.SetTag("triggers.correlation_id", e.CorrelationId);
            activity.SetEndTime(now.UtcDateTime);
        }
    }

    /// <summary>
    /// The span of an attempt, linked to that of the attempt it repeats. Its context goes out as the webhook's <c>traceparent</c> and
    /// <c>tracestate</c>.
    /// </summary>
    /// <param name="delivery">What is sent.</param>
    /// <param name="e">Its event.</param>
    /// <param name="url">Where to.</param>
    /// <param name="number">1 for the first attempt.</param>
    public static Activity? StartAttempt(DueDelivery delivery, StoredEvent e, string url, int number)
    {
        ActivityContext.TryParse(e.TraceParent, e.TraceState, isRemote: true, out var parent);
        ActivityLink[]? links = ActivityContext.TryParse(delivery.LastTraceParent, null, isRemote: true, out var last)
            ? [new ActivityLink(last)] : null;
        var activity = Source.StartActivity("POST webhook", ActivityKind.Client, parent, links: links);
        if (activity is not { IsAllDataRequested: true })
            return activity;
        activity.SetTag("http.request.method", "POST");
        if (number > 1)
            activity.SetTag("http.request.resend_count", number - 1);
        Address(activity, url);
        activity.SetTag("triggers.tenant_id", TypeId.Format(TypeId.Tenant, delivery.TenantId));
        activity.SetTag("triggers.event_id", TypeId.Format(TypeId.Event, e.Id));
        activity.SetTag("triggers.event_type", e.Type);
        activity.SetTag("triggers.delivery_id", TypeId.Format(TypeId.Delivery, delivery.Id));
        activity.SetTag("triggers.subscription_id", TypeId.Format(TypeId.Subscription, delivery.SubscriptionId));
        activity.SetTag("triggers.correlation_id", e.CorrelationId);
        activity.SetTag("triggers.attempt", number);
        if (delivery.ReplayOf is { } replayed)
            activity.SetTag("triggers.replay_of", TypeId.Format(TypeId.Delivery, replayed));
        return activity;
    }

    /// <summary>The span of a request with several events, in a trace of its own that is linked to those of the events.</summary>
    /// <param name="batch">What is sent.</param>
    /// <param name="url">Where to.</param>
    public static Activity? StartBatch(Batch batch, string url)
    {
        if (!Source.HasListeners())
            return null;
        var links = batch.Messages.Select(m => m.Event.TraceParent).Concat(batch.Deliveries.Select(d => d.LastTraceParent)).Distinct()
            .Select(parent => ActivityContext.TryParse(parent, null, isRemote: true, out var context) ? context : default)
            .Where(context => context != default).Take(MaxLinks).Select(context => new ActivityLink(context)).ToArray();
        var activity = Source.StartActivity("POST webhook", ActivityKind.Client, default(ActivityContext), links: links);
        if (activity is not { IsAllDataRequested: true })
            return activity;
        activity.SetTag("http.request.method", "POST");
        Address(activity, url);
        var first = batch.Deliveries[0];
        activity.SetTag("messaging.batch.message_count", batch.Deliveries.Count);
        activity.SetTag("triggers.batch_id", TypeId.Format(TypeId.Batch, batch.Id));
        activity.SetTag("triggers.tenant_id", TypeId.Format(TypeId.Tenant, first.TenantId));
        activity.SetTag("triggers.subscription_id", TypeId.Format(TypeId.Subscription, first.SubscriptionId));
        return activity;
    }

    /// <summary>How the attempt ended.</summary>
    public static void Attempted(Activity? activity, AttemptResult result, DeliveryStatus status)
    {
        if (activity is not { IsAllDataRequested: true })
            return;
        var outcome = SnakeCase<AttemptOutcome>.Of(result.Outcome);
        activity.SetTag("triggers.outcome", outcome);
        activity.SetTag("triggers.delivery_status", SnakeCase<DeliveryStatus>.Of(status));
        if (result.StatusCode is { } code)
            activity.SetTag("http.response.status_code", code);
        if (result.Outcome == AttemptOutcome.Delivered)
            return;
        activity.SetTag("error.type", result.Outcome == AttemptOutcome.HttpStatus ? result.StatusCode.ToString() : outcome);
        activity.SetStatus(ActivityStatusCode.Error, result.Error);
    }

    private static void Address(Activity activity, string url)
    {
        if (!WebhookAddress.TryParse(url, out var address))
            return;
        activity.SetTag("url.full", WithoutSecrets(address));
        activity.SetTag("server.address", address.IdnHost);
        activity.SetTag("server.port", address.Port);
    }

    /// <summary>An address with neither user nor query, where receivers like to put their tokens.</summary>
    internal static string WithoutSecrets(Uri url) =>
        url.GetComponents(UriComponents.SchemeAndServer, UriFormat.UriEscaped) + url.AbsolutePath + (url.Query.Length > 1 ? "?*" : "");
}
