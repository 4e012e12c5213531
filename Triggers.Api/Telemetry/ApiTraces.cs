using System.Diagnostics;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.EventLog.Postgres;

namespace Triggers.Api.Telemetry;

/// <summary>The spans of this service beside those of its requests, after the semantic conventions for messaging.</summary>
internal static class ApiTraces
{
    private static readonly ActivitySource Source = new("Triggers.Api");

    /// <summary>
    /// A span for appending the events of a request. It ends with the answer of the log; what follows from the events, in whatever
    /// process, is in its trace.
    /// </summary>
    public static Activity? StartAppend(IEventLog log, Guid tenantId, IReadOnlyList<NewEvent> events)
    {
        var activity = Source.StartActivity("append triggers.events", ActivityKind.Producer);
        if (activity is not { IsAllDataRequested: true })
            return activity;
        activity.SetTag("messaging.system", log is PostgresEventLog ? "postgres" : "kafka");
        activity.SetTag("messaging.destination.name", "triggers.events");
        activity.SetTag("messaging.operation.name", "append");
        activity.SetTag("messaging.operation.type", "send");
        activity.SetTag("triggers.tenant_id", TypeId.Format(TypeId.Tenant, tenantId));
        if (events.Count == 1)
        {
            activity.SetTag("triggers.event_type", events[0].Type);
        }
        else
        {
            activity.SetTag("messaging.batch.message_count", events.Count);
        }
        return activity;
    }
}
