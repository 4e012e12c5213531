using System.Globalization;
using System.Text.RegularExpressions;

namespace Triggers.Api.Requests;

/// <summary>Times on the wire, as in <c>2026-01-31T09:30:00.123+01:00</c>.</summary>
internal static partial class Rfc3339
{
    /// <summary>Reads one; digits beyond what we keep (a microsecond) are cut off, and a leap second is the one after it.</summary>
    public static bool TryParse(string text, out DateTimeOffset moment)
    {
        moment = default;
        if (Shape().Match(text) is not { Success: true, Groups: var groups })
            return false;
        var isLeapSecond = groups["second"].ValueSpan is "60";
        var wholeSeconds = $"{groups["date"].Value}T{groups["minute"].Value}:{(isLeapSecond ? "59" : groups["second"].Value)}";
        if (!DateTime.TryParseExact(
            wholeSeconds, "yyyy-MM-dd'T'HH:mm:ss", CultureInfo.InvariantCulture, DateTimeStyles.None, out var local))
            return false;
        var microseconds = int.Parse(groups["fraction"].Value.PadRight(6, '0').AsSpan(0, 6), CultureInfo.InvariantCulture);
        var ticks = local.Ticks + microseconds * TimeSpan.TicksPerMicrosecond + (isLeapSecond ? TimeSpan.TicksPerSecond : 0);
        if (groups["hours"].Success)
        {
            var (hours, minutes) = (int.Parse(groups["hours"].Value[1..], CultureInfo.InvariantCulture), int.Parse(
                groups["minutes"].Value, CultureInfo.InvariantCulture));
            // Up to a day, where the framework's own offsets end at 14 hours.
            if (hours > 23 || minutes > 59)
                return false;
            var offset = new TimeSpan(hours, minutes, 0).Ticks;
            ticks += groups["hours"].ValueSpan[0] == '+' ? -offset : offset;
        }
        if (ticks < DateTime.MinValue.Ticks || ticks > DateTime.MaxValue.Ticks)
            return false;
        moment = new DateTimeOffset(ticks, TimeSpan.Zero);
        return true;
    }

    [GeneratedRegex(
        @"\A(?<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt](?<minute>[0-9]{2}:[0-9]{2}):(?<second>[0-9]{2})"
        + @"(\.(?<fraction>[0-9]+))?([Zz]|(?<hours>[+-][0-9]{2}):(?<minutes>[0-9]{2}))\z",
        RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture)]
    private static partial Regex Shape();
}
