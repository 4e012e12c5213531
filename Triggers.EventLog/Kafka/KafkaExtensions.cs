using Confluent.Kafka;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.EventLog.Kafka;

/// <summary>What a service that works with Kafka has.</summary>
public static partial class KafkaExtensions
{
    /// <summary>Whether events are logged in Kafka: whether <c>ConnectionStrings:kafka</c> is given.</summary>
    public static bool HasKafka(this IConfiguration configuration) => !string.IsNullOrEmpty(configuration.GetConnectionString("kafka"));

    /// <summary>Adds the settings <c>Kafka:*</c>, the topics, a producer, an admin client and health.</summary>
    public static void AddKafka(this WebApplicationBuilder builder)
    {
        var services = builder.Services;
        // The AppHost's settings of its own are in the same section.
        services.AddSettings<KafkaOptions>("Kafka", "Home", "Brokers")
            .Configure<IConfiguration>((options, configuration) => options.BootstrapServers = configuration.GetConnectionString("kafka"))
            .ValidateDataAnnotations();
        services.AddSingleton<IValidateOptions<KafkaOptions>, KafkaClientRules>();
        services.AddSingleton(provider => new AdminClientBuilder(Options(provider).ForAdmin()).SetLogHandler(LogTo(provider)).Build());
        services.AddSingleton(provider =>
        {
            var lifetime = provider.GetRequiredService<IHostApplicationLifetime>();
            var logger = Logger(provider);
            return new ProducerBuilder<byte[], byte[]>(Options(provider).ForProducer())
                .SetLogHandler(LogTo(provider))
                .SetErrorHandler((_, error) =>
                {
                    if (!error.IsFatal)
                        return;
                    // It takes nothing any more, for good: a new process does.
                    Log.Fatal(logger, error.Reason);
                    Environment.ExitCode = 1;
                    lifetime.StopApplication();
                })
                .Build();
        });
        services.AddSingleton<KafkaTopics>();
        services.AddHostedService(provider => provider.GetRequiredService<KafkaTopics>());
        services.AddDependencyCheck<KafkaHealth>("kafka");
    }

    /// <summary>Librdkafka's own messages. What it calls errors is ours to handle, and what it warns of it tries again itself.</summary>
    public static Action<IClient, LogMessage> LogTo(IServiceProvider provider)
    {
        var logger = Logger(provider);
        return (_, message) =>
            Log.Said(logger, message.Level < SyslogLevel.Warning ? LogLevel.Warning : LogLevel.Debug, message.Facility, message.Message);
    }

    private static KafkaOptions Options(IServiceProvider provider) => provider.GetRequiredService<IOptions<KafkaOptions>>().Value;

    private static ILogger Logger(IServiceProvider provider) =>
        provider.GetRequiredService<ILoggerFactory>().CreateLogger("Triggers.Kafka");

    private static partial class Log
    {
        [LoggerMessage(
            EventId = 1, Level = LogLevel.Critical, Message = "The Kafka producer has failed for good; the process ends: {Problem}")]
        public static partial void Fatal(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Message = "{Facility}: {Text}")]
        public static partial void Said(ILogger logger, LogLevel level, string facility, string text);
    }
}

/// <summary>Whether librdkafka knows the properties of <c>Kafka:Client</c>, and their values.</summary>
internal sealed class KafkaClientRules : IValidateOptions<KafkaOptions>
{
    public ValidateOptionsResult Validate(string? name, KafkaOptions options)
    {
        try
        {
            using var admin = new AdminClientBuilder(options.ForAdmin()).SetLogHandler((_, _) => { }).Build();
            using var producer = new ProducerBuilder<byte[], byte[]>(options.ForProducer()).SetLogHandler((_, _) => { }).Build();
            return ValidateOptionsResult.Success;
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException or KafkaException)
        {
            return ValidateOptionsResult.Fail($"Kafka:Client or ConnectionStrings:kafka can't be used: {e.Message}");
        }
    }
}

/// <summary>A broker answers.</summary>
internal sealed class KafkaHealth(IAdminClient admin, KafkaTopics topics, IOptions<KafkaOptions> options) : IHealthCheck
{
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default) =>
        Task.Run(() =>
    {
        if (!topics.Ready.IsCompletedSuccessfully)
            return HealthCheckResult.Degraded("the topics are not there yet");
        var topic = admin.GetMetadata(topics.Ready.Result.Topic, RequestBudget.Health - RequestBudget.Answer).Topics.Single();
        if (topic.Error.IsError)
            throw new KafkaException(topic.Error);
        var closed = topic.Partitions.Count(p => p.Leader < 0 || p.InSyncReplicas.Length < (options.Value.MinInSyncReplicas ?? 1));
        return closed == 0 ? HealthCheckResult.Healthy()
            : HealthCheckResult.Degraded($"{closed} of {topic.Partitions.Count} partitions have no leader, or too few replicas in sync");
    }, cancellationToken);
}
