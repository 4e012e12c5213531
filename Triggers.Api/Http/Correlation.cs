using System.Buffers;
using System.Collections;
using System.Diagnostics;

namespace Triggers.Api.Http;

/// <summary>
/// <c>X-Correlation-ID</c>: taken from the caller or made, echoed, and in the scope of every log line. One that is over 128
/// characters long or has others than letters, digits and <c>._:-</c> is replaced, so that it can go anywhere unescaped.
/// </summary>
internal sealed class Correlation(RequestDelegate next, ILogger<Correlation> logger)
{
    public const string Header = "X-Correlation-ID";

    /// <summary>The longest one that is taken.</summary>
    public const int MaxLength = 128;

    private static readonly SearchValues<char> Allowed =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-");

    internal static readonly object ItemKey = new();

    public async Task InvokeAsync(HttpContext context)
    {
        var given = context.Request.Headers[Header];
        var id = given is [{ Length: > 0 and <= MaxLength } one] && !one.AsSpan().ContainsAnyExcept(Allowed) ? one : Guid.CreateVersion7()
            .ToString("N");
        context.Items[ItemKey] = id;
        context.Response.Headers[Header] = id;
        Activity.Current?.SetTag("triggers.correlation_id", id);
        using (logger.BeginScope(new Scope(id)))
            await next(context);
    }

    private sealed class Scope(string id) : IReadOnlyList<KeyValuePair<string, object?>>
    {
        public int Count => 1;

        public KeyValuePair<string, object?> this[int index] => new("CorrelationId", id);

        public IEnumerator<KeyValuePair<string, object?>> GetEnumerator()
        {
            yield return this[0];
        }

        IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

        public override string ToString() => $"CorrelationId:{id}";
    }
}

/// <summary>Where the rest of the service finds it.</summary>
internal static class CorrelationOfRequest
{
    /// <summary>The correlation id of this request.</summary>
    public static string CorrelationId(this HttpContext context) =>
        context.Items[Correlation.ItemKey] as string ?? context.TraceIdentifier;
}
