using Confluent.Kafka;
using Npgsql;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.EventLog.Kafka;
using Triggers.Tests.Support;

namespace Triggers.Tests.EventLog;

/// <summary>What the log gives the projection while partitions come and go, which another member of the group lets them do.</summary>
public sealed class KafkaEventSourceTests(PostgresServer postgres, KafkaServer kafka) : EngineTests(postgres, kafka)
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(50);

    private KafkaLog Kafka => Engine.Kafka!;

    [Fact]
    public async Task Partitions_whose_positions_could_not_be_read_when_they_came_are_read_once_they_can_be()
    {
        var (isAway, refused) = (false, 0);
        await using var dataSource = new NpgsqlDataSourceBuilder(
                new NpgsqlConnectionStringBuilder(Engine.ConnectionString) { Pooling = false }.ConnectionString)
            .UsePhysicalConnectionInitializer(
                _ =>
                {
                    if (!isAway)
                        return;
                    refused++;
                    throw new NpgsqlException("Postgres is away.");
                },
                _ => Task.CompletedTask)
            .Build();
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        var source = Kafka.Source(dataSource);
        try
        {
            await ProduceAsync(1);
            await source.WaitAsync(connection, TestContext.Current.CancellationToken);
            try
            {
                await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
                var batch = await ReadAsync(source, connection, 4);
                using (var other = await JoinAsync(source))
                {
                    isAway = true;
                    other.Close();
                }
                // Its partitions come back.
                await Wait.UntilAsync("positions are asked for", async () =>
                    await source.MoreAsync(s_look, TestContext.Current.CancellationToken) || refused > 0);
                await CommitAsync(source, transaction, batch);
            }
            catch (NpgsqlException)
            {
                // As the projection takes it: something is away.
            }
            isAway = false;
            await ProduceAsync(2);

            await ProjectAsync(source, connection, 12);
        }
        finally
        {
            source.Leave();
        }
        Assert.True(refused > 0);
        Assert.Equal(12, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task What_Postgres_has_lost_of_a_partition_that_is_somebody_elses_by_now_is_read_again()
    {
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        var source = Kafka.Source(Engine.DataSource);
        try
        {
            var first = await ProduceAsync(1);
            await ProjectAsync(source, connection, 4);
            await ProduceAsync(2);
            await source.WaitAsync(connection, TestContext.Current.CancellationToken);
            List<int> partitions;
            await using (await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
            {
                await ReadAsync(source, connection, 8);
                using var other = await JoinAsync(source);
                partitions = other.Assignment.ConvertAll(p => p.Partition.Value);
                other.Close();
            }
            // As a crash of Postgres leaves it, which did not have the last transaction of these partitions on disk.
            await Engine.ExecuteAsync(
                $"""
                DELETE FROM events WHERE id IN ({string.Join(", ", partitions.Select(p => $"'{first[p]}'"))});
                UPDATE log_positions SET next = 0 WHERE log <> 'postgres' AND partition IN ({string.Join(", ", partitions)})
                """);

            await ProjectAsync(source, connection, 12);
        }
        finally
        {
            source.Leave();
        }
        Assert.Equal(12, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    /// <summary>A number of events to each partition.</summary>
    private async Task<List<Guid>> ProduceAsync(int events)
    {
        var ids = new List<Guid>();
        for (var i = 0; i < 4 * events; i++)
        {
            ids.Add(TypeId.NewGuid());
            await Kafka.Producer.ProduceAsync(
                new TopicPartition(Kafka.Options.EventsTopic, i % 4),
                new LogRecord(Engine.Tenant, ids[i], "order.created", null, null, null, null, "c", null, "1"u8.ToArray()).ToMessage(),
                TestContext.Current.CancellationToken);
        }
        return ids;
    }

    /// <summary>Another member, once it has got some of the partitions.</summary>
    private async Task<IConsumer<byte[], byte[]>> JoinAsync(KafkaEventSource source)
    {
        var config = Kafka.Options.ForConsumer();
        (config.AutoOffsetReset, config.EnableAutoCommit) = (AutoOffsetReset.Latest, false);
        var other = new ConsumerBuilder<byte[], byte[]>(config).Build();
        other.Subscribe(Kafka.Options.EventsTopic);
        await Wait.UntilAsync("another has some of the partitions", async () =>
        {
            other.Consume(s_look);
            await source.MoreAsync(s_look, TestContext.Current.CancellationToken);
            return other.Assignment.Count == 2;
        });
        return other;
    }

    /// <summary>Reads so many records in a transaction.</summary>
    private static async Task<EventBatch> ReadAsync(KafkaEventSource source, NpgsqlConnection connection, int records)
    {
        EventBatch? batch = null;
        var read = 0;
        await Wait.UntilAsync($"{records} records are read", async () =>
        {
            if (await source.MoreAsync(s_look, TestContext.Current.CancellationToken))
            {
                batch = await source.ReadAsync(connection, 100, TestContext.Current.CancellationToken);
                read += batch!.Events.Count;
            }
            return read == records;
        });
        return batch!;
    }

    private static async Task CommitAsync(KafkaEventSource source, NpgsqlTransaction transaction, EventBatch batch)
    {
        await using var advance = new NpgsqlBatch(transaction.Connection!, transaction);
        foreach (var command in batch.Advance)
            advance.BatchCommands.Add(command);
        await advance.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        await transaction.CommitAsync(TestContext.Current.CancellationToken);
        source.Passed();
    }

    /// <summary>Goes on as the projection does until so many records are passed: while something is away it tries again.</summary>
    private async Task ProjectAsync(KafkaEventSource source, NpgsqlConnection connection, int records)
    {
        using var bound = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        bound.CancelAfter(Wait.Long);
        while (await Engine.ScalarAsync<long>("SELECT coalesce(sum(next), 0)::bigint FROM log_positions WHERE log <> 'postgres'") < records)
        {
            try
            {
                await source.WaitAsync(connection, bound.Token);
                await using var transaction = await connection.BeginTransactionAsync(bound.Token);
                if (await source.ReadAsync(connection, 100, bound.Token) is { } batch)
                    await CommitAsync(source, transaction, batch);
            }
            catch (EventLogUnavailableException)
            {
                // It is tried again.
            }
        }
    }
}
