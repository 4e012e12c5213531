using System.Text.Json.Serialization;
using Triggers.Api.Errors;

namespace Triggers.Api.Ingest;

/// <summary>An event that is durable.</summary>
internal record AcceptedEvent(string Id, string Type, string Status, DateTimeOffset CreatedAt, string CorrelationId)
{
    /// <summary>What its type has against it: where <c>data</c> does not match the schema, or that the type is deprecated.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<FieldError>? Warnings { get; init; }
}
