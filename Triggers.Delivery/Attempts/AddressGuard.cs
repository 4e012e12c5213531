using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Options;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Keeps webhooks out of the network we run in. The check is made on the address that is connected to, after the name was
/// resolved, so a name that changes its mind changes nothing.
/// </summary>
public sealed partial class AddressGuard
{
    // IANA special-purpose registries: what is not globally reachable, and what leads to other addresses (6to4, Teredo, NAT64).
    private static readonly IPNetwork[] RefusedIPv4 =
    [
        .. new[]
        {
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
            "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
            "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            // Public by its number, and yet a cloud's inside: Azure answers machines there with their settings.
            "168.63.129.16/32",
        }.Select(IPNetwork.Parse),
    ];

    private static readonly IPNetwork GlobalIPv6 = IPNetwork.Parse("2000::/3");

    private static readonly IPNetwork[] RefusedIPv6 =
        [.. new[] { "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20" }.Select(IPNetwork.Parse)];

    private readonly IReadOnlyList<IPNetwork> _allowed, _denied;
    private readonly IReadOnlyList<(int First, int Last)> _ports;
    private readonly ILogger<AddressGuard> _logger;
    private readonly Uri? _proxy;

    /// <summary>A guard with the networks and ports of <c>Delivery:*</c>, which have been validated.</summary>
    public AddressGuard(IOptions<DeliveryOptions> options, ILogger<AddressGuard> logger)
    {
        var settings = options.Value;
        _ = DeliveryOptions.TryParseNetworks(settings.AllowedNetworks, out _allowed);
        _ = DeliveryOptions.TryParseNetworks(settings.DeniedNetworks, out _denied);
        _ = DeliveryOptions.TryParsePorts(settings.AllowedPorts, out _ports);
        _proxy = settings.EgressProxyAddress;
        _logger = logger;
        if (_allowed.Count > 0)
            Log.NetworksAllowed(logger, settings.AllowedNetworks);
    }

    /// <summary>Answers the addresses of a name.</summary>
    internal Func<string, CancellationToken, Task<IPAddress[]>> Resolve { get; init; } = Dns.GetHostAddressesAsync;

    /// <summary>Whether a webhook may be sent to this port.</summary>
    public bool AllowsPort(int port) => _ports.Any(range => port >= range.First && port <= range.Last);

    /// <summary>
    /// Whether a webhook may be sent to this address: not if it is denied, else if it is allowed or public. An address that has another in
    /// it, to which a gateway or a tunnel hands on what it gets, needs the same of that one.
    /// </summary>
    public bool Allows(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
            address = address.MapToIPv4();
        if (_denied.Any(network => network.Contains(address)) || EmbeddedIn(address) is { } embedded && !Allows(embedded))
            return false;
        if (_allowed.Any(network => network.Contains(address)))
            return true;
        return address.AddressFamily switch
        {
            AddressFamily.InterNetwork => !RefusedIPv4.Any(network => network.Contains(address)),
            AddressFamily.InterNetworkV6 =>
                address.ScopeId == 0 && GlobalIPv6.Contains(address) && !RefusedIPv6.Any(network => network.Contains(address)),
            _ => false,
        };
    }

    /// <summary>
    /// Ends a request that a proxy is asked to make, where its address says by itself that it may not be made. What a name is, only the
    /// proxy knows: it has that check.
    /// </summary>
    /// <exception cref="AddressRefusedException">The port, or the address, is one we may not call.</exception>
    public void CheckBeforeProxy(Uri address)
    {
        if (_proxy is null)
            return;
        CheckPort(address.IdnHost, address.Port);
        if (IPAddress.TryParse(address.IdnHost, out var literal) && !Allows(literal))
            Refuse(address.IdnHost, literal);
    }

    /// <summary>Resolves, checks, connects: for <see cref="SocketsHttpHandler.ConnectCallback"/>.</summary>
    /// <exception cref="AddressRefusedException">The port, or every address of the name, is one we may not call.</exception>
    /// <exception cref="SocketException">The name has no address, or nobody answers.</exception>
    public async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var endpoint = context.DnsEndPoint;
        // The proxy is the operator's. Who asks for it by its name goes by way of it as well.
        var toProxy = _proxy is not null && endpoint.Host == _proxy.IdnHost && endpoint.Port == _proxy.Port;
        if (!toProxy)
            CheckPort(endpoint.Host, endpoint.Port);
        // The resolver takes some addresses for mistakes (0.0.0.0, ::) before the guard could see them.
        var addresses = IPAddress.TryParse(endpoint.Host, out var literal) ? [literal] : await Resolve(endpoint.Host, cancellationToken);
        var allowed = toProxy ? addresses : Array.FindAll(addresses, Allows);
        if (allowed.Length == 0)
        {
            if (addresses.Length == 0)
                throw new SocketException((int)SocketError.HostNotFound);
            Refuse(endpoint.Host, addresses[0]);
        }

        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(allowed, endpoint.Port, cancellationToken);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>The IPv4 address in one of IPv6; null when there is none.</summary>
    private static IPAddress? EmbeddedIn(IPAddress address)
    {
        if (address.AddressFamily != AddressFamily.InterNetworkV6)
            return null;
        var bytes = address.GetAddressBytes();
        ReadOnlySpan<byte> all = bytes;
        return all switch
        {
            // 6to4, and Teredo, which writes the client's inverted.
            [0x20, 0x02, ..] => new IPAddress(all[2..6]),
            [0x20, 0x01, 0, 0, ..] => new IPAddress([.. bytes[12..].Select(b => (byte)~b)]),
            // NAT64, with the well-known prefix or a local one.
            [0, 0x64, 0xff, 0x9b, ..] => new IPAddress(all[12..]),
            // ISATAP, behind any prefix.
            [.., 0 or 2, 0, 0x5e, 0xfe, _, _, _, _] => new IPAddress(all[12..]),
            // Compatible, but for :: and ::1, and translated.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ..] when all[12..14] is not [0, 0] => new IPAddress(all[12..]),
            [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, ..] => new IPAddress(all[12..]),
            _ => null,
        };
    }

    private void CheckPort(string host, int port)
    {
        if (AllowsPort(port))
            return;
        Log.PortRefused(_logger, host, port);
        throw new AddressRefusedException($"webhooks may not be sent to port {port}");
    }

    private void Refuse(string host, IPAddress address)
    {
        Log.AddressRefused(_logger, host, address);
        throw new AddressRefusedException("the address is not one that webhooks may be sent to");
    }

    // What a name resolved to, and which setting has the say, is for who runs this and not for who subscribes.
    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "Webhooks may be sent to {Networks}, beside public addresses")]
        public static partial void NetworksAllowed(ILogger logger, string networks);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information,
            Message = "Refused to send to {Host}: it is {Address}, which is not public, or is denied; "
                + "see Delivery:AllowedNetworks and Delivery:DeniedNetworks")]
        public static partial void AddressRefused(ILogger logger, string host, IPAddress address);

        [LoggerMessage(EventId = 3, Level = LogLevel.Information,
            Message = "Refused to send to {Host}: port {Port} is not in Delivery:AllowedPorts")]
        public static partial void PortRefused(ILogger logger, string host, int port);
    }
}

/// <summary>The guard refused to connect. The message is for the subscription's owner: it names neither addresses nor settings.</summary>
public sealed class AddressRefusedException(string message) : Exception(message);
