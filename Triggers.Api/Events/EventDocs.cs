using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Ingest;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Events;

/// <summary>What the contract says about looking events up.</summary>
internal static class EventDocs
{
    public const string Group = "Events";

    public const string Example =
        """{"id":"evt_01jd0000000000000000000000","type":"order.created","status":"pending","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77","externalId":"order-1042","source":"shop","subject":"orders/1042","time":"2026-01-31T09:29:59Z","deliverAt":null,"expiresAt":null,"data":{"orderId":1042}}""";

    public static readonly Parameter Type = Parameter.Text("type",
        "An event type, or a pattern of types: `order.*` is every type below `order`.",
        "order.created", EventTypePattern.MaxPatternLength, EventTypePattern.OfPatterns);

    public static readonly Operation List = new("listEvents", Group, "List events",
        "Newest first unless `order=asc`. A page ends early when its events hold more than 8 MiB. " + ListParameters.ShortPages)
    {
        Query =
        [
            Type,
            Parameter.OneOf("status", "Where the event stands.", "pending", SnakeCase<EventStatus>.All),
            Parameter.Text("source", "Exactly this source.", "shop", EventParser.MaxTextLength),
            Parameter.Text("subject", "Exactly this subject.", "orders/1042", EventParser.MaxTextLength),
            Parameter.Text("correlationId", "Everything one request caused.", "checkout-77", Correlation.MaxLength),
            Parameter.Text("externalId", "The producer's own name for it: at most one event.", "order-1042", EventParser.MaxTextLength),
            ListParameters.CreatedAfter, ListParameters.CreatedBefore, ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
        ],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Cancel = new("cancelEvent", Group, "Cancel a scheduled event",
        "Before its `deliverAt` comes: its deliveries are `cancelled`, and it is in no inbox. Either nobody has got it, or 409 "
        + "`not_scheduled`. Cancelling again changes nothing.")
    {
        AnswerExample =
            """{"id":"evt_01jd0000000000000000000000","type":"order.reminder","status":"cancelled","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77"}""",
        Errors = [ErrorCodes.NotScheduled, ErrorCodes.EventNotYetVisible],
    };

    public static readonly Operation Get = new("getEvent", Group, "Get an event",
        "With how many deliveries it has, by their status. An event is `pending` until every delivery has succeeded or been cancelled, "
        + "`dead_lettered` while one of its dead letters is unresolved, else `delivered`. One that nobody subscribes to is `pending` "
        + "until it is acknowledged. Before its `deliverAt` it is `scheduled`, or `cancelled`; it is `expired` when its `expiresAt` came "
        + "before everybody had it.")
    {
        AnswerExample = Example[..^1] + ""","deliveries":{"pending":1,"succeeded":0,"deadLettered":0,"cancelled":0,"expired":0}}""",
        Errors = [ErrorCodes.EventNotYetVisible],
    };
}
