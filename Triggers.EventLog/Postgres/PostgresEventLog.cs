using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.EventLog.Idempotency;

namespace Triggers.EventLog.Postgres;

/// <summary>
/// The log whose records are the rows of <c>events</c>. Requests that arrive while a commit is under way share the next one: one
/// pipelined batch, one round trip, one flush to disk. Tenants have a queue each in front of it, served in turn; all are bounded, and so
/// is every caller's wait.
/// </summary>
public sealed partial class PostgresEventLog(NpgsqlDataSource dataSource, TimeProvider time, ILogger<PostgresEventLog> logger)
    : BackgroundService, IEventLog
{
    /// <summary>
    /// Bounds of one commit. A single request may exceed them, alone: so a small one that comes while a large one is under way waits for
    /// that, and not for a second large one in its own commit.
    /// </summary>
    private const int MaxGroupEvents = 1_000;
    private const long MaxGroupBytes = 1024 * 1024;

    private const string LogName = "postgres";

    private readonly TenantQueues<PendingAppend> _queues = new();
    // The table is the log: what is not in it now does not come any more when the time of its reservation is over. Of one that another
    // log was meant for nobody knows here: it may be in that log, and come when it is projected.
    private readonly RequestKeys _keys = new(
        dataSource, LogName, (_, holders, _) => Task.FromResult(holders.All(h => h.ReservedBy == LogName)), time, logger);

    /// <inheritdoc />
    public async Task<AppendResult> AppendAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken)
    {
        limit = limit.Less(RequestBudget.Answer);
        if (await EnqueueAsync(new PendingAppend(request, idsAreReserved: false), limit, cancellationToken) is { } result)
            return result;
        // A key is held by a process that appends to the other log, or that died over it: to be waited for, or taken over.
        return await _keys.AppendAsync(
            request, keyless => EnqueueAsync(new PendingAppend(keyless, idsAreReserved: true), limit, CancellationToken.None), limit)
            .WithinAsync(limit, time, cancellationToken);
    }

    /// <inheritdoc />
    public Task<AppendResult?> FindRepeatedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken) =>
        _keys.FindRepeatedAsync(request, limit.Less(RequestBudget.Answer)).WaitAsync(cancellationToken);

    /// <inheritdoc />
    public Task<IReadOnlySet<Guid>> FindAcceptedAsync(AppendRequest request, TimeLimit limit, CancellationToken cancellationToken) =>
        _keys.FindAcceptedAsync(request, limit.Less(RequestBudget.Answer)).WaitAsync(cancellationToken);

    /// <returns>Null when its keys have to be reserved.</returns>
    private async Task<AppendResult?> EnqueueAsync(PendingAppend pending, TimeLimit limit, CancellationToken cancellationToken)
    {
        Appends.EnsureTime(limit);
        _queues.Enqueue(pending.Request.TenantId, pending, pending.Bytes);
        try
        {
            return await pending.Ended.WaitAsync(limit.Left, time, cancellationToken);
        }
        catch (TimeoutException e)
        {
            // If the writer has not taken it yet it never will; if it has, it may still become durable, and a retry with the same
            // idempotency key or external id gets that answer.
            throw new EventLogUnavailableException("The event log did not answer in time.", e) { NothingWasKept = pending.TryAbandon() };
        }
        catch (OperationCanceledException)
        {
            pending.TryAbandon();
            throw;
        }
    }

    /// <inheritdoc />
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        Task.WhenAll(AppendInTurnAsync(), _keys.SettleAsync(stoppingToken));

    private async Task AppendInTurnAsync()
    {
        var group = new List<PendingAppend>();
        while (await _queues.WaitToReadAsync())
        {
            TakeGroup(group);
            if (group.Count == 0)
                continue;
            try
            {
                await AppendGroupAsync(group);
            }
            catch (Exception e)
            {
                Log.AppendFailed(logger, e, group.Count);
                if (Storage.IsRefusal(e) && group.Count > 1)
                    await AppendOneByOneAsync(group);
                else
                    FailAll(group, e);
            }
        }
    }

    /// <summary>Ends the loop once the last request has its answer: the server stops accepting before this is called.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _queues.Complete();
        _keys.Complete();
        if (ExecuteTask is { } loop)
            await loop.WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await base.StopAsync(cancellationToken);
    }

    private static void FailAll(List<PendingAppend> group, Exception e)
    {
        foreach (var pending in group)
        {
            // What Postgres refuses it has not committed; of a broken connection one can't know.
            pending.Fail(
                new EventLogUnavailableException("The event log is away.", e) { NothingWasKept = e is PostgresException });
        }
    }

    /// <summary>A group refused for its data: whoever is at fault fails alone.</summary>
    private async Task AppendOneByOneAsync(List<PendingAppend> group)
    {
        foreach (var pending in group)
        {
            try
            {
                await AppendGroupAsync([pending]);
            }
            catch (Exception e)
            {
                FailAll([pending], e);
            }
        }
    }

    private void TakeGroup(List<PendingAppend> group)
    {
        group.Clear();
        var events = 0;
        long bytes = 0;
        while (_queues.TryDequeue(
            next => group.Count == 0 || events + next.Request.Events.Count <= MaxGroupEvents && bytes + next.Bytes <= MaxGroupBytes,
            out var next))
        {
            if (!next.TryTake())
                continue;
            group.Add(next);
            events += next.Request.Events.Count;
            bytes += next.Bytes;
        }
    }

    private async Task AppendGroupAsync(List<PendingAppend> group)
    {
        using var timeout = new CancellationTokenSource(RequestBudget.Commit, time);
        await using var connection = await dataSource.OpenConnectionAsync(timeout.Token);
        foreach (var pending in group)
            pending.Number();
        var items = new Items(group);

        var inserted = items.Count;
        HashSet<Guid>? insertedIds = null;
        // One batch is one implicit transaction: it commits at its end or not at all.
        await using (var batch = new NpgsqlBatch(connection))
        {
            batch.BatchCommands.Add(new NpgsqlBatchCommand(
                $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Append})"));
            if (items.Keys.Count == 0)
            {
                batch.BatchCommands.Add(items.AddTo(new NpgsqlBatchCommand(InsertSql)));
            }
            else
            {
                batch.BatchCommands.Add(items.AddTo(items.Keys.AddTo(new NpgsqlBatchCommand(InsertWithKeysSql))));
                if (items.HasBothKinds)
                    batch.BatchCommands.Add(items.AddIdsTo(items.Keys.AddTo(new NpgsqlBatchCommand(ForgetLosersSql))));
            }
            batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Events}', @payload)")
            {
                Parameters = { new(
                    "payload", Notifications.TenantsOf(group.Where(p => p.Request.Events.Count > 0).Select(p => p.Request.TenantId))) },
            });

            await using var reader = await batch.ExecuteReaderAsync(timeout.Token);
            if (items.Keys.Count > 0)
            {
                await reader.NextResultAsync(timeout.Token);
                insertedIds = [];
                while (await reader.ReadAsync(timeout.Token))
                    insertedIds.Add(reader.GetGuid(0));
                inserted = insertedIds.Count;
            }
            while (await reader.NextResultAsync(timeout.Token))
            {
            }
        }

        // It is durable now: whatever happens below, these have their answer.
        var open = new List<PendingAppend>();
        foreach (var pending in group)
        {
            if (insertedIds is null || pending.Request.Events.Count > 0 && pending.Request.Events.All(e => insertedIds.Contains(e.Id)))
                pending.End(Appended(pending.Request), isAlone: group.Count == 1);
            else
                open.Add(pending);
        }
        if (open.Count == 0)
            return;
        try
        {
            // Read after the commit, so it is what will stay.
            var holders = await RequestKeys.ReadHoldersAsync(
                connection, [.. open.SelectMany(p => KeyId.AllOf(p.Request)).Distinct()], timeout.Token);
            foreach (var pending in open)
                pending.End(Answer(pending.Request, insertedIds!, holders), isAlone: group.Count == 1);
        }
        catch (Exception e)
        {
            // Some of them may be durable. Nothing is appended again: repetitions get their answers.
            Log.AppendFailed(logger, e, open.Count);
            foreach (var pending in open)
                pending.Fail(new EventLogUnavailableException("The event log is away.", e));
        }
    }

    private static AppendResult Appended(AppendRequest request) => new(
        AppendOutcome.Appended, request.CorrelationId,
        [.. request.Events.Select(e => new AppendedEvent(e.Id, AppendedEventOutcome.Appended, request.CorrelationId))]);

    /// <summary>
    /// Null: a reservation is in the way, or one was and is gone. An idempotency key without a row was this request's, and has been
    /// forgotten with the events that it lost.
    /// </summary>
    private static AppendResult? Answer(AppendRequest request, HashSet<Guid> insertedIds, Dictionary<KeyId, Holder> holders) =>
        Decision.Decide(request, RequestKeys.WithOwnKey(request, holders)) is Decision.Answer answer
            && answer.ToAppend.All(e => insertedIds.Contains(e.Id))
            ? answer.Result
            : null;

    private static readonly string InsertSql = StoredEvents.Append(
        $"""
        SELECT {StoredEvents.Columns}
        FROM unnest(@tenants, @ids, @externalIds, @types, @sources, @subjects, @times, @correlationIds, @traceParents, @data, @due,
                @expiries, @attributes)
            WITH ORDINALITY AS i ({StoredEvents.Columns}, ord)
        ORDER BY ord
        """) + " ON CONFLICT DO NOTHING";

    /// <summary>
    /// An event goes in if its request won the idempotency key and it won its own external id. A key that expired is free again.
    /// Doubles inside the group are folded to the first, since one statement can't update a row it has just inserted.
    /// </summary>
    private static readonly string InsertWithKeysSql =
        $"""
        WITH won AS (
            INSERT INTO request_keys AS k (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, expires_at)
            SELECT DISTINCT ON (tenant_id, kind, key_hash) tenant_id, kind, key_hash, fingerprint, event_id, correlation_id,
                CASE kind WHEN 0 THEN now() + interval '24 hours' ELSE 'infinity' END
            FROM unnest(@keyTenants, @keyKinds, @keyHashes, @keyFingerprints, @keyEvents, @keyCorrelationIds)
                WITH ORDINALITY AS u (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, ord)
            ORDER BY tenant_id, kind, key_hash, ord
            ON CONFLICT (tenant_id, kind, key_hash) DO UPDATE SET fingerprint = excluded.fingerprint, event_id = excluded.event_id,
                correlation_id = excluded.correlation_id, created_at = now(), busy_until = NULL, expires_at = excluded.expires_at
                WHERE k.expires_at <= now()
            RETURNING tenant_id, kind, key_hash, event_id
        ),
        inserted AS (
            {StoredEvents.Append($"""
                SELECT {StoredEvents.Columns}
                FROM unnest(@tenants, @ids, @externalIds, @types, @sources, @subjects, @times, @correlationIds, @traceParents, @data, @due,
                        @expiries, @attributes, @firstIds, @idempotencyHashes, @externalHashes)
                    WITH ORDINALITY AS i ({StoredEvents.Columns}, first_id, idempotency_hash, external_hash, ord)
                WHERE (idempotency_hash IS NULL OR EXISTS (SELECT FROM won w WHERE w.tenant_id = i.tenant_id AND w.kind = 0
                        AND w.key_hash = i.idempotency_hash AND w.event_id = i.first_id))
                    AND (external_hash IS NULL OR EXISTS (SELECT FROM won w WHERE w.tenant_id = i.tenant_id AND w.kind = 1
                        AND w.key_hash = i.external_hash AND w.event_id = i.id))
                ORDER BY ord
                """)}
            RETURNING id
        )
        SELECT id FROM inserted
        """;

    /// <summary>A request may win one key and lose the other: what it won without any event going in is free again.</summary>
    private const string ForgetLosersSql =
        """
        DELETE FROM request_keys k
        USING unnest(@keyTenants, @keyKinds, @keyHashes, @keyEvents) AS u (tenant_id, kind, key_hash, event_id)
        WHERE k.tenant_id = u.tenant_id AND k.kind = u.kind AND k.key_hash = u.key_hash AND k.event_id = u.event_id
            AND NOT EXISTS (
                SELECT FROM unnest(@tenants, @ids, @firstIds) AS i (tenant_id, id, first_id)
                JOIN events e ON e.tenant_id = i.tenant_id AND e.id = i.id
                WHERE i.tenant_id = k.tenant_id AND CASE k.kind WHEN 0 THEN i.first_id ELSE i.id END = k.event_id)
        """;

    private sealed class PendingAppend(AppendRequest request, bool idsAreReserved) : PendingRequest(request)
    {
        // Whoever waits for it goes on in the thread that ends it.
        private readonly TaskCompletionSource<AppendResult?> _ended = new();

        public Task<AppendResult?> Ended => _ended.Task;

        /// <summary>One that is alone is answered by this thread, so that none is woken for it.</summary>
        public void End(AppendResult? result, bool isAlone)
        {
            if (isAlone)
                _ended.TrySetResult(result);
            else
                ThreadPool.UnsafeQueueUserWorkItem(_ => _ended.TrySetResult(result), null);
        }

        public void Fail(Exception e) => ThreadPool.UnsafeQueueUserWorkItem(_ => _ended.TrySetException(e), null);

        /// <summary>
        /// Gives it ids of now, however long it waited for its turn: so the order of ids is that of commits, but for what is under way at
        /// the same moment.
        /// </summary>
        public void Number()
        {
            if (!idsAreReserved)
                Request = Request.Under(TypeId.NewGuid(), Request.CorrelationId);
        }
    }

    /// <summary>The keys of a group as columns.</summary>
    private sealed class Keys
    {
        private readonly List<Guid> _tenants = [], _events = [];
        private readonly List<short> _kinds = [];
        private readonly List<byte[]> _hashes = [], _fingerprints = [];
        private readonly List<string> _correlationIds = [];

        public int Count => _tenants.Count;

        public void Add(AppendRequest request, short kind, RequestKey key, Guid eventId)
        {
            _tenants.Add(request.TenantId);
            _kinds.Add(kind);
            _hashes.Add(key.KeyHash);
            _fingerprints.Add(key.Fingerprint);
            _events.Add(eventId);
            _correlationIds.Add(request.CorrelationId);
        }

        public NpgsqlBatchCommand AddTo(NpgsqlBatchCommand command)
        {
            var parameters = command.Parameters;
            parameters.Add(RequestKeys.Column("keyTenants", NpgsqlDbType.Uuid, _tenants.ToArray()));
            parameters.Add(RequestKeys.Column("keyKinds", NpgsqlDbType.Smallint, _kinds.ToArray()));
            parameters.Add(RequestKeys.Column("keyHashes", NpgsqlDbType.Bytea, _hashes.ToArray()));
            parameters.Add(RequestKeys.Column("keyFingerprints", NpgsqlDbType.Bytea, _fingerprints.ToArray()));
            parameters.Add(RequestKeys.Column("keyEvents", NpgsqlDbType.Uuid, _events.ToArray()));
            parameters.Add(RequestKeys.Column("keyCorrelationIds", NpgsqlDbType.Text, _correlationIds.ToArray()));
            return command;
        }
    }

    /// <summary>The events of a group as columns.</summary>
    private sealed class Items
    {
        private readonly Guid[] _tenants, _ids, _firstIds;
        private readonly string[] _types, _correlationIds;
        private readonly string?[] _externalIds, _sources, _subjects, _traceParents, _attributes;
        private readonly DateTime?[] _times, _due, _expiries;
        private readonly ReadOnlyMemory<byte>[] _data;
        private readonly byte[]?[] _idempotencyHashes, _externalHashes;

        public Items(List<PendingAppend> group)
        {
            Count = group.Sum(p => p.Request.Events.Count);
            _tenants = new Guid[Count];
            _ids = new Guid[Count];
            _firstIds = new Guid[Count];
            _types = new string[Count];
            _correlationIds = new string[Count];
            _externalIds = new string?[Count];
            _sources = new string?[Count];
            _subjects = new string?[Count];
            _traceParents = new string?[Count];
            _attributes = new string?[Count];
            _times = new DateTime?[Count];
            _due = new DateTime?[Count];
            _expiries = new DateTime?[Count];
            _data = new ReadOnlyMemory<byte>[Count];
            _idempotencyHashes = new byte[]?[Count];
            _externalHashes = new byte[]?[Count];

            var n = 0;
            foreach (var request in group.Select(p => p.Request))
            {
                if (request.IdempotencyKey is { } key)
                    Keys.Add(request, 0, key, request.FirstId);
                foreach (var e in request.Events)
                {
                    if (e.ExternalKey is { } external)
                    {
                        Keys.Add(request, 1, external, e.Id);
                        HasBothKinds |= request.IdempotencyKey is not null;
                    }
                    _tenants[n] = request.TenantId;
                    _ids[n] = e.Id;
                    _firstIds[n] = request.FirstId;
                    _types[n] = e.Type;
                    _correlationIds[n] = request.CorrelationId;
                    _externalIds[n] = e.ExternalId;
                    _sources[n] = e.Source;
                    _subjects[n] = e.Subject;
                    _traceParents[n] = e.TraceParent ?? request.TraceParent;
                    _times[n] = e.Time?.UtcDateTime;
                    _due[n] = e.DeliverAt?.UtcDateTime;
                    _expiries[n] = e.ExpiresAt?.UtcDateTime;
                    _data[n] = e.Data;
                    _attributes[n] = e.Attributes?.ToJson();
                    _idempotencyHashes[n] = request.IdempotencyKey?.KeyHash;
                    _externalHashes[n] = e.ExternalKey?.KeyHash;
                    n++;
                }
            }
        }

        public int Count { get; }

        public Keys Keys { get; } = new();

        public bool HasBothKinds { get; }

        public NpgsqlBatchCommand AddTo(NpgsqlBatchCommand command)
        {
            command.Parameters.Add(RequestKeys.Column("tenants", NpgsqlDbType.Uuid, _tenants));
            command.Parameters.Add(RequestKeys.Column("ids", NpgsqlDbType.Uuid, _ids));
            command.Parameters.Add(RequestKeys.Column("externalIds", NpgsqlDbType.Text, _externalIds));
            command.Parameters.Add(RequestKeys.Column("types", NpgsqlDbType.Text, _types));
            command.Parameters.Add(RequestKeys.Column("sources", NpgsqlDbType.Text, _sources));
            command.Parameters.Add(RequestKeys.Column("subjects", NpgsqlDbType.Text, _subjects));
            command.Parameters.Add(RequestKeys.Column("times", NpgsqlDbType.TimestampTz, _times));
            command.Parameters.Add(RequestKeys.Column("correlationIds", NpgsqlDbType.Text, _correlationIds));
            command.Parameters.Add(RequestKeys.Column("traceParents", NpgsqlDbType.Text, _traceParents));
            command.Parameters.Add(RequestKeys.Column("data", NpgsqlDbType.Bytea, _data));
            command.Parameters.Add(RequestKeys.Column("due", NpgsqlDbType.TimestampTz, _due));
            command.Parameters.Add(RequestKeys.Column("expiries", NpgsqlDbType.TimestampTz, _expiries));
            command.Parameters.Add(RequestKeys.Column("attributes", NpgsqlDbType.Text, _attributes));
            command.Parameters.Add(RequestKeys.Column("firstIds", NpgsqlDbType.Uuid, _firstIds));
            command.Parameters.Add(RequestKeys.Column("idempotencyHashes", NpgsqlDbType.Bytea, _idempotencyHashes));
            command.Parameters.Add(RequestKeys.Column("externalHashes", NpgsqlDbType.Bytea, _externalHashes));
            return command;
        }

        public NpgsqlBatchCommand AddIdsTo(NpgsqlBatchCommand command)
        {
            command.Parameters.Add(RequestKeys.Column("tenants", NpgsqlDbType.Uuid, _tenants));
            command.Parameters.Add(RequestKeys.Column("ids", NpgsqlDbType.Uuid, _ids));
            command.Parameters.Add(RequestKeys.Column("firstIds", NpgsqlDbType.Uuid, _firstIds));
            return command;
        }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "An append of {Requests} requests failed; they are answered 503")]
        public static partial void AppendFailed(ILogger logger, Exception exception, int requests);
    }
}
