using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.AspNetCore.HttpOverrides;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Configuration;
using Triggers.Api.Events;
using Triggers.Api.EventTypes;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Inbox;
using Triggers.Api.Ingest;
using Triggers.Api.RateLimiting;
using Triggers.Api.Replays;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Api.Telemetry;
using Triggers.Core;
using Triggers.Core.Transformations;
using Triggers.EventLog;
using Triggers.EventLog.Kafka;
using Triggers.EventLog.Postgres;
using Triggers.ServiceDefaults;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Api.Setup;

/// <summary>What the API is made of.</summary>
internal static class ApiServices
{
    /// <summary>
    /// Storage as requests need it: answers within 2 s or not at all. A cancelled statement is given up at once, for the request that
    /// wanted it has its answer already. Whether a connection still lives is the operating system's to find out: a question of Npgsql's
    /// own makes who wants the connection wait for its answer, and a server that hangs gives none. Nor is a connection that comes back
    /// asked to forget a state that nobody gives it.
    /// </summary>
    public static readonly string PoolDefaults =
        $"Timeout={RequestBudget.Connect.TotalSeconds};Cancellation Timeout=100;Maximum Pool Size=40;"
        + "No Reset On Close=true;Keepalive=0;Tcp Keepalive=true;Tcp Keepalive Time=5;Tcp Keepalive Interval=1";

    /// <summary>
    /// The event log: Kafka where <c>ConnectionStrings:kafka</c> names one, Postgres otherwise. Nothing else knows which.
    /// </summary>
    public static void AddEventLog(this WebApplicationBuilder builder)
    {
        var services = builder.Services;
        if (builder.Configuration.HasKafka())
        {
            builder.AddKafka();
            services.AddHosted<KafkaEventLog>();
            services.AddSingleton<IEventLog>(provider => provider.GetRequiredService<KafkaEventLog>());
            services.AddSingleton<ProjectionProgress>();
        }
        else
        {
            services.AddHosted<PostgresEventLog>();
            services.AddSingleton<IEventLog>(provider => provider.GetRequiredService<PostgresEventLog>());
        }
    }

    /// <summary>Keys, and what they may do.</summary>
    public static void AddKeys(this IServiceCollection services)
    {
        services.AddSettings<AuthOptions>("Auth")
            .Validate(o => o.BootstrapAdminKey is null or { Length: >= 16 and <= 512 }
                && (o.BootstrapAdminKey?.All(c => c is > ' ' and <= '~') ?? true),
                "Auth:BootstrapAdminKey must be 16 to 512 printable ASCII characters, without spaces.")
            .ValidateDataAnnotations();
        services.AddOptions<AuthOptions>().Validate(o => o.TrustedNetworks is not null,
            "Auth:TrustedProxies must be networks, comma-separated, as in 10.0.0.0/8,fd00::/8.");
        services.AddOptions<ForwardedHeadersOptions>().Configure<IOptions<AuthOptions>>((forwarded, auth) =>
        {
            forwarded.ForwardedHeaders = auth.Value.TrustedNetworks is { Count: > 0 } ? ForwardedHeaders.XForwardedFor
                : ForwardedHeaders.None;
            // As many as there are: each must be of these networks.
            forwarded.ForwardLimit = null;
            forwarded.KnownIPNetworks.Clear();
            forwarded.KnownProxies.Clear();
            foreach (var network in auth.Value.TrustedNetworks ?? [])
                forwarded.KnownIPNetworks.Add(network);
        });
        // Policies name the scheme. An endpoint that is open to all must not wait for the database because somebody sends it a key.
        AppContext.SetSwitch("Microsoft.AspNetCore.Authentication.SuppressAutoDefaultScheme", true);
        services.AddAuthentication().AddScheme<AuthenticationSchemeOptions, ApiKeyAuthentication>(ApiKeyAuthentication.Scheme, null);
        services.AddAuthorization(options => options.AddScopes());
        services.AddSingleton<IAuthorizationMiddlewareResultHandler, ChargedAuthorization>();
        services.AddSingleton<StrangerLimits>();
        services.AddSettings<RateLimitingOptions>("RateLimiting").ValidateDataAnnotations();
        services.AddSingleton<KeyCache>();
        services.AddSingleton<LocalLimits>();
        services.AddSingleton<RateLimits>();
        services.AddHosted<KeyChanges>();
        services.AddHosted<LastUsed>();
        services.AddHosted<Bootstrap>();
    }

