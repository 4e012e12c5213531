using Confluent.Kafka;
using Confluent.Kafka.Admin;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

public sealed class KafkaAwayTests(PostgresServer postgres, KafkaServer shared)
{
    [Fact]
    public async Task While_Kafka_is_away_nothing_is_promised_and_all_goes_on_when_it_is_back()
    {
        KafkaServer.SkipIfMissing();
        await using var kafka = await KafkaServer.StartOwnAsync();
        await using var engine = await Engine.CreateAsync(postgres, await kafka.ConnectionStringAsync());
        await using var host = new ApiHost(engine.ConnectionString, engine.Settings);
        using var client = host.Client();
        await engine.StartDeliveryAsync();
        await Wait.UntilAsync(
            "events are accepted", async () => (await client.PostAsync("/events", """{"type":"a","data":1}""")).Status == 202);

        await kafka.StopImmediateAsync();
        var refused = (await Wait.ForAnswerAsync("POST /events", () => client.PostAsync("/events", """{"type":"a","data":1}""")))
            .IsProblem(503, "log_unavailable");
        Assert.Equal("1", refused.Headers["Retry-After"]);
        var keyed = await client.PostAsync("/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k"));
        keyed.IsProblem(503, "log_unavailable");
        var health = (await client.GetAsync("/health/ready")).Is(200);
        Assert.Equal("degraded", health["status"]);
        Assert.Equal("unhealthy", health.Json["parts"]!.AsArray()
            .Single(p => p!["name"]!.GetValue<string>() == "kafka")!["status"]!.GetValue<string>());

        // What waits for brokers is bounded: of one tenant, past 16 MiB nobody is made to wait.
        var data = $"\"{new string('x', 1_500)}\"";
        var waiting = await Task.WhenAll(Enumerable.Range(0, 30).Select(async _ =>
            (await Assert.ThrowsAnyAsync<EventLogUnavailableException>(() => engine.AppendAsync("a", 1_000, data))).Message));
        Assert.InRange(waiting.Count(m => m.Contains("can't keep up", StringComparison.Ordinal)), 10, 29);

