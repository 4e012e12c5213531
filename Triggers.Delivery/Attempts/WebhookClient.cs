using Microsoft.Extensions.Options;
using Polly;

namespace Triggers.Delivery.Attempts;

/// <summary>The HttpClient that webhooks go out by.</summary>
internal static partial class WebhookClient
{
    /// <summary>
    /// No redirects, no cookies, no proxy, no trace headers but ours, and no retry: sending again is the schedule's business, in the
    /// database. The resilience handler bounds the time to the headers; the sender bounds the whole attempt.
    /// </summary>
    public static void AddWebhookClient(this IServiceCollection services)
    {
        services.AddSingleton(provider =>
        {
            var options = provider.GetRequiredService<IOptions<DeliveryOptions>>().Value;
            _ = DeliveryOptions.TryParseNetworks(options.AllowedNetworks, out var networks);
            if (networks.Count > 0)
                Log.NetworksAllowed(provider.GetRequiredService<ILogger<AddressGuard>>(), options.AllowedNetworks);
            return new AddressGuard(networks);
        });
        services.AddSingleton<WebhookSender>();
        services.AddHttpClient(WebhookSender.ClientName, client => client.Timeout = Timeout.InfiniteTimeSpan)
            .ConfigurePrimaryHttpMessageHandler(provider => new SocketsHttpHandler
            {
                AllowAutoRedirect = false,
                UseCookies = false,
                UseProxy = false,
                ActivityHeadersPropagator = null,
                AutomaticDecompression = System.Net.DecompressionMethods.None,
                ConnectTimeout = provider.GetRequiredService<IOptions<DeliveryOptions>>().Value.ConnectTimeout,
                // Names are resolved, and the guard asked, again at least this often.
                PooledConnectionLifetime = TimeSpan.FromMinutes(2),
                MaxResponseHeadersLength = 32,
                MaxResponseDrainSize = 64 * 1024,
                ConnectCallback = provider.GetRequiredService<AddressGuard>().ConnectAsync,
            })
            // Connections live in the handler, which renews them itself.
            .SetHandlerLifetime(Timeout.InfiniteTimeSpan)
            .RemoveAllLoggers()
            .AddResilienceHandler("attempt", (pipeline, context) =>
                pipeline.AddTimeout(context.ServiceProvider.GetRequiredService<IOptions<DeliveryOptions>>().Value.AttemptTimeout));
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Webhooks may be sent to {Networks}, beside public addresses")]
        public static partial void NetworksAllowed(ILogger logger, string networks);
    }
}
