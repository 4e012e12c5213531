using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

// Read by EventParser, which has its limits from the same places.

/// <summary>An event to publish.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record PublishEvent
{
    /// <summary>Dotted name. Types that begin with "triggers." are the system's own.</summary>
    [RegularExpression(EventTypePattern.OfPublished)]
    public required string Type { get; init; }

    /// <summary>Any JSON value, kept and delivered byte for byte. Or one of <c>dataBase64</c> and <c>dataUrl</c>.</summary>
    public RawJson Data { get; init; }

    /// <summary>Bytes that are no JSON, in base64; kept and delivered so.</summary>
    [RegularExpression("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"), NotRemovable]
    public string? DataBase64 { get; init; }

    /// <summary>Where receivers get large data from. Never called by this service.</summary>
    [MaxLength(DataFormats.MaxUrlLength), RegularExpression(DataFormats.UrlPattern), NotRemovable]
    public string? DataUrl { get; init; }

    /// <summary>Media type of the data. Of <c>data</c> one of JSON, unless that is text.</summary>
    [MaxLength(DataFormats.MaxMediaTypeLength), RegularExpression(DataFormats.MediaTypePattern)]
    public string? DataContentType { get; init; }

    /// <summary>How many bytes are at <c>dataUrl</c>.</summary>
    [Range(0d, EventParser.MaxSize)]
    public long? DataSize { get; init; }

    /// <summary>SHA-256 of what is at <c>dataUrl</c>, in hex.</summary>
    [RegularExpression(DataFormats.Sha256Pattern)]
    public string? DataSha256 { get; init; }

    /// <summary>The producer's own name for the event, unique per tenant for as long as the event is kept.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public string? ExternalId { get; init; }

    /// <summary>Where it comes from.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public string? Source { get; init; }

    /// <summary>What it is about.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public string? Subject { get; init; }

    /// <summary>When it happened, RFC 3339.</summary>
    public DateTimeOffset? Time { get; init; }

    /// <summary>
    /// Nobody gets it before this time, at most 90 days ahead unless the operator says otherwise; one that has passed means at once. Until
    /// then it can be cancelled.
    /// </summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>Nobody gets it from this time on, which must come, and after deliverAt.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }
}

/// <summary>
/// A CloudEvent 1.0 in the JSON format. Whatever else it has are extension attributes: lower-case letters and digits, with text, true,
/// false or a whole number as value.
/// </summary>
internal sealed record PublishCloudEvent
{
    [AllowedValues("1.0")]
    public required string Specversion { get; init; }

    /// <summary>Unique with the source. Shown as <c>externalId</c>.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public required string Id { get; init; }

    /// <summary>A URI reference.</summary>
    [Length(1, EventParser.MaxTextLength)]
    public required string Source { get; init; }

    /// <summary>Types that begin with "triggers." are the system's own.</summary>
    [RegularExpression(EventTypePattern.OfPublished)]
    public required string Type { get; init; }

    [Length(1, EventParser.MaxTextLength)]
    public string? Subject { get; init; }

    public DateTimeOffset? Time { get; init; }

    /// <summary>Nobody gets it from this time on, which must come. Shown as <c>expiresAt</c>.</summary>
    public DateTimeOffset? Expirytime { get; init; }

    /// <summary>JSON when left out.</summary>
    [Length(1, DataFormats.MaxMediaTypeLength)]
    public string? Datacontenttype { get; init; }

    /// <summary>An absolute URI.</summary>
    [Length(1, DataFormats.MaxUrlLength)]
    public string? Dataschema { get; init; }

    /// <summary>Any JSON value; text where <c>datacontenttype</c> is none of JSON.</summary>
    public RawJson Data { get; init; }

    /// <summary>Bytes; in place of <c>data</c>.</summary>
    [JsonPropertyName("data_base64")]
    public string? DataBase64 { get; init; }
}

