namespace Triggers.Core.Tables;

/// <summary>How a subscription's requests are made by templates of its own. It is kept encrypted: headers may be credentials.</summary>
public sealed record Transformation
{
    /// <summary>How a request is made unless somebody says otherwise.</summary>
    public const string DefaultMethod = "POST";

    /// <summary>What a body is unless somebody says otherwise.</summary>
    public const string DefaultContentType = "application/json";

    /// <summary>The body, in Liquid.</summary>
    public required string Template { get; init; }

    /// <summary>The body's media type. What is written by a JSON type is checked to be JSON.</summary>
    public string ContentType { get; init; } = DefaultContentType;

    /// <summary>Headers beside those of every webhook, the values in Liquid.</summary>
    public Dictionary<string, string> Headers { get; init; } = [];

    /// <summary><c>POST</c>, <c>PUT</c> or <c>PATCH</c>.</summary>
    public string Method { get; init; } = DefaultMethod;
}
