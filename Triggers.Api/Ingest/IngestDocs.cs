using Triggers.Api.Errors;
using Triggers.Api.OpenApi;
using Triggers.Api.Requests;

namespace Triggers.Api.Ingest;

/// <summary>An event to publish.</summary>
internal sealed record PublishEvent
{
    /// <summary>Dotted name: 1–256 letters, digits, ".", "_", "-". Types that begin with "triggers." are the system's own.</summary>
    public required string Type { get; init; }

    /// <summary>Any JSON value, kept and delivered byte for byte.</summary>
    public required RawJson Data { get; init; }

    /// <summary>The producer's own name for the event, unique per tenant for as long as the event is kept.</summary>
    public string? ExternalId { get; init; }

    /// <summary>Where it comes from.</summary>
    public string? Source { get; init; }

    /// <summary>What it is about.</summary>
    public string? Subject { get; init; }

    /// <summary>When it happened, RFC 3339.</summary>
    public DateTimeOffset? Time { get; init; }
}

/// <summary>Events to publish, 1 to 1,000.</summary>
internal sealed record PublishBatch(IReadOnlyList<PublishEvent> Events);

/// <summary>What the contract says about publishing.</summary>
internal static class IngestDocs
{
    private const string Group = "Publish";

    /// <summary>The header <c>Idempotency-Key</c>.</summary>
    public static readonly Parameter Key = new(IdempotencyKey.Header,
        "1–255 printable ASCII characters. For 24 hours the same key with the same path and body answers as the first time did, marked "
        + "with `Idempotency-Replayed: true`; with another body it is refused.", "order-1042-created");

    public static readonly Operation Publish = new("publishEvent", Group, "Publish an event",
        "Answers once the event is durable. At most 1 MiB. An event with an `externalId` that was accepted before, with the same "
        + "content, answers as the first did; with other content it is refused.")
    {
        Headers = [Key],
        Body = new(typeof(PublishEvent), """{"type":"order.created","data":{"orderId":1042},"externalId":"order-1042","subject":"orders/1042"}"""),
        Status = 202,
        Answer = new(typeof(AcceptedEvent),
            """{"id":"evt_01jd0000000000000000000000","type":"order.created","status":"pending","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77"}"""),
        Errors =
        [
            ErrorCodes.ReservedEventType, ErrorCodes.ExternalIdConflict, ErrorCodes.IdempotencyInProgress, ErrorCodes.IdempotencyKeyReused, ErrorCodes.QuotaExceeded,
            ErrorCodes.LogUnavailable,
        ],
    };

    public static readonly Operation PublishBatch = new("publishEvents", Group, "Publish many events",
        "Up to 1,000 events and 4 MiB in one durable append. One result per event, in order: a bad event refuses only itself, naming "
        + "its place, as in `/events/3/type`. When every event is refused the answer is 400 `batch_refused`, with the same `items`. "
        + "A batch counts as many requests as it has events, though never more than the key's burst; a quota must have room for all of it.")
    {
        Headers = [Key],
        Body = new(typeof(PublishBatch), """{"events":[{"type":"order.created","data":{"orderId":1042}},{"type":"order paid","data":null}]}"""),
        Status = 202,
        Answer = new(typeof(BatchAnswer),
            """
            {"items":[{"status":"accepted","id":"evt_01jd0000000000000000000000","type":"order.created","createdAt":"2026-01-31T09:30:00.123Z","correlationId":"checkout-77"},
            {"status":"refused","code":"invalid_request","errors":[{"pointer":"/events/1/type","detail":"Must be 1 to 256 letters, digits, \".\", \"_\" or \"-\"."}]}],"accepted":1,"refused":1}
            """),
        Errors = [ErrorCodes.BatchRefused, ErrorCodes.IdempotencyInProgress, ErrorCodes.IdempotencyKeyReused, ErrorCodes.QuotaExceeded, ErrorCodes.LogUnavailable],
    };
}
