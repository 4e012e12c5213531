using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Replays;

/// <summary>What the contract says about replays.</summary>
internal static class ReplayDocs
{
    private const string Group = "Replays";

    private static readonly string ReplayedExample = $$"""{"deliveries":[{{DeliveryDocs.Example
            .Replace("\"succeeded\"", "\"pending\"")
            .Replace("\"nextAttemptAt\":null,\"expiresAt\":null,\"lastOutcome\":\"delivered\",\"lastStatusCode\":200,\"replayOf\":null", "\"nextAttemptAt\":\"2026-01-31T09:30:00.15Z\",\"expiresAt\":null,\"lastOutcome\":null,\"lastStatusCode\":null,\"replayOf\":\"dlv_01jcz000000000000000000000\"")
            .Replace("\"finalizedAt\":\"2026-01-31T09:30:00.24Z\"", "\"finalizedAt\":null")}}]}""";

    public static readonly Operation OfEvent = new("replayEvent", Group, "Deliver an event again",
        "Without a body: to every enabled subscription that wants its type now and has it not on its way already. With "
        + "`subscriptionIds`: to those, whatever types they want. Answers the deliveries that were made; 409 `delivery_pending` when the "
        + "event is still on its way to all of them. Of an event one delivery to a subscription is on its way at a time.")
    {
        Body = new(typeof(ReplayEvent), """{"subscriptionIds":["sub_01jd0000000000000000000000"]}"""),
        BodyIsOptional = true,
        AnswerExample = ReplayedExample,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone,
            ErrorCodes.SubscriptionDisabled, ErrorCodes.EventNotYetVisible, ErrorCodes.QuotaExceeded, ErrorCodes.EventCancelled,
            ErrorCodes.EventExpired],
    };

    public static readonly Operation OfDelivery = new("replayDelivery", Group, "Repeat a delivery",
        "A new delivery, linked by `replayOf`, of one that has ended, however it did. 404 also when its event is no longer kept.")
    {
        AnswerExample = ReplayedExample,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled, ErrorCodes.QuotaExceeded,
            ErrorCodes.EventCancelled, ErrorCodes.EventExpired],
    };

    public static readonly Operation OfDeadLetter = new("replayDeadLetter", Group, "Repeat a dead letter's delivery",
        "The dead letter is `replaying` until the new delivery succeeds, which resolves it, or fails for good, which puts a new dead "
        + "letter in its place.")
    {
        AnswerExample = ReplayedExample,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone,
            ErrorCodes.SubscriptionDisabled, ErrorCodes.DeadLetterClosed, ErrorCodes.QuotaExceeded, ErrorCodes.EventExpired],
    };

    private const string JobExample =
        """{"id":"rpl_01jd0000000000000000000000","subscriptionId":"sub_01jd0000000000000000000000","status":"running","reason":null,"from":"2026-01-31T09:00:00Z","to":"2026-01-31T12:00:00Z","eventTypes":null,"include":"undelivered","doneUntil":"2026-01-31T10:40:00.123Z","matched":1200,"deliveries":1180,"createdAt":"2026-01-31T12:00:00Z","finishedAt":null}""";

    public static readonly Operation CreateJob = new("createReplay", Group, "Deliver what happened in a range of time",
        "To one subscription, which is enabled: what was published while it was disabled or did not exist yet, or what failed. Answers "
            + "at once; the "
        + "work is done in portions, the oldest events first, and waits while much is due to the subscription, so that new events "
        + "don't wait "
        + "behind it. No event is delivered twice by one replay. A dead letter of an event that is delivered is `replaying`. A "
        + "subscription has one "
        + "replay at a time.")
    {
        Headers = [IdempotencyKey.Parameter],
        Body = new(typeof(NewReplayJob),
            """{"subscriptionId":"sub_01jd0000000000000000000000","from":"2026-01-31T09:00:00Z","to":"2026-01-31T12:00:00Z"}"""),
        AnswersLocation = true,
        AnswerExample = JobExample,
        Errors =
        [
            ErrorCodes.ReplayRunning, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled, ErrorCodes.IdempotencyInProgress,
            ErrorCodes.IdempotencyAnswerLost, ErrorCodes.IdempotencyKeyReused, ErrorCodes.QuotaExceeded,
        ],
    };

    public static readonly Operation ListJobs = new(
        "listReplays", Group, "List replays of ranges of time", "Newest first unless `order=asc`.")
    {
        Query =
        [
            Parameter.OneOf("status", "Where it stands.", "running", SnakeCase<ReplayJobStatus>.All),
            Parameter.Id("subscriptionId", "Those to one subscription.", TypeId.Subscription),
            ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
        ],
        AnswerExample = $$"""{"items":[{{JobExample}}],"nextCursor":null}""",
    };

    public static readonly Operation GetJob = new("getReplay", Group, "Get a replay of a range of time", "With how far it has come.")
    {
        AnswerExample = JobExample,
    };

    public static readonly Operation CancelJob = new("cancelReplay", Group, "End a replay of a range of time",
        "It makes no more deliveries. Those that it has made are delivered.")
    {
        AnswerExample = JobExample.Replace("\"running\"", "\"cancelled\"")
            .Replace("\"finishedAt\":null", "\"finishedAt\":\"2026-01-31T12:05:00Z\""),
        Errors = [ErrorCodes.ReplayEnded],
    };
}
