using System.Net;
using System.Net.Sockets;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Keeps webhooks out of the network we run in. The check is made on the address that is connected to, after the name was
/// resolved, so a name that changes its mind changes nothing.
/// </summary>
public sealed class AddressGuard(IReadOnlyList<IPNetwork> allowedNetworks)
{
    // IANA special-purpose registries: what is not globally reachable, and what leads to other addresses (6to4, Teredo, NAT64).
    private static readonly IPNetwork[] RefusedIPv4 =
    [
        .. new[]
        {
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
            "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        }.Select(IPNetwork.Parse),
    ];

    private static readonly IPNetwork GlobalIPv6 = IPNetwork.Parse("2000::/3");

    private static readonly IPNetwork[] RefusedIPv6 =
        [.. new[] { "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20" }.Select(IPNetwork.Parse)];

    /// <summary>Whether a webhook may be sent to this address.</summary>
    public bool Allows(IPAddress address)
    {
        if (address.IsIPv4MappedToIPv6)
            address = address.MapToIPv4();
        if (allowedNetworks.Any(network => network.Contains(address)))
            return true;
        return address.AddressFamily switch
        {
            AddressFamily.InterNetwork => !RefusedIPv4.Any(network => network.Contains(address)),
            AddressFamily.InterNetworkV6 => address.ScopeId == 0 && GlobalIPv6.Contains(address) && !RefusedIPv6.Any(network => network.Contains(address)),
            _ => false,
        };
    }

    /// <summary>Resolves, checks, connects: for <see cref="SocketsHttpHandler.ConnectCallback"/>.</summary>
    /// <exception cref="AddressRefusedException">The name has addresses, and none of them is one we may call.</exception>
    /// <exception cref="SocketException">The name has no address, or nobody answers.</exception>
    public async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var endpoint = context.DnsEndPoint;
        var addresses = await Dns.GetHostAddressesAsync(endpoint.Host, cancellationToken);
        var allowed = Array.FindAll(addresses, Allows);
        if (allowed.Length == 0)
            throw addresses.Length == 0 ? new SocketException((int)SocketError.HostNotFound) : new AddressRefusedException(endpoint.Host, addresses[0]);

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
}

/// <summary>The guard refused every address of a name.</summary>
public sealed class AddressRefusedException(string host, IPAddress address)
    : Exception($"{host} is {address}, which is not a public address; Delivery:AllowedNetworks opens networks");
