using System.Diagnostics;
using Confluent.Kafka.Admin;
using Triggers.Core.EventLog.Kafka;
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
        await Wait.UntilAsync("events are accepted", async () => (await client.PostAsync("/events", """{"type":"a","data":1}""")).Status == 202);

        await kafka.StopImmediateAsync();
        var watch = Stopwatch.StartNew();
        var refused = (await client.PostAsync("/events", """{"type":"a","data":1}""")).IsProblem(503, "log_unavailable");
        // The contract, with room for a busy machine.
        Assert.InRange(watch.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(4));
        Assert.Equal("1", refused.Headers["Retry-After"]);
        var keyed = await client.PostAsync("/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k"));
        keyed.IsProblem(503, "log_unavailable");
        var health = (await client.GetAsync("/health/ready")).Is(200);
        Assert.Equal("degraded", health["status"]);
        Assert.Equal("unhealthy", health.Json["parts"]!.AsArray().Single(p => p!["name"]!.GetValue<string>() == "kafka")!["status"]!.GetValue<string>());

        await kafka.StartAsync();
        Answer? again = null;
        await Wait.UntilAsync("the same request is accepted", async () => (again = await client.PostAsync("/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k"))).Status == 202, TimeSpan.FromMinutes(1));
        await Wait.UntilAsync("it can be read", async () => (await client.GetAsync($"/events/{again!.Id}")).Status == 200);
        await Wait.UntilAsync("Kafka is well", async () => (await client.GetAsync("/health/ready"))["status"] == "healthy");
        Assert.Equal(1, await engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE convert_from(data, 'UTF8') = '2'"));
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
                Configs = new() { ["cleanup.policy"] = "compact", ["retention.ms"] = "1000", ["max.message.bytes"] = "1000", ["retention.bytes"] = "1000" },
            },
        ]);

        var (exitCode, said) = await ApiProcess.RunAsync(
            [], ("ConnectionStrings__triggersdb", engine.ConnectionString), ("ConnectionStrings__kafka", kafka),
            ("Kafka__TopicPrefix", "unfit."), ("Kafka__MinInSyncReplicas", "2"), ("Kafka__ReplicationFactor", "1"), ("Shutdown__Delay", "00:00:00"));

        Assert.Equal(1, exitCode);
        foreach (var setting in new[] { "cleanup.policy is compact", "retention.ms is 1000", "max.message.bytes is 1000", "retention.bytes is 1000", "min.insync.replicas is 1, needed is 2" })
            Assert.Contains(setting, said, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Mistakes_in_the_settings_of_Kafka_are_named_at_the_start()
    {
        var (exitCode, said) = await ApiProcess.RunAsync(
            [], ("ConnectionStrings__triggersdb", "Host=127.0.0.1;Database=x"), ("ConnectionStrings__kafka", "127.0.0.1:1"),
            ("Kafka__Partitions", "0"), ("Kafka__Retention", "00:00:01"), ("Kafka__Client__no.such.property", "1"));

        Assert.Equal(1, exitCode);
        foreach (var setting in new[] { "Kafka:Partitions", "Kafka:Retention", "no.such.property" })
            Assert.Contains(setting, said, StringComparison.Ordinal);
    }
}
