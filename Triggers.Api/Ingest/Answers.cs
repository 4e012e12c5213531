using System.Text.Json.Serialization;
using Triggers.Api.Errors;

namespace Triggers.Api.Ingest;

/// <summary>An event that is durable.</summary>
internal record AcceptedEvent(string Id, string Type, string Status, DateTimeOffset CreatedAt, string CorrelationId);

/// <summary>What became of a batch.</summary>
internal sealed record BatchAnswer(IReadOnlyList<BatchItem> Items, int Accepted, int Refused);

/// <summary>What became of one event of a batch: either the event as accepted, or what was wrong with it.</summary>
internal sealed record BatchItem
{
    public required BatchItemStatus Status { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Id { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Type { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? CreatedAt { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? CorrelationId { get; init; }

    /// <summary>True when the event was in the log before, by its externalId.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public bool? Repeated { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Code { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<FieldError>? Errors { get; init; }

    public static BatchItem Accepted(AcceptedEvent e, bool repeated) => new()
    {
        Status = BatchItemStatus.Accepted,
        Id = e.Id,
        Type = e.Type,
        CreatedAt = e.CreatedAt,
        CorrelationId = e.CorrelationId,
        Repeated = repeated ? true : null,
    };

    public static BatchItem Invalid(ParsedEvent e) => Refused(e.Code, e.Errors);

    public static BatchItem Conflict(IReadOnlyList<FieldError> errors) => Refused(ErrorCodes.ExternalIdConflict, errors);

    private static BatchItem Refused(ErrorCode code, IReadOnlyList<FieldError> errors) =>
        new() { Status = BatchItemStatus.Refused, Code = code.Code, Errors = errors };
}

/// <summary>Whether an event of a batch is in the log.</summary>
internal enum BatchItemStatus
{
    Accepted,
    Refused,
}