        await kafka.StartAsync();
        Answer? again = null;
        await Wait.UntilAsync("the same request is accepted", async () => (again = await client.PostAsync(
            "/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k"))).Status == 202, TimeSpan.FromMinutes(1));
        await Wait.UntilAsync("it can be read", async () => (await client.GetAsync($"/events/{again!.Id}")).Status == 200);
        await Wait.UntilAsync("Kafka is well", async () => (await client.GetAsync("/health/ready"))["status"] == "healthy");
        Assert.Equal(1, await engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE convert_from(data, 'UTF8') = '2'"));
    }

    [Fact]
    public async Task While_Kafka_hangs_nothing_is_promised_and_what_is_stored_can_be_read_all_in_the_time_of_a_request()
    {
        KafkaServer.SkipIfMissing();
        await using var kafka = await KafkaServer.StartOwnAsync();
        await using var engine = await Engine.CreateAsync(postgres, await kafka.ConnectionStringAsync());
        await using var host = new ApiHost(engine.ConnectionString, engine.Settings);
        using var client = host.Client();
        await engine.StartDeliveryAsync();
        Answer? accepted = null;
        await Wait.UntilAsync("events are accepted", async () => (accepted = await PublishAsync()).Status == 202);
        await Wait.UntilAsync("they can be read", async () => (await client.GetAsync($"/events/{accepted!.Id}")).Status == 200);

        await kafka.HangAsync();

        (await Wait.ForAnswerAsync("POST /events", () => PublishAsync())).IsProblem(503, "log_unavailable");
        (await Wait.ForAnswerAsync("POST with a key", () => PublishAsync(("Idempotency-Key", "k")))).IsProblem(503, "log_unavailable");
        (await Wait.ForAnswerAsync("GET of what is stored", () => client.GetAsync($"/events/{accepted!.Id}"))).Is(200);
        // It may be in the log.
        var other = TypeId.Format(TypeId.Event, TypeId.NewGuid());
        (await Wait.ForAnswerAsync("GET of what is not", () => client.GetAsync($"/events/{other}")))
            .IsProblem(503, "event_not_yet_visible");

        await kafka.GoOnAsync();

        await Wait.UntilAsync("the same request is accepted", async () => (
            accepted = await PublishAsync(("Idempotency-Key", "k"))).Status == 202, TimeSpan.FromMinutes(1));
        await Wait.UntilAsync("it can be read", async () => (await client.GetAsync($"/events/{accepted!.Id}")).Status == 200);

        Task<Answer> PublishAsync(params (string, string)[] headers) =>
            client.PostAsync("/events", """{"type":"a","data":1}""", headers);
    }

    [Fact]
    public async Task Topics_that_could_lose_events_are_refused_at_the_start()
    {
        KafkaServer.SkipIfMissing();
        var kafka = await shared.ConnectionStringAsync();
        await using var engine = await Engine.CreateAsync(postgres, kafka);
        await engine.Kafka!.Admin.CreateTopicsAsync(
        [
            new TopicSpecification
            {
                Name = "unfit.events",
                NumPartitions = 1,
                Configs = new() { ["cleanup.policy"] = "compact", ["retention.ms"] = "1000",
                    ["max.message.bytes"] = "1000", ["retention.bytes"] = "1000" },
            },
        ]);

        var (exitCode, said) = await ApiProcess.RunAsync(
            [], ("ConnectionStrings__triggersdb", engine.ConnectionString), ("ConnectionStrings__kafka", kafka),
            ("Kafka__TopicPrefix", "unfit."), ("Kafka__MinInSyncReplicas", "2"),
            ("Kafka__ReplicationFactor", "1"), ("Shutdown__Delay", "00:00:00"));

        Assert.True(exitCode == 1, $"{exitCode}: {said}");
        foreach (var setting in new[] { "cleanup.policy is compact", "retention.ms is 1000",
            "max.message.bytes is 1000", "retention.bytes is 1000", "min.insync.replicas is 1, needed is 2" })
            Assert.Contains(setting, said, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Topics_are_made_as_the_settings_say()
    {
        KafkaServer.SkipIfMissing();
        await using var engine = await Engine.CreateAsync(postgres, await shared.ConnectionStringAsync());
        await using var log = await KafkaLog.StartAsync(engine.DataSource,
            [.. KafkaLog.Settings(await shared.ConnectionStringAsync()), ("Kafka:Partitions", "5"), (
                "Kafka:ReplicationFactor", "1"), ("Kafka:MinInSyncReplicas", "1"), ("Kafka:Retention", "3.00:00:00")]);

        var topic = log.Admin.GetMetadata(log.Options.EventsTopic, Wait.Long).Topics.Single();
        Assert.Equal(5, topic.Partitions.Count);
        Assert.All(topic.Partitions, p => Assert.Single(p.Replicas));
        var entries = (await log.Admin.DescribeConfigsAsync(
            [new ConfigResource { Type = ResourceType.Topic, Name = log.Options.EventsTopic }])).Single().Entries;
        Assert.Equal(
            ("259200000", "1", "5242880", "delete", "false"),
            (entries["retention.ms"].Value, entries["min.insync.replicas"].Value, entries["max.message.bytes"].Value,
                entries["cleanup.policy"].Value, entries["unclean.leader.election.enable"].Value));
        Assert.All(new[] { log.Options.DeadLettersTopic, log.Options.InvalidTopic }, name =>
            Assert.Equal(ErrorCode.NoError, log.Admin.GetMetadata(name, Wait.Long).Topics.Single().Error.Code));
    }

    [Fact]
    public async Task Mistakes_in_the_settings_of_Kafka_are_named_at_the_start()
    {
        var (exitCode, said) = await ApiProcess.RunAsync(
            [], ("ConnectionStrings__triggersdb", "Host=127.0.0.1;Database=x"), ("ConnectionStrings__kafka", "127.0.0.1:1"),
            ("Kafka__Partitions", "0"), ("Kafka__Retention", "00:00:01"), ("Kafka__Client__no.such.property", "1"));

        Assert.True(exitCode == 1, $"{exitCode}: {said}");
        foreach (var setting in new[] { "Kafka:Partitions", "Kafka:Retention", "no.such.property" })
            Assert.Contains(setting, said, StringComparison.Ordinal);
    }
}
