using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Triggers.Receiver;

/// <summary>
/// Checks a signature of the Standard Webhooks specification: <c>webhook-signature: v1,BASE64</c>, several of them separated by
/// spaces, over <c>ID.TIMESTAMP.BODY</c>.
/// </summary>
internal static class WebhookSignature
{
    /// <summary>Older and newer ones are refused: somebody may have kept a request to send it again.</summary>
    public static readonly TimeSpan Tolerance = TimeSpan.FromMinutes(5);

    /// <param name="secret">As in <c>whsec_BASE64</c>; see <see cref="TryParseSecret"/>.</param>
    /// <param name="id">Header <c>webhook-id</c>.</param>
    /// <param name="timestamp">Header <c>webhook-timestamp</c>, in Unix seconds.</param>
    /// <param name="signatures">Header <c>webhook-signature</c>.</param>
    /// <param name="body">The body as it was received.</param>
    /// <param name="now">The time.</param>
    public static bool IsValid(
        byte[] secret, string? id, string? timestamp, string? signatures, ReadOnlySpan<byte> body, DateTimeOffset now)
    {
        if (string.IsNullOrEmpty(id) || string.IsNullOrEmpty(signatures)
            || !long.TryParse(timestamp, NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
            || Math.Abs((decimal)now.ToUnixTimeSeconds() - seconds) > (decimal)Tolerance.TotalSeconds)
            return false;
        using var hmac = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, secret);
        hmac.AppendData(Encoding.UTF8.GetBytes($"{id}.{timestamp}."));
        hmac.AppendData(body);
        var expected = Encoding.ASCII.GetBytes("v1," + Convert.ToBase64String(hmac.GetHashAndReset()));
        var valid = false;
        // All of them are compared, each in constant time: how long it takes tells nothing.
        foreach (var signature in signatures.Split(' '))
            valid |= CryptographicOperations.FixedTimeEquals(expected, Encoding.UTF8.GetBytes(signature));
        return valid;
    }

    public static bool TryParseSecret(string? text, out byte[] secret)
    {
        secret = [];
        if (text is null || !text.StartsWith("whsec_", StringComparison.Ordinal))
            return false;
        var buffer = new byte[text.Length];
        if (!Convert.TryFromBase64String(text["whsec_".Length..], buffer, out var length) || length == 0)
            return false;
        secret = buffer[..length];
        return true;
    }
}
