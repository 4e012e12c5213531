using Confluent.Kafka;
using Confluent.Kafka.Admin;

namespace Triggers.Tests.Support;

public sealed class KafkaServerTests
{
    private const string Topic = "kept";

    private static readonly TimeSpan s_bound = TimeSpan.FromSeconds(60);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_record_that_was_acknowledged_is_there_after_a_crash()
    {
        KafkaServer.SkipIfMissing();
        await using var server = await KafkaServer.StartOwnAsync();
        var servers = await server.ConnectionStringAsync();
        await CreateTopicAsync(servers, replicas: 1);
        await ProduceAsync(servers, "before");

        await server.StopImmediateAsync();
        await server.StartAsync();
        await ProduceAsync(servers, "after");

        Assert.Equal(["before", "after"], Read(servers, count: 2));
    }

    private static async Task CreateTopicAsync(string servers, short replicas)
    {
        using var admin = new AdminClientBuilder(new AdminClientConfig { BootstrapServers = servers }).Build();
        await admin.CreateTopicsAsync([new TopicSpecification { Name = Topic, NumPartitions = 1, ReplicationFactor = replicas }]);
    }

    private static async Task ProduceAsync(string servers, string value)
    {
        using var producer = new ProducerBuilder<Null,
        string>(new ProducerConfig { BootstrapServers = servers, Acks = Acks.All, EnableIdempotence = true }).Build();
        var result = await producer.ProduceAsync(Topic, new Message<Null, string> { Value = value }, Cancellation);
        Assert.Equal(PersistenceStatus.Persisted, result.Status);
    }

    private static List<string> Read(string servers, int count)
    {
        using var consumer = new ConsumerBuilder<Ignore,
        string>(new ConsumerConfig { BootstrapServers = servers, GroupId = "test", EnableAutoCommit = false }).Build();
        consumer.Assign(new TopicPartitionOffset(Topic, 0, Offset.Beginning));
        using var bound = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        bound.CancelAfter(s_bound);
        return [.. Enumerable.Range(0, count).Select(_ => consumer.Consume(bound.Token).Message.Value)];
    }
}
