using Triggers.Core.Tables;
using Triggers.Tests.Support;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Webhooks that go by the operator's proxy, and by no other.</summary>
public sealed class EgressProxyTests
{
    private static readonly Step[] Accepts = [Read, Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang];

    [Fact]
    public async Task APlain_request_is_made_by_the_proxy_which_resolves_the_name()
    {
        await using var proxy = new RawReceiver([Accepts]);
        await using var sender = Sender($"http://us%40er:pass@127.0.0.1:{proxy.Port}", proxy.Port);

        var result = await sender.SendAsync("http://receiver.example/hook?a=1", cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.Delivered, 204), (result.Outcome, result.StatusCode));
        Assert.StartsWith("POST http://receiver.example/hook?a=1 HTTP/1.1\r\n", proxy.Requests.Single(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task ASecure_request_goes_through_the_proxy_to_the_receiver_whose_certificate_is_checked()
    {
        await using var proxy = new RawReceiver(
            [[ReadHeaders, Send("HTTP/1.1 200 Connected\r\n\r\n"), Handshake(Certificates.Good), .. Accepts]]);
        await using var sender = Sender($"http://127.0.0.1:{proxy.Port}", proxy.Port, "127.0.0.0/8");

        var result = await sender.SendAsync("https://127.0.0.1/hook", cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.Delivered, 204), (result.Outcome, result.StatusCode));
        Assert.Equal(["CONNECT 127.0.0.1:443 HTTP/1.1", "POST /hook HTTP/1.1"], proxy.Requests.Select(r => r.Split("\r\n")[0]));
    }

    [Fact]
    public async Task What_the_proxy_refuses_is_a_failed_connection_and_names_no_proxy()
    {
        await using var proxy = new RawReceiver([[ReadHeaders, Send("HTTP/1.1 403 Not allowed\r\nContent-Length: 0\r\n\r\n"), Hang]]);
        await using var sender = Sender($"http://127.0.0.1:{proxy.Port}", proxy.Port);

        var result = await sender.SendAsync("https://receiver.example/", cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal(
            (AttemptOutcome.ConnectionFailed, "the egress proxy made no connection (403)"), (result.Outcome, result.Error));
    }

    [Theory]
    [InlineData("socks5://proxy:1080")]
    [InlineData("proxy:3128")]
    [InlineData("http://proxy:3128/path")]
    public void What_is_no_proxy_is_named(string proxy) =>
        Assert.StartsWith("Delivery:EgressProxy ", Assert.Single(new Triggers.Delivery.DeliveryOptionsRules()
            .Validate(null, new Triggers.Delivery.DeliveryOptions { EgressProxy = proxy }).Failures!), StringComparison.Ordinal);

    [Fact]
    public async Task Without_one_none_is_used_whatever_the_environment_says()
    {
        await using var sender = new RealSender();

        Assert.Equal((false, null), (sender.Handler.UseProxy, sender.Handler.Proxy));
    }

    private static RealSender Sender(string proxy, int port, string allowed = "") => new(options =>
    {
        options.AllowedNetworks = allowed;
        options.EgressProxy = proxy;
        options.AllowedPorts = $"80,443,{port}";
    }, Certificates.Root);
}
