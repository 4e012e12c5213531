using System.Globalization;
using System.Net.Http.Headers;
using Triggers.Core;

namespace Triggers.Delivery.Attempts;

/// <summary>Reads what is recorded of a receiver's answer, as it came: what can't be parsed is still what was said.</summary>
internal static class Answer
{
    private const int MaxHeaders = 32;
    private const int MaxHeaderLength = 512;

    /// <summary>The headers, those of the body first, capped in number and length.</summary>
    public static Dictionary<string, string> Headers(HttpResponseMessage response)
    {
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var (name, values) in response.Content.Headers.NonValidated.Concat(response.Headers.NonValidated).Take(MaxHeaders))
        {
            // Postgres keeps no NUL in text.
            var value = values.ToString().Replace("\0", "", StringComparison.Ordinal);
            headers[name] = value.Length <= MaxHeaderLength ? value : value[..MaxHeaderLength];
        }
        return headers;
    }

    /// <summary>The start of the body, and why no more of it came; null when the cap or its end was reached.</summary>
    public static async Task<(byte[] Body, Exception? BrokeOff)> ReadBodyAsync(
        HttpResponseMessage response, CancellationToken cancellationToken)
    {
        var buffer = new byte[ReadableBody.MaxBytes];
        var length = 0;
        try
        {
            await using var stream = await response.Content.ReadAsStreamAsync(cancellationToken);
            while (length < buffer.Length && await stream.ReadAsync(buffer.AsMemory(length), cancellationToken) is > 0 and var read)
                length += read;
            return (buffer[..length], null);
        }
        catch (Exception e)
        {
            return (buffer[..length], e);
        }
    }

    /// <summary>How long the receiver wants to be left alone; null when it doesn't say.</summary>
    public static TimeSpan? RetryAfter(HttpResponseMessage response, DateTimeOffset now)
    {
        if (!response.Headers.NonValidated.TryGetValues("Retry-After", out var values))
            return null;
        var text = values.First().Trim();
        // Numbers on the wire have no largest one, and some have a fraction.
        if (text.Length > 0 && text.All(c => char.IsAsciiDigit(c) || c == '.')
            && double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var seconds))
            return seconds < TimeSpan.MaxValue.TotalSeconds ? TimeSpan.FromSeconds(Math.Ceiling(seconds)) : TimeSpan.MaxValue;
        return RetryConditionHeaderValue.TryParse(text, out var date) && date.Date - now is { } wait && wait > TimeSpan.Zero ? wait : null;
    }

    /// <summary>
    /// When the quota comes back that this answer used up; null while some is left, or none is told of. Of the forms in use:
    /// <c>RateLimit: "x";r=0;t=30</c>, and <c>RateLimit-Remaining: 0</c> with <c>RateLimit-Reset: 30</c>.
    /// </summary>
    public static TimeSpan? QuotaResets(HttpResponseMessage response)
    {
        var headers = response.Headers.NonValidated;
        if (headers.TryGetValues("RateLimit", out var limits))
        {
            return limits.SelectMany(line => line.Split(',')).Select(policy => policy.Split(';', StringSplitOptions.TrimEntries))
                .Where(parameters => parameters.Contains("r=0"))
                .Select(parameters => Seconds(parameters.FirstOrDefault(p => p.StartsWith("t=", StringComparison.Ordinal))?[2..]))
                .Max();
        }
        return headers.TryGetValues("RateLimit-Remaining", out var remaining) && remaining.First().Trim() == "0"
            && headers.TryGetValues("RateLimit-Reset", out var reset) ? Seconds(reset.First().Trim()) : null;

        static TimeSpan? Seconds(string? text) =>
            int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var seconds) ? TimeSpan.FromSeconds(seconds) : null;
    }
}
