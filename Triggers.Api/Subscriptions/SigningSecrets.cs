using System.Security.Cryptography;
using Triggers.Api.Requests;

namespace Triggers.Api.Subscriptions;

/// <summary>Secrets of Standard Webhooks: <c>whsec_</c> and the base64 of 24 to 64 bytes.</summary>
internal static class SigningSecrets
{
    /// <summary>More than the longest.</summary>
    public const int MaxLength = 256;

    /// <summary>What one looks like, as a regular expression.</summary>
    public const string Pattern = "^whsec_[A-Za-z0-9+/]{32,88}={0,2}$";

    private const string Prefix = "whsec_";
    private const int MinBytes = 24;
    private const int MaxBytes = 64;

    /// <summary>A new one, of 32 random bytes.</summary>
    public static string New() => Prefix + Convert.ToBase64String(RandomNumberGenerator.GetBytes(32));

    /// <summary>The one that a client brings; null without one, or after it was refused.</summary>
    public static string? Read(Fields fields)
    {
        if (fields.Text("secret") is not { } text)
            return null;
        if (IsSecret(text))
            return text;
        fields.Refuse("/secret", $"Must be {Prefix} and the base64, with its padding, of {MinBytes} to {MaxBytes} bytes.");
        return null;
    }

    private static bool IsSecret(string text)
    {
        Span<byte> bytes = stackalloc byte[MaxBytes];
        return text.StartsWith(Prefix, StringComparison.Ordinal)
            && Convert.TryFromBase64String(text[Prefix.Length..], bytes, out var length)
            && length >= MinBytes
            // What has white space in it, or bits that mean nothing, is read differently by different libraries.
            && Convert.ToBase64String(bytes[..length]) == text[Prefix.Length..];
    }
}
