using Confluent.Kafka;
using Triggers.EventLog.Kafka;

namespace Triggers.Tests.EventLog;

public sealed class KafkaOptionsTests
{
    private static readonly KafkaOptions s_options = new()
    {
        BootstrapServers = "a:1,b:2",
        Client = new() { ["security.protocol"] = "SASL_SSL", ["sasl_mechanism"] = "SCRAM-SHA-512", ["ssl.ca.location"] = "/ca.pem" },
    };

    [Fact]
    public void Security_passes_through_to_every_client()
    {
        foreach (var config in (ClientConfig[])[s_options.ForProducer(), s_options.ForConsumer(), s_options.ForAdmin()])
        {
            Assert.Equal("a:1,b:2", config.BootstrapServers);
            Assert.Equal(("SASL_SSL", "SCRAM-SHA-512", "/ca.pem"), (
                config.Get("security.protocol"), config.Get("sasl.mechanism"), config.Get("ssl.ca.location")));
        }
    }

    [Fact]
    public void An_append_waits_for_all_replicas_and_ends_before_its_request_does()
    {
        var producer = s_options.ForProducer();

        Assert.Equal((Acks.All, true), (producer.Acks, producer.EnableIdempotence));
        Assert.InRange(producer.MessageTimeoutMs!.Value, 1, 1_999);
    }

    [Fact]
    public void The_projection_never_begins_where_it_was_not_told_to()
    {
        var consumer = s_options.ForConsumer();

        Assert.Equal((AutoOffsetReset.Error, false), (consumer.AutoOffsetReset, consumer.EnableAutoOffsetStore));
    }
}
