using System.Globalization;
using Confluent.Kafka;
using Confluent.Kafka.Admin;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Triggers.ServiceDefaults;

namespace Triggers.EventLog.Kafka;

/// <summary>The log as it was found.</summary>
/// <param name="Log">Its name in <c>log_positions</c>: <c>kafka:</c> and the id of the topic, which a topic made anew has anew.</param>
/// <param name="Topic">The topic.</param>
/// <param name="Partitions">How many it has.</param>
public sealed record KafkaLogName(string Log, string Topic, int Partitions);

/// <summary>
/// Makes the topics at the start where they are missing. One that is there and could lose events, or would refuse them, ends the
/// process: that is for somebody to decide, before anything is accepted.
/// </summary>
public sealed partial class KafkaTopics(
    IAdminClient admin, IOptions<KafkaOptions> options, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<KafkaTopics> logger)
    : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly TaskCompletionSource<KafkaLogName> _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends when the topics are there and fit.</summary>
    public Task<KafkaLogName> Ready => _ready.Task;

    /// <inheritdoc />
    protected override bool IsAway(Exception e) => e is KafkaException || base.IsAway(e);

    /// <inheritdoc />
    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        try
        {
            var found = await EnsureAsync();
            Log.Found(Logger, found.Topic, found.Partitions);
            _ready.TrySetResult(found);
        }
        catch (UnfitTopicException e)
        {
            Log.Unfit(Logger, e.Message);
            Environment.ExitCode = 1;
            lifetime.StopApplication();
        }
        End();
    }

    private async Task<KafkaLogName> EnsureAsync()
    {
        var settings = options.Value;
        string[] names = [settings.EventsTopic, settings.DeadLettersTopic, settings.InvalidTopic];
        var found = await DescribeAsync(names);
        var missing = found.Where(t => t.Error.Code == ErrorCode.UnknownTopicOrPart).Select(t => t.Name).ToList();
        if (missing.Count > 0)
        {
            await CreateAsync(missing);
            found = await DescribeAsync(names);
        }
        if (found.FirstOrDefault(t => t.Error.IsError) is { } failed)
            throw new KafkaException(failed.Error);
        await EnsureFitAsync(found);
        var events = found[0];
        return new KafkaLogName($"kafka:{events.TopicId}", events.Name, events.Partitions.Count);
    }

    private async Task<List<TopicDescription>> DescribeAsync(string[] names)
    {
        var asked = new DescribeTopicsOptions { RequestTimeout = s_patience };
        List<TopicDescription> found;
        try
        {
            found = (await admin.DescribeTopicsAsync(TopicCollection.OfTopicNames(names), asked)).TopicDescriptions;
        }
        catch (DescribeTopicsException e)
        {
            // It throws when any of them is missing, and says of each how it stands.
            found = e.Results.TopicDescriptions;
        }
        return [.. names.Select(name => found.Single(t => t.Name == name))];
    }

    private async Task CreateAsync(List<string> names)
    {
        var settings = options.Value;
        var specifications = names.Select(name => new TopicSpecification
        {
            Name = name,
            NumPartitions = name == settings.InvalidTopic ? 1 : settings.Partitions,
            ReplicationFactor = settings.ReplicationFactor ?? -1,
            Configs = Configuration(),
        });
        try
        {
            await admin.CreateTopicsAsync(
                specifications, new CreateTopicsOptions { RequestTimeout = s_patience, OperationTimeout = s_patience });
        }
        catch (CreateTopicsException e) when (e.Results.All(r => !r.Error.IsError || r.Error.Code == ErrorCode.TopicAlreadyExists))
        {
            // Another process was faster.
        }
        foreach (var name in names)
            Log.Created(Logger, name);

        Dictionary<string, string> Configuration()
        {
            var configuration = new Dictionary<string, string>
            {
                ["cleanup.policy"] = "delete",
                ["retention.ms"] = Number((long)settings.Retention.TotalMilliseconds),
                ["retention.bytes"] = "-1",
                ["max.message.bytes"] = Number(KafkaOptions.MaxRecordBytes),
                ["unclean.leader.election.enable"] = "false",
            };
            if (settings.MinInSyncReplicas is { } replicas)
                configuration["min.insync.replicas"] = Number(replicas);
            return configuration;
        }
    }

    /// <exception cref="UnfitTopicException">Names everything that is wrong.</exception>
    private async Task EnsureFitAsync(List<TopicDescription> topics)
    {
        var settings = options.Value;
        var problems = new List<string>();
        var resources = topics.Select(t => new ConfigResource { Type = ResourceType.Topic, Name = t.Name });
        var described = await admin.DescribeConfigsAsync(resources, new DescribeConfigsOptions { RequestTimeout = s_patience });
        foreach (var topic in topics)
        {
            var entries = described.Single(d => d.ConfigResource.Name == topic.Name).Entries;
            long Value(string name) => long.Parse(entries[name].Value, CultureInfo.InvariantCulture);
            void Expect(bool fit, string name, string needed)
            {
                if (!fit)
                    problems.Add($"{topic.Name}: {name} is {entries[name].Value}, needed is {needed}");
            }

            Expect(Value("max.message.bytes") >= KafkaOptions.MaxRecordBytes,
                "max.message.bytes", $"{KafkaOptions.MaxRecordBytes} or more");
            if (topic.Name != settings.EventsTopic)
                continue;
            Expect(!entries["cleanup.policy"].Value.Contains("compact", StringComparison.Ordinal), "cleanup.policy", "delete");
            var retention = (long)settings.Retention.TotalMilliseconds;
            Expect(Value("retention.ms") == -1
                || Value("retention.ms") >= retention, "retention.ms", $"{retention} or more (Kafka:Retention)");
            Expect(Value("retention.bytes") == -1, "retention.bytes", "-1");
            Expect(entries["unclean.leader.election.enable"].Value == "false", "unclean.leader.election.enable", "false");
            if (settings.MinInSyncReplicas is { } replicas)
                Expect(Value("min.insync.replicas") >= replicas, "min.insync.replicas", $"{replicas} or more (Kafka:MinInSyncReplicas)");
            if (settings.ReplicationFactor is { } factor && topic.Partitions.Find(p => p.Replicas.Count < factor) is { } thin)
                problems.Add(
                    $"{topic.Name}: partition {thin.Partition} has {thin.Replicas.Count} replicas, needed are {factor} "
                        + "(Kafka:ReplicationFactor)");
        }
        if (problems.Count > 0)
            throw new UnfitTopicException(string.Join("; ", problems));
    }

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    private sealed class UnfitTopicException(string message) : Exception(message);

    private static partial class Log
    {
        [LoggerMessage(
            EventId = 2, Level = LogLevel.Information, Message = "The event log is the Kafka topic {Topic} with {Partitions} partitions")]
        public static partial void Found(ILogger logger, string topic, int partitions);

        [LoggerMessage(EventId = 3, Level = LogLevel.Information, Message = "Created the Kafka topic {Topic}")]
        public static partial void Created(ILogger logger, string topic);

        [LoggerMessage(EventId = 4, Level = LogLevel.Critical,
            Message = "Kafka topics are not fit to keep events; alter them, or the settings: {Problems}")]
        public static partial void Unfit(ILogger logger, string problems);
    }
}
