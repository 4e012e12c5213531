using System.Globalization;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.Api.Inbox;

/// <summary>How a lease is named to clients: the delivery, a dot, and the number of the claim it was received under.</summary>
internal static class LeaseToken
{
    /// <summary>More than the longest.</summary>
    public const int MaxLength = 64;

    /// <summary>What one looks like, as a regular expression.</summary>
    public const string Pattern = @"^dlv_[0-7][0-9a-hjkmnp-tv-z]{25}\.[1-9][0-9]{0,8}$";

    public static string Format(Lease lease) =>
        string.Create(CultureInfo.InvariantCulture, $"{TypeId.Format(TypeId.Delivery, lease.Id)}.{lease.Claim}");

    public static bool TryParse(string text, out Lease lease)
    {
        lease = default;
        var dot = text.IndexOf('.', StringComparison.Ordinal);
        if (dot < 0 || !TypeId.TryParse(TypeId.Delivery, text[..dot], out var id)
            || text.Length - dot - 1 is 0 or > 9 || text[dot + 1] == '0'
            || !int.TryParse(text.AsSpan(dot + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var claim))
            return false;
        lease = new Lease(id, claim);
        return true;
    }
}
