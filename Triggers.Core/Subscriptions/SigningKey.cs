using System.Diagnostics.CodeAnalysis;
using NSec.Cryptography;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// Ed25519 key pairs as Standard Webhooks has them for <c>v1a</c>: the private key is <c>whsk_</c> and base64, the public one <c>whpk_</c>.
/// </summary>
public static class SigningKey
{
    /// <summary>What private keys begin with.</summary>
    public const string Prefix = "whsk_";

    /// <summary>What public keys begin with.</summary>
    public const string PublicPrefix = "whpk_";

    private const int SeedBytes = 32;
    private static readonly SignatureAlgorithm s_algorithm = SignatureAlgorithm.Ed25519;

    /// <summary>A new private key.</summary>
    public static string New()
    {
        using var key = Key.Create(s_algorithm, new() { ExportPolicy = KeyExportPolicies.AllowPlaintextExport });
        return Prefix + Convert.ToBase64String(key.Export(KeyBlobFormat.RawPrivateKey));
    }

    /// <summary>
    /// The public key of a private one, which is the base64 of its 32 bytes, or of these and those of the public key behind them.
    /// </summary>
    public static bool TryGetPublic(string text, [NotNullWhen(true)] out string? publicKey)
    {
        publicKey = null;
        Span<byte> bytes = stackalloc byte[2 * SeedBytes];
        if (!text.StartsWith(Prefix, StringComparison.Ordinal) || !Convert.TryFromBase64String(text[Prefix.Length..], bytes, out var length)
            || length is not (SeedBytes or 2 * SeedBytes) || Convert.ToBase64String(bytes[..length]) != text[Prefix.Length..])
            return false;
        using var key = Key.Import(s_algorithm, bytes[..SeedBytes], KeyBlobFormat.RawPrivateKey);
        var derived = key.PublicKey.Export(KeyBlobFormat.RawPublicKey);
        if (length > SeedBytes && !bytes[SeedBytes..].SequenceEqual(derived))
            return false;
        publicKey = PublicPrefix + Convert.ToBase64String(derived);
        return true;
    }

    /// <summary>The signature of a message.</summary>
    /// <param name="privateKey">One that <see cref="TryGetPublic"/> reads.</param>
    /// <param name="message">What is signed.</param>
    public static byte[] Sign(string privateKey, ReadOnlySpan<byte> message)
    {
        var bytes = Convert.FromBase64String(privateKey[Prefix.Length..]);
        using var key = Key.Import(s_algorithm, bytes.AsSpan(0, SeedBytes), KeyBlobFormat.RawPrivateKey);
        return s_algorithm.Sign(key, message);
    }

    /// <summary>Whether it is the signature of the message.</summary>
    public static bool Verify(string publicKey, ReadOnlySpan<byte> message, ReadOnlySpan<byte> signature) => s_algorithm.Verify(
        PublicKey.Import(s_algorithm, Convert.FromBase64String(publicKey[PublicPrefix.Length..]), KeyBlobFormat.RawPublicKey),
        message, signature);
}
