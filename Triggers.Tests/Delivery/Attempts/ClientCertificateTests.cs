using Microsoft.AspNetCore.Server.Kestrel.Https;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;
using Triggers.Tests.Support;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Client certificates, as receivers see them that ask for one.</summary>
public sealed class ClientCertificateTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_receiver_that_requires_a_certificate_sees_it_and_refuses_who_has_none_or_another()
    {
        var (mine, others) = (Certificates.Client("mine"), Certificates.Client("other"));
        await using var receiver = await SecureReceiver.StartAsync(ClientCertificateMode.RequireCertificate, [mine.Thumbprint]);
        await using var sender = new RealSender(trusted: Certificates.Root);

        Assert.Equal(AttemptOutcome.Delivered, (await SendAsync(sender, receiver.Url, Of(mine))).Outcome);
        foreach (var certificate in new[] { null, Of(others) })
        {
            var refused = await SendAsync(sender, receiver.Url, certificate);
            Assert.Null(refused.StatusCode);
            Assert.Contains(refused.Outcome, new[] { AttemptOutcome.TlsFailure, AttemptOutcome.ConnectionFailed });
        }

        Assert.Equal([mine.Thumbprint], receiver.Requests.Select(r => r.Thumbprint));
    }

    [Fact]
    public async Task Each_subscription_has_connections_of_its_own_and_none_sees_the_certificate_of_another()
    {
        var (a, b) = (Certificates.Client("a"), Certificates.Client("b"));
        await using var receiver = await SecureReceiver.StartAsync(ClientCertificateMode.AllowCertificate, [a.Thumbprint, b.Thumbprint]);
        await using var sender = new RealSender(trusted: Certificates.Root);
        CertificateOf?[] all = [Of(a), null, Of(b), Of(a)];

        for (var round = 0; round < 2; round++)
        {
            foreach (var certificate in all)
                Assert.Equal(AttemptOutcome.Delivered, (await SendAsync(sender, receiver.Url, certificate)).Outcome);
        }

        string?[] seen = [a.Thumbprint, null, b.Thumbprint, a.Thumbprint];
        Assert.Equal([.. seen, .. seen], receiver.Requests.Select(r => r.Thumbprint));
        // The same certificate, of two subscriptions: two connections; and each is used again.
        var connections = receiver.Requests.Select(r => r.Connection).ToArray();
        Assert.Equal(4, connections[..4].Distinct().Count());
        Assert.Equal(connections[..4], connections[4..]);
    }

    [Fact]
    public async Task A_certificate_that_was_replaced_is_not_presented_again_nor_a_connection_used_that_was_made_with_it()
    {
        var (old, young) = (Certificates.Client("old"), Certificates.Client("young"));
        await using var receiver = await SecureReceiver.StartAsync(
            ClientCertificateMode.RequireCertificate, [old.Thumbprint, young.Thumbprint]);
        await using var sender = new RealSender(trusted: Certificates.Root);
        var before = Of(old);
        var after = before with { Kept = Of(young).Kept };

        foreach (var certificate in new[] { before, before, after, after })
            Assert.Equal(AttemptOutcome.Delivered, (await SendAsync(sender, receiver.Url, certificate)).Outcome);

        Assert.Equal([old.Thumbprint, old.Thumbprint, young.Thumbprint, young.Thumbprint], receiver.Requests.Select(r => r.Thumbprint));
        Assert.Equal(2, receiver.Requests.Select(r => r.Connection).Distinct().Count());
    }

    [Fact]
    public async Task It_is_presented_to_the_receiver_through_an_egress_proxy()
    {
        await using var proxy = new RawReceiver(
        [
            [
                ReadHeaders, Send("HTTP/1.1 200 Connected\r\n\r\n"), Handshake(Certificates.Good, wantsClientCertificate: true), Read,
                Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang,
            ],
        ]);
        await using var sender = new RealSender(options =>
        {
            options.AllowedNetworks = "127.0.0.0/8";
            options.EgressProxy = $"http://127.0.0.1:{proxy.Port}";
            options.AllowedPorts = $"443,{proxy.Port}";
        }, Certificates.Root);

        var result = await SendAsync(sender, "https://127.0.0.1/hook", Of(Certificates.Client("mine")));

        Assert.Equal((AttemptOutcome.Delivered, 204), (result.Outcome, result.StatusCode));
        Assert.Equal(["CONNECT 127.0.0.1:443 HTTP/1.1", "POST /hook HTTP/1.1"], proxy.Requests.Select(r => r.Split("\r\n")[0]));
    }

    [Fact]
    public async Task The_guard_is_asked_as_for_any_other()
    {
        await using var receiver = await SecureReceiver.StartAsync(ClientCertificateMode.AllowCertificate, []);
        await using var sender = new RealSender(options => options.AllowedNetworks = "", Certificates.Root);

        Assert.Equal(
            AttemptOutcome.RefusedByGuard, (await SendAsync(sender, receiver.Url, Of(Certificates.Client("mine")))).Outcome);
    }

    private static Task<AttemptResult> SendAsync(RealSender sender, string url, CertificateOf? certificate) =>
        sender.SendAsync(url, certificate: certificate, cancellationToken: Cancellation);

    /// <summary>Of a subscription of its own.</summary>
    private static CertificateOf Of((string Pem, string Thumbprint) client)
    {
        Assert.True(ClientCertificate.TryReadPem(client.Pem, out var kept, out var problem), problem);
        return new(TypeId.NewGuid(), kept);
    }
}
