using System.ComponentModel.DataAnnotations;
using System.Security.Cryptography;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>
/// A certificate by which the receiver knows its caller (mutual TLS), with its private key: <c>pem</c>, or <c>pkcs12</c> and perhaps
/// <c>password</c>. It is kept encrypted, and its key is never shown.
/// </summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ClientCertificateBody
{
    private const int MaxLength = 65_536;

    /// <summary>The certificate, those between it and its root, and its private key, which is RSA or elliptic and not encrypted.</summary>
    [Length(1, MaxLength)]
    public string? Pem { get; init; }

    /// <summary>The base64 of a PKCS #12 file (PFX) with the same.</summary>
    [Length(1, MaxLength), RegularExpression("^[A-Za-z0-9+/]+={0,2}$")]
    public string? Pkcs12 { get; init; }

    /// <summary>Of the PKCS #12 file, where it has one. It is not kept.</summary>
    [Length(0, 1_024)]
    public string? Password { get; init; }

    /// <summary>What is to be kept of it; null where it was refused.</summary>
    public static string Read(Fields fields)
    {
        var (pem, pkcs12, password) = (fields.Text("pem"), fields.Text("pkcs12"), fields.Text("password"));
        if (fields.Has("pem") == fields.Has("pkcs12"))
            fields.Refuse("", "Must have either pem or pkcs12.");
        else if (fields.Has("password") && !fields.Has("pkcs12"))
            fields.Refuse("/password", "Goes with pkcs12 only.");
        string? kept = null, problem = null;
        if (pem is { Length: > 0 } && !ClientCertificate.TryReadPem(pem, out kept, out problem))
            fields.Refuse("/pem", problem);
        if (pkcs12 is { Length: > 0 })
        {
            var bytes = new byte[pkcs12.Length];
            if (!Convert.TryFromBase64String(pkcs12, bytes, out var length))
                fields.Refuse("/pkcs12", "Must be base64.");
            else if (!ClientCertificate.TryReadPkcs12(bytes.AsSpan(0, length), password, out kept, out problem))
                fields.Refuse("/pkcs12", problem);
        }
        return kept!;
    }
}

/// <summary>What is shown of a client certificate: nothing of its key.</summary>
/// <param name="Subject">Whom it names.</param>
/// <param name="Issuer">Who vouches for it.</param>
/// <param name="Thumbprint">Its SHA-256, in hexadecimal.</param>
/// <param name="ExpiresAt">Until when it is valid.</param>
/// <param name="Expired">Whether that is over: receivers will refuse it.</param>
internal sealed record ClientCertificateView(string Subject, string Issuer, string Thumbprint, DateTimeOffset ExpiresAt, bool Expired)
{
    public static ClientCertificateView Of(string kept, DateTimeOffset now)
    {
        using var certificate = ClientCertificate.Public(kept);
        DateTimeOffset expiresAt = certificate.NotAfter.ToUniversalTime();
        return new(
            certificate.Subject, certificate.Issuer, certificate.GetCertHashString(HashAlgorithmName.SHA256).ToLowerInvariant(), expiresAt,
            expiresAt <= now);
    }
}
