using System.Globalization;
using System.Text.RegularExpressions;

namespace Triggers.Api.Requests;

/// <summary>Times on the wire, as in <c>2026-01-31T09:30:00.123+01:00</c>.</summary>
internal static partial class Rfc3339
{
    /// <summary>Reads one; digits beyond what we keep (a microsecond) are cut off.</summary>
    public static bool TryParse(string text, out DateTimeOffset moment)
    {
        moment = default;
        var match = Shape().Match(text);
        if (!match.Success)
            return false;
        var fraction = match.Groups[2].Value;
        var offset = match.Groups[3].Value.ToUpperInvariant();
        if (!DateTimeOffset.TryParseExact(
                match.Groups[1].Value.ToUpperInvariant() + fraction[..Math.Min(fraction.Length, 7)] + offset,
                fraction.Length == 0 ? "yyyy-MM-dd'T'HH:mm:ssK" : "yyyy-MM-dd'T'HH:mm:ss.FFFFFFK",
                CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out moment))
            return false;
        return true;
    }

    [GeneratedRegex(@"\A([0-9]{4}-[0-9][0-9]-[0-9][0-9][Tt][0-9][0-9]:[0-9][0-9]:[0-9][0-9])(\.[0-9]+)?([Zz]|[+-][0-9][0-9]:[0-9][0-9])\z", RegexOptions.CultureInvariant)]
    private static partial Regex Shape();
}
