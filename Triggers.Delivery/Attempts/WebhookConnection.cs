using System.Diagnostics;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;

namespace Triggers.Delivery.Attempts;

/// <summary>What went over the wire for one request: what tells a closed connection from a refused or broken answer.</summary>
internal sealed class Exchange
{
    private static readonly AsyncLocal<Exchange?> Flowing = new();

    private readonly bool _wantsCertificate;

    private Exchange(bool wantsCertificate) => _wantsCertificate = wantsCertificate;

    /// <summary>That of the request under way.</summary>
    public static Exchange? Current => Flowing.Value;

    /// <summary>When it began, a timestamp of <see cref="Stopwatch"/>.</summary>
    public long BeganAt { get; } = Stopwatch.GetTimestamp();

    /// <summary>Whether anything of the request was written.</summary>
    public bool Sent { get; private set; }

    /// <summary>Whether anything of an answer came.</summary>
    public bool Answered { get; set; }

    /// <summary>Whether the connection was there before this request, and may have been closed without our knowing.</summary>
    public bool Reused { get; private set; }

    /// <summary>The receiver's certificate, where it was asked for and there is one.</summary>
    public X509Certificate2? ReceiverCertificate { get; private set; }

    /// <summary>Begins the exchange of the request that is sent next in this method.</summary>
    public static Exchange Begin(bool wantsCertificate = false) => Flowing.Value = new Exchange(wantsCertificate);

    /// <summary>The request goes out on a connection.</summary>
    public void SentOn(Stream connection, bool reused)
    {
        (Sent, Reused) = (true, reused);
        if (_wantsCertificate && connection is SslStream secure)
            ReceiverCertificate = secure.RemoteCertificate as X509Certificate2;
    }

    /// <summary>Nothing that was sent counts: the request goes out anew.</summary>
    public void Restart() => (Sent, Answered, Reused) = (false, false, false);
}

/// <summary>A connection to a receiver, over TLS or not, that tells the exchange under way what came and went.</summary>
internal sealed class WebhookConnection(Stream inner) : Stream
{
    private readonly long _openedAt = Stopwatch.GetTimestamp();
    private Exchange? _exchange;
    private IOException? _broken;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        var read = await inner.ReadAsync(buffer, cancellationToken);
        if (read > 0 && _exchange is { } exchange)
            exchange.Answered = true;
        return read;
    }

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (Exchange.Current is { } current && current != _exchange)
        {
            current.SentOn(inner, reused: _exchange is not null || _openedAt < current.BeganAt);
            _exchange = current;
            if (_broken is not null)
                throw new IOException("The connection broke in the request before.", _broken);
        }
        if (_broken is not null)
            return;
        try
        {
            await inner.WriteAsync(buffer, cancellationToken);
        }
        catch (IOException e)
        {
            // A receiver may answer and close before it has read everything: its answer is still there to be read.
            _broken = e;
        }
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => inner.FlushAsync(cancellationToken);

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Flush() => inner.Flush();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            inner.Dispose();
        base.Dispose(disposing);
    }
}

/// <summary>
/// Sends once more, on a fresh connection, when a kept-alive one turned out to be closed: nothing of an answer came, so the
/// receiver most likely never saw the request. Not an attempt of its own, and never twice.
/// </summary>
internal sealed class StaleConnectionHandler(HttpMessageHandler fresh, DeliveryMetrics metrics) : DelegatingHandler
{
    private readonly HttpMessageInvoker _fresh = new(fresh);

    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        try
        {
            return await base.SendAsync(request, cancellationToken);
        }
        catch (HttpRequestException) when (Exchange.Current is { Reused: true, Answered: false })
        {
            metrics.StaleConnection();
            Exchange.Current.Restart();
            return await _fresh.SendAsync(request, cancellationToken);
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            _fresh.Dispose();
        base.Dispose(disposing);
    }
}
