using System.Text;
using Confluent.Kafka;
using Triggers.Core;

namespace Triggers.EventLog.Kafka;

/// <summary>A record of the log, and what it says.</summary>
/// <param name="Record">As it came.</param>
/// <param name="Event">Null when that is nothing to us.</param>
/// <param name="Invalid">Why not, until it is set aside.</param>
internal sealed record ConsumedRecord(ConsumeResult<byte[], byte[]> Record, LogRecord? Event, string? Invalid = null)
{
    /// <summary>Of the key and the headers of a record that is too large.</summary>
    private const int MaxKeptBytes = 64 * 1024;

    public static ConsumedRecord Of(ConsumeResult<byte[], byte[]> record, DateTimeOffset now)
    {
        try
        {
            var e = LogRecord.Decode(record.Message.Value);
            // Our ids hold the moment of acceptance: one that is years away would want a partition of its own.
            var accepted = TypeId.CreatedAt(e.Id);
            return accepted.Year >= 2020 && accepted <= now.AddDays(1)
                ? new ConsumedRecord(record, e)
                : new ConsumedRecord(record, null, $"the id says that the event was accepted at {accepted:O}");
        }
        catch (InvalidRecordException e)
        {
            return new ConsumedRecord(record, null, e.Message);
        }
    }

    public static List<ConsumeResult<byte[], byte[]>> LastOfPartitions(List<ConsumedRecord> records) =>
        [.. records.Select(r => r.Record).GroupBy(r => r.Partition.Value).Select(p => p.MaxBy(r => r.Offset.Value)!)];

    /// <summary>Writes it to the topic of invalid records, with where it was and why; what is too large of it is left out.</summary>
    /// <exception cref="KafkaException">It is not written.</exception>
    public async Task KeepAsync(IProducer<byte[], byte[]> producer, string topic, string reason, CancellationToken cancellationToken)
    {
        var (key, value, own) = (Record.Message.Key, Record.Message.Value, Record.Message.Headers ?? []);
        var added = new Headers();
        foreach (var (name, text) in ((string, object)[])[("reason", reason), ("topic", Record.Topic),
            ("partition", Record.Partition.Value), ("offset", Record.Offset.Value)])
            added.Add($"triggers-{name}", Encoding.UTF8.GetBytes($"{text}"));
        try
        {
            await WriteAsync(key, value, own);
        }
        catch (KafkaException e) when (e.Error.Code == ErrorCode.MsgSizeTooLarge)
        {
            // Somebody else wrote it, under other limits.
            added.Add("triggers-bytes", Encoding.UTF8.GetBytes($"{value?.Length ?? 0}"));
            var isSmall = (key?.Length ?? 0) + own.Sum(h => (h.GetValueBytes()?.Length ?? 0) + h.Key.Length) <= MaxKeptBytes;
            await WriteAsync(isSmall ? key : null, null, isSmall ? own : []);
        }

        Task WriteAsync(byte[]? key, byte[]? value, IEnumerable<IHeader> own)
        {
            var headers = new Headers();
            foreach (var header in own.Concat(added))
                headers.Add(header.Key, header.GetValueBytes());
            return producer.ProduceAsync(
                topic, new Message<byte[], byte[]> { Key = key!, Value = value!, Headers = headers }, cancellationToken);
        }
    }
}
