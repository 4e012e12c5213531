using System.Threading.Channels;
using Confluent.Kafka;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Npgsql;
using Triggers.Core;
using Triggers.EventLog.Idempotency;

namespace Triggers.EventLog.Kafka;

/// <summary>
/// The log whose records are in a Kafka topic. A request without keys touches nothing but Kafka; requests that come together share
/// produce batches. Tenants have a queue each in front of the brokers, served in turn. An answer is given when all brokers that must
/// have the events do.
/// </summary>
public sealed partial class KafkaEventLog(
    IProducer<byte[], byte[]> producer, KafkaTopics topics, ProjectionProgress progress, NpgsqlDataSource dataSource, TimeProvider time,
    ILogger<KafkaEventLog> logger)
    : BackgroundService, IEventLog
{
    /// <summary>
    /// Bounds of what is handed to the brokers at once; the rest waits for its turn. A single request may exceed them, alone.
    /// </summary>
    private const int MaxInFlightEvents = 20_000;
    private const long MaxInFlightBytes = 4 * 1024 * 1024;

    private readonly RequestKeys _keys = new(
        dataSource, "kafka",
        (tenant, holders, limit) => progress.WaitForAsync(tenant, [.. holders.Select(h => h.EventId)], limit, CancellationToken.None),
        time, logger);

    private readonly TenantQueues<PendingProduce> _queues = new();

    // Says that there may be room again, or that it may be the turn of somebody who needs less.
    private readonly Channel<bool> _look =
        Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite, SingleReader = true });

    private long _inFlightEvents;
    private long _inFlightBytes;

    /// <inheritdoc />
    public Task<AppendResult> AppendAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken)
    {
        limit = limit.Less(RequestBudget.Answer);
        var append = KeyId.AllOf(request).Any() ? _keys.AppendAsync(request, keyless => ProduceAsync(keyless, limit), limit)
            : AppendKeylessAsync(request, limit);
        return append.WithinAsync(limit, time, cancellationToken);
    }

    /// <inheritdoc />
    public Task<AppendResult?> FindRepeatedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken) =>
        _keys.FindRepeatedAsync(request, limit.Less(RequestBudget.Answer)).WaitAsync(cancellationToken);

    /// <inheritdoc />
    public Task<IReadOnlySet<Guid>> FindAcceptedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken) =>
        _keys.FindAcceptedAsync(request, limit.Less(RequestBudget.Answer)).WaitAsync(cancellationToken);

    private async Task<AppendResult> AppendKeylessAsync(AppendRequest request, TimeLimit limit)
    {
        await ProduceAsync(request, limit);
        return new AppendResult(
            AppendOutcome.Appended, request.CorrelationId,
            [.. request.Events.Select(e => new AppendedEvent(e.Id, AppendedEventOutcome.Appended, request.CorrelationId))]);
    }

    private async Task ProduceAsync(AppendRequest request, TimeLimit limit)
    {
        if (!topics.Ready.IsCompletedSuccessfully)
            throw new EventLogUnavailableException("Kafka has not answered yet.") { NothingWasKept = true };
        if (request.Events.Count == 0)
        {
            await FindAsync(topics.Ready.Result.Topic);
            return;
        }
        Appends.EnsureTime(limit);
        var pending = new PendingProduce(request);
        _queues.Enqueue(request.TenantId, pending, pending.Bytes);
        _look.Writer.TryWrite(true);
        try
        {
            await pending.Taken.Task.WaitAsync(limit.AtMost(RequestBudget.Turn).Left, time);
        }
        catch (TimeoutException e) when (pending.TryAbandon())
        {
            throw new EventLogUnavailableException("The event log did not answer in time.", e) { NothingWasKept = true };
        }
        catch (TimeoutException)
        {
            // Taken just now.
        }
        var error = await pending.Reports.All;
        if (error is null)
            return;
        Log.AppendFailed(logger, request.Events.Count, error.Reason);
        throw new EventLogUnavailableException(
            $"Kafka did not take the events: {error.Reason}")
        { NothingWasKept = pending.Reports.NothingWasKept };
    }

    /// <summary>
    /// Does what a first record waits for, and writes none: a record for a partition that there is not fails as soon as the producer has
    /// found the topic.
    /// </summary>
    private async Task FindAsync(string topic)
    {
        var found = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var record = new LogRecord(Guid.Empty, TypeId.NewGuid(), "none", null, null, null, null, "", null, "null"u8.ToArray());
        try
        {
            producer.Produce(new TopicPartition(topic, int.MaxValue), record.ToMessage(), _ => found.TrySetResult());
        }
        catch (KafkaException)
        {
            // It was found before.
            return;
        }
        await found.Task;
    }

    /// <summary>Hands the brokers what waits, tenant by tenant, as much as they have room for.</summary>
    private async Task ProduceInTurnAsync()
    {
        while (await _queues.WaitToReadAsync())
        {
            // Nothing is let in before.
            var topic = (await topics.Ready).Topic;
            if (!_queues.TryDequeue(HasRoom, out var next))
                await _look.Reader.ReadAsync();
            else if (next.TryTake())
                Produce(topic, next);
        }

        bool HasRoom(PendingProduce next)
        {
            var events = Interlocked.Read(ref _inFlightEvents);
            return events == 0 || events + next.Request.Events.Count <= MaxInFlightEvents
                && Interlocked.Read(ref _inFlightBytes) + next.Bytes <= MaxInFlightBytes;
        }
    }

    private void Produce(string topic, PendingProduce pending)
    {
        var request = pending.Request;
        Interlocked.Add(ref _inFlightEvents, request.Events.Count);
        Interlocked.Add(ref _inFlightBytes, pending.Bytes);
        pending.Reports.All.ContinueWith(
            _ =>
            {
                Interlocked.Add(ref _inFlightEvents, -request.Events.Count);
                Interlocked.Add(ref _inFlightBytes, -pending.Bytes);
                _look.Writer.TryWrite(true);
            },
            CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        foreach (var e in request.Events)
        {
            var record = new LogRecord(
                request.TenantId, e.Id, e.Type, e.ExternalId, e.Source, e.Subject,
                e.Time, request.CorrelationId, e.TraceParent ?? request.TraceParent, e.Data, e.Attributes)
            { DeliverAt = e.DeliverAt, ExpiresAt = e.ExpiresAt };
            try
            {
                producer.Produce(topic, record.ToMessage(), report => pending.Reports.Add(report.Error, report.Status));
            }
            catch (Exception failure)
            {
                // Its own queue is full, or it is closed: this request's trouble, and not that of the tenants after it.
                pending.Reports.Add((failure as KafkaException)?.Error
                    ?? new Error(ErrorCode.Local_Fail, failure.Message), PersistenceStatus.NotPersisted);
            }
        }
        pending.Taken.TrySetResult();
    }

    /// <inheritdoc />
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        Task.WhenAll(ProduceInTurnAsync(), _keys.SettleAsync(stoppingToken));

    /// <inheritdoc />
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _queues.Complete();
        _keys.Complete();
        if (ExecuteTask is { } loop)
            await loop.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await base.StopAsync(cancellationToken);
    }

    private sealed class PendingProduce(AppendRequest request) : PendingRequest(request)
    {
        /// <summary>Ends when the brokers have been handed all of it.</summary>
        public TaskCompletionSource Taken { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Reports Reports { get; } = new(request.Events.Count);
    }

    /// <summary>The delivery reports of one request.</summary>
    private sealed class Reports(int count)
    {
        private readonly TaskCompletionSource<Error?> _all = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int _open = count;
        private int _kept;
        private volatile Error? _error;

        /// <summary>Ends with the last report; one of the errors, or null.</summary>
        public Task<Error?> All => _all.Task;

        public bool NothingWasKept => Volatile.Read(ref _kept) == 0;

        public void Add(Error error, PersistenceStatus status)
        {
            if (error.IsError)
                _error = error;
            if (status != PersistenceStatus.NotPersisted)
                Interlocked.Increment(ref _kept);
            if (Interlocked.Decrement(ref _open) == 0)
                _all.TrySetResult(_error);
        }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning,
            Message = "Kafka did not take {Events} events of a request, which is answered 503: {Problem}")]
        public static partial void AppendFailed(ILogger logger, int events, string problem);
    }
}
