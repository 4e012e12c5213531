namespace Triggers.Api.Errors;

/// <summary>Ends a request with an error of the contract.</summary>
internal sealed class ApiException(ErrorCode code, string detail, IReadOnlyList<FieldError>? errors = null) : Exception(detail)
{
    public ErrorCode Code { get; } = code;

    public IReadOnlyList<FieldError> Errors { get; } = errors ?? [];

    /// <summary>What became of each event of a batch that was refused as a whole.</summary>
    public BatchAnswer? Batch { get; init; }

    /// <summary>When to come again.</summary>
    public int? RetryAfterSeconds { get; init; }

    /// <summary>One mistake at one place.</summary>
    public static ApiException Invalid(string pointer, string detail) =>
        new(ErrorCodes.InvalidRequest, detail, [new FieldError(pointer, detail)]);

    /// <summary>The same, found at a place of a larger body; what names no place is of the place itself.</summary>
    public ApiException Under(string pointer) => new(
        Code, Message, Errors.Count == 0 ? [new FieldError(pointer, Message)]
            : [.. Errors.Select(e => e with { Pointer = pointer + e.Pointer })])
    { RetryAfterSeconds = RetryAfterSeconds };

    /// <summary>The thing is not there, or it is another tenant's: nobody can tell which.</summary>
    public static ApiException NotFound(string what) => new(ErrorCodes.NotFound, $"There is no such {what}.");

    /// <summary>What is asked for can't be told yet, and can in a moment.</summary>
    public static ApiException NotYetVisible(string detail = "The event is accepted and kept; come again in a moment.") =>
        new(ErrorCodes.EventNotYetVisible, detail) { RetryAfterSeconds = 1 };
}

/// <summary>What is wrong with one part of a request.</summary>
/// <param name="Pointer">A JSON pointer into the body (RFC 6901), or <c>?name</c> for a query parameter, or the name of a header.</param>
/// <param name="Detail">For people.</param>
internal sealed record FieldError(string Pointer, string Detail);
