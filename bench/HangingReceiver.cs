using System.Net;
using System.Net.Sockets;

namespace Triggers.Bench;

/// <summary>Takes connections, and never answers.</summary>
internal sealed class HangingReceiver : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly bool _reads;
    private int _connections;
    private long _read;

    public HangingReceiver(bool reads)
    {
        _reads = reads;
        _listener.Start(512);
        _ = AcceptAsync();
    }

    public string Url => $"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

    public string Counts => $"{_connections} connections, {Interlocked.Read(ref _read) / 1_000_000} MB read";

    public void Dispose() => _listener.Dispose();

    private async Task AcceptAsync()
    {
        while (true)
        {
            var socket = await _listener.AcceptSocketAsync();
            Interlocked.Increment(ref _connections);
            _ = KeepAsync(socket);
        }
    }

    private async Task KeepAsync(Socket socket)
    {
        var buffer = new byte[65_536];
        try
        {
            if (!_reads)
                await Task.Delay(Timeout.Infinite);
            for (int bytes; (bytes = await socket.ReceiveAsync(buffer)) > 0;)
                Interlocked.Add(ref _read, bytes);
        }
        catch (SocketException)
        {
        }
        socket.Dispose();
    }
}
