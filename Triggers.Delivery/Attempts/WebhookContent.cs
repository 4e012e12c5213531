using System.Net;
using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// The body of a request, which it lets go once it is written. Should the same request be written again, because its connection turned out
/// to be closed, the body is fetched again.
/// </summary>
internal sealed class WebhookContent : HttpContent
{
    private readonly PayloadShare _share;
    private readonly Action _written;
    private readonly int _length;
    private bool _letGo;

    /// <param name="share">Of the event whose body it is.</param>
    /// <param name="message">That is sent; it is not kept here.</param>
    /// <param name="written">Called, once, when the body is no longer in memory for this request.</param>
    public WebhookContent(PayloadShare share, WebhookMessage message, Action written)
    {
        (_share, _length, _written) = (share, message.Body.Length, written);
        Headers.ContentType = message.ContentType;
    }

    protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) =>
        SerializeToStreamAsync(stream, context, CancellationToken.None);

    protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
    {
        if (_letGo)
        {
            using var again = _share.Again();
            await WriteAsync(again);
            return;
        }
        await WriteAsync(_share);
        _letGo = true;
        _share.Dispose();
        _written();

        async Task WriteAsync(PayloadShare share)
        {
            var message = await share.ReadAsync(cancellationToken) ?? throw new IOException("The event is no longer kept.");
            await stream.WriteAsync(message.Body, cancellationToken);
        }
    }

    protected override bool TryComputeLength(out long length)
    {
        length = _length;
        return true;
    }
}
