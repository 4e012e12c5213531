using System.Collections.Concurrent;
using System.Net.Security;
using Triggers.Core.Subscriptions;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>
/// Sends requests of subscriptions that have a client certificate on connections of their own: nothing of another subscription, or of the
/// certificate before, goes out on them. All other requests go on as they are.
/// </summary>
/// <param name="sockets">Makes what connections are made by.</param>
/// <param name="time">The clock.</param>
internal sealed class ClientCertificateHandler(Func<SocketsHttpHandler> sockets, TimeProvider time) : DelegatingHandler
{
    /// <summary>How long what is not used is kept: longer than its connections live.</summary>
    private static readonly TimeSpan s_keep = TimeSpan.FromMinutes(10);

    private readonly ConcurrentDictionary<Guid, Entry> _entries = new();
    private readonly Lock _adding = new();

    /// <summary>How many subscriptions have connections of their own.</summary>
    public int Count => _entries.Count;

    protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken) =>
        request.Options.TryGetValue(WebhookSender.ClientCertificate, out var certificate)
            ? InvokerOf(certificate).SendAsync(request, cancellationToken) : base.SendAsync(request, cancellationToken);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            foreach (var entry in _entries.Values)
                entry.Invoker.Dispose();
        }
        base.Dispose(disposing);
    }

    private HttpMessageInvoker InvokerOf(CertificateOf certificate)
    {
        if (!TryFind(certificate, out var entry))
        {
            lock (_adding)
            {
                if (!TryFind(certificate, out entry))
                {
                    // What is under way on the connections before ends by itself; then nobody has them.
                    foreach (var (id, unused) in _entries.Where(e => time.GetElapsedTime(e.Value.UsedAt) > s_keep))
                        _entries.TryRemove(new(id, unused));
                    _entries[certificate.SubscriptionId] = entry = new Entry(certificate.Kept, Make(certificate.Kept));
                }
            }
        }
        entry!.UsedAt = time.GetTimestamp();
        return entry.Invoker;
    }

    private bool TryFind(CertificateOf certificate, out Entry? entry) =>
        _entries.TryGetValue(certificate.SubscriptionId, out entry) && entry.Kept == certificate.Kept;

    private HttpMessageInvoker Make(string kept)
    {
        var handler = sockets();
        handler.SslOptions = new SslClientAuthenticationOptions
        {
            ClientCertificateContext = ClientCertificate.Load(kept),
            AllowTlsResume = false,
            // Receivers are trusted as without one.
            CertificateChainPolicy = (InnerHandler as SocketsHttpHandler)?.SslOptions.CertificateChainPolicy,
        };
        return new HttpMessageInvoker(handler);
    }

    private sealed class Entry(string kept, HttpMessageInvoker invoker)
    {
        public string Kept { get; } = kept;

        public HttpMessageInvoker Invoker { get; } = invoker;

        public long UsedAt { get; set; }
    }
}
