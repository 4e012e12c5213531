namespace Triggers.Api.Errors;

/// <summary>One kind of error: what clients may rely on. docs/errors.md shows the same list.</summary>
/// <param name="Code">Stable; clients switch on it.</param>
/// <param name="Status">The HTTP status it comes with.</param>
/// <param name="Title">The same for every occurrence.</param>
internal sealed record ErrorCode(string Code, int Status, string Title);

/// <summary>Every error this service answers.</summary>
internal static class ErrorCodes
{
    public static readonly ErrorCode InvalidRequest = new("invalid_request", 400, "The request is not valid");
    public static readonly ErrorCode MalformedJson = new("malformed_json", 400, "The body is not JSON");
    public static readonly ErrorCode MalformedYaml = new("malformed_yaml", 400, "The body is not YAML as it is read here");
    public static readonly ErrorCode ReservedEventType = new("reserved_event_type", 400, "The event's type is the system's");
    public static readonly ErrorCode BatchRefused = new("batch_refused", 400, "Every event of the batch was refused");
    public static readonly ErrorCode IdempotencyNotSupported =
        new("idempotency_not_supported", 400, "Idempotency-Key is not honoured here");
    public static readonly ErrorCode Unauthenticated = new("unauthenticated", 401, "A valid API key is needed");
    public static readonly ErrorCode Forbidden = new("forbidden", 403, "The API key may not do this");
    public static readonly ErrorCode NotFound = new("not_found", 404, "There is no such thing");
    public static readonly ErrorCode MethodNotAllowed = new("method_not_allowed", 405, "The path does not know this method");
    public static readonly ErrorCode RequestTimeout = new("request_timeout", 408, "The request came too slowly");
    public static readonly ErrorCode ExternalIdConflict =
        new("external_id_conflict", 409, "Another event with other content has this externalId");
    public static readonly ErrorCode IdempotencyInProgress =
        new("idempotency_in_progress", 409, "The first request with this Idempotency-Key is still running");
    public static readonly ErrorCode IdempotencyAnswerLost =
        new("idempotency_answer_lost", 409, "The first answer to this Idempotency-Key can't be read any more");
    public static readonly ErrorCode DeliveryPending = new("delivery_pending", 409, "The delivery has not ended yet");
    public static readonly ErrorCode DeliveryEnded = new("delivery_ended", 409, "The delivery has ended");
    public static readonly ErrorCode WaitsInOrder = new("waits_in_order", 409, "Another delivery comes before it, or is being sent");
    public static readonly ErrorCode ReplayRunning = new("replay_running", 409, "The subscription has a replay that is running");
    public static readonly ErrorCode ReplayEnded = new("replay_ended", 409, "The replay has ended");
    public static readonly ErrorCode SubscriptionGone = new("subscription_gone", 409, "The subscription was deleted");
    public static readonly ErrorCode SubscriptionDisabled = new("subscription_disabled", 409, "The subscription is disabled");
    public static readonly ErrorCode NotScheduled = new("not_scheduled", 409, "The event does not wait for its time");
    public static readonly ErrorCode EventCancelled = new("event_cancelled", 409, "The event was cancelled");
    public static readonly ErrorCode EventExpired = new("event_expired", 409, "The event has expired");
    public static readonly ErrorCode DeadLetterClosed = new("dead_letter_closed", 409, "The dead letter was resolved or discarded");
    public static readonly ErrorCode NameTaken = new("name_taken", 409, "The name is taken");
    public static readonly ErrorCode LastAdminKey = new("last_admin_key", 409, "The last admin key can't be revoked");
    public static readonly ErrorCode LimitReached = new("limit_reached", 409, "There are as many as there may be");
    public static readonly ErrorCode UsagePlanInUse = new("usage_plan_in_use", 409, "Tenants have this usage plan");
    public static readonly ErrorCode IncompatibleSchema =
        new("incompatible_schema", 409, "The schema is not as compatible as its type asks for");
    public static readonly ErrorCode PlanOutdated = new("plan_outdated", 409, "The configuration would change otherwise than planned");
    public static readonly ErrorCode PayloadTooLarge = new("payload_too_large", 413, "The body is too large");
    public static readonly ErrorCode UnsupportedMediaType =
        new("unsupported_media_type", 415, "The body must be plain application/json");
    public static readonly ErrorCode IdempotencyKeyReused =
        new("idempotency_key_reused", 422, "The Idempotency-Key was used with another request");
    public static readonly ErrorCode SchemaViolation = new("schema_violation", 422, "The event does not match the schema of its type");
    public static readonly ErrorCode UnknownEventType = new("unknown_event_type", 422, "The tenant has not described this event type");
    public static readonly ErrorCode InvalidSchedule = new("invalid_schedule", 422, "The event's deliverAt or expiresAt can't be kept");
    public static readonly ErrorCode RateLimited = new("rate_limited", 429, "The limit of requests, events or bytes a second is reached");
    public static readonly ErrorCode QuotaExceeded = new("quota_exceeded", 429, "The tenant has used its events of the day");
    public static readonly ErrorCode TooManyBytes =
        new("too_many_bytes", 429, "The tenant's requests under way hold too many bytes");
    public static readonly ErrorCode TooManyConcurrent = new("too_many_concurrent", 429, "Too many of these requests are under way");
    public static readonly ErrorCode InternalError = new("internal_error", 500, "Something is wrong with this service");
    public static readonly ErrorCode LogUnavailable = new("log_unavailable", 503, "Events can't be accepted now");
    public static readonly ErrorCode StorageUnavailable = new("storage_unavailable", 503, "The database does not answer now");
    public static readonly ErrorCode Overloaded = new("overloaded", 503, "Too many requests are under way");
    public static readonly ErrorCode EventNotYetVisible = new("event_not_yet_visible", 503, "The event is accepted but not processed yet");
    public static readonly ErrorCode TestNotAttempted = new("test_not_attempted", 504, "The test event was not attempted in time");

    /// <summary>All of them, by status.</summary>
    public static readonly IReadOnlyList<ErrorCode> All =
    [
        InvalidRequest, MalformedJson, MalformedYaml, ReservedEventType, BatchRefused,
        IdempotencyNotSupported, Unauthenticated, Forbidden, NotFound, MethodNotAllowed,
        RequestTimeout, ExternalIdConflict, IdempotencyInProgress, IdempotencyAnswerLost, DeliveryPending,
        DeliveryEnded, WaitsInOrder, ReplayRunning, ReplayEnded, SubscriptionGone, SubscriptionDisabled,
        NotScheduled, EventCancelled, EventExpired,
        DeadLetterClosed, NameTaken, LastAdminKey, LimitReached, UsagePlanInUse, IncompatibleSchema, PlanOutdated,
        PayloadTooLarge, UnsupportedMediaType, IdempotencyKeyReused, SchemaViolation, UnknownEventType, InvalidSchedule,
        RateLimited, QuotaExceeded, TooManyBytes, TooManyConcurrent, InternalError, LogUnavailable,
        StorageUnavailable, Overloaded, EventNotYetVisible, TestNotAttempted,
    ];

    /// <summary>The code of an answer that the framework gave with a status and nothing else.</summary>
    public static ErrorCode OfStatus(int status) => status switch
    {
        401 => Unauthenticated,
        403 => Forbidden,
        404 => NotFound,
        405 => MethodNotAllowed,
        408 => RequestTimeout,
        413 => PayloadTooLarge,
        415 => UnsupportedMediaType,
        429 => RateLimited,
        503 => StorageUnavailable,
        >= 500 => InternalError,
        _ => InvalidRequest,
    };
}
