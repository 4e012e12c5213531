using System.Collections.Concurrent;
using System.Threading.Channels;
using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;

namespace Triggers.Delivery.Completion;

/// <summary>What became of a claimed delivery, to be written down.</summary>
/// <param name="Result">What happens to the delivery.</param>
/// <param name="StartedAt">When the attempt began, a timestamp of the TimeProvider.</param>
internal sealed record Completed(DeliveryResult Result, long StartedAt)
{
    /// <summary>
    /// What became of the others of the same request, written in the same transaction: else the next in order could overtake them. Null:
    /// there are none.
    /// </summary>
    public IReadOnlyList<Completed>? Others { get; init; }
}

/// <summary>Deliveries that ended the same way.</summary>
/// <param name="Status">Their state; pending for what a changed subscription sent back.</param>
/// <param name="Reason">Of dead letters.</param>
/// <param name="Count">How many.</param>
internal sealed record Ended(string Status, string? Reason, long Count);

/// <summary>
/// Writes what became of deliveries, many in one statement: nobody waits for it, so that results wait a moment for each other. While
/// Postgres is away they wait here; a full buffer stops the claiming.
/// </summary>
internal sealed partial class Completions(
    EngineDataSource dataSource, Lanes lanes, Wakeups wakeups, DeliveryMetrics metrics, TimeProvider time, ILogger<Completions> logger)
        : BackgroundService
{
    private const int Capacity = 4_096;
    private const int MaxBatch = 500;
    private static readonly TimeSpan s_gather = TimeSpan.FromMilliseconds(25);
    private static readonly string Pending = SnakeCase<DeliveryStatus>.Of(DeliveryStatus.Pending);

    private readonly Channel<Completed> _queue =
        Channel.CreateBounded<Completed>(new BoundedChannelOptions(Capacity) { SingleReader = true });

    private readonly Signal _hurry = new();

    /// <summary>What this process works on, by delivery and claim, until its result is written or given up.</summary>
    private readonly ConcurrentDictionary<(Guid Id, int Claim), byte> _held = [];

    /// <summary>Whether to claim no more for now.</summary>
    public bool IsFull => _queue.Reader.Count >= Capacity / 2;

    /// <summary>Which of what is claimed in the name of this process nobody works on.</summary>
    public List<(Guid Id, int Claim)> NotHeld(List<(Guid Id, int Claim)> claimed) => claimed.FindAll(c => !_held.ContainsKey(c));

    /// <summary>A delivery is worked on.</summary>
    public void Hold(Guid id, int claim) => _held[(id, claim)] = 0;

    /// <summary>It is no longer, and has no result to be written.</summary>
    public void Forget(Guid id, int claim) => _held.TryRemove((id, claim), out _);

    /// <summary>The same, of one with a result.</summary>
    public void Forget(Completed completed) => Forget(completed.Result.Id, completed.Result.Claim);

    /// <summary>Takes it, when there is room.</summary>
    /// <param name="completed">What became of it.</param>
    /// <param name="first">Where it belongs if its delivery is not written yet.</param>
    public async ValueTask AddAsync(Completed completed, FirstAttempts? first = null)
    {
        if (first is not null && first.TryAdd(completed))
            return;
        if (first is not null && !await first.Written)
        {
            Forget(completed);
            return;
        }
        await _queue.Writer.WriteAsync(completed);
        // What is due again sooner is not kept back, nor what others wait for in order.
        if (_queue.Reader.Count >= MaxBatch || (completed.Result.Status == DeliveryStatus.Pending
            ? completed.Result is { JoinsOrderAt: null } && completed.Result.Delay < s_gather : completed.Result.OrderKey is not null))
            _hurry.Set();
    }

    /// <summary>The statements that write results, the last of a transaction to touch these deliveries.</summary>
    /// <param name="results">Of different deliveries. <see cref="Settle"/> is to follow.</param>
    public IEnumerable<NpgsqlBatchCommand> Write(List<Completed> results)
    {
        // What comes after it in order is sent only when nothing can take it back.
        if (!results.Exists(c => c.Result.Status == DeliveryStatus.DeadLettered || c.Result.OrderKey is not null))
            yield return DeliveryResults.CommitBeforeOnDisk();
        if (results.Count == 0)
            yield break;
        // In the order in which everybody locks rows, so that two who write about the same deliveries don't wait for each other in a
        // circle.
        results.Sort((a, b) =>
            a.Result.TenantId.CompareTo(b.Result.TenantId) is var byTenant and not 0 ? byTenant : a.Result.Id.CompareTo(b.Result.Id));
        foreach (var command in DeliveryResults.ApplyUnsettled(results.ConvertAll(WithAge)))
            yield return command;
    }

    /// <summary>The last statements of the transaction, when it has made all the deliveries that it makes.</summary>
    /// <param name="results">Those that were written.</param>
    public static IEnumerable<NpgsqlBatchCommand> Settle(List<Completed> results) =>
        DeliveryResults.Settle(results.ConvertAll(c => c.Result));

    /// <summary>Reads what these statements say has ended, and of which lanes the next in order became due.</summary>
    public static async Task<(List<Ended> Ended, List<Guid> Due)> ReadAsync(NpgsqlBatch commands, CancellationToken cancellationToken)
    {
        var (ended, due) = (new List<Ended>(), new List<Guid>());
        await using var reader = await commands.ExecuteReaderAsync(cancellationToken);
        do
        {
            while (reader.FieldCount == 1 && reader.GetName(0) == "due_lane" && await reader.ReadAsync(cancellationToken))
                due.Add(reader.GetGuid(0));
            while (reader.FieldCount == 3 && await reader.ReadAsync(cancellationToken))
                ended.Add(new Ended(reader.GetString(0), reader.IsDBNull(1) ? null : reader.GetString(1), reader.GetInt64(2)));
        }
        while (await reader.NextResultAsync(cancellationToken));
        return (ended, due);
    }

    /// <summary>Tells who has to know that results are written.</summary>
    public void Written(List<Completed> results, List<Ended> ended)
    {
        results.ForEach(Forget);
        var stale = ended.Exists(e => e.Status == Pending);
        foreach (var (status, reason, count) in ended.Where(e => e.Status != Pending))
        {
            metrics.Finished(status, count);
            if (reason is not null)
                metrics.DeadLettered(reason, count);
        }
        if (ended.Exists(e => e.Reason is not null))
            wakeups.DeadLetters.Set();

        // Only now: a claim made before the row says so would find nothing, and the lane would wait for the sweep.
        foreach (var again in results.Where(c => c.Result is { Status: DeliveryStatus.Pending, HoldsKey: false }))
            lanes.DueIn(again.Result.SubscriptionId, again.Result.Delay);
        if (stale)
            wakeups.Sweep();
        else
            wakeups.Dispatch.Set();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        // Not the host's token: what has been attempted is written, also when the host is stopping. StopAsync ends the loop.
        var batch = new List<Completed>();
        while (await _queue.Reader.WaitToReadAsync(CancellationToken.None))
        {
            await _hurry.WaitAsync(_queue.Reader.Count >= MaxBatch ? TimeSpan.Zero : s_gather, CancellationToken.None);
            Take(batch);
            await WriteUntilDoneAsync(batch, stoppingToken);
        }
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _queue.Writer.TryComplete();
        _hurry.Set();
        if (ExecuteTask is { } loop)
            await loop.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await base.StopAsync(cancellationToken);
    }

    /// <summary>A delivery may be in the queue twice, under two claims; one statement must not update a row twice.</summary>
    private void Take(List<Completed> batch)
    {
        batch.Clear();
        var ids = new HashSet<Guid>();
        while (batch.Count < MaxBatch && _queue.Reader.TryPeek(out var next) && ids.Add(next.Result.Id)
            && (next.Others is null || next.Others.All(other => ids.Add(other.Result.Id))))
        {
            _queue.Reader.TryRead(out _);
            batch.Add(next);
            if (next.Others is { } others)
                batch.AddRange(others);
        }
    }

    private async Task WriteUntilDoneAsync(List<Completed> batch, CancellationToken stoppingToken)
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                await WriteAsync(batch);
                return;
            }
            catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.DeadlockDetected or PostgresErrorCodes.SerializationFailure)
            {
            }
            catch (Exception e) when (Storage.IsRefusal(e))
            {
                dataSource.Refused();
                // One of them can't be written. Alone it harms nobody else: its lease brings it back.
                Log.Refused(logger, e, batch.Count);
                if (batch.Count == 1)
                {
                    Forget(batch[0]);
                    return;
                }
                foreach (var completion in batch)
                    await WriteUntilDoneAsync([completion], stoppingToken);
                return;
            }
            catch (Exception e) when (Storage.IsAway(e))
            {
                if (tries == 0)
                    Log.Away(logger, e, batch.Count);
                // On the way out there is no waiting for Postgres to come back: the leases do.
                if (stoppingToken.IsCancellationRequested && tries > 3)
                    return;
                await Task.Delay(TimeSpan.FromMilliseconds(250), time, CancellationToken.None);
            }
        }
    }

    private async Task WriteAsync(List<Completed> batch)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync();
        await using var commands = new NpgsqlBatch(connection);
        foreach (var command in Write(batch).Concat(Settle(batch)))
            commands.BatchCommands.Add(command);
        var (ended, due) = await ReadAsync(commands, CancellationToken.None);
        due.ForEach(lane => lanes.DueIn(lane, TimeSpan.Zero));
        Written(batch, ended);
    }

    private DeliveryResult WithAge(Completed completed) => completed.Result.Attempt is { } attempt
        ? completed.Result with { Attempt = attempt with { Age = time.GetElapsedTime(completed.StartedAt) } }
        : completed.Result;

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Postgres is away; {Completions} results wait to be written")]
        public static partial void Away(ILogger logger, Exception exception, int completions);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Postgres refused {Completions} results; each is written alone")]
        public static partial void Refused(ILogger logger, Exception exception, int completions);
    }
}
