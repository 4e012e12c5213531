using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Circuits;

/// <summary>
/// Holds the deliveries to receivers that fail. What one process sees fail is written down, and held by all; whoever is first to take the
/// probe lets one delivery through, the one that has been due longest; its success lets go of the others, a few at a time. Nothing is
/// written, and nothing asked, for a receiver that is well.
/// </summary>
internal sealed partial class Circuits(
    EngineDataSource dataSource, Subscribers subscribers, Lanes lanes, OperationalEvents events, Wakeups wakeups,
    WorkerRegistration worker, DeliveryMetrics metrics, IOptions<DeliveryOptions> options, TimeProvider time, ILogger<Circuits> logger)
    : BackgroundLoop(time, logger)
{
    /// <summary>How often it is looked whether something waits for a probe, while any circuit is open.</summary>
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(200);

    private static readonly TimeSpan s_disableInterval = TimeSpan.FromSeconds(30);

    private readonly ConcurrentDictionary<Guid, Breaker> _breakers = new();
    private readonly ConcurrentDictionary<Guid, Broken> _broken = new();
    private readonly ConcurrentQueue<Change> _changes = new();

    private readonly TaskCompletionSource _known = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends when it is known for the first time which are open.</summary>
    public Task Known => _known.Task;

    private CircuitOptions Options => options.Value.Circuit;

    protected override Task PrepareAsync(CancellationToken stoppingToken) => worker.Registered.WaitAsync(stoppingToken);

    /// <summary>An attempt that was made has ended.</summary>
    /// <param name="subscriber">To whom, as it was when it began.</param>
    /// <param name="startedAt">When, a timestamp.</param>
    /// <param name="outcome">How it ended.</param>
    /// <param name="statusCode">The HTTP status, when there was an answer.</param>
    public void Ended(Subscriber subscriber, long startedAt, AttemptOutcome outcome, int? statusCode)
    {
        if (_broken.TryGetValue(subscriber.Id, out var broken))
        {
            Probed(subscriber, broken, startedAt, outcome, statusCode);
            return;
        }
        var isWell = IsWell(outcome, statusCode);
        if (isWell is null || isWell is true && !_breakers.ContainsKey(subscriber.Id))
            return;
        var breaker = _breakers.GetOrAdd(subscriber.Id, _ => new Breaker(subscriber.Revision, Options, Time));
        if (breaker.Revision != subscriber.Revision)
            _breakers[subscriber.Id] = breaker = new Breaker(subscriber.Revision, Options, Time);
        if (breaker.Add(subscriber.Id, outcome, statusCode, isWell.Value) is not { } failing)
            return;
        _breakers.TryRemove(subscriber.Id, out _);
        // Its own process holds it from now on; the others, as soon as it is written.
        Break(subscriber.Id, new Broken(Epoch: null, ProbeAt: null));
        Write(new(CircuitChanges.Open(failing, Options.BreakDuration), subscriber, OperationalEventTypes.Failing, outcome, statusCode));
        metrics.CircuitOpened();
        Log.Opened(Logger, TypeId.Format(TypeId.Subscription, subscriber.Id), SnakeCase<AttemptOutcome>.Of(outcome), statusCode);
    }

    /// <summary>Reads which are open: at every sweep, and so after every change.</summary>
    public async Task RefreshAsync(NpgsqlDataSource pool, CancellationToken cancellationToken)
    {
        // What this process has seen and not written yet is not contradicted by what it reads.
        if (!_changes.IsEmpty)
            return;
        var (read, asked) = (new HashSet<Guid>(), Time.GetTimestamp());
        await using var command = pool.CreateCommand(CircuitChanges.All);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            var (id, epoch) = (reader.GetGuid(0), reader.GetInt64(1));
            read.Add(id);
            // Nor is a probe that this process took meanwhile.
            if (_broken.TryGetValue(id, out var known) && (known.Epoch == epoch || known.ProbingSince >= asked))
                continue;
            _breakers.TryRemove(id, out _);
            Break(id, new Broken(epoch, reader.IsDBNull(2) ? null : Later(TimeSpan.FromSeconds(reader.GetDouble(2)))));
        }
        if (!_changes.IsEmpty)
            return;
        foreach (var id in _broken.Keys.Where(id => !read.Contains(id)))
            Mend(id);
        _known.TrySetResult();
    }

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var disabledAt = Time.GetTimestamp();
        while (true)
        {
            await WriteAsync(stoppingToken);
            await ProbeAsync(stoppingToken);
            if (Time.GetElapsedTime(disabledAt) >= Shorter(s_disableInterval, Options.DisableAfter))
            {
                Forget();
                if (!_broken.IsEmpty)
                    await DisableAsync(stoppingToken);
                disabledAt = Time.GetTimestamp();
            }
            Recovered();
            await wakeups.Circuits.WaitAsync(_broken.IsEmpty ? s_disableInterval : s_look, stoppingToken);
        }
    }

    private static TimeSpan Shorter(TimeSpan a, TimeSpan b) => a < b ? a : b;

    /// <summary>
    /// What an attempt says of its receiver: that it takes what it is sent, or at least judges it; that it doesn't; or nothing, since
    /// nothing was sent.
    /// </summary>
    private static bool? IsWell(AttemptOutcome outcome, int? statusCode) => outcome switch
    {
        AttemptOutcome.Delivered => true,
        AttemptOutcome.RefusedByGuard or AttemptOutcome.InvalidRequest => null,
        AttemptOutcome.HttpStatus => statusCode is 400 or 409 or 410 or 413 or 415 or 422,
        _ => false,
    };

    private void Probed(Subscriber subscriber, Broken broken, long startedAt, AttemptOutcome outcome, int? statusCode)
    {
        // What was under way when it opened says nothing new. The probe is what began since it was let through, and there is one.
        if (broken is not { Epoch: { } epoch, ProbingSince: { } since } || startedAt < since)
            return;
        // Nothing was sent, so the next one that the lane lets through is the probe.
        if (IsWell(outcome, statusCode) is not { } isWell)
            return;
        var id = subscriber.Id;
        if (isWell)
        {
            Mend(id);
            // A receiver that says it is gone holds up nothing any more, and has not recovered.
            var isGone = statusCode == 410;
            Write(new(
                CircuitChanges.Close(id, epoch), subscriber, isGone ? null : OperationalEventTypes.Recovered, outcome, statusCode));
            if (!isGone)
                Log.Closed(Logger, TypeId.Format(TypeId.Subscription, id));
        }
        else
        {
            Break(id, new Broken(Epoch: null, ProbeAt: null));
            Write(new(
                CircuitChanges.Reopen(id, epoch, Options.BreakDuration, Options.MaxBreakDuration, outcome, statusCode), subscriber, null,
                outcome, statusCode));
        }
    }

    private void Break(Guid id, Broken broken)
    {
        _broken[id] = broken;
        lanes.Cap(id, 0);
        wakeups.Circuits.Set();
    }

    private void Mend(Guid id)
    {
        if (!_broken.TryRemove(id, out _))
            return;
        lanes.Cap(id, null);
        wakeups.Dispatch.Set();
    }

    private void Write(Change change)
    {
        _changes.Enqueue(change);
        wakeups.Circuits.Set();
    }

    private async Task WriteAsync(CancellationToken cancellationToken)
    {
        while (_changes.TryPeek(out var change))
        {
            await using (var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken))
            await using (var transaction = await connection.BeginTransactionAsync(cancellationToken))
            {
                await using var batch = new NpgsqlBatch(connection) { BatchCommands = { change.Command } };
                // A row says that it was as this process believed.
                var done = await batch.ExecuteScalarAsync(cancellationToken) is not null;
                if (done && change.Type is { } type)
                    await events.TellAsync(connection, change.Subscriber.TenantId, type, Data(change), cancellationToken);
                await transaction.CommitAsync(cancellationToken);
            }
            _changes.TryDequeue(out _);
            // What was written, or what stood in its way.
            wakeups.Sweep();
        }
    }

    /// <summary>Takes the probes whose time has come, of lanes in which something waits.</summary>
    private async Task ProbeAsync(CancellationToken cancellationToken)
    {
        var now = Time.GetTimestamp();
        var wanted = _broken.Where(b => b.Value is { Epoch: not null, ProbeAt: { } at } && at <= now && lanes.Waits(b.Key))
            .Select(b => (b.Key, b.Value.Epoch!.Value, PatienceWith(b.Key))).ToArray();
        if (wanted.Length == 0)
            return;
        await using var batch = dataSource.Pool.CreateBatch();
        batch.BatchCommands.Add(CircuitChanges.TakeProbes(wanted));
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
            {
                var id = reader.GetGuid(0);
                _broken[id] = new Broken(reader.GetInt64(1), Later(PatienceWith(id))) { ProbingSince = Time.GetTimestamp() };
                lanes.Cap(id, 1);
            }
        }
        // Those that somebody else took are seen, as they are now, in the sweep.
        wakeups.Sweep();
    }

    /// <summary>How long a probe may take: as an attempt to that subscription, or one that is slow would never be found well.</summary>
    private TimeSpan PatienceWith(Guid id) => options.Value.TimeoutOf(subscribers.Find(id)?.Retry) + DeliveryOptions.LeaseMargin;

    private async Task DisableAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var after = Options.DisableAfter;
        var disabled = new List<(Guid TenantId, Guid Id, string Url, DateTimeOffset FailingSince)>();
        await using (var batch = new NpgsqlBatch(connection) { BatchCommands = { CircuitChanges.DisableFailing(after) } })
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
            {
                disabled.Add((
                    reader.GetGuid(0), reader.GetGuid(1), reader.GetString(2), reader.GetFieldValue<DateTimeOffset>(3)));
            }
        }
        foreach (var (tenantId, id, url, since) in disabled)
        {
            await events.TellAsync(connection, tenantId, OperationalEventTypes.Disabled,
                new { subscriptionId = TypeId.Format(TypeId.Subscription, id), url, reason = "failing", failingSince = since },
                cancellationToken);
        }
        await transaction.CommitAsync(cancellationToken);
        foreach (var (_, id, _, since) in disabled)
            Log.Disabled(Logger, TypeId.Format(TypeId.Subscription, id), since);
        if (disabled.Count > 0)
            wakeups.Sweep();
    }

    private object Data(Change change) => new
    {
        subscriptionId = TypeId.Format(TypeId.Subscription, change.Subscriber.Id),
        url = change.Subscriber.Url,
        lastOutcome = SnakeCase<AttemptOutcome>.Of(change.Outcome),
        lastStatusCode = change.StatusCode,
        disabledAfterSeconds = change.Type == OperationalEventTypes.Failing ? Options.DisableAfter.TotalSeconds : (double?)null,
    };

    /// <summary>Who has not failed for long is well, and needs no watching.</summary>
    private void Forget()
    {
        foreach (var (id, breaker) in _breakers)
        {
            if (Time.GetElapsedTime(breaker.LastFailure) > Options.SamplingDuration && breaker.IsQuiet)
                _breakers.TryRemove(id, out _);
        }
    }

    private long Later(TimeSpan delay) => Time.GetTimestamp() + (long)(delay.TotalSeconds * Time.TimestampFrequency);

    /// <summary>What is to be written, and told if it was as this process believed.</summary>
    private sealed record Change(
        NpgsqlBatchCommand Command, Subscriber Subscriber, string? Type, AttemptOutcome Outcome, int? StatusCode);

    /// <summary>An open circuit.</summary>
    /// <param name="Epoch">As it was read; null while what this process saw of it is not written.</param>
    /// <param name="ProbeAt">Timestamp from when on a probe may be taken; null for never.</param>
    private sealed record Broken(long? Epoch, long? ProbeAt)
    {
        /// <summary>Timestamp since when this process may let one delivery through; null when it may not.</summary>
        public long? ProbingSince { get; init; }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning,
            Message = "{SubscriptionId} fails, and its deliveries are held; its last attempt ended {Outcome} ({StatusCode})")]
        public static partial void Opened(ILogger logger, string subscriptionId, string outcome, int? statusCode);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "{SubscriptionId} is well again, and gets what was held")]
        public static partial void Closed(ILogger logger, string subscriptionId);

        [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "{SubscriptionId} is disabled: every attempt since {Since} failed")]
        public static partial void Disabled(ILogger logger, string subscriptionId, DateTimeOffset since);
    }
}
