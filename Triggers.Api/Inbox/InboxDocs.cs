using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;

namespace Triggers.Api.Inbox;

/// <summary>What the contract says about the inbox.</summary>
internal static class InboxDocs
{
    private const string Group = "Inbox";

    public static readonly Operation List = new("readInbox", Group, "Read the inbox",
        "Events that are neither acknowledged, nor pushed with success to everybody who subscribes, nor dead-lettered; the oldest first. "
        + "Acknowledging is what takes them out: reading again without a cursor misses nothing. A page ends early when its events hold "
        + "more than 8 MiB. " + ListParameters.ShortPages)
    {
        Query =
        [
            EventDocs.Type,
            Parameter.Number("wait", "Seconds to wait for an event when there is none.", 0, InboxWait.MaxSeconds, ifLeftOut: 0),
            ListParameters.Limit, ListParameters.Cursor,
        ],
        Errors = [ErrorCodes.TooManyConcurrent],
        AnswerExample = $$"""{"items":[{{EventDocs.Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Acknowledge = new("acknowledgeEvent", Group, "Acknowledge an event",
        "It leaves the inbox for good. Acknowledging again changes nothing. No push is cancelled, and no dead letter is hidden by it.")
    {
        AnswerExample = EventDocs.Example.Replace("\"pending\"", "\"delivered\""),
        Errors = [ErrorCodes.EventNotYetVisible],
    };

    public static readonly Operation AcknowledgeMany = new("acknowledgeEvents", Group, "Acknowledge many events",
        "Up to 1,000. One result per id, in order: `acknowledged`, `not_found`, or `not_yet_visible` for one that is accepted and not "
        + "processed yet, to be sent again.")
    {
        Body = new(typeof(AcknowledgeMany), """{"ids":["evt_01jd0000000000000000000000"]}"""),
        AnswerExample = """{"items":[{"id":"evt_01jd0000000000000000000000","status":"acknowledged"}]}""",
    };
}
