using System.Text.Json.Serialization;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Ingest;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
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
            Parameter.Text("externalId",
                "The producer's own name for it: at most one event. A CloudEvent is found by its `id` here and its `source`.",
                "order-1042", EventParser.MaxTextLength),
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
        + "before everybody had it.\n\nWith `Accept: application/cloudevents+json` it is answered as a CloudEvent in structured mode, as a "
        + "subscription with the format `cloudevents` gets it.")
    {
        AlsoAnswers = [(CloudEvent.MediaType, new(typeof(StructuredCloudEvent),
            """{"specversion":"1.0","id":"evt_01jd0000000000000000000000","source":"shop","type":"order.created","time":"2026-01-31T09:29:59Z","subject":"orders/1042","externalid":"order-1042","datacontenttype":"application/json","data":{"orderId":1042}}"""))],
        AnswerExample = Example[..^1] + ""","deliveries":{"pending":1,"succeeded":0,"deadLettered":0,"cancelled":0,"expired":0}}""",
        Errors = [ErrorCodes.EventNotYetVisible],
    };
}

/// <summary>An event as a CloudEvent 1.0 in the JSON format. Whatever else it has are extension attributes.</summary>
internal sealed record StructuredCloudEvent
{
    public required string Specversion { get; init; }

    /// <summary>The event's id; of what came as a CloudEvent its own.</summary>
    public required string Id { get; init; }

    /// <summary>A URI reference.</summary>
    public required string Source { get; init; }

    public required string Type { get; init; }

    [NotRemovable]
    public string? Subject { get; init; }

    public required DateTimeOffset Time { get; init; }

    [NotRemovable]
    public string? Datacontenttype { get; init; }

    /// <summary>An absolute URI.</summary>
    [NotRemovable]
    public string? Dataschema { get; init; }

    /// <summary>Any JSON value. Left out where there is <c>data_base64</c>, <c>dataref</c> or no data.</summary>
    public RawJson? Data { get; init; }

    /// <summary>Data that is bytes.</summary>
    [JsonPropertyName("data_base64"), NotRemovable]
    public string? DataBase64 { get; init; }

    /// <summary>Where the data is.</summary>
    [NotRemovable]
    public string? Dataref { get; init; }

    /// <summary>Nobody gets it from then on.</summary>
    [NotRemovable]
    public DateTimeOffset? Expirytime { get; init; }
}
