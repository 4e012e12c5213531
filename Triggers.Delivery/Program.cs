using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core.Transformations;
using Triggers.Delivery;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Circuits;
using Triggers.Delivery.Completion;
using Triggers.Delivery.DeadLetters;
using Triggers.Delivery.Dispatch;
using Triggers.Delivery.Limits;
using Triggers.Delivery.Maintenance;
using Triggers.Delivery.Projection;
using Triggers.Delivery.Replays;
using Triggers.Delivery.Setup;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.EventLog;
using Triggers.EventLog.Kafka;
using Triggers.EventLog.Postgres;
using Triggers.ServiceDefaults;
using Triggers.ServiceDefaults.Redis;

var builder = WebApplication.CreateBuilder(args);
builder.AddServiceDefaults();

var services = builder.Services;
services.AddSettings<DeliveryOptions>("Delivery");
services.AddSingleton<IValidateOptions<DeliveryOptions>, DeliveryOptionsValidator>();
services.AddSingleton<IValidateOptions<DeliveryOptions>, DeliveryOptionsRules>();
services.AddSettings<RetentionOptions>("Retention").ValidateDataAnnotations();
services.AddSettings<TransformationOptions>("Transformations").ValidateDataAnnotations();
EngineDataSource.AddTo(builder);
services.AddSingleton<LogLags>();
services.AddSingleton<DeliveryMetrics>();
services.AddProtection(builder.Configuration);
services.AddSingleton<Subscribers>();
services.AddSingleton<OperationalEvents>();
services.AddSingleton<Wakeups>();
services.AddSingleton(provider =>
{
    var options = provider.GetRequiredService<IOptions<DeliveryOptions>>().Value;
    var subscribers = provider.GetRequiredService<Subscribers>();
    return new Lanes(options.LaneConcurrency, provider.GetRequiredService<TimeProvider>(), options.MaxLaneConcurrency,
        id => subscribers.Find(id)?.Limits, id => subscribers.Find(id)?.Batch);
});
if (RedisConnection.AddTo(builder))
    services.AddSingleton<SharedPermits>();
services.AddWebhookClient();

// They stop in the reverse order: no new work, then the attempts in flight, then their results, then the worker's entry.
services.AddHostedSingleton<WorkerRegistration>();
services.AddHostedSingleton<Completions>();
services.AddSingleton(provider => new Payloads(Payloads.ReadFrom(provider.GetRequiredService<NpgsqlDataSource>())));
services.AddSingleton<Attempter>();
services.AddHostedSingleton<LimitKeeper>();
services.AddHostedSingleton<Circuits>();
services.AddHostedSingleton<Dispatcher>();
services.AddSingleton<Projection>();
services.AddHostedSingleton<FanOutLoop>();
services.AddSingleton(provider => new PostgresEventSource(
    provider.GetRequiredService<Wakeups>().Projection.WaitAsync, provider.GetRequiredService<TimeProvider>(),
    provider.GetRequiredService<ILogger<PostgresEventSource>>()));
services.AddHostedSingleton<Projector<PostgresEventSource>>();
services.AddHostedSingleton<ReplayJobs>();
services.AddHostedSingleton<Housekeeping>();
services.AddHostedSingleton<BacklogWatch>();
services.AddHostedSingleton<EndedSubscriptions>();
services.AddHostedSingleton<EventExpiry>();
WarmUp.AddTo(services);
if (builder.Configuration.HasKafka())
{
    builder.AddKafka();
    services.AddSingleton<ProjectionProgress>();
    services.AddSingleton<KafkaEventSource>();
    services.AddHostedSingleton<Projector<KafkaEventSource>>();
    services.AddDependencyCheck<KafkaEventSource>("projection");
    services.AddHostedSingleton<DeadLetterPublisher>();
}

var app = builder.Build();
app.MapLiveAndReady();
return await app.RunServiceAsync();

/// <summary>Marks this assembly for hosts that start it inside their own process.</summary>
internal sealed class DeliveryMarker;

internal static class Registration
{
    public static void AddHostedSingleton<T>(this IServiceCollection services) where T : class, IHostedService =>
        services.AddSingleton<T>().AddHostedService(provider => provider.GetRequiredService<T>());
}
