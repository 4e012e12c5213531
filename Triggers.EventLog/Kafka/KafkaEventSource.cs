using System.Collections.Concurrent;
using Confluent.Kafka;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.EventLog.Kafka;

/// <summary>
/// Reads the Kafka log as a member of a consumer group: any number of processes share its partitions. Where to read is known to
/// Postgres alone: the transaction that stores events locks the positions of their partitions, and drops what is below them. So it does
/// not matter who reads a record, nor how often. A record that can't be projected goes to the topic of invalid records, as it was and with
/// the reason; docs/topics.md describes it.
/// </summary>
internal sealed partial class KafkaEventSource(
    NpgsqlDataSource dataSource, KafkaTopics topics, IProducer<byte[], byte[]> producer, LogLags lags, IOptions<KafkaOptions> options,
    IServiceProvider services, TimeProvider time, ILogger<KafkaEventSource> logger)
    : IEventSource, IHealthCheck
{
    private const int MaxRecords = 500;
    private const int MaxBytes = 8 * 1024 * 1024;

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_lagInterval = TimeSpan.FromSeconds(5);

    /// <summary>What was consumed and is not projected yet, in order. The batch that was read last is the beginning of it.</summary>
    private readonly List<ConsumedRecord> _items = [];

    /// <summary>
    /// Where this process is in its partitions, and in those of <see cref="_revoked"/>, and from when the record before that is.
    /// </summary>
    private readonly Dictionary<int, (long Next, DateTimeOffset PassedAt)> _places = [];

    /// <summary>Partitions that are not this process' any more, of which it has records to project.</summary>
    private readonly HashSet<int> _revoked = [];

    /// <summary>Partitions that don't have the record at their position any more, and what Kafka says of it.</summary>
    private readonly ConcurrentDictionary<int, string> _gone = [];

    private readonly HashSet<DateOnly> _daysWithPartitions = [];
    private IConsumer<byte[], byte[]>? _consumer;

    /// <summary>How many of the items the transaction has read, and the new events among them.</summary>
    private int _read;
    private readonly List<LoggedEvent> _events = [];

    /// <summary>Whether a position was found before this process' place.</summary>
    private bool _wentBack;

    /// <summary>Why nothing more is read from the consumer, which may have been given partitions without their positions.</summary>
    private Exception? _failure;

    private long _measuredAt;

    public string Name => "kafka";

    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken) =>
        Task.FromResult(_gone.IsEmpty
        ? HealthCheckResult.Healthy()
        : HealthCheckResult.Degraded(
            string.Join("; ", _gone.OrderBy(g => g.Key).Select(g => $"partition {g.Key} has no record at its position: {g.Value}"))));

    public async Task WaitAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        var log = await topics.Ready.WaitAsync(cancellationToken);
        _read = 0;
        _events.Clear();
        if (_wentBack)
            Leave();
        _wentBack = false;
        try
        {
            ThrowIfFailed();
            _consumer ??= Join(log);
            while (_items.Count == 0)
            {
                cancellationToken.ThrowIfCancellationRequested();
                Consume(_consumer, s_look);
                ThrowIfFailed();
                if (time.GetElapsedTime(_measuredAt) < s_lagInterval)
                    continue;
                _measuredAt = time.GetTimestamp();
                MeasureLag(_consumer, log);
                // Where nothing comes, nobody locks it.
                if (_items.Count == 0 && await HasGoneBackAsync(connection, log, cancellationToken))
                {
                    Leave();
                    _consumer = Join(log);
                }
            }
        }
        catch (Exception e)
        {
            Leave();
            if (e is KafkaException)
                throw new EventLogUnavailableException("The Kafka log is away.", e);
            throw;
        }
        for (var i = 0; i < _items.Count; i++)
        {
            if (_items[i].Invalid is { } reason)
                await SetAsideAsync(i, reason, cancellationToken);
        }
        await EnsurePartitionsAsync(connection, cancellationToken);
    }

    public Task<bool> MoreAsync(TimeSpan atMost, CancellationToken cancellationToken)
    {
        try
        {
            if (_items.Count == _read && _failure is null && _consumer is { } consumer)
                Consume(consumer, atMost);
        }
        catch (KafkaException e)
        {
            // It is said when the transaction has ended.
            _failure = e;
        }
        // What needs to be set aside first, or a partition, is not for this transaction.
        return Task.FromResult(
            !_wentBack && _failure is null && _items.Count > _read && _items[_read..].TrueForAll(i => i.Invalid is null)
            && !DaysWithout().Any());
    }

    public async Task<EventBatch?> ReadAsync(NpgsqlConnection connection, int limit, CancellationToken cancellationToken)
    {
        var log = await topics.Ready;
        var items = _items[_read..Math.Min(_read + limit, _items.Count)];
        await using var batch = new NpgsqlBatch(connection)
        {
            // The last is a statement of its own, so that it sees the positions as they are now that they are locked.
            BatchCommands =
            {
                ProjectionStatements.LockPositions(log, items), new("SELECT version FROM subscriptions_version"),
                ProjectionStatements.Store(log, items),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        _wentBack = await HasGoneBackAsync(reader, cancellationToken);
        // These records are stored by now. To commit that, with what was read before, would make them known, and nothing follow from them.
        if (_wentBack && _read > 0)
            throw new EventLogUnavailableException("Postgres has lost positions of the log.");
        if (_wentBack)
            return null;
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var version = reader.GetInt64(0);
        await reader.NextResultAsync(cancellationToken);
        var isNew = new HashSet<(Guid Tenant, Guid Id)>();
        while (await reader.ReadAsync(cancellationToken))
            isNew.Add((reader.GetGuid(0), reader.GetGuid(1)));

        _read += items.Count;
        var events = new List<LoggedEvent>();
        foreach (var (record, e, _) in items)
        {
            if (e is null || !isNew.Remove((e.TenantId, e.Id)))
                continue;
            var data = e.Data.Length <= LoggedEvent.MaxCarriedBytes ? e.Data.ToArray() : [];
            events.Add(new LoggedEvent(
                e.TenantId,
                new StoredEvent(e.Id, e.Type, e.ExternalId, e.Source, e.Subject, e.Time, e.CorrelationId, e.TraceParent, data, e.Attributes)
                { DeliverAt = e.DeliverAt, ExpiresAt = e.ExpiresAt },
                e.Data.Length, record.Partition.Value));
        }
        _events.AddRange(events);
        var advance = ProjectionStatements.Advance(log, _items[.._read], _events);
        return new EventBatch(events, version, items.Count(i => i.Event is null), advance);
    }

    public void Passed()
    {
        foreach (var last in ConsumedRecord.LastOfPartitions(_items[.._read]))
        {
            // It is further on where others have projected more meanwhile, and the partition has come back.
            if (_places.TryGetValue(last.Partition.Value, out var place) && place.Next <= last.Offset.Value)
                _places[last.Partition.Value] = (last.Offset.Value + 1, last.Message.Timestamp.UtcDateTime);
            try
            {
                _consumer?.StoreOffset(last);
            }
            catch (KafkaException)
            {
                // The partition is somebody else's by now.
            }
        }
        _items.RemoveRange(0, _read);
        foreach (var partition in _revoked)
        {
            if (HasRecordsOf(partition))
                continue;
            _revoked.Remove(partition);
            _places.Remove(partition);
        }
    }

    public Task SetAsideAsync(PostgresException refusal, CancellationToken cancellationToken) => _items[0].Event is not null
        ? SetAsideAsync(0, $"Postgres refused it: {refusal.SqlState} {refusal.MessageText}", cancellationToken)
        : throw new InvalidOperationException("A record can't be passed.", refusal);

    public void Leave()
    {
        using var consumer = _consumer;
        _consumer = null;
        _items.Clear();
        try
        {
            consumer?.Close();
        }
        catch (KafkaException)
        {
            // The brokers are away, and notice by themselves that this process is.
        }
        _places.Clear();
        _revoked.Clear();
        _failure = null;
    }

    private void ThrowIfFailed()
    {
        if (_failure is not null)
            throw new EventLogUnavailableException("The Kafka log can't be read.", _failure);
    }

    private IConsumer<byte[], byte[]> Join(KafkaLogName log)
    {
        var consumer = new ConsumerBuilder<byte[], byte[]>(options.Value.ForConsumer())
            .SetLogHandler(KafkaExtensions.LogTo(services))
            .SetPartitionsAssignedHandler((_, partitions) => Assign(log, partitions))
            .SetPartitionsRevokedHandler((_, partitions) => Forget(partitions))
            .SetPartitionsLostHandler((_, partitions) => Forget(partitions))
            .Build();
        consumer.Subscribe(log.Topic);
        return consumer;
    }

    /// <summary>What has come already, or else waits for the first record a moment.</summary>
    private void Consume(IConsumer<byte[], byte[]> consumer, TimeSpan atMost)
    {
        var (bytes, known) = (0, _items.Count);
        while (_items.Count < known + MaxRecords && bytes < MaxBytes)
        {
            ConsumeResult<byte[], byte[]>? record;
            try
            {
                record = consumer.Consume(_items.Count == known ? atMost : TimeSpan.Zero);
            }
            catch (ConsumeException e) when (e.Error.Code == ErrorCode.Local_AutoOffsetReset)
            {
                // Records that were never projected are gone from the log. Going on behind them is for somebody to decide; until then
                // this partition rests, and the others go on.
                _gone[e.ConsumerRecord.Partition.Value] = e.Error.Reason;
                Log.PositionIsGone(logger, e.ConsumerRecord.Partition.Value, e.Error.Reason);
                continue;
            }
            catch (ConsumeException e) when (_items.Count > known)
            {
                // It will be said again; first what has been read.
                Log.Interrupted(logger, e);
                return;
            }
            if (record is null || _failure is not null)
                return;
            _items.Add(ConsumedRecord.Of(record, time.GetUtcNow()));
            bytes += record.Message.Value?.Length ?? 0;
        }
    }

    /// <summary>
    /// Runs inside Consume, when partitions are given to this process. An exception would leave the client waiting for their assignment
    /// for ever: it goes on at their ends instead, and nothing is taken from it.
    /// </summary>
    private List<TopicPartitionOffset> Assign(KafkaLogName log, List<TopicPartition> partitions)
    {
        try
        {
            return partitions.Count == 0 ? [] : PositionsOf(log, partitions);
        }
        catch (Exception e)
        {
            _failure = e;
            return partitions.ConvertAll(p => new TopicPartitionOffset(p, Offset.End));
        }
    }

    private List<TopicPartitionOffset> PositionsOf(KafkaLogName log, List<TopicPartition> partitions)
    {
        using var connection = dataSource.OpenConnection();
        using var command = new NpgsqlCommand(
            """
            INSERT INTO log_positions (log, partition, next) SELECT @log, p, 0 FROM unnest(@partitions) p ORDER BY p
                ON CONFLICT DO NOTHING;
            SELECT partition, next FROM log_positions WHERE log = @log AND partition = ANY (@partitions)
            """, connection);
        command.Parameters.AddWithValue("log", log.Log);
        command.Parameters.AddWithValue("partitions", partitions.ConvertAll(p => p.Partition.Value));
        using var reader = command.ExecuteReader();
        var positions = new List<TopicPartitionOffset>();
        while (reader.Read())
        {
            var (partition, next) = (reader.GetInt32(0), reader.GetInt64(1));
            // A log that is new to us is read from its beginning, wherever that is.
            positions.Add(new TopicPartitionOffset(log.Topic, partition, next == 0 ? Offset.Beginning : new Offset(next)));
            _revoked.Remove(partition);
            // Of its records that are still here, those before an older place may be lost in Postgres.
            if (!_places.TryGetValue(partition, out var place) || place.Next < next)
                _places[partition] = (next, time.GetUtcNow());
        }
        if (positions.Count > 0)
            Log.Assigned(logger, string.Join(", ", positions.Select(p => $"{p.Partition.Value} from {p.Offset.Value}")));
        return positions;
    }

    private void Forget(List<TopicPartitionOffset> partitions)
    {
        foreach (var partition in partitions.Select(p => p.Partition.Value))
        {
            // Records of it that are still to be projected need the place: Postgres may have lost what came before them.
            if (HasRecordsOf(partition))
                _revoked.Add(partition);
            else
                _places.Remove(partition);
            _gone.TryRemove(partition, out _);
            lags.TryRemove((Name, partition), out _);
        }
    }

    private bool HasRecordsOf(int partition) => _items.Exists(i => i.Record.Partition.Value == partition);

    private void MeasureLag(IConsumer<byte[], byte[]> consumer, KafkaLogName log)
    {
        foreach (var (partition, (next, passedAt)) in _places)
        {
            if (_revoked.Contains(partition))
                continue;
            // As of the last fetch: it costs no request.
            var end = consumer.GetWatermarkOffsets(new TopicPartition(log.Topic, partition)).High.Value;
            var events = Math.Max(0, end - next);
            lags[(Name, partition)] = (events, events == 0 ? 0 : (time.GetUtcNow() - passedAt).TotalSeconds);
        }
    }

    /// <summary>When this ends the record is kept: only then may the position pass it.</summary>
    private async Task SetAsideAsync(int index, string reason, CancellationToken cancellationToken)
    {
        var record = _items[index].Record;
        try
        {
            await _items[index].KeepAsync(producer, options.Value.InvalidTopic, reason, cancellationToken);
        }
        catch (KafkaException e)
        {
            throw new EventLogUnavailableException("A record waits to be set aside.", e);
        }
        _items[index] = new ConsumedRecord(record, null);
        Log.SetAside(logger, record.Partition.Value, record.Offset.Value, reason);
    }

    private async Task EnsurePartitionsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        foreach (var day in DaysWithout().ToList())
        {
            await Partitions.MakeAsync(connection, day, day, cancellationToken);
            _daysWithPartitions.Add(day);
        }
    }

    /// <summary>Today's for the deliveries. After a long outage housekeeping may not have come to it yet.</summary>
    private IEnumerable<DateOnly> DaysWithout() =>
        _items.Where(i => i.Event is not null).Select(i => TypeId.CreatedAt(i.Event!.Id)).Append(time.GetUtcNow())
            .Select(at => DateOnly.FromDateTime(at.UtcDateTime)).Distinct().Except(_daysWithPartitions);

    private async Task<bool> HasGoneBackAsync(NpgsqlConnection connection, KafkaLogName log, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand("SELECT partition, next FROM log_positions WHERE log = @log", connection);
        command.Parameters.AddWithValue("log", log.Log);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        return await HasGoneBackAsync(reader, cancellationToken);
    }

    /// <summary>
    /// Whether a position is before this process' place: Postgres crashed, or another took its place, and what was written last is gone.
    /// </summary>
    private async Task<bool> HasGoneBackAsync(NpgsqlDataReader positions, CancellationToken cancellationToken)
    {
        while (await positions.ReadAsync(cancellationToken))
        {
            var (partition, next) = (positions.GetInt32(0), positions.GetInt64(1));
            if (!_places.TryGetValue(partition, out var place) || next >= place.Next)
                continue;
            Log.WentBack(logger, partition, place.Next, next);
            return true;
        }
        return false;
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "The projection of the Kafka log waits")]
        public static partial void Interrupted(ILogger logger, Exception exception);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "Reading the Kafka log: partitions {Partitions}")]
        public static partial void Assigned(ILogger logger, string partitions);

        [LoggerMessage(EventId = 3, Level = LogLevel.Critical,
            Message =
                "Partition {Partition} has no record at the projection's position: events are missing from the log. docs/operations.md "
                    + "says what to do: {Problem}")]
        public static partial void PositionIsGone(ILogger logger, int partition, string problem);

        [LoggerMessage(EventId = 4, Level = LogLevel.Error,
            Message = "The record at offset {Offset} of partition {Partition} was set aside: {Reason}")]
        public static partial void SetAside(ILogger logger, int partition, long offset, string reason);

        [LoggerMessage(EventId = 5, Level = LogLevel.Warning,
            Message = "The position of partition {Partition} was {Offset} and is {Next}: what Postgres has lost is read again")]
        public static partial void WentBack(ILogger logger, int partition, long offset, long next);
    }
}
