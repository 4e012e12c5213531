using System.Text;
using Confluent.Kafka;
using Microsoft.Extensions.Options;
using Triggers.EventLog.Kafka;

namespace Triggers.Delivery.Projection;

/// <summary>
/// The topic of records of the log that can't be projected: each as it was, with the reason, where somebody can look at it.
/// docs/topics.md describes it.
/// </summary>
internal sealed partial class InvalidRecords(
    IProducer<byte[], byte[]> producer, IOptions<KafkaOptions> options,
    DeliveryMetrics metrics, TimeProvider time, ILogger<InvalidRecords> logger)
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(250);

    /// <summary>Keeps a record. When this ends it is kept: only then may the projection's position pass it.</summary>
    public async Task SetAsideAsync(ConsumeResult<byte[], byte[]> record, string reason, CancellationToken cancellationToken)
    {
        var headers = new Headers();
        foreach (var header in record.Message.Headers ?? [])
            headers.Add(header.Key, header.GetValueBytes());
        void Header(string name, string value) => headers.Add(name, Encoding.UTF8.GetBytes(value));
        Header("triggers-reason", reason);
        Header("triggers-topic", record.Topic);
        Header("triggers-partition", $"{record.Partition.Value}");
        Header("triggers-offset", $"{record.Offset.Value}");
        var message = new Message<byte[], byte[]> { Key = record.Message.Key, Value = record.Message.Value!, Headers = headers };
        while (true)
        {
            try
            {
                await producer.ProduceAsync(options.Value.InvalidTopic, message, cancellationToken);
                break;
            }
            catch (KafkaException e)
            {
                Log.Waiting(logger, e);
                await Task.Delay(s_pause, time, cancellationToken);
            }
        }
        metrics.SetAside();
        Log.SetAside(logger, record.Partition.Value, record.Offset.Value, reason);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "A record waits to be set aside")]
        public static partial void Waiting(ILogger logger, Exception exception);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error,
            Message = "The record at offset {Offset} of partition {Partition} was set aside: {Reason}")]
        public static partial void SetAside(ILogger logger, int partition, long offset, string reason);
    }
}
