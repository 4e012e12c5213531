using Triggers.Api.Errors;
using Triggers.Api.Operations;

namespace Triggers.Api.Idempotency;

/// <summary>
/// The header <c>Idempotency-Key</c>: honoured where something is made that must not be made twice, refused where it would be ignored.
/// </summary>
internal sealed class IdempotencyKey(RequestDelegate next)
{
    public const string Header = "Idempotency-Key";

    private const int MaxLength = 255;

    /// <summary>What the contract says about it.</summary>
    public static readonly Parameter Parameter = Operations.Parameter.Text(Header,
        "For 24 hours the same key with the same path and body answers as the first time did, marked with `Idempotency-Replayed: "
            + "true`; with another "
        + "body it is refused.", "order-1042-created", MaxLength, "^[ -~]+$");

    public Task InvokeAsync(HttpContext context)
    {
        var isWrite = context.Request.Method is not ("GET" or "HEAD" or "OPTIONS");
        if (isWrite && context.Request.Headers.ContainsKey(Header) && context.GetEndpoint()?.Metadata.GetMetadata<Honoured>() is null)
            throw new ApiException(ErrorCodes.IdempotencyNotSupported, "Leave the header out: this operation does not remember it.");
        return next(context);
    }

    /// <summary>The key of a request, null without one.</summary>
    public static string? Of(HttpRequest request)
    {
        if (!request.Headers.TryGetValue(Header, out var values))
            return null;
        return values is [{ Length: > 0 and <= MaxLength } key] && key.All(c => c is >= ' ' and <= '~')
            ? key
            : throw ApiException.Invalid(Header, $"Must be one key of 1 to {MaxLength} printable ASCII characters.");
    }

    /// <summary>Says that an answer repeats an earlier one.</summary>
    public static void MarkReplayed(HttpResponse response) => response.Headers["Idempotency-Replayed"] = "true";

    /// <summary>Marks the operations that honour it.</summary>
    internal sealed class Honoured
    {
        public static readonly Honoured Instance = new();
    }
}
