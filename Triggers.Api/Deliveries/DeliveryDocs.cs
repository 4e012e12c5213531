using Triggers.Api.Lists;
using Triggers.Api.OpenApi;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>What the contract says about deliveries.</summary>
internal static class DeliveryDocs
{
    private const string Group = "Deliveries";

    public const string AttemptExample =
        """{"id":"att_01jd0000000000000000000000","number":1,"startedAt":"2026-01-31T09:30:00.2Z","durationMs":35,"outcome":"delivered","error":null,"statusCode":200,"responseHeaders":{"content-type":"text/plain"},"responseBody":"thanks","responseBodyEncoding":"text"}""";

    public const string Example =
        """{"id":"dlv_01jd0000000000000000000000","eventId":"evt_01jd0000000000000000000000","subscriptionId":"sub_01jd0000000000000000000000","status":"succeeded","inFlight":false,"failedAttempts":0,"nextAttemptAt":null,"lastOutcome":"delivered","lastStatusCode":200,"replayOf":null,"test":false,"createdAt":"2026-01-31T09:30:00.15Z","finalizedAt":"2026-01-31T09:30:00.24Z"}""";

    private static readonly Payload Page = new(typeof(Page<DeliveryView>), $$"""{"items":[{{Example}}],"nextCursor":null}""");

    public static readonly Operation List = new("listDeliveries", Group, "List deliveries", "One for each event and subscription, and one more for each replay. "
        + ListParameters.ShortPages)
    {
        Query =
        [
            new("eventId", "Those of one event.", "evt_01jd0000000000000000000000"),
            new("subscriptionId", "Those to one subscription.", "sub_01jd0000000000000000000000"),
            new("status", "Where the delivery stands.", "pending") { Values = SnakeCase<DeliveryStatus>.All },
            ListParameters.CreatedAfter, ListParameters.CreatedBefore, ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
        ],
        Answer = Page,
    };

    public static readonly Operation ListOfEvent = new("listDeliveriesOfEvent", Group, "List the deliveries of an event", "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        Answer = Page,
    };

    public static readonly Operation Get = new("getDelivery", Group, "Get a delivery", "With every attempt that was made, the first one first. Of each answer the first 4 KiB are kept: `responseBody` is their text, decompressed and "
        + "decoded, or base64 where `responseBodyEncoding` is `base64`, since they are no text. `error` says in words what went wrong.")
    {
        Answer = new(typeof(DeliveryDetail), Example[..^1] + $$""","attempts":[{{AttemptExample}}]}"""),
    };
}
