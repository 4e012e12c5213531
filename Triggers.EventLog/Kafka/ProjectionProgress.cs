using Confluent.Kafka;
using Confluent.Kafka.Admin;
using Npgsql;
using Triggers.Core;

namespace Triggers.EventLog.Kafka;

/// <summary>
/// On the Kafka log an accepted event can be read when the projection has stored it. Whoever asks for one that is not there waits here:
/// until it is, or until the projection has passed everything that was in the log when they asked, and it is certain that there is no
/// such event. One question to Postgres every 20 ms serves all who wait.
/// </summary>
public sealed class ProjectionProgress(IAdminClient admin, KafkaTopics topics, NpgsqlDataSource dataSource, TimeProvider time)
{
    private const int MaxWaiters = 1_000;
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(20);

    private readonly Lock _lock = new();
    private readonly List<Waiter> _waiters = [];
    private bool _looking;

    /// <summary>Waits for events that are accepted and not stored yet.</summary>
    /// <returns>Whether what is not there now does not exist; false when that could not be found out in time.</returns>
    public Task<bool> WaitForAsync(Guid tenantId, IEnumerable<Guid> ids, TimeLimit limit, CancellationToken cancellationToken) =>
        WaitAsync(new Waiter { TenantId = tenantId, Ids = [.. ids] }, limit, cancellationToken);

    /// <summary>Waits until everything is stored that was accepted by a moment, as far as it is in the log by now.</summary>
    /// <returns>False when that takes too long.</returns>
    public Task<bool> WaitForAsync(DateTimeOffset moment, TimeLimit limit, CancellationToken cancellationToken) =>
        WaitAsync(new Waiter { Moment = moment }, limit, cancellationToken);

    /// <summary>
    /// The moment up to which everything that was accepted is stored, whatever the projection still has before it.
    /// </summary>
    public async Task<DateTimeOffset> ReadStoredUntilAsync()
    {
        var now = time.GetUtcNow();
        var end = await ReadLogEndAsync();
        var positions = await ReadPositionsAsync();
        return end.Min(partition =>
        {
            var (next, passedAt) = positions.GetValueOrDefault(partition.Key);
            return next >= partition.Value ? now - RequestBudget.IdToKafka
                : passedAt - RequestBudget.IdToKafka - RequestBudget.Clocks ?? DateTimeOffset.UnixEpoch;
        });
    }

    private async Task<bool> WaitAsync(Waiter waiter, TimeLimit limit, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_waiters.Count >= MaxWaiters)
                return false;
            _waiters.Add(waiter);
            if (!_looking)
            {
                _looking = true;
                _ = LookWhileSomebodyWaitsAsync();
            }
        }
        try
        {
            await waiter.Done.Task.WaitAsync(limit.Left, time, cancellationToken);
            return true;
        }
        catch (TimeoutException)
        {
            return false;
        }
        finally
        {
            lock (_lock)
                _waiters.Remove(waiter);
        }
    }

    private async Task LookWhileSomebodyWaitsAsync()
    {
        while (true)
        {
            List<Waiter> waiting;
            lock (_lock)
            {
                if (_waiters.Count == 0)
                {
                    _looking = false;
                    return;
                }
                waiting = [.. _waiters];
            }
            try
            {
                await LookAsync(waiting);
            }
            catch (Exception e) when (e is KafkaException || Storage.IsAway(e))
            {
                // Who waits is told to come again when their time is over.
            }
            catch (Exception e)
            {
                // A mistake of ours: those who wait now get to know, and whoever comes later is looked for again.
                foreach (var waiter in waiting)
                    waiter.Done.TrySetException(e);
            }
            await Task.Delay(s_pause, time);
        }
    }

    private async Task LookAsync(List<Waiter> waiting)
    {
        var stored = await ReadStoredAsync(waiting);
        foreach (var waiter in waiting.Where(w => w.Moment is null && w.Ids.All(id => stored.Contains((w.TenantId, id)))))
            waiter.Done.TrySetResult();
        waiting.RemoveAll(w => w.Done.Task.IsCompleted);
        if (waiting.Count == 0)
            return;

        if (waiting.Exists(w => w.LogEnd is null))
        {
            var end = await ReadLogEndAsync();
            foreach (var waiter in waiting)
                waiter.LogEnd ??= end;
        }
        // The positions are read after the end: what is passed then was stored before who waits looks again.
        var positions = await ReadPositionsAsync();
        foreach (var waiter in waiting.Where(w => w.LogEnd!.All(end => end.Value == 0 || positions.TryGetValue(end.Key, out var at)
            && (at.Next >= end.Value || w.Moment is { } moment && at.PassedAt > moment + RequestBudget.IdToKafka + RequestBudget.Clocks))))
            waiter.Done.TrySetResult();
    }

    private async Task<HashSet<(Guid Tenant, Guid Id)>> ReadStoredAsync(List<Waiter> waiting)
    {
        await using var command = dataSource.CreateCommand(
            "SELECT tenant_id, id FROM events WHERE (tenant_id, id) IN (SELECT * FROM unnest(@tenants, @ids))");
        var wanted = waiting.SelectMany(w => w.Ids.Select(id => (w.TenantId, Id: id))).ToList();
        command.Parameters.AddWithValue("tenants", wanted.ConvertAll(w => w.TenantId));
        command.Parameters.AddWithValue("ids", wanted.ConvertAll(w => w.Id));
        await using var reader = await command.ExecuteReaderAsync();
        var stored = new HashSet<(Guid, Guid)>();
        while (await reader.ReadAsync())
            stored.Add((reader.GetGuid(0), reader.GetGuid(1)));
        return stored;
    }

    private async Task<Dictionary<int, long>> ReadLogEndAsync()
    {
        var log = await topics.Ready;
        var asked = Enumerable.Range(0, log.Partitions)
            .Select(
                p => new TopicPartitionOffsetSpec { TopicPartition = new TopicPartition(log.Topic, p), OffsetSpec = OffsetSpec.Latest() });
        var answer = await admin.ListOffsetsAsync(asked, new ListOffsetsOptions { RequestTimeout = RequestBudget.Offsets });
        var ends = answer.ResultInfos.ConvertAll(r => r.TopicPartitionOffsetError);
        // A broker that hangs: without the end of every partition nobody can say that something does not exist.
        if (ends.Count != log.Partitions || ends.Exists(end => end.Error.IsError || end.Offset < 0))
            throw new KafkaException(ErrorCode.Local_Partial);
        return ends.ToDictionary(end => end.Partition.Value, end => end.Offset.Value);
    }

    private async Task<Dictionary<int, (long Next, DateTimeOffset? PassedAt)>> ReadPositionsAsync()
    {
        await using var command = dataSource.CreateCommand("SELECT partition, next, passed_at FROM log_positions WHERE log = @log");
        command.Parameters.AddWithValue("log", (await topics.Ready).Log);
        await using var reader = await command.ExecuteReaderAsync();
        var positions = new Dictionary<int, (long, DateTimeOffset?)>();
        while (await reader.ReadAsync())
            positions.Add(reader.GetInt32(0), (reader.GetInt64(1), reader.IsDBNull(2) ? null : reader.GetFieldValue<DateTimeOffset>(2)));
        return positions;
    }

    private sealed class Waiter
    {
        public Guid TenantId { get; init; }

        public Guid[] Ids { get; init; } = [];

        /// <summary>Waits for no event, but for all that were accepted by then.</summary>
        public DateTimeOffset? Moment { get; init; }

        /// <summary>The next offset of each partition at a moment after they asked.</summary>
        public Dictionary<int, long>? LogEnd { get; set; }

        public TaskCompletionSource Done { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
