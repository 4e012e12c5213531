using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.DeadLetters;

/// <summary>What the contract says about dead letters.</summary>
internal static class DeadLetterDocs
{
    private const string Group = "Dead letters";

    private const string Example =
        """{"id":"dlv_01jd0000000000000000000000","eventId":"evt_01jd0000000000000000000000","subscriptionId":"sub_01jd0000000000000000000000","state":"open","reason":"exhausted","attempts":8,"lastOutcome":"http_status","lastStatusCode":503,"lastError":null,"createdAt":"2026-02-01T10:05:00Z","replayDeliveryId":null,"closedAt":null}""";

    public static readonly Operation List = new("listDeadLetters", Group, "List dead letters",
        "Deliveries that failed for good. `open` and `replaying` ones are unresolved. In the order in which the deliveries were "
        + "made: one that fails later may be before others, so a new look begins at an end of the list and not at an old cursor. "
        + ListParameters.ShortPages)
    {
        Query =
        [
            Parameter.OneOf("state", "What became of it.", "open", SnakeCase<DeadLetterState>.All),
            Parameter.Id("eventId", "Those of one event.", TypeId.Event),
            Parameter.Id("subscriptionId", "Those to one subscription.", TypeId.Subscription),
            ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
        ],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Get = new("getDeadLetter", Group, "Get a dead letter",
        "It has the id of its delivery, whose attempts are at `/deliveries/{id}`.")
    {
        AnswerExample = Example,
    };

    public static readonly Operation DiscardAll = new("discardDeadLetters", Group, "Give up a subscription's dead letters",
        "Every unresolved one of the subscription, which may be deleted. `remaining` says that there were too many for one request: "
            + "send it again.")
    {
        Body = new(typeof(DiscardDeadLetters), """{"subscriptionId":"sub_01jd0000000000000000000000"}"""),
        AnswerExample = """{"discarded":12,"remaining":false}""",
    };

    public static readonly Operation Discard = new("discardDeadLetter", Group, "Give a dead letter up",
        "It no longer counts. An event with nothing else unresolved is settled, or back in the inbox if nobody ever got it.")
    {
        AnswerExample = Example.Replace("\"open\"", "\"discarded\"").Replace("\"closedAt\":null", "\"closedAt\":\"2026-02-01T11:00:00Z\""),
        Errors = [ErrorCodes.DeadLetterClosed],
    };
}
