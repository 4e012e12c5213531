using System.Security.Cryptography;
using System.Text;
using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Signatures as Standard Webhooks has them, over <c>id.timestamp.body</c>: HMAC-SHA256, keyed with the bytes behind <c>whsec_</c>, or
/// Ed25519 by the key behind <c>whsk_</c>.
/// </summary>
public static class WebhookSignature
{
    /// <summary>The value of <c>webhook-signature</c>: one <c>v1,…</c> or <c>v1a,…</c> for each secret, separated by spaces.</summary>
    /// <param name="secrets">Each <c>whsec_</c> or <c>whsk_</c> and base64, newest first.</param>
    /// <param name="id">The value of <c>webhook-id</c>.</param>
    /// <param name="timestamp">The value of <c>webhook-timestamp</c>, in seconds since 1970.</param>
    /// <param name="body">The exact bytes of the request.</param>
    public static string Sign(IEnumerable<string> secrets, string id, long timestamp, ReadOnlySpan<byte> body)
    {
        var prefix = Encoding.UTF8.GetBytes($"{id}.{timestamp}.");
        var signatures = new List<string>();
        foreach (var secret in secrets)
        {
            if (secret.StartsWith(SigningKey.Prefix, StringComparison.Ordinal))
            {
                signatures.Add("v1a," + Convert.ToBase64String(SigningKey.Sign(secret, [.. prefix, .. body])));
                continue;
            }
            // In two parts: a body may be large, and need not be copied to be signed.
            using var hmac = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, Convert.FromBase64String(secret["whsec_".Length..]));
            hmac.AppendData(prefix);
            hmac.AppendData(body);
            signatures.Add("v1," + Convert.ToBase64String(hmac.GetHashAndReset()));
        }
        return string.Join(' ', signatures);
    }
}
