using System.Net;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Tests.Support;
using static Triggers.Tests.Support.Steps;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>Holds what may be subscribed, and what is connected to, against a table of addresses and DNS answers.</summary>
public sealed class HostileAddressesTests
{
    private static readonly Step[] Accepts = [Read, Send("HTTP/1.1 204 No Content\r\n\r\n"), Hang];

    public static TheoryData<string> Urls => [.. HostileAddresses.Urls];

    public static TheoryData<string> Answers => [.. HostileAddresses.Answers];

    [Theory]
    [MemberData(nameof(Urls))]
    public async Task What_is_subscribed_with_a_hostile_address_is_refused_or_never_sent(string url)
    {
        if (!WebhookAddress.TryNormalize(url, out var address, out _))
            return;
        await using var sender = new RealSender(options => options.AllowedNetworks = "");

        var result = await sender.SendAsync(address, cancellationToken: TestContext.Current.CancellationToken);

        // A name that is no address spelled oddly is just unknown.
        Assert.True(
            result.Outcome is AttemptOutcome.RefusedByGuard or AttemptOutcome.DnsFailure, $"{address}: {result.Outcome}, {result.Cause}");
    }

    [Theory]
    [MemberData(nameof(Urls))]
    public async Task The_same_with_a_proxy_that_takes_everything(string url)
    {
        if (!WebhookAddress.TryNormalize(url, out var address, out _) || !IPAddress.TryParse(new Uri(address).IdnHost, out _))
            return;
        await using var proxy = new RawReceiver([Accepts]);
        await using var sender = new RealSender(options =>
        {
            options.AllowedNetworks = "";
            options.EgressProxy = $"http://127.0.0.1:{proxy.Port}";
        });

        var result = await sender.SendAsync(address, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.RefusedByGuard, 0), (result.Outcome, proxy.Connections));
    }

    [Theory]
    [MemberData(nameof(Answers))]
    public async Task AName_is_not_sent_to_where_its_answer_is_hostile(string answer)
    {
        await using var sender = new RealSender(
            options => options.AllowedNetworks = "", resolve: (_, _) => Task.FromResult(Addresses(answer)));

        var result = await sender.SendAsync("http://receiver.example/", cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal(AttemptOutcome.RefusedByGuard, result.Outcome);
    }

    [Fact]
    public void There_are_150_of_them_and_none_twice()
    {
        Assert.True(HostileAddresses.Urls.Length + HostileAddresses.Answers.Length >= 150);
        Assert.Distinct(HostileAddresses.Urls);
        Assert.Distinct(HostileAddresses.Answers);
    }

    [Fact]
    public async Task Of_several_answers_only_those_are_connected_to_that_may_be()
    {
        await using var receiver = new RawReceiver([Accepts]);
        await using var sender = new RealSender(resolve: (_, _) => Task.FromResult(Addresses("10.0.0.1,::1,127.0.0.1,169.254.169.254")));

        var result = await sender.SendAsync(
            $"http://receiver.example:{receiver.Port}/", cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.Delivered, 1), (result.Outcome, receiver.Connections));
        Assert.Contains($"\r\nHost: receiver.example:{receiver.Port}\r\n", receiver.Requests.Single(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task AName_that_changes_its_mind_is_looked_at_again_for_every_connection()
    {
        var looked = 0;
        Step[] accepts = [Read, Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), Close];
        await using var receiver = new RawReceiver([accepts, accepts]);
        await using var sender = new RealSender(
            resolve: (_, _) => Task.FromResult(Addresses(Interlocked.Increment(ref looked) == 1 ? "127.0.0.1" : "10.0.0.1")));
        var url = $"http://receiver.example:{receiver.Port}/";

        var first = await sender.SendAsync(url, cancellationToken: TestContext.Current.CancellationToken);
        var second = await sender.SendAsync(url, cancellationToken: TestContext.Current.CancellationToken);

        Assert.Equal((AttemptOutcome.Delivered, AttemptOutcome.RefusedByGuard), (first.Outcome, second.Outcome));
        Assert.Equal(1, receiver.Connections);
    }

    private static IPAddress[] Addresses(string answer) => [.. answer.Split(',').Select(IPAddress.Parse)];
}
