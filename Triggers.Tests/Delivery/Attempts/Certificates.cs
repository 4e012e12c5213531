using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

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

    private static X509Certificate2 NewRoot()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = Request("CN=Root", key, IPAddress.Loopback);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        return Usable(request.CreateSelfSigned(Now.AddDays(-3), Now.AddDays(3)));
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
