using System.Diagnostics.Metrics;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;
using Triggers.EventLog;
using Triggers.ServiceDefaults;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery.Attempts;

/// <summary>The sender as the service has it, with its HttpClient, guard and metrics, and nothing around it.</summary>
internal sealed class RealSender : IAsyncDisposable
{
    private readonly ServiceProvider _services;
    private readonly MeterListener _listener = new();
    private readonly Guid _subscription = TypeId.NewGuid();
    private readonly Guid _tenant = TypeId.NewGuid();
    private long _stale;

    /// <param name="settings">What differs from the defaults, in which this machine may be sent to.</param>
    /// <param name="trusted">A root that certificates may come from.</param>
    /// <param name="resolve">What names resolve to, if it is not what the machine says.</param>
    public RealSender(
        Action<DeliveryOptions>? settings = null, X509Certificate2? trusted = null,
        Func<string, CancellationToken, Task<IPAddress[]>>? resolve = null)
    {
        var services = new ServiceCollection();
        services.AddLogging(logging => logging.AddProvider(Logs).SetMinimumLevel(LogLevel.Trace));
        services.AddMetrics();
        services.AddSingleton(TimeProvider.System);
        services.AddSingleton(new Lanes(1, TimeProvider.System));
        services.AddDataProtection().UseEphemeralDataProtectionProvider();
        services.AddSingleton<SecretProtector>();
        services.AddSingleton<Subscribers>();
        services.AddSingleton<LogLags>();
        services.AddSingleton<DeliveryMetrics>();
        services.AddOptions<DeliveryOptions>().Configure(options =>
        {
            options.AllowedNetworks = "127.0.0.0/8";
            settings?.Invoke(options);
        });
        services.AddWebhookClient();
        if (resolve is not null)
        {
            services.AddSingleton(provider => new AddressGuard(
                provider.GetRequiredService<IOptions<DeliveryOptions>>(), provider.GetRequiredService<ILogger<AddressGuard>>())
            { Resolve = resolve });
        }
        if (trusted is not null)
            Certificates.Trust(services, trusted);
        _services = services.BuildServiceProvider();
        var meters = _services.GetRequiredService<IMeterFactory>();
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Scope == meters && instrument.Name == "triggers.delivery.connections.stale")
                listener.EnableMeasurementEvents(instrument);
        };
        _listener.SetMeasurementEventCallback<long>((_, count, _, _) => Interlocked.Add(ref _stale, count));
        _listener.Start();
    }

    /// <summary>What it wrote to the log.</summary>
    public CapturedLogs Logs { get; } = new();

    /// <summary>How many requests were repeated because a kept-alive connection was closed.</summary>
    public long StaleConnections => Interlocked.Read(ref _stale);

    /// <summary>What it sends by at the bottom.</summary>
    public SocketsHttpHandler Handler
    {
        get
        {
            var handler = _services.GetRequiredService<IHttpMessageHandlerFactory>().CreateHandler(WebhookSender.ClientName);
            while (handler is DelegatingHandler { InnerHandler: { } inner })
                handler = inner;
            return (SocketsHttpHandler)handler;
        }
    }

    /// <summary>Makes one attempt.</summary>
    public Task<AttemptResult> SendAsync(
        string url, string data = "{}", Dictionary<string, string>? headers = null,
        ReceiverAuthentication? authentication = null, string secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        CertificateOf? certificate = null, CancellationToken cancellationToken = default)
    {
        var e = new StoredEvent(TypeId.NewGuid(), "order.created", null, null, null, null, "correlation-1", null,
            Encoding.UTF8.GetBytes(data));
        var subscriber = new Subscriber(_subscription, _tenant, 1, url, ["*"], headers ?? [],
            [.. secret.Split(' ').Select(s => new SigningSecret { Secret = s })], Enabled: true)
        { Authentication = authentication, ClientCertificate = certificate };
        var delivery = new DueDelivery(subscriber.TenantId, TypeId.NewGuid(), e.Id, subscriber.Id, 1, 0, null, false, 0, data.Length);
        // Read anew each time, as from the database.
        var share = new Payloads((_, _) => Task.FromResult<IReadOnlyCollection<StoredEvent>>([e]))
            .Hold(subscriber.TenantId, e.Id, data.Length, subscriber.Format);
        return _services.GetRequiredService<WebhookSender>()
            .SendAsync(delivery, share, () => { }, () => { }, subscriber, 1, null, cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        await _services.DisposeAsync();
    }
}
