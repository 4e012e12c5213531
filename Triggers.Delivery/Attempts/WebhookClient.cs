using System.Net;
using Microsoft.Extensions.Http.Resilience;
using Microsoft.Extensions.Options;
using Polly;
using Polly.Telemetry;
using Connect = System.Func<
    System.Net.Http.SocketsHttpConnectionContext, System.Threading.CancellationToken, System.Threading.Tasks.ValueTask<System.IO.Stream>>;

namespace Triggers.Delivery.Attempts;

/// <summary>The HttpClient that webhooks go out by.</summary>
internal static class WebhookClient
{
    /// <summary>Names are resolved, and the guard asked, again at least this often.</summary>
    private static readonly TimeSpan s_connectionLifetime = TimeSpan.FromMinutes(2);

    /// <summary>
    /// No redirects, no cookies, no proxy, no trace headers but ours, and no retry but that of a connection found closed: sending
    /// again is the schedule's business, in the database. The resilience handler bounds the time to the headers; the sender bounds
    /// the whole attempt.
    /// </summary>
    public static void AddWebhookClient(this IServiceCollection services)
    {
        services.AddSingleton<AddressGuard>();
        services.AddSingleton<AccessTokens>();
        services.AddSingleton<WebhookSender>();
        // A receiver's timeout is no error of ours: it is a result, and the dispatcher's line says so.
        services.Configure<TelemetryOptions>(telemetry => telemetry.SeverityProvider = _ => ResilienceEventSeverity.Debug);
        services.AddClient(WebhookSender.ClientName, provider => provider.GetRequiredService<AddressGuard>().ConnectAsync);
    }

    /// <summary>Adds one like it that connects otherwise.</summary>
    public static void AddClient(this IServiceCollection services, string name, Func<IServiceProvider, Connect> connect)
    {
        var webhooks = services.AddHttpClient(name, client => client.Timeout = Timeout.InfiniteTimeSpan)
            .ConfigurePrimaryHttpMessageHandler(provider => Sockets(provider, connect, s_connectionLifetime))
            // Connections live in the handler, which renews them itself.
            .SetHandlerLifetime(Timeout.InfiniteTimeSpan)
            .RemoveAllLoggers();
        webhooks.AddResilienceHandler("attempt", pipeline => pipeline.AddTimeout(new HttpTimeoutStrategyOptions
        {
            TimeoutGenerator = attempt => ValueTask.FromResult(
                attempt.Context.GetRequestMessage()!.Options.TryGetValue(WebhookSender.TimeLimit, out var limit) ? limit : default),
        }));
        webhooks.AddHttpMessageHandler(provider =>
        {
            var fresh = Certified(provider, connect, TimeSpan.Zero);
            fresh.InnerHandler = Sockets(provider, connect, TimeSpan.Zero);
            return new StaleConnectionHandler(fresh, provider.GetRequiredService<DeliveryMetrics>());
        });
        webhooks.AddHttpMessageHandler(provider => Certified(provider, connect, s_connectionLifetime));
    }

    private static ClientCertificateHandler Certified(
        IServiceProvider provider, Func<IServiceProvider, Connect> connect, TimeSpan connectionLifetime) =>
        new(() => Sockets(provider, connect, connectionLifetime), provider.GetRequiredService<TimeProvider>());

    private static NetworkCredential? CredentialsOf(Uri proxy) =>
        proxy.UserInfo.Split(':', 2) is [{ Length: > 0 } name, var password]
            ? new NetworkCredential(Uri.UnescapeDataString(name), Uri.UnescapeDataString(password)) : null;

    private static SocketsHttpHandler Sockets(
        IServiceProvider provider, Func<IServiceProvider, Connect> connect, TimeSpan connectionLifetime) =>
        Sockets(provider.GetRequiredService<IOptions<DeliveryOptions>>().Value, connect(provider), connectionLifetime);

    private static SocketsHttpHandler Sockets(DeliveryOptions options, Connect connect, TimeSpan connectionLifetime) => new()
    {
        AllowAutoRedirect = false,
        UseCookies = false,
        // Never one of the environment: who sets that for other programs would take the guard out of this one.
        UseProxy = options.EgressProxyAddress is not null,
        Proxy = options.EgressProxyAddress is { } proxy ? new WebProxy(proxy) { Credentials = CredentialsOf(proxy) } : null,
        ActivityHeadersPropagator = null,
        AutomaticDecompression = DecompressionMethods.None,
        ConnectTimeout = options.ConnectTimeout,
        PooledConnectionLifetime = connectionLifetime,
        MaxResponseHeadersLength = 32,
        MaxResponseDrainSize = 64 * 1024,
        ConnectCallback = connect,
        PlaintextStreamFilter = (context, _) => ValueTask.FromResult<Stream>(new WebhookConnection(context.PlaintextStream)),
    };
}