    /// <summary>
    /// Redis, where <c>ConnectionStrings:redis</c> names one: limits of all processes together, and word of changed keys.
    /// </summary>
    public static void AddRedis(this WebApplicationBuilder builder)
    {
        if (!RedisConnection.AddTo(builder))
            return;
        builder.Services.AddHostedService(provider => provider.GetRequiredService<RedisConnection>());
        builder.Services.AddSingleton<SharedPermits>();
        builder.Services.AddSingleton<RedisLimits>();
        builder.Services.AddDependencyCheck<RedisLimits>("redis");
    }

    /// <summary>What the endpoints work with.</summary>
    public static void AddFeatures(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddSingleton<ApiMetrics>();
        services.AddSettings<RequestOptions>("Requests").ValidateDataAnnotations();
        services.AddSingleton<BodyMemory>();
        services.AddSettings<CapOptions>("Limits").ValidateDataAnnotations();
        services.AddSettings<TransformationOptions>("Transformations").ValidateDataAnnotations();
        services.AddOptions<DeliveryDefaults>().BindConfiguration("Delivery");
        services.AddSingleton<ConcurrencyLimits>();
        services.AddSingleton<Contracts>();
        services.AddSingleton<ContractCheck>();
        services.AddSingleton<TimesCheck>();
        services.AddSingleton<EventReader>();
        services.AddSingleton<EventCanceller>();
        services.AddSingleton<Acknowledger>();
        services.AddSingleton<InboxReceiver>();
        services.AddSingleton<InboxWait>();
        services.AddSingleton<Replayer>();
        services.AddHosted<ReplayCharges>();
        services.AddProtection(configuration);
        services.AddScoped<FirstAnswers>();
        services.AddScoped<Configurator>();
        services.AddHosted<InboxSignal>();
        services.AddHosted<WarmUp>();
    }

    /// <summary>JSON as our wire has it.</summary>
    public static void AddJson(this IServiceCollection services) =>
        services.Configure<JsonOptions>(options => Http.Json.Configure(options.SerializerOptions));

    /// <summary>Browsers of other origins are let in only where <c>Cors:Origins</c> names them.</summary>
    public static void AddOrigins(this WebApplicationBuilder builder)
    {
        // One text with commas, as an environment variable has it, or a list, as appsettings.json has it.
        var section = builder.Configuration.GetSection("Cors:Origins");
        var given = section.Value is { Length: > 0 } text
            ? text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
            : section.Get<string[]>() ?? [];
        // Copied from an address bar it ends with a slash, which no browser sends.
        string[] origins = [.. given.Select(origin => origin.TrimEnd('/'))];
        if (origins.Length > 0)
        {
            builder.Services.AddCors(cors => cors.AddDefaultPolicy(policy => policy
                .WithOrigins(origins).AllowAnyHeader().AllowAnyMethod()
                .WithExposedHeaders(Correlation.Header, "Location", "Link", "Retry-After",
                    RateLimits.Header, RateLimits.PolicyHeader, "Idempotency-Replayed")));
        }
    }

    /// <summary>The same for the requests that come; after routing.</summary>
    public static void UseOrigins(this WebApplication app)
    {
        if (app.Services.GetService<Microsoft.AspNetCore.Cors.Infrastructure.ICorsService>() is not null)
            app.UseCors();
    }

    /// <summary>A service in the background that others can ask for.</summary>
    public static void AddHosted<T>(this IServiceCollection services) where T : class, IHostedService
    {
        services.AddSingleton<T>();
        services.AddHostedService(provider => provider.GetRequiredService<T>());
    }
}
