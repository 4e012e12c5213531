using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using Confluent.Kafka.Admin;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.EventLog;
using Triggers.EventLog.Kafka;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>From the Kafka log to webhooks, on real brokers.</summary>
public sealed class KafkaProjectionTests(PostgresServer postgres, KafkaServer kafka) : EngineTests(postgres, kafka)
{
    private KafkaLog Kafka => Engine.Kafka!;

    [Fact]
    public async Task Events_reach_their_subscribers_as_they_were_accepted()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook", "order.*");
        await Engine.StartDeliveryAsync();
        var large = $$"""{ "text": "{{new string('x', 4_000_000)}}" }""";

        var small = await Engine.AppendAsync("order.created", 20, """{ "total": 1.50 }""");
        var others = await Engine.AppendAsync("order.changed", 2, large);

        await SettledAsync(22);
        var bodies = Receiver.Received.ToDictionary(w => w.EventId, w => Encoding.UTF8.GetString(w.Body));
        Assert.All(small, id => Assert.EndsWith("""
            "data":{ "total": 1.50 }}
            """.Trim(), bodies[TypeId.Format(TypeId.Event, id)], StringComparison.Ordinal));
        Assert.All(
            others, id => Assert.EndsWith($"\"data\":{large}}}", bodies[TypeId.Format(TypeId.Event, id)], StringComparison.Ordinal));
    }

    /// <summary>They are no events of the subscription, so that nothing but the replay brings them.</summary>
    [Theory]
    [InlineData("passed_at - interval '1 minute'")]
    [InlineData("NULL")]
    public async Task A_replay_waits_for_the_projection_of_what_was_accepted_in_its_range(string passedAt)
    {
        var subscription = await Engine.SubscribeAsync($"{Receiver.Url}/hook", "other");
        await Engine.StartDeliveryAsync();
        await Engine.AppendAsync("order.created", 4);
        await Wait.UntilAsync("they are projected", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM events") == 4);
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        // What was projected came long before, or there was nothing.
        await Engine.ExecuteAsync($"UPDATE log_positions SET passed_at = {passedAt} WHERE log <> 'postgres'");
        await using var held = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using var hold = new Npgsql.NpgsqlCommand("SELECT FROM log_positions WHERE log <> 'postgres' FOR UPDATE", connection);
        await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        // Accepted a while ago, by its id, and not stored yet.
        var at = DateTimeOffset.UtcNow.AddSeconds(-20);
        var late = TypeId.Add(TypeId.At(at), 1);
        await Engine.Log.AppendAsync(
            new AppendRequest(Engine.Tenant, late, "test", null, null,
                [new NewEvent(late, "order.paid", null, null, null, null, null, "1"u8.ToArray())]), TestContext.Current.CancellationToken);
        var job = TypeId.NewGuid();
        await Engine.ExecuteAsync(
            $"""
            INSERT INTO replay_jobs (tenant_id, id, subscription_id, starts_at, ends_at, event_types, include, next_event, end_event)
            VALUES ('{Engine.Tenant}', '{job}', '{subscription}', now(), now(), ARRAY['order.paid'], 'all',
                '{TypeId.At(at.AddSeconds(-1))}', '{TypeId.At(at.AddSeconds(1))}')
            """);

        await Wait.UntilAsync("it was looked at", () => Engine.ScalarAsync<bool>("SELECT next_step_at > created_at FROM replay_jobs"));
        Assert.Equal("running", await Engine.ScalarAsync<string>("SELECT status FROM replay_jobs"));
        await held.RollbackAsync(TestContext.Current.CancellationToken);

        await Wait.UntilAsync("it is delivered", () => Receiver.Received.Count == 1);
        Assert.Equal(TypeId.Format(TypeId.Event, late), Receiver.Received.Single().EventId);
        await Wait.UntilAsync(
            "it is completed", async () => await Engine.ScalarAsync<string>("SELECT status FROM replay_jobs") == "completed");
    }

    [Fact]
    public async Task Reading_everything_again_changes_nothing()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var host = await Engine.StartDeliveryAsync();
        await Engine.AppendAsync("order.created", 50);
        await SettledAsync(50);
        var end = await PositionsAsync();
        await host.DisposeAsync();

        await Engine.ExecuteAsync("UPDATE log_positions SET next = 0 WHERE log <> 'postgres'");
        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("everything is read again", async () => await PositionsAsync() == end);
        Assert.Equal(50, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
        Assert.Equal(50, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.Equal(0, await Engine.UnsettledAsync());
    }

    /// <summary>Either way round, since nobody knows of which partition records come first.</summary>
    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    public async Task What_Postgres_is_found_to_have_lost_in_the_middle_of_a_transaction_is_not_stored_with_nothing_that_follows(
        int intact, int lost)
    {
        await Engine.StartDeliveryAsync();
        await ProduceAsync(intact, 1);
        await ProduceAsync(lost, 1);
        await Wait.UntilAsync("they are projected", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM events") == 2);
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using (var held = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            await using var lose = new Npgsql.NpgsqlCommand(
                $"""
                SELECT FROM log_positions WHERE log <> 'postgres' FOR UPDATE;
                UPDATE log_positions SET next = next - 1 WHERE log <> 'postgres' AND partition = {lost}
                """, connection);
            await lose.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            await ProduceAsync(intact, 150);
            await ProduceAsync(lost, 10);
            await held.CommitAsync(TestContext.Current.CancellationToken);
        }

        await Wait.UntilAsync("everything is read", async () => await Engine.ScalarAsync<long>(
            "SELECT sum(next)::bigint FROM log_positions WHERE log <> 'postgres'") == 162);
        Assert.Equal(162, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.Equal(0, await Engine.ScalarAsync<long>(
            "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT FROM inbox i WHERE i.event_id = e.id)"));

        Task ProduceAsync(int partition, int events) => Task.WhenAll(Enumerable.Range(0, events).Select(_ => Kafka.Producer.ProduceAsync(
            new TopicPartition(Kafka.Options.EventsTopic, partition), new LogRecord(
                Engine.Tenant, TypeId.NewGuid(), "order.created", null, null, null, null, "c", null, "1"u8.ToArray()).ToMessage())));
    }

    /// <summary>As a crash of Postgres leaves it, whose last transactions were not on disk.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(200)]
    public async Task What_Postgres_has_lost_is_read_again_by_the_process_that_had_read_it(int meanwhile)
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        using var logs = new CapturedLogs();
        await Engine.StartDeliveryAsync(logs);
        await Engine.AppendAsync("order.created", 50);
        await SettledAsync(50);
        var end = await PositionsAsync();

        await Engine.ExecuteAsync("UPDATE log_positions SET next = 0 WHERE log <> 'postgres'");
        if (meanwhile > 0)
            await Engine.AppendAsync("order.created", meanwhile);

        await Wait.UntilAsync("it is noticed", () =>
            logs.Lines.Any(line => line.Message.Contains("what Postgres has lost is read again", StringComparison.Ordinal)));
        await SettledAsync(50 + meanwhile);
        await Wait.UntilAsync("everything is read again", async () => meanwhile > 0 || await PositionsAsync() == end);
        Assert.Equal(50 + meanwhile, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task Where_to_read_is_known_also_when_Kafka_has_forgotten_it()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var host = await Engine.StartDeliveryAsync();
        await Engine.AppendAsync("order.created", 50);
        await SettledAsync(50);
        await host.DisposeAsync();
        await Wait.UntilAsync("the group is deleted", async () =>
        {
            try
            {
                await Kafka.Admin.DeleteGroupsAsync([Kafka.Options.ConsumerGroup]);
                return true;
            }
            catch (DeleteGroupsException)
            {
                return false;
            }
        });

        await Engine.AppendAsync("order.created", 10);
        await Engine.StartDeliveryAsync();

        await SettledAsync(60);
        Assert.Equal(60, Receiver.Received.Count);
    }

    [Fact]
    public async Task What_can_not_be_projected_is_set_aside_with_the_reason_and_holds_up_nothing()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var log = Kafka.Options.EventsTopic;
        var valid = new LogRecord(Engine.Tenant, TypeId.NewGuid(), "order.created", null, null, "s", null, "c", null, "1"u8.ToArray());
        Message<byte[], byte[]>[] bad =
        [
            new() { Key = valid.ToMessage().Key, Value = "nonsense"u8.ToArray(),
                Headers = new Headers { { "mine", "kept"u8.ToArray() } } },
            new() { Key = valid.ToMessage().Key, Value = null! },
            (valid with { Id = TypeId.At(new DateTimeOffset(2100, 1, 1, 0, 0, 0, TimeSpan.Zero)) }).ToMessage(),
            // JSON that Postgres can't keep.
            (valid with { Id = TypeId.NewGuid(), Type = "a\0b" }).ToMessage(),
            // More than any record of ours; brokers take it since it is compressed.
            new() { Key = valid.ToMessage().Key, Value = new byte[6_000_000] },
            new() { Key = valid.ToMessage().Key, Value = "[]"u8.ToArray(), Headers = new Headers { { "large", new byte[6_000_000] } } },
        ];
        using var foreign = new ProducerBuilder<byte[], byte[]>(new ProducerConfig
        {
            BootstrapServers = Kafka.Options.BootstrapServers,
            MessageMaxBytes = 10_000_000,
            CompressionType = CompressionType.Lz4,
            Partitioner = Partitioner.ConsistentRandom,
        }).Build();
        var good = new List<Guid>();
        foreach (var message in bad)
        {
            // All in one partition, each bad one between good ones.
            var record = valid with { Id = TypeId.NewGuid() };
            good.Add(record.Id);
            await Kafka.Producer.ProduceAsync(log, record.ToMessage(), TestContext.Current.CancellationToken);
            await foreign.ProduceAsync(log, message, TestContext.Current.CancellationToken);
        }
        await Engine.StartDeliveryAsync();

        await SettledAsync(good.Count);
        Assert.Equal(good.Select(id => TypeId.Format(TypeId.Event, id)).Order(), Receiver.Received.Select(w => w.EventId).Order());
        List<ConsumeResult<byte[], byte[]>> aside = [];
        await Wait.UntilAsync("all bad ones are set aside", () => (aside = Kafka.Read(Kafka.Options.InvalidTopic)).Count >= bad.Length);
        string Header(ConsumeResult<byte[], byte[]> r, string name) => Encoding.UTF8.GetString(r.Message.Headers.GetLastBytes(name));
        aside = [.. aside.OrderBy(r => int.Parse(Header(r, "triggers-offset")))];
        Assert.Equal(bad[..^2].Select(b => b.Value).Concat([null, null]), aside.Select(r => r.Message.Value));
        Assert.Equal(["6000000", "2"], aside[^2..].Select(r => Header(r, "triggers-bytes")));
        Assert.Equal([false, true], aside[^2..].Select(r => r.Message.Key is null));
        Assert.All(aside, r => Assert.NotEmpty(Header(r, "triggers-reason")));
        Assert.Contains("JSON", Header(aside.Single(r => r.Message.Headers.TryGetLastBytes("mine", out _)), "triggers-reason"));
        Assert.Contains(aside, r => Header(r, "triggers-reason").Contains("22021"));
    }

    [Fact]
    public async Task An_event_whose_deliveries_Postgres_refuses_is_set_aside_and_all_others_go_on()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        await RefuseDeliveriesOfAsync("a.bad");
        var good = (await Engine.AppendAsync("a.good", 100)).ToList();
        var bad = (await Engine.AppendAsync("a.bad"))[0];
        good.AddRange(await Engine.AppendAsync("a.good", 60));

        await Engine.StartDeliveryAsync();

        await SettledAsync(good.Count);
        // The bad one may have been sent before Postgres was asked: partitions are read in any order.
        Assert.Equal(
            good.Append(bad).Select(id => TypeId.Format(TypeId.Event, id)).ToHashSet(),
            Receiver.Received.Select(w => w.EventId).Append(TypeId.Format(TypeId.Event, bad)).ToHashSet());
        List<ConsumeResult<byte[], byte[]>> aside = [];
        await Wait.UntilAsync("the bad one is set aside", () => (aside = Kafka.Read(Kafka.Options.InvalidTopic)).Count > 0);
        Assert.Equal(bad, LogRecord.Decode(Assert.Single(aside).Message.Value).Id);
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM all_deliveries WHERE event_id = '{bad}'"));
    }

    [Fact]
    public async Task Records_that_are_gone_from_the_log_are_never_passed_over_in_silence()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var host = await Engine.StartDeliveryAsync();
        Task<DeliveryResult<byte[], byte[]>> ProduceAsync(string subject) => Kafka.Producer.ProduceAsync(
            Kafka.Options.EventsTopic, new LogRecord(
                Engine.Tenant, TypeId.NewGuid(), "order.created", null, null, subject, null, "c", null, "1"u8.ToArray()).ToMessage());
        var partition = (await ProduceAsync("s")).TopicPartition;
        await SettledAsync(1);
        await host.DisposeAsync();
        var lost = await ProduceAsync("s");
        await Kafka.Admin.DeleteRecordsAsync([new TopicPartitionOffset(partition, lost.Offset + 1)]);
        var kept = await ProduceAsync("s");
        host = await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("the health of the process names the partition", async () =>
        {
            using var client = host.CreateClient();
            using var health = await client.GetAsync("/health/ready", TestContext.Current.CancellationToken);
            return (await health.Content.ReadAsStringAsync(TestContext.Current.CancellationToken))
                .Contains($"partition {partition.Partition.Value} has no record", StringComparison.Ordinal);
        });
        // The others go on.
        for (var i = 0; ; i++)
        {
            if ((await ProduceAsync($"other {i}")).Partition != partition.Partition)
                break;
        }
        await Wait.UntilAsync("another partition is projected", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE subject LIKE 'other%'") > 0);
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE subject = 's'"));

        // Somebody decides to go on behind the gap.
        await host.DisposeAsync();
        await Engine.ExecuteAsync(
            $"UPDATE log_positions SET next = {kept.Offset.Value} WHERE log <> 'postgres' AND partition = {partition.Partition.Value}");
        await Engine.StartDeliveryAsync();
        await Wait.UntilAsync("what is there is projected", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE subject = 's'") == 2);
    }

    [Fact]
    public async Task Events_of_days_without_partitions_get_them()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        await Engine.StartDeliveryAsync();
        var old = TypeId.At(TimeProvider.System.GetUtcNow().AddDays(-9));
        var record = new LogRecord(Engine.Tenant, old, "order.created", null, null, null, null, "c", null, "1"u8.ToArray());

        await Kafka.Producer.ProduceAsync(Kafka.Options.EventsTopic, record.ToMessage(), TestContext.Current.CancellationToken);

        await Engine.WaitForStatusAsync(old, DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task Processes_share_the_log_and_none_of_it_is_projected_twice_however_they_come_and_go()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var accepted = 0;
        var hosts = new Queue<DeliveryHost>([await Engine.StartDeliveryAsync(), await Engine.StartDeliveryAsync()]);
        for (var round = 0; round < 5; round++)
        {
            var appending = Task.WhenAll(Enumerable.Range(0, 40).Select(_ => Engine.AppendAsync("order.created", 5)));
            hosts.Enqueue(await Engine.StartDeliveryAsync());
            await hosts.Dequeue().DisposeAsync();
            accepted += (await appending).Sum(ids => ids.Length);
        }

        await SettledAsync(accepted);
        Assert.Equal(accepted, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
        Assert.Equal(accepted, Receiver.Received.Select(w => w.EventId).Distinct().Count());
    }

    [Fact]
    public async Task Every_dead_letter_is_published_with_all_that_explains_it()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 500;
            return Microsoft.AspNetCore.Http.HttpResponseWritingExtensions.WriteAsync(context.Response, "out of order");
        };
        var subscription = await Engine.SubscribeAsync($"{Receiver.Url}/hook", "order.*");
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "2"));

        var ids = await Engine.AppendAsync("order.created", 30, """{ "total": 1.50 }""");

        await Wait.UntilAsync("all are published", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE published_at IS NOT NULL") == 30);
        var records = Kafka.Read(Kafka.Options.DeadLettersTopic);
        Assert.Equal(ids.Select(id => TypeId.Format(TypeId.Event, id)).Order(), records.Select(r => Encoding.UTF8.GetString(r.Message.Key))
            .Order());
        using var json = JsonDocument.Parse(records[0].Message.Value);
        var letter = json.RootElement;
        Assert.Equal(1, letter.GetProperty("v").GetInt32());
        Assert.Equal(("exhausted", 2), (letter.GetProperty("reason").GetString(), letter.GetProperty("attemptCount").GetInt32()));
        Assert.Equal(TypeId.Format(TypeId.Subscription, subscription), letter.GetProperty("subscription").GetProperty("id").GetString());
        Assert.Equal($"{Receiver.Url}/hook", letter.GetProperty("subscription").GetProperty("url").GetString());
        Assert.Equal([500, 500], letter.GetProperty("attempts").EnumerateArray().Select(a => a.GetProperty("statusCode").GetInt32()));
        Assert.Equal([1, 2], letter.GetProperty("attempts").EnumerateArray().Select(a => a.GetProperty("number").GetInt32()));
        Assert.Equal("out of order", letter.GetProperty("lastResponseBody").GetString());
        Assert.Equal("text", letter.GetProperty("lastResponseBodyEncoding").GetString());
        Assert.Equal("""{ "total": 1.50 }""", letter.GetProperty("event").GetProperty("data").GetRawText());
    }

    [Fact]
    public async Task A_dead_letter_over_the_size_of_a_record_is_published_without_the_responses_and_the_others_as_they_are_each_once()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 500;
            return Microsoft.AspNetCore.Http.HttpResponseWritingExtensions.WriteAsync(context.Response, "out of order");
        };
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var ids = new List<Guid>();
        await using (var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (var held = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            // Nothing is published meanwhile: they all come at once.
            await using var hold = new Npgsql.NpgsqlCommand(
                $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.DeadLetters})", connection);
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "2"));
            ids.AddRange(await Engine.AppendAsync("order.created", 2));
            ids.AddRange(await Engine.AppendAsync("order.large", 1, $"\"{new string('x', 4_000_000)}\""));
            ids.AddRange(await Engine.AppendAsync("order.created", 2));
            await Wait.UntilAsync("all are dead letters", async () =>
                await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 5);
            // As twenty attempts may have together.
            Assert.Equal(1, await Engine.ExecuteAsync(
                $$"""
                UPDATE attempts SET response_headers = jsonb_build_object('X', repeat('<', 1300000))
                WHERE delivery_id IN (SELECT delivery_id FROM dead_letters WHERE event_id = '{{ids[2]}}')
                """));
        }
        // This one's wakes who publishes.
        ids.AddRange(await Engine.AppendAsync("order.created"));

        await Wait.UntilAsync("all are published", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE published_at IS NOT NULL") == 6);
        var records = Kafka.Read(Kafka.Options.DeadLettersTopic);
        Assert.Equal(
            ids.Select(id => TypeId.Format(TypeId.Event, id)).Order(), records.Select(r => Encoding.UTF8.GetString(r.Message.Key)).Order());
        foreach (var record in records)
        {
            using var json = JsonDocument.Parse(record.Message.Value);
            var letter = json.RootElement;
            var isLarge = letter.GetProperty("event").GetProperty("type").GetString() == "order.large";
            Assert.Equal(isLarge ? 4_000_002 : 7, letter.GetProperty("event").GetProperty("data").GetRawText().Length);
            Assert.Equal(isLarge ? null : "out of order", letter.GetProperty("lastResponseBody").GetString());
            Assert.Equal([500, 500], letter.GetProperty("attempts").EnumerateArray().Select(a => a.GetProperty("statusCode").GetInt32()));
            Assert.All(letter.GetProperty("attempts").EnumerateArray(), a => Assert.Equal(
                isLarge ? JsonValueKind.Null : JsonValueKind.Object, a.GetProperty("responseHeaders").ValueKind));
        }
    }

    [Fact]
    public async Task What_was_accepted_on_either_log_is_delivered_on_both_forms()
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        var before = await Engine.AppendAsync("order.created", 10, log: Engine.PostgresLog);
        await Engine.StartDeliveryAsync();
        // Old and new settings side by side.
        var meanwhile = await Task.WhenAll(Enumerable.Range(0, 20)
            .Select(i => Engine.AppendAsync("order.created", 5, log: i % 2 == 0 ? Engine.PostgresLog : Engine.Log)));

        await SettledAsync(110);
        Assert.Equal(
            before.Concat(meanwhile.SelectMany(ids => ids)).Select(id => TypeId.Format(TypeId.Event, id)).Order(),
            Receiver.Received.Select(w => w.EventId).Order());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_request_retried_on_the_other_log_is_the_same_event(bool firstOnKafka)
    {
        await Engine.SubscribeAsync($"{Receiver.Url}/hook");
        await Engine.StartDeliveryAsync();
        var (one, other) = firstOnKafka ? (Engine.Log, Engine.PostgresLog) : (Engine.PostgresLog, Engine.Log);
        AppendRequest Request()
        {
            var id = TypeId.NewGuid();
            var key = new RequestKey(new byte[32], new byte[32]);
            return new AppendRequest(
                Engine.Tenant, id, "c", null, key, [new NewEvent(id, "order.created", null, null, null, null, null, "1"u8.ToArray())]);
        }

        var first = await one.AppendAsync(Request(), TestContext.Current.CancellationToken);
        // The first one's process dies before it settles the key, and its time goes by.
        await Wait.UntilAsync("the key is settled", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM request_keys WHERE busy_until IS NULL") == 1);
        await Engine.ExecuteAsync("UPDATE request_keys SET busy_until = now() - interval '1 second'");
        var taken = await other.AppendAsync(Request(), TestContext.Current.CancellationToken);
        var again = await one.AppendAsync(Request(), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.Appended, taken.Outcome);
        Assert.Equal(first.Events[0].Id, taken.Events[0].Id);
        Assert.Equal(first.Events[0].Id, again.Events[0].Id);
        var proof = (await Engine.AppendAsync("order.created", log: Engine.PostgresLog))[0];
        var proof2 = (await Engine.AppendAsync("order.created"))[0];
        await Engine.WaitForStatusAsync(proof, DeliveryStatus.Succeeded);
        await Engine.WaitForStatusAsync(proof2, DeliveryStatus.Succeeded);
        await SettledAsync(3);
        Assert.Equal(3, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
    }

    private Task SettledAsync(int deliveries) =>
        Wait.UntilAsync($"{deliveries} deliveries have succeeded", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") >= deliveries
            && await Engine.UnsettledAsync() == 0, TimeSpan.FromMinutes(1));

    private Task<string> PositionsAsync() =>
        Engine.ScalarAsync<string>(
            "SELECT coalesce(string_agg(partition || ':' || next, ' ' ORDER BY partition), '') FROM log_positions WHERE log <> "
                + "'postgres'");
}
