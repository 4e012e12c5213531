using System.Globalization;
using System.Net.Http.Headers;

namespace Triggers.Delivery.Attempts;

/// <summary>Reads what is recorded of a receiver's answer, as it came: what can't be parsed is still what was said.</summary>
internal static class Answer
{
    private const int MaxBodyBytes = 4096;
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
    public static async Task<(byte[] Body, Exception? BrokeOff)> ReadBodyAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        var buffer = new byte[MaxBodyBytes];
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

    /// <summary>How long the receiver wants to be left alone; null when it doesn't say. <see cref="TimeSpan.MaxValue"/> for any number too large.</summary>
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
}
