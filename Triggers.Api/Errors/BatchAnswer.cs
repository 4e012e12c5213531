using System.Text.Json.Serialization;

namespace Triggers.Api.Errors;

/// <summary>What became of a batch; also the body of the error <c>batch_refused</c>.</summary>
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

    /// <summary>What the type of an accepted event has against it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyList<FieldError>? Warnings { get; init; }

    /// <summary>An event that is not in the log.</summary>
    public static BatchItem Refuse(ErrorCode code, IReadOnlyList<FieldError> errors) =>
        new() { Status = BatchItemStatus.Refused, Code = code.Code, Errors = errors };
}

/// <summary>Whether an event of a batch is in the log.</summary>
internal enum BatchItemStatus
{
    Accepted,
    Refused,
}
