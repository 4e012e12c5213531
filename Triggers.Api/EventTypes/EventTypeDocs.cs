using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;

namespace Triggers.Api.EventTypes;

/// <summary>What the contract says about event types.</summary>
internal static class EventTypeDocs
{
    private const string Group = "Event types";

    private const string ListExample =
        """{"id":"typ_01jd0000000000000000000000","name":"order.created","description":"An order was placed.","group":"orders","mode":"enforce","compatibility":"backward","version":1,"deprecation":null,"createdAt":"2026-01-31T09:30:00Z","updatedAt":"2026-01-31T09:30:00Z"}""";

    private const string Schema =
        """{"type":"object","properties":{"orderId":{"type":"integer"},"total":{"type":"number","minimum":0}},"required":["orderId"]}""";

    private static readonly string s_example = ListExample[..^1] + ",\"schema\":" + Schema
        + ""","example":{"orderId":1042,"total":12.5}}""";

    public static readonly Operation Create = new("createEventType", Group, "Describe an event type",
        "Holds within seconds for what is published with any key of the tenant, by every process. `off` describes, `warn` accepts what "
        + "does not match, counts it, and says so in the answer (`warnings`), `enforce` refuses it with 422 `schema_violation`. The schema "
        + "is JSON Schema 2020-12 and complete in itself: `$ref` leads to a place in it, nothing is fetched, and patterns match in linear "
        + "time. Whether types that are not described are refused is said at the tenant (`unknownEventTypes`).")
    {
        Body = new(typeof(EventTypeBody),
            $$$"""{"name":"order.created","group":"orders","mode":"enforce","compatibility":"backward","schema":{{{Schema}}},"example":{"orderId":1042,"total":12.5}}"""),
        AnswerExample = s_example,
        Errors = [ErrorCodes.NameTaken, ErrorCodes.LimitReached],
    };

    public static readonly Operation List = new("listEventTypes", Group, "List event types", "Newest first unless `order=asc`.")
    {
        Query =
        [
            ListParameters.Order, ListParameters.Limit, ListParameters.Cursor,
            Parameter.Text("group", "Only those under this heading.", "orders", EventTypeBody.MaxGroupLength),
        ],
        AnswerExample = $$"""{"items":[{{ListExample}}],"nextCursor":null}""",
    };

    public static readonly Operation Get = new("getEventType", Group, "Get an event type", "With its newest schema.")
    {
        AnswerExample = s_example,
    };

    public static readonly Operation Change = new("changeEventType", Group, "Change an event type",
        "JSON merge patch (RFC 7396) of all but `schema` and `example`, which are replaced as a whole: members that are not there stay. A "
        + "schema is the next version, and refused with 409 `incompatible_schema` if it is not as compatible with the one before as the "
        + "type asks for, or if that can't be judged; the same schema once more changes nothing.")
    {
        Body = new(typeof(EventTypeChange), """{"mode":"warn","deprecation":"Use order.placed."}"""),
        AnswerExample = s_example.Replace("\"enforce\"", "\"warn\"")
            .Replace("\"deprecation\":null", "\"deprecation\":\"Use order.placed.\""),
        Errors = [ErrorCodes.IncompatibleSchema, ErrorCodes.LimitReached],
    };

    public static readonly Operation Delete = new("deleteEventType", Group, "Delete an event type",
        "With all its versions. Events that were accepted stay; what is published from then on is of a type that is not described.");

    public static readonly Operation ListVersions = new("listEventTypeVersions", Group, "List the versions of an event type",
        "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = """{"items":[{"version":1,"createdAt":"2026-01-31T09:30:00Z"}],"nextCursor":null}""",
    };

    public static readonly Operation GetVersion = new("getEventTypeVersion", Group, "Get a version of an event type",
        "A version is never changed.")
    {
        AnswerExample = $$$"""{"version":1,"createdAt":"2026-01-31T09:30:00Z","schema":{{{Schema}}}}""",
    };

    public static readonly Operation AsyncApi = new("getAsyncApi", Group, "Get the AsyncAPI document",
        "AsyncAPI 3.0, made of the tenant's event types: for each a channel, its messages in the formats `envelope` and `cloudevents` with "
        + "schema and example, and the operation by which one of them is sent to subscribers.")
    {
        AnswerExample =
            """{"asyncapi":"3.0.0","info":{"title":"Events","version":"3"},"defaultContentType":"application/json","channels":{},"operations":{},"components":{}}""",
        Errors = [ErrorCodes.LimitReached],
    };
}
