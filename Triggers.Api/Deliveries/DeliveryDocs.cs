using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>What the contract says about deliveries.</summary>
internal static class DeliveryDocs
{
    private const string Group = "Deliveries";

    public const string AttemptExample =
        """{"id":"att_01jd0000000000000000000000","number":1,"startedAt":"2026-01-31T09:30:00.2Z","durationMs":35,"outcome":"delivered","error":null,"statusCode":200,"responseHeaders":{"content-type":"text/plain"},"responseBody":"thanks","responseBodyEncoding":"text","batchId":null}""";

    public const string Example =
        """{"id":"dlv_01jd0000000000000000000000","eventId":"evt_01jd0000000000000000000000","subscriptionId":"sub_01jd0000000000000000000000","status":"succeeded","inFlight":false,"failedAttempts":0,"nextAttemptAt":null,"expiresAt":null,"lastOutcome":"delivered","lastStatusCode":200,"replayOf":null,"test":false,"createdAt":"2026-01-31T09:30:00.15Z","finalizedAt":"2026-01-31T09:30:00.24Z"}""";

    private static readonly string PageExample = $$"""{"items":[{{Example}}],"nextCursor":null}""";

    public static readonly Operation List = new(
        "listDeliveries", Group, "List deliveries", "One for each event and subscription, and one more for each replay. "
        + ListParameters.ShortPages)
    {
        Query =
        [
            Parameter.Id("eventId", "Those of one event.", TypeId.Event),
            Parameter.Id("subscriptionId", "Those to one subscription.", TypeId.Subscription),
            Parameter.OneOf("status", "Where the delivery stands.", "pending", SnakeCase<DeliveryStatus>.All),
            ListParameters.CreatedAfter, ListParameters.CreatedBefore, ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
        ],
        AnswerExample = PageExample,
    };

    public static readonly Operation ListOfEvent = new(
        "listDeliveriesOfEvent", Group, "List the deliveries of an event", "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = PageExample,
    };

    public static readonly Operation SendNow = new("sendDeliveryNow", Group, "Send a pending delivery now",
        "Its next attempt is made now, however far ahead it was; the attempts that failed still count. One that is in flight is left "
            + "alone.")
    {
        AnswersLocation = true,
        AnswerExample = Example
            .Replace("\"succeeded\"", "\"pending\"")
                .Replace("\"failedAttempts\":0,\"nextAttemptAt\":null", "\"failedAttempts\":3,\"nextAttemptAt\":\"2026-01-31T10:00:00Z\"")
            .Replace("\"delivered\",\"lastStatusCode\":200", "\"http_status\",\"lastStatusCode\":503")
                .Replace("\"finalizedAt\":\"2026-01-31T09:30:00.24Z\"", "\"finalizedAt\":null"),
        Errors =
        [
            ErrorCodes.DeliveryEnded, ErrorCodes.WaitsInOrder, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled,
            ErrorCodes.QuotaExceeded,
        ],
    };

    public static readonly Operation SendAllNow = new("sendDeliveriesNow", Group, "Send a subscription's pending deliveries now",
        "For a receiver that is back: what waits for its next attempt is sent now. `remaining` says that there were too many for one "
            + "request, or for what "
        + "the tenant's limits have left: send it again. Each delivery costs an event.")
    {
        AnswerExample = """{"deliveries":12,"remaining":false}""",
        Errors = [ErrorCodes.SubscriptionDisabled, ErrorCodes.QuotaExceeded],
    };

    public static readonly Operation Get = new("getDelivery", Group, "Get a delivery",
        "With every attempt that was made, the first one first. Of each answer the first 4 KiB are kept: `responseBody` is their text, "
            + "decompressed and "
        + "decoded, or base64 where `responseBodyEncoding` is `base64`, since they are no text. `error` says in words what went wrong. "
        + "`batchId` is the `webhook-id` of the request, where it was one for several events.")
    {
        AnswerExample = Example[..^1] + $$""","attempts":[{{AttemptExample}}]}""",
    };
}
