using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;

namespace Triggers.Api.Inbox;

/// <summary>What the contract says about inboxes with a name, and about receiving from them.</summary>
internal static class InboxesDocs
{
    private const string Group = "Inbox";

    private const string Token = "dlv_01jd0000000000000000000000.1";

    private const string Example =
        """{"id":"sub_01jd0000000000000000000000","name":"billing","eventTypes":["order.*"],"filter":null,"description":null,"lease":30,"maxDeliveries":10,"waiting":3,"leased":1,"oldestEventAt":"2026-01-31T09:30:00Z","createdAt":"2026-01-31T09:00:00Z","updatedAt":"2026-01-31T09:00:00Z"}""";

    private const string ReceivedExample =
        """{"items":[{"lease":"dlv_01jd0000000000000000000000.1","leaseEndsAt":"2026-01-31T09:30:30Z","deliveryCount":1,"event":{"id":"evt_01jd0000000000000000000000","type":"order.created","createdAt":"2026-01-31T09:30:00Z","correlationId":"4bf92f3577b34da6a3ce929d0e0e4736","externalId":null,"source":null,"subject":null,"time":null,"expiresAt":null,"data":{"total":1250}}}]}""";

    private static readonly ErrorCode[] s_receiveErrors = [ErrorCodes.TooManyConcurrent];

    public static readonly Operation Create = new("createInbox", Group, "Make an inbox",
        "Every event accepted after this answer whose type matches, and whose `subject`, `source` and `data` match the `filter`, waits in "
        + "it until somebody receives and acknowledges it, whoever else gets it. A service that is to get every event has an inbox of its "
        + "own; several workers receive from the same.")
    {
        Body = new(typeof(InboxBody), """{"name":"billing","eventTypes":["order.*"],"lease":30,"maxDeliveries":10}"""),
        AnswerExample = Example.Replace("\"waiting\":3,\"leased\":1,\"oldestEventAt\":\"2026-01-31T09:30:00Z\"",
            "\"waiting\":0,\"leased\":0,\"oldestEventAt\":null"),
        Errors = [ErrorCodes.NameTaken, ErrorCodes.LimitReached],
    };

    public static readonly Operation List = new("listInboxes", Group, "List inboxes",
        "Those that were made. The inbox `default`, which has what nobody subscribes to, is there without being on the list.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Get = new("getInbox", Group, "Get an inbox",
        "`waiting` are the deliveries that nobody has, `leased` those that somebody has; both stop counting at 10,000.")
    {
        AnswerExample = Example,
    };

    public static readonly Operation Change = new("changeInbox", Group, "Change an inbox",
        "JSON merge patch (RFC 7396): members that are not there stay. Leases that were given keep their end.")
    {
        Body = new(typeof(InboxChange), """{"lease":120}"""),
        AnswerExample = Example.Replace("\"lease\":30", "\"lease\":120"),
    };

    public static readonly Operation Delete = new("deleteInbox", Group, "Delete an inbox",
        "Its history stays; what still waits in it is cancelled. What is leased of `default` waits there again.");

    public static readonly Operation ReceiveDefault = new("receiveFromDefaultInbox", Group, "Receive what nobody got",
        "As `POST /inboxes/default/receive`: events that nobody subscribes to, or that every push was given up of, each to one receiver "
        + "at a time. The body may be left out.")
    {
        Body = new(typeof(ReceiveBody), """{"max":10,"wait":20,"lease":60}"""),
        BodyIsOptional = true,
        AnswerExample = ReceivedExample,
        Errors = s_receiveErrors,
    };

    public static readonly Operation Receive = new("receive", Group, "Receive from an inbox",
        "Gives out what waits, the longest waiting first, each item to one receiver: until its lease ends nobody else gets it. "
        + "Acknowledge it, or it comes again. After `maxDeliveries` it is a dead letter. An answer ends early when its events hold more "
        + "than 8 MiB. The body may be left out.")
    {
        Body = new(typeof(ReceiveBody), """{"max":10,"wait":20,"lease":60,"types":["order.created"]}"""),
        BodyIsOptional = true,
        AnswerExample = ReceivedExample,
        Errors = s_receiveErrors,
    };

    public static readonly Operation Acknowledge = new("acknowledgeLeases", Group, "Acknowledge what was received",
        "It is delivered, and comes no more. A result for each, in order: `acknowledged` (also when it is repeated), `lease_lost` when "
        + "the lease ended and somebody else received it, or it was given back, or `not_found`.")
    {
        Body = new(typeof(LeasesBody), $$"""{"leases":["{{Token}}"]}"""),
        AnswerExample = Results("acknowledged"),
    };

    public static readonly Operation Release = new("releaseLeases", Group, "Give back what was received",
        "Somebody else may receive it, at once or after `delay` seconds. It counts as delivered once.")
    {
        Body = new(typeof(ReleaseBody), $$"""{"leases":["{{Token}}"],"delay":30}"""),
        AnswerExample = Results("released"),
    };

    public static readonly Operation Reject = new("rejectLeases", Group, "Reject what was received",
        "It is a dead letter with the reason `rejected`, and comes no more unless that is replayed.")
    {
        Body = new(typeof(RejectBody), $$"""{"leases":["{{Token}}"],"reason":"There is no such customer."}"""),
        AnswerExample = Results("rejected"),
    };

    public static readonly Operation Extend = new("extendLeases", Group, "Keep what was received for longer",
        "The leases end so many seconds from now, which may be sooner than before.")
    {
        Body = new(typeof(ExtendBody), $$"""{"leases":["{{Token}}"],"lease":120}"""),
        AnswerExample = Results("extended"),
    };

    private static string Results(string status) => $$"""{"items":[{"lease":"{{Token}}","status":"{{status}}"}]}""";
}
