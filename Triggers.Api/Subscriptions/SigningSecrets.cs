using System.Security.Cryptography;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Subscriptions;

/// <summary>
/// Secrets of Standard Webhooks: for <c>v1</c> <c>whsec_</c> and the base64 of 24 to 64 bytes, for <c>v1a</c> <c>whsk_</c> and that of an
/// Ed25519 key.
/// </summary>
internal static class SigningSecrets
{
    /// <summary>More than the longest.</summary>
    public const int MaxLength = 256;

    /// <summary>What one looks like, as a regular expression.</summary>
    public const string Pattern = "^(whsec_[A-Za-z0-9+/]{32,88}={0,2}|whsk_[A-Za-z0-9+/]{43,88}={0,2})$";

    /// <summary>HMAC-SHA256, with a secret that both sides have.</summary>
    public const string Symmetric = "v1";

    /// <summary>Ed25519, with a private key that never leaves the service.</summary>
    public const string Asymmetric = "v1a";

    private const string Prefix = "whsec_";
    private const int MinBytes = 24;
    private const int MaxBytes = 64;

    /// <summary>What webhooks may be signed with.</summary>
    public static readonly string[] Types = [Symmetric, Asymmetric];

    /// <summary>A new one.</summary>
    public static string New(string type) => type == Asymmetric ? SigningKey.New()
        : Prefix + Convert.ToBase64String(RandomNumberGenerator.GetBytes(32));

    /// <summary>What it signs.</summary>
    public static string TypeOf(string secret) => secret.StartsWith(SigningKey.Prefix, StringComparison.Ordinal) ? Asymmetric : Symmetric;

    /// <summary>What one that is kept signs.</summary>
    public static string TypeOf(SigningSecret kept) => kept.PublicKey is null ? Symmetric : Asymmetric;

    /// <summary>As it is kept.</summary>
    public static SigningSecret Keep(string secret, SecretProtector protector) => new()
    {
        Secret = protector.Protect(secret),
        PublicKey = SigningKey.TryGetPublic(secret, out var publicKey) ? publicKey : null,
    };

    /// <summary>The one that a client brings; null without one, or after it was refused.</summary>
    public static string? Read(Fields fields)
    {
        if (fields.Text("secret") is not { } text)
            return null;
        if (IsSecret(text) || SigningKey.TryGetPublic(text, out _))
            return text;
        fields.Refuse("/secret", TypeOf(text) == Asymmetric
            ? $"Must be {SigningKey.Prefix} and the base64 of an Ed25519 key, 32 bytes, or 64 with the public key behind it."
            : $"Must be {Prefix} and the base64, with its padding, of {MinBytes} to {MaxBytes} bytes.");
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
