using System.Collections.Concurrent;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Triggers.Tests.Support;

/// <summary>One thing that a receiver does on a connection.</summary>
internal delegate Task Step(RawConnection connection);

/// <summary>What receivers do, step by step.</summary>
internal static class Steps
{
    /// <summary>Reads a whole request.</summary>
    public static readonly Step Read = c => c.ReadRequestAsync(withBody: true);

    /// <summary>Reads a request up to the empty line, and leaves its body in the socket.</summary>
    public static readonly Step ReadHeaders = c => c.ReadRequestAsync(withBody: false);

    /// <summary>Reads what comes first, be it no request.</summary>
    public static readonly Step ReadSome = c => c.ReadSomeAsync();

    /// <summary>Closes in order.</summary>
    public static readonly Step Close = c => c.CloseAsync(reset: false);

    /// <summary>Closes for writing only, and keeps reading.</summary>
    public static readonly Step HalfClose = c => c.HalfCloseAsync();

    /// <summary>Breaks off with a TCP reset.</summary>
    public static readonly Step Reset = c => c.CloseAsync(reset: true);

    /// <summary>Does nothing more until the other side leaves.</summary>
    public static readonly Step Hang = c => c.UntilOtherSideLeavesAsync();

    /// <summary>Sends text, a byte for each character.</summary>
    public static Step Send(string latin1) => c => c.SendAsync(Encoding.Latin1.GetBytes(latin1));

    /// <summary>Sends bytes.</summary>
    public static Step Send(byte[] bytes) => c => c.SendAsync(bytes);

    /// <summary>Sends text a byte at a time, for as long as the other side listens.</summary>
    public static Step Drip(string latin1, int milliseconds = 1) => c => c.DripAsync(Encoding.Latin1.GetBytes(latin1), milliseconds);

    /// <summary>Sends the same text again and again, for as long as the other side listens.</summary>
    public static Step Flood(string latin1) => c => c.FloodAsync(Encoding.Latin1.GetBytes(latin1));

    /// <summary>Makes the connection a secure one.</summary>
    public static Step Handshake(X509Certificate2 certificate, bool wantsClientCertificate = false) =>
        c => c.HandshakeAsync(certificate, wantsClientCertificate);
}

/// <summary>A connection as a receiver that keeps to no rules has it.</summary>
internal sealed class RawConnection(
    Socket socket, ConcurrentQueue<string> requests, ConcurrentQueue<string> bodies, CancellationToken stop)
{
    private Stream _stream = new NetworkStream(socket);

    public async Task ReadRequestAsync(bool withBody)
    {
        var head = new List<byte>();
        var one = new byte[1];
        while (head.Count < 4 || !head[^4..].SequenceEqual("\r\n\r\n"u8.ToArray()))
        {
            if (await _stream.ReadAsync(one, stop) == 0)
                throw new IOException("The sender left.");
            head.Add(one[0]);
        }
        var text = Encoding.Latin1.GetString([.. head]);
        requests.Enqueue(text);
        if (!withBody)
            return;
        var length = int.Parse(text.Split("Content-Length: ")[1].Split("\r\n")[0]);
        var body = new byte[length];
        await _stream.ReadExactlyAsync(body, stop);
        bodies.Enqueue(Encoding.UTF8.GetString(body));
    }

    public async Task ReadSomeAsync() => _ = await _stream.ReadAsync(new byte[64 * 1024], stop);

    public async Task SendAsync(byte[] bytes)
    {
        await _stream.WriteAsync(bytes, stop);
        await _stream.FlushAsync(stop);
    }

    public async Task DripAsync(byte[] bytes, int milliseconds)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(milliseconds));
        foreach (var b in bytes)
        {
            await SendAsync([b]);
            await timer.WaitForNextTickAsync(stop);
        }
    }

    public async Task FloodAsync(byte[] bytes)
    {
        while (true)
            await SendAsync(bytes);
    }

    public async Task HandshakeAsync(X509Certificate2 certificate, bool wantsClientCertificate)
    {
        var secure = new SslStream(_stream, leaveInnerStreamOpen: false,
            (_, presented, _, _) => presented is not null || !wantsClientCertificate);
        await secure.AuthenticateAsServerAsync(
            new SslServerAuthenticationOptions { ServerCertificate = certificate, ClientCertificateRequired = wantsClientCertificate },
            stop);
        _stream = secure;
    }

    public Task HalfCloseAsync()
    {
        socket.Shutdown(SocketShutdown.Send);
        return UntilOtherSideLeavesAsync();
    }

    public async Task UntilOtherSideLeavesAsync()
    {
        var buffer = new byte[64 * 1024];
        while (await socket.ReceiveAsync(buffer, stop) > 0)
        {
        }
    }

    public Task CloseAsync(bool reset)
    {
        socket.LingerState = new LingerOption(reset, 0);
        socket.Dispose();
        return Task.CompletedTask;
    }
}

/// <summary>A receiver on a raw socket: what it does on its first connection, on its second, and so on; the last is repeated.</summary>
internal sealed class RawReceiver : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentQueue<string> _requests = new();
    private readonly ConcurrentQueue<string> _bodies = new();
    private readonly Task _accepting;
    private int _connections;

    public RawReceiver(Step[][] connections)
    {
        _listener.Start();
        _accepting = AcceptAsync(connections);
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    /// <summary>How many connections were made.</summary>
    public int Connections => _connections;

    /// <summary>The head of each request that was read, as it was on the wire.</summary>
    public IReadOnlyCollection<string> Requests => _requests;

    /// <summary>The body of each request of which it was read.</summary>
    public IReadOnlyCollection<string> Bodies => _bodies;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _accepting;
        _listener.Stop();
        _stop.Dispose();
    }

    private async Task AcceptAsync(Step[][] connections)
    {
        var all = new List<Task>();
        try
        {
            while (true)
            {
                var socket = await _listener.AcceptSocketAsync(_stop.Token);
                var number = Interlocked.Increment(ref _connections);
                all.Add(PlayAsync(socket, connections[Math.Min(number, connections.Length) - 1]));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException)
        {
            await Task.WhenAll(all);
        }
    }

    private async Task PlayAsync(Socket socket, Step[] steps)
    {
        using (socket)
        {
            socket.NoDelay = true;
            var connection = new RawConnection(socket, _requests, _bodies, _stop.Token);
            try
            {
                foreach (var step in steps)
                    await step(connection);
            }
            catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException
                or System.Security.Authentication.AuthenticationException)
            {
                // The other side has left.
            }
        }
    }
}
