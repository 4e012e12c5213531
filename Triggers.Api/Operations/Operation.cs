using Triggers.Api.Errors;
using Triggers.Api.Requests;

namespace Triggers.Api.Operations;

/// <summary>
/// What the contract says about an operation. It is metadata of the endpoint: the OpenAPI document is made of it, and lists refuse
/// query parameters that it does not name.
/// </summary>
/// <param name="Id">The operation's id, as in <c>publishEvent</c>.</param>
/// <param name="Group">The heading it stands under.</param>
/// <param name="Summary">One line.</param>
/// <param name="Description">What a caller must know beside that.</param>
internal sealed record Operation(string Id, string Group, string Summary, string Description)
{
    /// <summary>Query parameters.</summary>
    public IReadOnlyList<Parameter> Query { get; init; } = [];

    /// <summary>Whether it answers pages.</summary>
    public bool IsList => Query.Any(parameter => parameter.Name == "cursor");

    /// <summary>Whether success always says where the thing is that it made or changed.</summary>
    public bool AnswersLocation { get; init; }

    /// <summary>Request headers beside those of every operation.</summary>
    public IReadOnlyList<Parameter> Headers { get; init; } = [];

    /// <summary>The JSON body it takes.</summary>
    public Payload? Body { get; init; }

    /// <summary>Whether body and answer may be YAML, too.</summary>
    public bool SpeaksYaml { get; init; }

    /// <summary>What it takes beside that, by media type.</summary>
    public IReadOnlyList<(string MediaType, Payload? Payload)> AlsoTakes { get; init; } = [];

    /// <summary>What success answers beside JSON, to who asks for it, by media type.</summary>
    public IReadOnlyList<(string MediaType, Payload Payload)> AlsoAnswers { get; init; } = [];

    /// <summary>What success answers, where the handler's result has more than one type of the same status.</summary>
    public IReadOnlyList<Type> Answers { get; init; } = [];

    /// <summary>Whether the body may be left out.</summary>
    public bool BodyIsOptional { get; init; }

    /// <summary>
    /// JSON that success may answer; null where it answers nothing. Its status and shape are those of the handler's typed result.
    /// </summary>
    public string? AnswerExample { get; init; }

    /// <summary>Errors beside those that every operation can answer.</summary>
    public IReadOnlyList<ErrorCode> Errors { get; init; } = [];
}

/// <summary>
/// A parameter in the query or in a header, with its limits: lists hold requests to them, and the OpenAPI document shows them.
/// </summary>
internal sealed record Parameter
{
    private Parameter(string name, ParameterType type, string description, string example)
    {
        Name = name;
        Type = type;
        Description = description;
        Example = example;
    }

    public string Name { get; }

    public ParameterType Type { get; }

    public string Description { get; }

    public string Example { get; }

    /// <summary>The most characters of a text.</summary>
    public int MaxLength { get; private init; }

    /// <summary>What a text looks like, as JSON Schema has regular expressions.</summary>
    public string? Pattern { get; private init; }

    /// <summary>Bounds of a number, and what it is when it is left out.</summary>
    public (int Min, int Max, int Default) Range { get; private init; }

    /// <summary>The prefix of an id.</summary>
    public string? IdPrefix { get; private init; }

    /// <summary>The values there are, when they are few.</summary>
    public IReadOnlyCollection<string> Values { get; private init; } = [];

    /// <summary>Text of 1 character or more.</summary>
    public static Parameter Text(string name, string description, string example, int maxLength, string? pattern = null) =>
        new(name, ParameterType.Text, description, example) { MaxLength = maxLength, Pattern = pattern };

    /// <summary>A header of any text: what is not as it should be is not refused.</summary>
    public static Parameter AnyText(string name, string description, string example) =>
        new(name, ParameterType.AnyText, description, example);

    /// <summary>One of a few words.</summary>
    public static Parameter OneOf(string name, string description, string example, IReadOnlyCollection<string> values) =>
        new(name, ParameterType.OneOf, description, example) { Values = values };

    /// <summary>A whole number.</summary>
    public static Parameter Number(string name, string description, int min, int max, int ifLeftOut) =>
        new(name, ParameterType.Number, description, Math.Max(ifLeftOut, Math.Min(20, max)).ToString()) { Range = (min, max, ifLeftOut) };

    /// <summary>An RFC 3339 time.</summary>
    public static Parameter Moment(string name, string description, string example) =>
        new(name, ParameterType.Moment, description, example);

    /// <summary>An id with a prefix.</summary>
    public static Parameter Id(string name, string description, string prefix) =>
        new(name, ParameterType.Id, description, prefix + "_01jd0000000000000000000000") { IdPrefix = prefix };
}

/// <summary>What a parameter holds.</summary>
internal enum ParameterType
{
    Text,
    AnyText,
    OneOf,
    Number,
    Moment,
    Id,
}

/// <summary>A JSON body: its shape, and an example (JSON).</summary>
internal sealed record Payload(Type Type, string Example);
