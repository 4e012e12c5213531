using System.Collections.Concurrent;
using Confluent.Kafka;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Options;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Workers;
using Triggers.EventLog.Kafka;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Projection;

/// <summary>
/// Reads the Kafka log as a member of a consumer group: any number of processes share its partitions. Where to read is known to
/// Postgres alone. The transaction that stores events locks the positions of their partitions, drops what is below them, and advances
/// them: so it does not matter who reads a record, nor how often. A record that can't be projected goes to a topic of its own.
/// </summary>
internal sealed partial class KafkaProjector(
    EngineDataSource dataSource,
    Projection projection,
    WorkerRegistration worker,
    DeliveryMetrics metrics,
    KafkaTopics topics,
    InvalidRecords invalid,
    IOptions<KafkaOptions> options,
    IServiceProvider services,
    TimeProvider time,
    ILogger<KafkaProjector> logger) : BackgroundLoop(time, logger), IHealthCheck
{
    private const string LogName = "kafka";
    private const int MaxBatchRecords = 500;
    private const int MaxBatchBytes = 8 * 1024 * 1024;

    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_lagInterval = TimeSpan.FromSeconds(5);

    /// <summary>Where this process is in its partitions, and from when the record before that is.</summary>
    private readonly Dictionary<int, (long Next, DateTimeOffset PassedAt)> _places = [];

    /// <summary>Partitions that don't have the record at their position any more, and what Kafka says of it.</summary>
    private readonly ConcurrentDictionary<int, string> _gone = [];

    private readonly HashSet<DateOnly> _daysWithPartitions = [];

    Task<HealthCheckResult> IHealthCheck.CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken) =>
        Task.FromResult(_gone.IsEmpty
        ? HealthCheckResult.Healthy()
        : HealthCheckResult.Degraded(
            string.Join("; ", _gone.OrderBy(g => g.Key).Select(g => $"partition {g.Key} has no record at its position: {g.Value}"))));

    protected override bool IsAway(Exception e) => e is KafkaException || base.IsAway(e);

    protected override async Task PrepareAsync(CancellationToken stoppingToken)
    {
        await worker.Registered.WaitAsync(stoppingToken);
        await topics.Ready.WaitAsync(stoppingToken);
    }

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var log = await topics.Ready;
        using var consumer = new ConsumerBuilder<byte[], byte[]>(options.Value.ForConsumer())
            .SetLogHandler(KafkaExtensions.LogTo(services))
            .SetPartitionsAssignedHandler((_, partitions) => PositionsOf(log, partitions))
            .SetPartitionsRevokedHandler((_, partitions) => Forget(partitions))
            .SetPartitionsLostHandler((_, partitions) => Forget(partitions))
            .Build();
        consumer.Subscribe(log.Topic);
        try
        {
            await ProjectAsync(consumer, log, stoppingToken);
        }
        finally
        {
            // Leaves the group, so that others take over at once.
            consumer.Close();
        }
    }

    private async Task ProjectAsync(IConsumer<byte[], byte[]> consumer, KafkaLogName log, CancellationToken stoppingToken)
    {
        var batch = new List<ConsumeResult<byte[], byte[]>>(MaxBatchRecords);
        var measuredAt = Time.GetTimestamp();
        while (!stoppingToken.IsCancellationRequested)
        {
            Read(consumer, batch);
            if (Time.GetElapsedTime(measuredAt) > s_lagInterval)
            {
                MeasureLag(consumer, log);
                measuredAt = Time.GetTimestamp();
            }
            if (batch.Count == 0)
                continue;
            await ProjectUntilDoneAsync(log, await DecodeAsync(batch, stoppingToken), stoppingToken);
            foreach (var last in batch.GroupBy(r => r.Partition.Value).Select(p => p.MaxBy(r => r.Offset.Value)!))
            {
                if (_places.ContainsKey(last.Partition.Value))
                    _places[last.Partition.Value] = (last.Offset.Value + 1, last.Message.Timestamp.UtcDateTime);
                try
                {
                    consumer.StoreOffset(last);
                }
                catch (KafkaException)
                {
                    // The partition is somebody else's by now.
                }
            }
            batch.Clear();
        }
    }

    /// <summary>What has come already, or else waits for the first record a moment.</summary>
    private void Read(IConsumer<byte[], byte[]> consumer, List<ConsumeResult<byte[], byte[]>> batch)
    {
        var bytes = 0;
        while (batch.Count < MaxBatchRecords && bytes < MaxBatchBytes)
        {
            ConsumeResult<byte[], byte[]>? record;
            try
            {
                record = consumer.Consume(batch.Count == 0 ? s_look : TimeSpan.Zero);
            }
            catch (ConsumeException e) when (e.Error.Code == ErrorCode.Local_AutoOffsetReset)
            {
                // Records that were never projected are gone from the log. Going on behind them is for somebody to decide; until then
                // this partition rests, and the others go on.
                _gone[e.ConsumerRecord.Partition.Value] = e.Error.Reason;
                Log.PositionIsGone(Logger, e.ConsumerRecord.Partition.Value, e.Error.Reason);
                continue;
            }
            catch (ConsumeException e) when (batch.Count > 0)
            {
                // It will be said again; first what has been read.
                Log.Interrupted(Logger, e);
                return;
            }
            if (record is null)
                return;
            batch.Add(record);
            bytes += record.Message.Value?.Length ?? 0;
        }
    }

    /// <summary>Runs inside Consume, when partitions are given to this process.</summary>
    private List<TopicPartitionOffset> PositionsOf(KafkaLogName log, List<TopicPartition> partitions)
    {
        using var connection = dataSource.Pool.OpenConnection();
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
            // A log that is new to us is read from its beginning, wherever that is.
            var next = reader.GetInt64(1);
            positions.Add(new TopicPartitionOffset(log.Topic, reader.GetInt32(0), next == 0 ? Offset.Beginning : new Offset(next)));
        }
        foreach (var (partition, next) in positions.Select(p => (p.Partition.Value, p.Offset.Value)))
            _places[partition] = (Math.Max(0, next), Time.GetUtcNow());
        if (positions.Count > 0)
            Log.Assigned(Logger, string.Join(", ", positions.Select(p => $"{p.Partition.Value} from {p.Offset.Value}")));
        return positions;
    }

    private void Forget(List<TopicPartitionOffset> partitions)
    {
        foreach (var partition in partitions)
        {
            _places.Remove(partition.Partition.Value);
            _gone.TryRemove(partition.Partition.Value, out _);
            metrics.LogLagUnknown(LogName, partition.Partition.Value);
        }
    }

    private void MeasureLag(IConsumer<byte[], byte[]> consumer, KafkaLogName log)
    {
        foreach (var (partition, (next, passedAt)) in _places)
        {
            // As of the last fetch: it costs no request.
            var end = consumer.GetWatermarkOffsets(new TopicPartition(log.Topic, partition)).High.Value;
            var events = Math.Max(0, end - next);
            metrics.LogLag(LogName, partition, events, events == 0 ? 0 : (Time.GetUtcNow() - passedAt).TotalSeconds);
        }
    }

    /// <summary>Reads what the records say. What says nothing to us is set aside, and only passed.</summary>
    private async Task<List<Item>> DecodeAsync(List<ConsumeResult<byte[], byte[]>> records, CancellationToken stoppingToken)
    {
        var items = new List<Item>(records.Count);
        foreach (var record in records)
        {
            try
            {
                items.Add(new Item(record, Checked(LogRecord.Decode(record.Message.Value))));
            }
            catch (InvalidRecordException e)
            {
                await invalid.SetAsideAsync(record, e.Message, stoppingToken);
                items.Add(new Item(record, null));
            }
        }
        return items;
    }

    private async Task ProjectUntilDoneAsync(KafkaLogName log, List<Item> items, CancellationToken stoppingToken)
    {
        var (wasAway, looked) = (false, false);
        while (true)
        {
            try
            {
                await ProjectAsync(log, items, stoppingToken);
                return;
            }
            catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.CheckViolation && !looked)
            {
                // A partition that was there may have been dropped since.
                looked = true;
                dataSource.Refused();
                _daysWithPartitions.Clear();
            }
            catch (PostgresException e) when (Storage.IsRefusal(e))
            {
                dataSource.Refused();
                // One of the records can't be stored. Halving finds it in a few steps, and the others go on; each half in the order of
                // the log, since the position must not pass what is not stored yet.
                if (items.Count == 1)
                {
                    await invalid.SetAsideAsync(items[0].Source, $"Postgres refused it: {e.SqlState} {e.MessageText}", stoppingToken);
                    items = [items[0] with { Record = null }];
                    continue;
                }
                await ProjectUntilDoneAsync(log, items[..(items.Count / 2)], stoppingToken);
                items = items[(items.Count / 2)..];
            }
            catch (Exception e) when (base.IsAway(e) && !stoppingToken.IsCancellationRequested)
            {
                if (!wasAway)
                    Log.Interrupted(Logger, e);
                wasAway = true;
                await Task.Delay(s_pause, Time, stoppingToken);
            }
        }
    }

    private async Task ProjectAsync(KafkaLogName log, List<Item> items, CancellationToken cancellationToken)
    {
        var records = items.Where(i => i.Record is not null).Select(i => (i.Source, Record: i.Record!)).ToList();
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await EnsurePartitionsAsync(connection, records.ConvertAll(r => r.Record.Id), cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var claimedAt = Time.GetTimestamp();
        var (stored, version) = await StoreAsync(connection, log, items, records, cancellationToken);
        var events = new List<ProjectedEvent>();
        foreach (var (source, r) in records)
        {
            if (!stored.Remove((r.TenantId, r.Id)))
                continue;
            var carried = r.Data.Length <= ProjectedEvent.MaxCarriedBytes;
            events.Add(new ProjectedEvent(
                r.TenantId,
                new EventToSend(r.Id, r.Type, r.ExternalId, r.Source, r.Subject, r.Time, r.CorrelationId, r.TraceParent, carried
                    ? r.Data.ToArray() : []),
                r.Data.Length, source.Partition.Value));
        }
        await projection.WriteAsync(LogName, connection, transaction, events, version, claimedAt, Advance(
            log, items, events.ConvertAll(e => e.TenantId)), cancellationToken);
    }

    /// <summary>Our ids hold the moment of acceptance: one that is years away would want a partition of its own.</summary>
    private LogRecord Checked(LogRecord record)
    {
        var accepted = TypeId.CreatedAt(record.Id);
        if (accepted.Year < 2020 || accepted > Time.GetUtcNow().AddDays(1))
            throw new InvalidRecordException($"the id says that the event was accepted at {accepted:O}");
        return record;
    }

    private async Task EnsurePartitionsAsync(NpgsqlConnection connection, List<Guid> ids, CancellationToken cancellationToken)
    {
        // Today's for the deliveries. After a long outage housekeeping may not have come to it yet.
        var days = ids.ConvertAll(TypeId.CreatedAt).Append(Time.GetUtcNow()).Select(at => DateOnly.FromDateTime(at.UtcDateTime))
            .Where(day => !_daysWithPartitions.Contains(day)).Distinct().ToList();
        foreach (var day in days)
        {
            await Partitions.MakeAsync(connection, day, day, cancellationToken);
            _daysWithPartitions.Add(day);
        }
    }

    /// <returns>Which events were not there before, and the version of the subscriptions.</returns>
    private static async Task<(HashSet<(Guid Tenant, Guid Id)> Stored, long Version)> StoreAsync(
        NpgsqlConnection connection, KafkaLogName log, List<Item> items,
        List<(ConsumeResult<byte[], byte[]> Source, LogRecord Record)> records,
        CancellationToken cancellationToken)
    {
        // The lower ids first: two processes that store the same events then wait for each other in one order.
        var byId = records.OrderBy(r => r.Record.Id).ToList();
        await using var batch = new NpgsqlBatch(connection);
        var lockPositions = new NpgsqlBatchCommand(
            "SELECT partition FROM log_positions WHERE log = @log AND partition = ANY (@partitions) ORDER BY partition FOR UPDATE");
        lockPositions.Parameters.AddWithValue("log", log.Log);
        lockPositions.Parameters.AddWithValue("partitions", items.Select(i => i.Source.Partition.Value).Distinct().ToArray());
        batch.BatchCommands.Add(lockPositions);
        batch.BatchCommands.Add(new("SELECT version FROM subscriptions_version"));
        // A statement of its own, so that it sees the positions as they are now that they are locked.
        var store = new NpgsqlBatchCommand(StoredEvents.Store(
            """
            SELECT tenant_id, id, external_id, type, source, subject, time, correlation_id, trace_parent, data
            FROM unnest(@partitions, @offsets, @tenants, @ids, @externalIds, @types, @sources, @subjects, @times, @correlationIds,
                @traceParents, @data)
                WITH ORDINALITY AS i (partition, "offset", tenant_id, id, external_id, type, source, subject, time, correlation_id,
                    trace_parent, data, ord)
            WHERE i."offset" >= (SELECT next FROM log_positions p WHERE p.log = @log AND p.partition = i.partition)
            ORDER BY ord
            """) + " RETURNING tenant_id, id");
        store.Parameters.AddWithValue("log", log.Log);
        void Column<T>(string name, NpgsqlDbType type, Func<(ConsumeResult<byte[], byte[]> Source, LogRecord Record), T> value) =>
            store.Parameters.Add(new(name, type | NpgsqlDbType.Array) { Value = byId.Select(value).ToArray() });
        Column("partitions", NpgsqlDbType.Integer, f => f.Source.Partition.Value);
        Column("offsets", NpgsqlDbType.Bigint, f => f.Source.Offset.Value);
        Column("tenants", NpgsqlDbType.Uuid, f => f.Record.TenantId);
        Column("ids", NpgsqlDbType.Uuid, f => f.Record.Id);
        Column("externalIds", NpgsqlDbType.Text, f => f.Record.ExternalId);
        Column("types", NpgsqlDbType.Text, f => f.Record.Type);
        Column("sources", NpgsqlDbType.Text, f => f.Record.Source);
        Column("subjects", NpgsqlDbType.Text, f => f.Record.Subject);
        Column("times", NpgsqlDbType.TimestampTz, f => f.Record.Time?.UtcDateTime);
        Column("correlationIds", NpgsqlDbType.Text, f => f.Record.CorrelationId);
        Column("traceParents", NpgsqlDbType.Text, f => f.Record.TraceParent);
        Column("data", NpgsqlDbType.Bytea, f => f.Record.Data);
        batch.BatchCommands.Add(store);

        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var version = reader.GetInt64(0);
        await reader.NextResultAsync(cancellationToken);
        var stored = new HashSet<(Guid, Guid)>();
        while (await reader.ReadAsync(cancellationToken))
            stored.Add((reader.GetGuid(0), reader.GetGuid(1)));
        return (stored, version);
    }

    private static NpgsqlBatchCommand Advance(KafkaLogName log, List<Item> items, List<Guid> tenants)
    {
        var last = items.Select(i => i.Source).GroupBy(r => r.Partition.Value).Select(p => p.MaxBy(r => r.Offset.Value)!).ToList();
        var command = new NpgsqlBatchCommand(
            $"""
            UPDATE log_positions p SET next = l.next, passed_at = l.passed_at
            FROM unnest(@positions, @nexts, @passed) AS l (partition, next, passed_at)
            WHERE p.log = @log AND p.partition = l.partition AND p.next < l.next
            {(tenants.Count > 0 ? $"RETURNING pg_notify('{Notifications.Inbox}', @payload)" : "")}
            """);
        command.Parameters.AddWithValue("log", log.Log);
        command.Parameters.AddWithValue("positions", last.ConvertAll(r => r.Partition.Value));
        command.Parameters.AddWithValue("nexts", last.ConvertAll(r => r.Offset.Value + 1));
        command.Parameters.AddWithValue("passed", last.ConvertAll(r => r.Message.Timestamp.UtcDateTime));
        if (tenants.Count > 0)
            command.Parameters.AddWithValue("payload", Notifications.TenantsOf(tenants));
        return command;
    }

    /// <summary>A record of the log, and what it says; null when that is nothing to us.</summary>
    private sealed record Item(ConsumeResult<byte[], byte[]> Source, LogRecord? Record);

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
    }
}
