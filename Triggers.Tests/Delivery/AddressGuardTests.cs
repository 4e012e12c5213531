using System.Net;
using CsCheck;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Triggers.Delivery;
using Triggers.Delivery.Attempts;

namespace Triggers.Tests.Delivery;

public class AddressGuardTests
{
    private static readonly AddressGuard Closed = Guard(new());

    private static readonly string[] PrivateNetworks =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"];

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("127.255.255.254")]
    [InlineData("0.0.0.0")]
    [InlineData("10.1.2.3")]
    [InlineData("100.64.0.1")]
    [InlineData("169.254.169.254")]
    [InlineData("172.16.0.1")]
    [InlineData("172.31.255.255")]
    [InlineData("192.0.0.8")]
    [InlineData("192.0.2.1")]
    [InlineData("192.168.1.1")]
    [InlineData("198.18.0.1")]
    [InlineData("198.51.100.7")]
    [InlineData("203.0.113.9")]
    [InlineData("224.0.0.1")]
    [InlineData("240.0.0.1")]
    [InlineData("255.255.255.255")]
    [InlineData("168.63.129.16")]
    [InlineData("::ffff:168.63.129.16")]
    [InlineData("::")]
    [InlineData("::1")]
    [InlineData("::ffff:127.0.0.1")]
    [InlineData("::ffff:169.254.169.254")]
    [InlineData("::10.0.0.1")]
    [InlineData("64:ff9b::10.0.0.1")]
    [InlineData("64:ff9b:1::1")]
    [InlineData("100::1")]
    [InlineData("fc00::1")]
    [InlineData("fd12:3456::1")]
    [InlineData("fe80::1")]
    [InlineData("fec0::1")]
    [InlineData("ff02::1")]
    [InlineData("2001::1")]
    [InlineData("2001:db8::1")]
    [InlineData("2002:7f00:1::1")]
    [InlineData("3fff::1")]
    public void Addresses_that_are_not_public_are_refused(string address) => Assert.False(Closed.Allows(IPAddress.Parse(address)));

    [Theory]
    [InlineData("1.1.1.1")]
    [InlineData("8.8.8.8")]
    [InlineData("168.63.129.15")]
    [InlineData("168.63.129.17")]
    [InlineData("172.15.255.255")]
    [InlineData("172.32.0.1")]
    [InlineData("100.63.255.255")]
    [InlineData("192.167.255.255")]
    [InlineData("2606:4700:4700::1111")]
    [InlineData("2a00:1450:4001:81b::200e")]
    public void Public_addresses_are_allowed(string address) => Assert.True(Closed.Allows(IPAddress.Parse(address)));

    [Fact]
    public void Allowed_networks_open_themselves_and_nothing_else()
    {
        var guard = Guard(new() { AllowedNetworks = "127.0.0.0/8,::1/128" });

        Assert.True(guard.Allows(IPAddress.Parse("127.0.0.1")));
        Assert.True(guard.Allows(IPAddress.Parse("::ffff:127.0.0.1")));
        Assert.True(guard.Allows(IPAddress.IPv6Loopback));
        Assert.False(guard.Allows(IPAddress.Parse("10.0.0.1")));
        Assert.False(guard.Allows(IPAddress.Parse("169.254.169.254")));
    }

    [Fact]
    public void Denied_networks_win_over_public_and_allowed_ones()
    {
        var guard = Guard(new() { AllowedNetworks = "10.0.0.0/8", DeniedNetworks = "10.1.0.0/16, 8.8.8.0/24, 2606:4700::/32" });

        Assert.True(guard.Allows(IPAddress.Parse("10.0.0.1")));
        Assert.False(guard.Allows(IPAddress.Parse("10.1.0.1")));
        Assert.False(guard.Allows(IPAddress.Parse("::ffff:10.1.0.1")));
        Assert.False(guard.Allows(IPAddress.Parse("8.8.8.8")));
        Assert.True(guard.Allows(IPAddress.Parse("8.8.4.4")));
        Assert.False(guard.Allows(IPAddress.Parse("2606:4700:4700::1111")));
    }

    [Fact]
    public void Ports_are_those_of_the_web_and_above_1023_unless_others_are_allowed()
    {
        Assert.Equal([true, true, false, false, false, true, true], new[] { 80, 443, 1, 22, 1023, 1024, 65535 }.Select(Closed.AllowsPort));
        var guard = Guard(new() { AllowedPorts = "443, 8000-8999" });
        Assert.Equal([true, false, false, true, true, false], new[] { 443, 80, 7999, 8000, 8999, 9000 }.Select(guard.AllowsPort));
    }

    [Theory]
    [InlineData("AllowedNetworks", "10.0.0.0")]
    [InlineData("DeniedNetworks", "10.0.0.0/33")]
    [InlineData("AllowedPorts", "")]
    [InlineData("AllowedPorts", "0")]
    [InlineData("AllowedPorts", "65536")]
    [InlineData("AllowedPorts", "9-8")]
    [InlineData("AllowedPorts", "1-2-3")]
    [InlineData("AllowedPorts", "http")]
    public void A_setting_that_makes_no_sense_is_named(string setting, string value)
    {
        var options = new DeliveryOptions();
        typeof(DeliveryOptions).GetProperty(setting)!.SetValue(options, value);

        Assert.StartsWith(
            $"Delivery:{setting} ", Assert.Single(new DeliveryOptionsRules().Validate(null, options).Failures!), StringComparison.Ordinal);
    }

    [Fact]
    public void An_address_mapped_into_IPv6_is_judged_as_what_it_is() =>
        Gen.Byte.Array[4].Sample(bytes =>
        {
            var address = new IPAddress(bytes);
            Assert.Equal(Closed.Allows(address), Closed.Allows(address.MapToIPv6()));
        });

    [Fact]
    public void Nothing_inside_a_private_network_is_ever_allowed() =>
        Gen.Select(Gen.Int[0, 5].Select(i => PrivateNetworks[i]), Gen.UInt)
            .Sample((network, random) =>
            {
                var parsed = IPNetwork.Parse(network);
                var first = BitConverter.ToUInt32([.. parsed.BaseAddress.GetAddressBytes().Reverse()]);
                var host = first | (random & (uint.MaxValue >> parsed.PrefixLength));
                var address = new IPAddress([.. BitConverter.GetBytes(host).Reverse()]);
                Assert.True(parsed.Contains(address));
                Assert.False(Closed.Allows(address));
            });

    private static AddressGuard Guard(DeliveryOptions options) => new(Options.Create(options), NullLogger<AddressGuard>.Instance);
}
