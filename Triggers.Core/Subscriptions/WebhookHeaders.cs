using System.Buffers;
using System.Net.Http.Headers;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// The headers that a subscription adds to its webhooks. The API asks here when they are given, and the delivery service when it
/// writes the request, so that what is accepted can be sent.
/// </summary>
public static class WebhookHeaders
{
    /// <summary>What a value looks like, as a regular expression.</summary>
    public const string OfValues = "^[ -~]*$";

    /// <summary>The most characters of a value.</summary>
    public const int MaxValueLength = 4_096;

    private const int MaxNameLength = 128;

    private static readonly SearchValues<char> TokenChars =
        SearchValues.Create("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

    // What the request itself, or the network between, has the say about.
    private static readonly HashSet<string> Reserved = new(StringComparer.OrdinalIgnoreCase)
    {
        "host", "connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect", "date", "via", "forwarded",
        "proxy-connection", "proxy-authorization", "accept-encoding", "user-agent", "traceparent", "tracestate", "baggage",
        "x-correlation-id",
    };

    private static readonly string[] ReservedPrefixes = ["webhook-", "triggers-", "content-"];

    /// <summary>Adds a header to a request.</summary>
    /// <returns>Null, or a sentence saying why it can't be sent.</returns>
    public static string? Add(HttpRequestHeaders headers, string name, string value)
    {
        if (name.Length is 0 or > MaxNameLength || name.AsSpan().ContainsAnyExcept(TokenChars))
            return "Is not a header name.";
        if (Reserved.Contains(name) || ReservedPrefixes.Any(prefix => name.StartsWith(prefix, StringComparison.OrdinalIgnoreCase)))
            return "This header is not the subscription's to set.";
        if (!IsValue(value))
            return "Must be printable ASCII.";
        return headers.TryAddWithoutValidation(name, value)
            ? null
            : "This header describes a body or an answer, and can't be sent with a request.";
    }

    /// <summary>Whether a text can be the value of a header.</summary>
    public static bool IsValue(string value) => value.All(c => c is >= ' ' and <= '~');
}
