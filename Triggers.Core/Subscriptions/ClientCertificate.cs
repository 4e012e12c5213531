using System.Diagnostics.CodeAnalysis;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// A certificate by which a receiver knows its caller (mutual TLS), with its private key and the certificates between it and its root. It
/// is kept as PEM: first itself, then the others, then the key as PKCS #8.
/// </summary>
public static class ClientCertificate
{
    private const int MinRsaBits = 2_048;
    private const int MaxCertificates = 10;
    private const string ForClients = "1.3.6.1.5.5.7.3.2";
    private const string ForAnything = "2.5.29.37.0";

    /// <summary>What decrypting a file may cost: a second at most, where others take milliseconds.</summary>
    private static readonly Pkcs12LoaderLimits s_limits = new()
    {
        MaxKeys = 1,
        MaxCertificates = MaxCertificates,
        TotalKdfIterationLimit = 700_000,
    };

    /// <summary>Reads PEM: the certificate first, then those between, and anywhere the key, which is not encrypted.</summary>
    /// <param name="pem">The text.</param>
    /// <param name="kept">What is to be kept.</param>
    /// <param name="problem">What is wrong with it, for who sent it.</param>
    public static bool TryReadPem(string pem, [NotNullWhen(true)] out string? kept, [NotNullWhen(false)] out string? problem)
    {
        kept = null;
        var all = new X509Certificate2Collection();
        try
        {
            all.ImportFromPem(pem);
            if (all.Count is 0 or > MaxCertificates)
            {
                problem = $"Must have 1 to {MaxCertificates} certificates.";
                return false;
            }
            using var own = X509Certificate2.CreateFromPem(pem, pem);
            return TryKeep(own, all.Skip(1), out kept, out problem);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            problem = "Must be PEM: the certificate, those between it and its root, and its private key, which must not be encrypted.";
            return false;
        }
        finally
        {
            Dispose(all);
        }
    }

    /// <summary>Reads PKCS #12: one certificate with its key, and those between it and its root.</summary>
    /// <param name="pkcs12">The bytes of the file.</param>
    /// <param name="password">Of the file; null without one.</param>
    /// <param name="kept">What is to be kept.</param>
    /// <param name="problem">What is wrong with it, for who sent it.</param>
    public static bool TryReadPkcs12(
        ReadOnlySpan<byte> pkcs12, string? password, [NotNullWhen(true)] out string? kept, [NotNullWhen(false)] out string? problem)
    {
        kept = null;
        X509Certificate2Collection all = [];
        try
        {
            // Nothing of it is to come to a disk.
            var inMemory = OperatingSystem.IsMacOS() ? X509KeyStorageFlags.DefaultKeySet : X509KeyStorageFlags.EphemeralKeySet;
            all = X509CertificateLoader.LoadPkcs12Collection(pkcs12, password, X509KeyStorageFlags.Exportable | inMemory, s_limits);
            var own = all.Where(certificate => certificate.HasPrivateKey).ToArray();
            if (own.Length == 1)
                return TryKeep(own[0], all.Where(certificate => !certificate.HasPrivateKey), out kept, out problem);
            problem = "Must have one certificate with its private key.";
            return false;
        }
        catch (CryptographicException)
        {
            problem = "Must be PKCS #12 that the password opens.";
            return false;
        }
        finally
        {
            Dispose(all);
        }
    }

    /// <summary>The certificate of what is kept, without its key: what may be shown of it. To be disposed of.</summary>
    public static X509Certificate2 Public(string kept) => X509Certificate2.CreateFromPem(kept);

    /// <summary>What is kept, as a connection needs it.</summary>
    /// <exception cref="CryptographicException">It is not what was kept.</exception>
    public static SslStreamCertificateContext Load(string kept)
    {
        var own = X509Certificate2.CreateFromPem(kept, kept);
        // There a connection takes no key that lives in memory only.
        if (OperatingSystem.IsWindows())
            own = X509CertificateLoader.LoadPkcs12(own.Export(X509ContentType.Pkcs12), null);
        var all = new X509Certificate2Collection();
        all.ImportFromPem(kept);
        return SslStreamCertificateContext.Create(own, [.. all.Skip(1)], offline: true);
    }

    private static bool TryKeep(
        X509Certificate2 own, IEnumerable<X509Certificate2> others, [NotNullWhen(true)] out string? kept,
        [NotNullWhen(false)] out string? problem)
    {
        kept = null;
        using var rsa = own.GetRSAPrivateKey();
        using var ecdsa = own.GetECDsaPrivateKey();
        AsymmetricAlgorithm? key = (AsymmetricAlgorithm?)rsa ?? ecdsa;
        problem = key is null ? "Must have a private key that is RSA or elliptic."
            : rsa is { KeySize: < MinRsaBits } ? $"Must have an RSA key of at least {MinRsaBits} bits."
            : own.Extensions.OfType<X509EnhancedKeyUsageExtension>().FirstOrDefault() is { } uses
                && !uses.EnhancedKeyUsages.Cast<Oid>().Any(use => use.Value is ForClients or ForAnything)
                ? "Is for other uses than to authenticate a client."
            : null;
        if (problem is not null)
            return false;
        kept = string.Join('\n', [
            own.ExportCertificatePem(), .. others.Select(other => other.ExportCertificatePem()), key!.ExportPkcs8PrivateKeyPem()]);
        return true;
    }

    private static void Dispose(X509Certificate2Collection certificates)
    {
        foreach (var certificate in certificates)
            certificate.Dispose();
    }
}