/// <summary>Events to publish.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record PublishBatch
{
    /// <summary>One that has mistakes is refused alone.</summary>
    [Length(1, IngestApi.MaxBatchEvents)]
    public required IReadOnlyList<PublishEvent> Events { get; init; }
}

/// <summary>What the contract says about publishing.</summary>
internal static class IngestDocs
{
    private const string Group = "Publish";

    private const string CloudEventExample =
        """{"specversion":"1.0","id":"A234-1234-1234","source":"/shop","type":"order.created","time":"2026-01-31T09:30:00Z","data":{"orderId":1042}}""";

    public static readonly Operation Publish = new("publishEvent", Group, "Publish an event",
        "Answers once the event is durable. At most 1 MiB. An event with an `externalId` that was accepted before, with the same "
        + "content, answers as the first did; with other content it is refused. What the tenant's `/event-types` say against it "
        + "refuses it, too, or is in `warnings`.\n\nTakes CloudEvents 1.0 as well, by the HTTP protocol binding: in structured mode, in "
        + "batched mode (at most 1,000 events and 4 MiB, answered as `/events/batch` is), and in binary mode, which is any "
        + "`Content-Type` with headers `ce-specversion`, `ce-id`, `ce-source`, `ce-type` and so on. `id` and `source` together name it "
        + "as `externalId` names other events.")
    {
        Headers = [IdempotencyKey.Parameter],
        AlsoTakes =
        [
            (CloudEventReader.MediaType, new(typeof(PublishCloudEvent), CloudEventExample)),
            (CloudEventReader.BatchMediaType, new(typeof(IReadOnlyList<PublishCloudEvent>), $"[{CloudEventExample}]")),
            ("*/*", null),
        ],
        Answers = [typeof(AcceptedEvent), typeof(BatchAnswer)],
        Body = new(typeof(PublishEvent),
            """{"type":"order.created","data":{"orderId":1042},"externalId":"order-1042","subject":"orders/1042"}"""),
        AnswersLocation = true,
        AnswerExample =
            """{"id":"evt_01jd0000000000000000000000","type":"order.created","status":"pending","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77"}""",
        Errors =
        [
            ErrorCodes.ReservedEventType, ErrorCodes.ExternalIdConflict,
            ErrorCodes.IdempotencyInProgress, ErrorCodes.IdempotencyKeyReused, ErrorCodes.QuotaExceeded,
            ErrorCodes.LogUnavailable, ErrorCodes.SchemaViolation, ErrorCodes.UnknownEventType, ErrorCodes.BatchRefused,
            ErrorCodes.InvalidSchedule,
        ],
    };

    public static readonly Operation PublishBatch = new("publishEvents", Group, "Publish many events",
        "Up to 1,000 events and 4 MiB in one durable append. One result per event, in order: a bad event refuses only itself, naming "
        + "its place, as in `/events/3/type`. When every event is refused the answer is 400 `batch_refused`, with the same `items`. "
        + "A batch counts as many requests as it has events, though never more than the key's burst; a quota must have room for all of "
        + "it.")
    {
        Headers = [IdempotencyKey.Parameter],
        Body = new(
            typeof(PublishBatch), """{"events":[{"type":"order.created","data":{"orderId":1042}},{"type":"order paid","data":null}]}"""),
        AnswerExample = """
            {"items":[{"status":"accepted","id":"evt_01jd0000000000000000000000","type":"order.created","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77"},
            {"status":"refused","code":"invalid_request","errors":[{"pointer":"/events/1/type","detail":"Must be 1 to 256 letters, digits, \".\", \"_\" or \"-\"."}]}],"accepted":1,"refused":1}
            """,
        Errors = [ErrorCodes.BatchRefused, ErrorCodes.IdempotencyInProgress,
            ErrorCodes.IdempotencyKeyReused, ErrorCodes.QuotaExceeded, ErrorCodes.LogUnavailable],
    };
}
