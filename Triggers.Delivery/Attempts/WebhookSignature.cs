using System.Security.Cryptography;
using System.Text;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Signatures as Standard Webhooks has them: HMAC-SHA256 over <c>id.timestamp.body</c>, keyed with the bytes behind <c>whsec_</c>.
/// </summary>
public static class WebhookSignature
{
    /// <summary>The value of <c>webhook-signature</c>: one <c>v1,…</c> for each secret, separated by spaces.</summary>
    /// <param name="secrets">Each <c>whsec_</c> and base64, newest first.</param>
    /// <param name="id">The value of <c>webhook-id</c>.</param>
    /// <param name="timestamp">The value of <c>webhook-timestamp</c>, in seconds since 1970.</param>
    /// <param name="body">The exact bytes of the request.</param>
    public static string Sign(IEnumerable<string> secrets, string id, long timestamp, ReadOnlySpan<byte> body)
    {
        var prefix = Encoding.UTF8.GetBytes($"{id}.{timestamp}.");
        var signatures = new List<string>();
        foreach (var secret in secrets)
        {
            // In two parts: a body may be large, and need not be copied to be signed.
            using var hmac = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, Convert.FromBase64String(secret["whsec_".Length..]));
            hmac.AppendData(prefix);
            hmac.AppendData(body);
            signatures.Add("v1," + Convert.ToBase64String(hmac.GetHashAndReset()));
        }
        return string.Join(' ', signatures);
    }
}
