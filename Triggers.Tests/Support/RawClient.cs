using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Triggers.Tests.Support;

/// <summary>Speaks HTTP/1.1 on a socket, byte by byte, as badly as a test wants.</summary>
internal sealed class RawClient : IDisposable
{
    private readonly TcpClient _tcp;
    private readonly NetworkStream _stream;

    private RawClient(TcpClient tcp)
    {
        _tcp = tcp;
        _stream = tcp.GetStream();
    }

    /// <param name="address">The server.</param>
    /// <param name="receiveBuffer">What the network holds of an answer that is not read yet; null for the system's default.</param>
    public static async Task<RawClient> ConnectAsync(Uri address, int? receiveBuffer = null)
    {
        var tcp = new TcpClient { NoDelay = true };
        if (receiveBuffer is { } size)
            tcp.ReceiveBufferSize = size;
        await tcp.ConnectAsync(IPAddress.Loopback, address.Port, TestContext.Current.CancellationToken);
        return new RawClient(tcp);
    }

    /// <summary>Sends the head of a request, with a key.</summary>
    public Task SendHeadAsync(string requestLine, string key, params string[] headers) =>
        SendAsync(Encoding.ASCII.GetBytes(
            $"{requestLine} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n{string.Concat(headers.Select(h => h + "\r\n"))}\r\n"));

    /// <summary>Sends bytes, as they are.</summary>
    public Task SendAsync(ReadOnlyMemory<byte> bytes) => _stream.WriteAsync(bytes, TestContext.Current.CancellationToken).AsTask();

    /// <summary>The status of the answer, and its headers.</summary>
    public async Task<(int Status, Dictionary<string, string> Headers)> ReadHeadAsync()
    {
        var status = (await ReadLineAsync()).Split(' ')[1];
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        while (await ReadLineAsync() is { Length: > 0 } line)
            headers[line[..line.IndexOf(':')]] = line[(line.IndexOf(':') + 1)..].Trim();
        return (int.Parse(status, CultureInfo.InvariantCulture), headers);
    }

    /// <summary>The answer's body, in chunks or of a length; null when the connection ended before the body did.</summary>
    public async Task<byte[]?> ReadBodyAsync(Dictionary<string, string> headers)
    {
        using var body = new MemoryStream();
        try
        {
            if (headers.TryGetValue("Content-Length", out var length))
            {
                await CopyAsync(body, int.Parse(length, CultureInfo.InvariantCulture));
                return body.ToArray();
            }
            while (int.Parse(await ReadLineAsync(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) is > 0 and var chunk)
            {
                await CopyAsync(body, chunk);
                await ReadLineAsync();
            }
            await ReadLineAsync();
            return body.ToArray();
        }
        catch (IOException)
        {
            return null;
        }
    }

    public void Dispose() => _tcp.Dispose();

    private async Task CopyAsync(MemoryStream to, int count)
    {
        var buffer = new byte[count];
        await _stream.ReadExactlyAsync(buffer, TestContext.Current.CancellationToken);
        to.Write(buffer);
    }

    private async Task<string> ReadLineAsync()
    {
        var line = new List<byte>();
        var one = new byte[1];
        while (!line.EndsWith("\r\n"u8))
        {
            await _stream.ReadExactlyAsync(one, TestContext.Current.CancellationToken);
            line.Add(one[0]);
        }
        return Encoding.ASCII.GetString([.. line[..^2]]);
    }
}

internal static class Bytes
{
    public static bool EndsWith(this List<byte> bytes, ReadOnlySpan<byte> end) =>
        bytes.Count >= end.Length && System.Runtime.InteropServices.CollectionsMarshal.AsSpan(bytes)[^end.Length..].SequenceEqual(end);
}
