using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Triggers.Core.Subscriptions;
using Triggers.Tests.Delivery.Attempts;

namespace Triggers.Tests.Core;

/// <summary>What is taken for a client certificate, and what is kept of it.</summary>
public sealed class ClientCertificateTests
{
    private const string ForServers = "1.3.6.1.5.5.7.3.1";

    [Theory]
    [InlineData(null)]
    [InlineData("p w")]
    public void PKCS12_is_kept_as_its_PEM_would_be(string? password)
    {
        var (pem, thumbprint) = Certificates.Client("mine");
        using var own = X509Certificate2.CreateFromPem(pem, pem);
        using var root = X509CertificateLoader.LoadCertificate(Certificates.Root.RawData);
        var file = new X509Certificate2Collection { root, own }.Export(X509ContentType.Pkcs12, password)!;

        Assert.True(ClientCertificate.TryReadPkcs12(file, password, out var kept, out var problem), problem);
        Assert.True(ClientCertificate.TryReadPem(
            $"{own.ExportCertificatePem()}\n{root.ExportCertificatePem()}\n{KeyOf(pem)}", out var ofPem, out problem), problem);

        Assert.Equal(ofPem, kept);
        using var shown = ClientCertificate.Public(kept);
        Assert.Equal((thumbprint, false), (Certificates.Sha256(shown), shown.HasPrivateKey));
        var loaded = ClientCertificate.Load(kept);
        Assert.True(loaded.TargetCertificate.HasPrivateKey);
        if (password is not null)
            Assert.False(ClientCertificate.TryReadPkcs12(file, "another", out _, out _));
    }

    [Fact]
    public void What_can_not_authenticate_a_client_is_refused_with_why()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var small = RSA.Create(1_024);
        var (pem, _) = Certificates.Client("mine");
        var (other, _) = Certificates.Client("other");
        var certificate = pem[..^KeyOf(pem).Length];
        var encrypted = key.ExportEncryptedPkcs8PrivateKeyPem("p", new(PbeEncryptionAlgorithm.Aes256Cbc, HashAlgorithmName.SHA256, 1_000));
        foreach (var (text, said) in new[]
        {
            ("", "1 to 10"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "Must be PEM"), (certificate, "Must be PEM"),
            (certificate + KeyOf(other), "Must be PEM"),
            (certificate + encrypted, "Must be PEM"),
            (SelfSigned(new CertificateRequest("CN=server", key, HashAlgorithmName.SHA256), ForServers), "other uses"),
            (SelfSigned(new CertificateRequest("CN=small", small, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1), null), "2048 bits"),
            (string.Concat(Enumerable.Repeat(certificate, 11)) + pem, "1 to 10"),
        })
        {
            Assert.False(ClientCertificate.TryReadPem(text, out _, out var problem));
            Assert.Contains(said, problem, StringComparison.Ordinal);
        }
        Assert.False(ClientCertificate.TryReadPkcs12([1, 2, 3], null, out _, out _));
        Assert.True(ClientCertificate.TryReadPem(
            SelfSigned(new CertificateRequest("CN=any", key, HashAlgorithmName.SHA256), null), out _, out var none), none);
    }

    private static string KeyOf(string pem) => pem[pem.IndexOf("-----BEGIN PRIVATE", StringComparison.Ordinal)..];

    private static string SelfSigned(CertificateRequest request, string? use)
    {
        if (use is not null)
            request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new(use)], false));
        var now = TimeProvider.System.GetUtcNow();
        using var certificate = request.CreateSelfSigned(now.AddDays(-1), now.AddDays(1));
        var key = (AsymmetricAlgorithm?)certificate.GetRSAPrivateKey() ?? certificate.GetECDsaPrivateKey();
        return certificate.ExportCertificatePem() + "\n" + key!.ExportPkcs8PrivateKeyPem();
    }
}
