using System.ComponentModel.DataAnnotations;
using Confluent.Kafka;
using Triggers.Core;

namespace Triggers.EventLog.Kafka;

/// <summary>Settings <c>Kafka:*</c>. They count where <c>ConnectionStrings:kafka</c> is given.</summary>
public sealed class KafkaOptions
{
    /// <summary>
    /// The largest record that is produced: a batch of 4 MiB may be one event. Topics must allow it.
    /// </summary>
    public const int MaxRecordBytes = 5 * 1024 * 1024;

    /// <summary><c>ConnectionStrings:kafka</c>: <c>host:port</c>, several separated by commas.</summary>
    public string? BootstrapServers { get; set; }

    /// <summary>What the names of topics and of the consumer group begin with.</summary>
    [RegularExpression(
        "[A-Za-z0-9._-]{0,100}", ErrorMessage = "Kafka:TopicPrefix must be up to 100 letters, digits, dots, underscores and hyphens.")]
    public string TopicPrefix { get; set; } = "triggers.";

    /// <summary>Partitions of a topic that is created here: the most processes that can share the projection.</summary>
    [Range(1, 1000, ErrorMessage = "Kafka:Partitions must be between 1 and 1000.")]
    public int Partitions { get; set; } = 12;

    /// <summary>
    /// Copies of each partition; null leaves it to the brokers (<c>default.replication.factor</c>). 3 is what production wants.
    /// </summary>
    [Range(1, 100, ErrorMessage = "Kafka:ReplicationFactor must be between 1 and 100.")]
    public short? ReplicationFactor { get; set; }

    /// <summary>
    /// Copies that must have an event before it is answered 202; null leaves it to the brokers. 2 is what production wants.
    /// </summary>
    [Range(1, 100, ErrorMessage = "Kafka:MinInSyncReplicas must be between 1 and 100.")]
    public int? MinInSyncReplicas { get; set; }

    /// <summary>
    /// How long the log keeps events: longer than the longest outage of Postgres or of the delivery service that is to be survived.
    /// </summary>
    [Range(typeof(TimeSpan), "00:10:00", "3650.00:00:00", ErrorMessage = "Kafka:Retention must be between 10 minutes and 3650 days.")]
    public TimeSpan Retention { get; set; } = TimeSpan.FromDays(7);

    /// <summary>
    /// How long a delivery process may be silent before others take its partitions. Brokers refuse less than 6 s unless told otherwise.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:06", "00:30:00", ErrorMessage = "Kafka:SessionTimeout must be between 6 seconds and 30 minutes.")]
    public TimeSpan SessionTimeout { get; set; } = TimeSpan.FromSeconds(6);

    /// <summary>
    /// Properties of librdkafka for every client, as in <c>Kafka:Client:security.protocol=SASL_SSL</c>: security, addresses, log levels.
    /// Shells know no dots in the names of variables: <c>Kafka__Client__security_protocol</c> is the same.
    /// </summary>
    public Dictionary<string, string> Client { get; set; } = [];

    /// <summary>The topic that is the log.</summary>
    public string EventsTopic => TopicPrefix + "events";

    /// <summary>The topic of deliveries that failed for good.</summary>
    public string DeadLettersTopic => TopicPrefix + "dead-letters";

    /// <summary>The topic of records that could not be projected.</summary>
    public string InvalidTopic => TopicPrefix + "events.invalid";

    /// <summary>The consumer group of the projection.</summary>
    public string ConsumerGroup => TopicPrefix + "projection";

    /// <summary>For creating and looking at topics.</summary>
    public AdminClientConfig ForAdmin() => With(new AdminClientConfig());

    /// <summary>For appending: durable, in order, and given up within a request's time.</summary>
    public ProducerConfig ForProducer() => With(new ProducerConfig
    {
        Acks = Acks.All,
        EnableIdempotence = true,
        // Requests that wait together share a batch; alone, one waits a millisecond.
        LingerMs = 1,
        MessageTimeoutMs = (int)RequestBudget.Produce.TotalMilliseconds,
        RequestTimeoutMs = (int)RequestBudget.Produce.TotalMilliseconds,
        CompressionType = CompressionType.Lz4,
        MessageMaxBytes = MaxRecordBytes,
        // Above what the log itself lets in.
        QueueBufferingMaxKbytes = 256 * 1024,
        QueueBufferingMaxMessages = 100_000,
        ReconnectBackoffMs = 50,
        ReconnectBackoffMaxMs = 500,
    });

    /// <summary>
    /// For the projection. Where to read is in Postgres: a position that the log does not have is an error, never a reason to begin
    /// somewhere else. What is committed to Kafka only feeds tools that show the lag.
    /// </summary>
    public ConsumerConfig ForConsumer() => With(new ConsumerConfig
    {
        GroupId = ConsumerGroup,
        AutoOffsetReset = AutoOffsetReset.Error,
        EnableAutoCommit = true,
        EnableAutoOffsetStore = false,
        PartitionAssignmentStrategy = PartitionAssignmentStrategy.CooperativeSticky,
        SessionTimeoutMs = (int)SessionTimeout.TotalMilliseconds,
        HeartbeatIntervalMs = (int)(SessionTimeout.TotalMilliseconds / 4),
        FetchQueueBackoffMs = 50,
        QueuedMaxMessagesKbytes = 32 * 1024,
        FetchMaxBytes = 16 * 1024 * 1024,
        MessageMaxBytes = 16 * 1024 * 1024,
        ReconnectBackoffMs = 50,
        ReconnectBackoffMaxMs = 500,
    });

    private T With<T>(T config) where T : ClientConfig
    {
        config.BootstrapServers = BootstrapServers;
        config.TopicMetadataRefreshIntervalMs = 30_000;
        foreach (var (name, value) in Client)
            config.Set(name.Replace('_', '.'), value);
        return config;
    }
}
