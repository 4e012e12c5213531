namespace Triggers.Core.Tables;

/// <summary>One event on its way to one subscription, or what became of that. See docs/delivery-states.md.</summary>
public sealed class Delivery
{
    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>UUIDv7, shown as <c>dlv_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>What is delivered.</summary>
    public required Guid EventId { get; init; }

    /// <summary>To whom.</summary>
    public required Guid SubscriptionId { get; init; }

    /// <summary>Where it stands.</summary>
    public DeliveryStatus Status { get; init; }

    /// <summary>Counts claims; the newest claim alone may fail the delivery.</summary>
    public int Claim { get; init; }

    /// <summary>Number of the worker that holds it; null when nobody does.</summary>
    public int? ClaimedBy { get; init; }

    /// <summary>Attempts that failed so far.</summary>
    public int RetryCount { get; init; }

    /// <summary>The schedule, and the lease: due at that moment. Null in a final state.</summary>
    public DateTimeOffset? NextAttemptAt { get; init; }

    /// <summary>How the last attempt ended.</summary>
    public AttemptOutcome? LastOutcome { get; init; }

    /// <summary>HTTP status of the last answer.</summary>
    public int? LastStatusCode { get; init; }

    /// <summary>The delivery this one repeats.</summary>
    public Guid? ReplayOf { get; init; }

    /// <summary>A test asked for by an operator: one attempt, no dead letter.</summary>
    public bool Test { get; init; }

    /// <summary>When a final state was reached, by the database's clock.</summary>
    public DateTimeOffset? FinalizedAt { get; init; }

    /// <summary>From when on it is not sent; null where it does not expire. Of what has ended only the event has it.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }
}

/// <summary>Where a delivery stands. A final state is never left: the database refuses it.</summary>
public enum DeliveryStatus
{
    /// <summary>Has an attempt ahead of it, or one in flight.</summary>
    Pending,

    /// <summary>Final: the receiver answered 2xx.</summary>
    Succeeded,

    /// <summary>Final: the schedule is exhausted, or it can't be delivered; there is a dead letter.</summary>
    DeadLettered,

    /// <summary>Final: the subscription is gone, or it was a test that failed, or the event was taken back before its time.</summary>
    Cancelled,

    /// <summary>Final: it had not been delivered when its event expired.</summary>
    Expired,
}

/// <summary>One HTTP request of a delivery. Append-only.</summary>
public sealed class Attempt
{
    /// <summary>The delivery it served.</summary>
    public required Guid DeliveryId { get; init; }

    /// <summary>The claim it was made under.</summary>
    public required int Claim { get; init; }

    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>UUIDv7, shown as <c>att_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>1 for the first.</summary>
    public int Number { get; init; }

    /// <summary>By the database's clock, less the measured duration.</summary>
    public DateTimeOffset StartedAt { get; init; }

    /// <summary>Milliseconds from the first step to the last.</summary>
    public int DurationMs { get; init; }

    /// <summary>How it ended.</summary>
    public AttemptOutcome Outcome { get; init; }

    /// <summary>What went wrong, one line, without secrets.</summary>
    public string? Error { get; init; }

    /// <summary>HTTP status, when there was an answer.</summary>
    public int? StatusCode { get; init; }

    /// <summary>Headers of the answer, capped.</summary>
    public Dictionary<string, string>? ResponseHeaders { get; init; }

    /// <summary>The first 4 KiB of the answer.</summary>
    public byte[]? ResponseBody { get; init; }

    /// <summary>Which request it was, where the subscription gets its events in batches; null where it gets each alone.</summary>
    public Guid? BatchId { get; init; }
}

/// <summary>How an attempt ended, and by that whose fault it was.</summary>
public enum AttemptOutcome
{
    /// <summary>The receiver answered 2xx.</summary>
    Delivered,

    /// <summary>The receiver answered something else.</summary>
    HttpStatus,

    /// <summary>No connection, or no answer, in time.</summary>
    Timeout,

    /// <summary>Nobody listens there.</summary>
    ConnectionRefused,

    /// <summary>The connection broke, or could not be made for another reason.</summary>
    ConnectionFailed,

    /// <summary>The name has no address.</summary>
    DnsFailure,

    /// <summary>No secure connection: certificate or handshake.</summary>
    TlsFailure,

    /// <summary>The address is not one we may call.</summary>
    RefusedByGuard,

    /// <summary>What came back is not HTTP.</summary>
    InvalidResponse,

    /// <summary>The request can't be made: address or headers are not valid.</summary>
    InvalidRequest,

    /// <summary>The server that gives tokens for the receiver gave none.</summary>
    TokenFailure,
}

/// <summary>A delivery that failed for good, until somebody deals with it.</summary>
public sealed class DeadLetter
{
    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>The delivery, and the dead letter's own name.</summary>
    public required Guid DeliveryId { get; init; }

    /// <summary>What was not delivered.</summary>
    public required Guid EventId { get; init; }

    /// <summary>To whom.</summary>
    public required Guid SubscriptionId { get; init; }

    /// <summary>What became of it.</summary>
    public DeadLetterState State { get; init; }

    /// <summary>Why it died: <c>exhausted</c>, <c>rejected</c> or <c>undeliverable</c>.</summary>
    public required string Reason { get; init; }

    /// <summary>How many attempts were made.</summary>
    public int Attempts { get; init; }

    /// <summary>How the last attempt ended.</summary>
    public AttemptOutcome? LastOutcome { get; init; }

    /// <summary>HTTP status of the last answer.</summary>
    public int? LastStatusCode { get; init; }

    /// <summary>Why the last attempt failed, or what was said when it was rejected.</summary>
    public string? LastError { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>The delivery that repeats it.</summary>
    public Guid? ReplayDeliveryId { get; init; }

    /// <summary>When it was resolved or discarded.</summary>
    public DateTimeOffset? ClosedAt { get; init; }

    /// <summary>When it went to the dead-letter topic; null is the outbox.</summary>
    public DateTimeOffset? PublishedAt { get; init; }
}

/// <summary>What became of a dead letter. The first two are unresolved.</summary>
public enum DeadLetterState
{
    /// <summary>Waits for somebody.</summary>
    Open,

    /// <summary>A replay of it is under way.</summary>
    Replaying,

    /// <summary>Its replay succeeded.</summary>
    Resolved,

    /// <summary>An operator gave it up, or the dead letter of its failed replay took its place.</summary>
    Discarded,
}
