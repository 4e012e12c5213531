using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Delivery.Attempts;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Certificates of receivers, good and bad.</summary>
internal static class Certificates
{
    private static readonly DateTimeOffset Now = TimeProvider.System.GetUtcNow();

    /// <summary>The root that the tests trust.</summary>
    public static readonly X509Certificate2 Root = NewRoot();

    public static readonly X509Certificate2 Good = Issue(IPAddress.Loopback, Now.AddDays(-1), Now.AddDays(1));

    public static readonly X509Certificate2 OfAnotherHost = Issue(IPAddress.Parse("192.0.2.1"), Now.AddDays(-1), Now.AddDays(1));

    public static readonly X509Certificate2 Expired = Issue(IPAddress.Loopback, Now.AddDays(-2), Now.AddDays(-1));

    public static readonly X509Certificate2 NotValidYet = Issue(IPAddress.Loopback, Now.AddDays(1), Now.AddDays(2));

    public static readonly X509Certificate2 SelfSigned = NewRoot();

    /// <summary>A client's certificate and key, as PEM, and its SHA-256.</summary>
    public static (string Pem, string Thumbprint) Client(string name, DateTimeOffset? from = null, DateTimeOffset? to = null)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=" + name, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new("1.3.6.1.5.5.7.3.2")], false));
        using var certificate = request.Create(Root, from ?? Now.AddDays(-1), to ?? Now.AddDays(1), RandomNumberGenerator.GetBytes(8));
        return (certificate.ExportCertificatePem() + "\n" + key.ExportPkcs8PrivateKeyPem(), Sha256(certificate));
    }

    /// <summary>A certificate of a receiver that was issued a while ago.</summary>
    public static X509Certificate2 Receiver(DateTimeOffset from, DateTimeOffset to) => Issue(IPAddress.Loopback, from, to);

    /// <summary>As it is shown.</summary>
    public static string Sha256(X509Certificate2 certificate) =>
        certificate.GetCertHashString(HashAlgorithmName.SHA256).ToLowerInvariant();

    /// <summary>Has webhooks sent to receivers whose certificates come from a root.</summary>
    public static void Trust(IServiceCollection services, X509Certificate2 root) =>
        services.AddHttpClient(WebhookSender.ClientName).ConfigurePrimaryHttpMessageHandler((handler, _) =>
            ((SocketsHttpHandler)handler).SslOptions.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                CustomTrustStore = { root },
                RevocationMode = X509RevocationMode.NoCheck,
            });

    private static X509Certificate2 NewRoot()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = Request("CN=Root", key, IPAddress.Loopback);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        return Usable(request.CreateSelfSigned(Now.AddDays(-100), Now.AddDays(3)));
    }

    private static X509Certificate2 Issue(IPAddress address, DateTimeOffset from, DateTimeOffset to)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var certificate = Request("CN=receiver", key, address).Create(Root, from, to, RandomNumberGenerator.GetBytes(8));
        return Usable(certificate.CopyWithPrivateKey(key));
    }

    private static CertificateRequest Request(string name, ECDsa key, IPAddress address)
    {
        var request = new CertificateRequest(name, key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(address);
        request.CertificateExtensions.Add(names.Build());
        return request;
    }

    // SslStream on Windows takes no key that lives in memory only.
    private static X509Certificate2 Usable(X509Certificate2 certificate) =>
        X509CertificateLoader.LoadPkcs12(certificate.Export(X509ContentType.Pkcs12), null);
}
