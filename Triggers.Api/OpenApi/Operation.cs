using Triggers.Api.Errors;

namespace Triggers.Api.OpenApi;

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

    /// <summary>Request headers beside those of every operation.</summary>
    public IReadOnlyList<Parameter> Headers { get; init; } = [];

    /// <summary>The JSON body it takes.</summary>
    public Payload? Body { get; init; }

    /// <summary>Whether the body may be left out.</summary>
    public bool BodyIsOptional { get; init; }

    /// <summary>Status of success.</summary>
    public int Status { get; init; } = 200;

    /// <summary>What success answers; null for nothing.</summary>
    public Payload? Answer { get; init; }

    /// <summary>Errors beside those that every operation can answer.</summary>
    public IReadOnlyList<ErrorCode> Errors { get; init; } = [];
}

/// <summary>A parameter in the query or in a header.</summary>
internal sealed record Parameter(string Name, string Description, string Example, ParameterType Type = ParameterType.Text)
{
    /// <summary>The values there are, when they are few.</summary>
    public IReadOnlyCollection<string> Values { get; init; } = [];
}

/// <summary>What a parameter holds.</summary>
internal enum ParameterType
{
    Text,
    Number,
    Moment,
}

/// <summary>A JSON body: its shape, and an example (JSON).</summary>
internal sealed record Payload(Type Type, string Example);
