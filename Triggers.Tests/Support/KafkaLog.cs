using Confluent.Kafka;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.EventLog;
using Triggers.EventLog.Kafka;
using Triggers.ServiceDefaults;

namespace Triggers.Tests.Support;

/// <summary>The Kafka log with topics of its own, as an API process has it, and a look at what is in them.</summary>
internal sealed class KafkaLog : IAsyncDisposable
{
    private readonly WebApplication _services;

    private KafkaLog(WebApplication services) => _services = services;

    public KafkaEventLog Log => _services.Services.GetRequiredService<KafkaEventLog>();

    public KafkaOptions Options => _services.Services.GetRequiredService<IOptions<KafkaOptions>>().Value;

    public IProducer<byte[], byte[]> Producer => _services.Services.GetRequiredService<IProducer<byte[], byte[]>>();

    public IAdminClient Admin => _services.Services.GetRequiredService<IAdminClient>();

    /// <summary>What reads the log in a delivery process.</summary>
    /// <param name="dataSource">Where it asks for positions when it is given partitions.</param>
    public KafkaEventSource Source(NpgsqlDataSource dataSource) =>
        ActivatorUtilities.CreateInstance<KafkaEventSource>(_services.Services, dataSource, new LogLags());

    /// <summary>Settings of services that share a log; another prefix is another log.</summary>
    public static (string Key, string Value)[] Settings(string connectionString, string? prefix = null) =>
        [("ConnectionStrings:kafka", connectionString), (
            "Kafka:TopicPrefix", prefix ?? $"t{Guid.NewGuid():N}."), ("Kafka:Partitions", "4")];

    public static async Task<KafkaLog> StartAsync(NpgsqlDataSource dataSource, (string Key, string Value)[] settings)
    {
        var builder = WebApplication.CreateSlimBuilder();
        foreach (var (key, value) in settings)
            builder.Configuration[key] = value;
        builder.AddKafka();
        builder.Services.AddSingleton(TimeProvider.System).AddSingleton(dataSource).AddSingleton<ProjectionProgress>()
            .AddSingleton<KafkaEventLog>();
        var log = new KafkaLog(builder.Build());
        var topics = log._services.Services.GetRequiredService<KafkaTopics>();
        await topics.StartAsync(TestContext.Current.CancellationToken);
        await topics.Ready.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);
        await log.Log.StartAsync(TestContext.Current.CancellationToken);
        return log;
    }

    /// <summary>Everything that is in a topic now, partition by partition.</summary>
    public List<ConsumeResult<byte[], byte[]>> Read(string topic)
    {
        using var consumer = new ConsumerBuilder<byte[], byte[]>(new ConsumerConfig
        {
            BootstrapServers = Options.BootstrapServers,
            GroupId = "tests",
            EnableAutoCommit = false,
            EnablePartitionEof = true,
            AutoOffsetReset = AutoOffsetReset.Earliest,
        }).Build();
        var partitions = Admin.GetMetadata(topic, Wait.Long).Topics.Single().Partitions;
        consumer.Assign(partitions.Select(p => new TopicPartitionOffset(topic, p.PartitionId, Offset.Beginning)));
        var records = new List<ConsumeResult<byte[], byte[]>>();
        for (var open = partitions.Count; open > 0;)
        {
            var record = consumer.Consume(Wait.Long) ?? throw new TimeoutException($"The end of {topic} does not come.");
            if (record.IsPartitionEOF)
                open--;
            else
                records.Add(record);
        }
        return records;
    }

    public async ValueTask DisposeAsync()
    {
        await Log.StopAsync(CancellationToken.None);
        await _services.DisposeAsync();
    }
}
