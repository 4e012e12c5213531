using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.OpenApi;

namespace Triggers.Api.Replays;

/// <summary>What the contract says about replays.</summary>
internal static class ReplayDocs
{
    private const string Group = "Replays";

    private static readonly Payload Answer = new(typeof(Replayed),
        $$"""{"deliveries":[{{DeliveryDocs.Example
            .Replace("\"succeeded\"", "\"pending\"")
            .Replace("\"nextAttemptAt\":null,\"lastOutcome\":\"delivered\",\"lastStatusCode\":200,\"replayOf\":null", "\"nextAttemptAt\":\"2026-01-31T09:30:00.15Z\",\"lastOutcome\":null,\"lastStatusCode\":null,\"replayOf\":\"dlv_01jcz000000000000000000000\"")
            .Replace("\"finalizedAt\":\"2026-01-31T09:30:00.24Z\"", "\"finalizedAt\":null")}}]}""");

    public static readonly Operation OfEvent = new("replayEvent", Group, "Deliver an event again",
        "Without a body: to every enabled subscription that wants its type now and has it not on its way already. With "
        + "`subscriptionIds`: to those, whatever types they want. Answers the deliveries that were made.")
    {
        Body = new(typeof(ReplayEvent), """{"subscriptionIds":["sub_01jd0000000000000000000000"]}"""),
        BodyIsOptional = true,
        Status = 202,
        Answer = Answer,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled, ErrorCodes.EventNotYetVisible, ErrorCodes.QuotaExceeded],
    };

    public static readonly Operation OfDelivery = new("replayDelivery", Group, "Repeat a delivery",
        "A new delivery, linked by `replayOf`, of one that has ended, however it did.")
    {
        Status = 202,
        Answer = Answer,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled, ErrorCodes.QuotaExceeded],
    };

    public static readonly Operation OfDeadLetter = new("replayDeadLetter", Group, "Repeat a dead letter's delivery",
        "The dead letter is `replaying` until the new delivery succeeds, which resolves it, or fails for good, which puts a new dead "
        + "letter in its place.")
    {
        Status = 202,
        Answer = Answer,
        Errors = [ErrorCodes.DeliveryPending, ErrorCodes.SubscriptionGone, ErrorCodes.SubscriptionDisabled, ErrorCodes.DeadLetterClosed, ErrorCodes.QuotaExceeded],
    };
}
