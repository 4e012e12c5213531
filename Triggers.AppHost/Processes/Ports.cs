using System.Net;
using System.Net.Sockets;

namespace Triggers.AppHost.Processes;

/// <summary>Ports of the loopback addresses.</summary>
internal static class Ports
{
    public static int Free()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    /// <summary>0 becomes a free port; any other must be free.</summary>
    /// <exception cref="AppHostException">Names port, resource and setting.</exception>
    public static int Claim(string resource, int port)
    {
        if (port == 0)
            return Free();
        if (IsFree(IPAddress.Loopback, port) && IsFree(IPAddress.IPv6Loopback, port))
            return port;
        throw new AppHostException(
            $"Port {port}, which {resource} wants, is in use. Stop what listens there, or choose another port with --{Settings.PortKey(resource)}={port + 1}.");
    }

    private static bool IsFree(IPAddress address, int port)
    {
        try
        {
            using var listener = new TcpListener(address, port);
            listener.Start();
            return true;
        }
        catch (SocketException e)
        {
            // A machine without IPv6 has nobody listening on it.
            return e.SocketErrorCode is SocketError.AddressNotAvailable or SocketError.AddressFamilyNotSupported;
        }
    }
}
