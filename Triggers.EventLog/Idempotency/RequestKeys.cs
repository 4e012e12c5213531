using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;

namespace Triggers.EventLog.Idempotency;

/// <summary>
/// Idempotency keys and external ids: who came first, and with what. Both logs share the table, and <see cref="Decision"/>. The Postgres
/// log writes its rows in the append itself; where the append can't be in the same transaction, a request first reserves its keys here,
/// for a time longer than an append may take, and settles them after it. A reservation that its owner did not live to settle is resolved
/// by whoever finds it: what is not in the log is free again, whoever wants it.
/// </summary>
/// <param name="dataSource">Where the table is.</param>
/// <param name="log">The log's name, as in <c>request_keys.reserved_by</c>.</param>
/// <param name="isVisible">
/// Waits until the events of a tenant that dead owners had reserved are in the table <c>events</c>, or it is certain that they are in no
/// log; false when that can't be known, or took too long.
/// </param>
/// <param name="time">The clock.</param>
/// <param name="logger">The log's.</param>
internal sealed partial class RequestKeys(
    NpgsqlDataSource dataSource, string log, Func<Guid, IReadOnlyCollection<Holder>, TimeLimit, Task<bool>> isVisible,
    TimeProvider time, ILogger logger)
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    /// <summary>The most events of one request.</summary>
    private const int MaxEvents = 1_000;

    private const int MaxSettled = 500;

    private readonly Channel<(Held Key, bool Settle)> _ended =
        Channel.CreateUnbounded<(Held, bool)>(new UnboundedChannelOptions { SingleReader = true });

    /// <summary>A key that a request holds, and whether the id is its own, and not that of an owner who died.</summary>
    private readonly record struct Held(KeyId Key, Guid EventId, bool IsOwn);

    /// <summary>
    /// Reserves the keys of a request, and appends what they let in. Waits a moment for a request that runs with the same ones.
    /// </summary>
    /// <param name="request">With at least one key.</param>
    /// <param name="append">Appends events, under the ids they are given with. Called once at most.</param>
    /// <param name="limit">When it has to be answered. An append that has begun goes on.</param>
    /// <exception cref="EventLogUnavailableException">The time is over, or the database or the log is away.</exception>
    public async Task<AppendResult> AppendAsync(AppendRequest request, Func<AppendRequest, Task> append, TimeLimit limit)
    {
        var held = new List<Held>();
        // Of the keys of dead owners, whether it was found out what they left in the log.
        var resolved = new Dictionary<KeyId, bool>();
        for (var pause = TimeSpan.FromMilliseconds(10); ; pause *= 2)
        {
            Decision decision;
            try
            {
                (request, var holders) = await ReserveAsync(request, resolved.Keys, held, limit);
                // Such a key stands for a request of which something is in the log.
                foreach (var key in resolved.Where(r => r.Value).Select(r => r.Key))
                {
                    if (holders.GetValueOrDefault(key) is { State: HolderState.Abandoned } holder)
                        holders[key] = holder with { State = HolderState.Settled };
                }
                decision = Decision.Decide(request, holders);
            }
            catch (EventLogUnavailableException)
            {
                GiveUp(held);
                throw;
            }
            if (decision is Decision.Answer answer)
                return await AppendAsync(request, answer, held, append, limit);

            // Nobody is to wait for this request while it waits itself.
            await ChangeAsync(Free, held.FindAll(h => h.IsOwn), limit);
            held.RemoveAll(h => h.IsOwn);
            if (decision is Decision.Resolve resolve && resolve.Keys.Any(k => !resolved.ContainsKey(k)))
            {
                var found = await ResolveAsync(request, resolve.Keys, limit);
                foreach (var key in resolve.Keys)
                    resolved[key] = found;
            }
            else if (limit.Left < pause + RequestBudget.AfterWait)
            {
                return new AppendResult(AppendOutcome.InProgress, request.CorrelationId, []);
            }
            else
            {
                await Task.Delay(pause, time);
            }
        }
    }

    private async Task<AppendResult> AppendAsync(
        AppendRequest request, Decision.Answer answer, List<Held> held, Func<AppendRequest, Task> append, TimeLimit limit)
    {
        if (answer.ToAppend.Count > 0)
        {
            try
            {
                await append(
                    request with { IdempotencyKey = null, Events = [.. answer.ToAppend.Select(e => e with { ExternalKey = null })] });
            }
            catch (EventLogUnavailableException e)
            {
                // What surely is not in the log leaves no trace. What may be is left as it is: when its time is over, whoever wants it
                // looks.
                if (e.NothingWasKept)
                    GiveUp(held);
                throw;
            }
        }
        var unused = held.FindAll(h => answer.Unused.Contains(h.Key));
        try
        {
            // It is free before the answer says so.
            await ChangeAsync(Free, unused, limit);
            unused.Clear();
        }
        catch (EventLogUnavailableException)
        {
            // The answer stands all the same.
        }
        foreach (var key in held.Where(h => !answer.Unused.Contains(h.Key)))
            _ended.Writer.TryWrite((key, Settle: true));
        foreach (var key in unused)
            _ended.Writer.TryWrite((key, Settle: false));
        return answer.Result;
    }

    /// <summary>Frees what the request took for itself; nobody waits for it.</summary>
    private void GiveUp(List<Held> held)
    {
        foreach (var key in held.Where(h => h.IsOwn))
            _ended.Writer.TryWrite((key, Settle: false));
    }

    /// <summary>Settles the keys of requests that have their answer, and frees those of requests that came to nothing.</summary>
    /// <param name="stoppingToken">From then on nothing is tried again. <see cref="Complete"/> ends it.</param>
    public async Task SettleAsync(CancellationToken stoppingToken)
    {
        var batch = new List<(Held Key, bool Settle)>();
        while (await _ended.Reader.WaitToReadAsync(CancellationToken.None))
        {
            while (batch.Count < MaxSettled && _ended.Reader.TryRead(out var ended))
                batch.Add(ended);
            while (batch.Count > 0)
            {
                try
                {
                    var limit = new TimeLimit(time, RequestBudget.Commit);
                    await ChangeAsync(Settle, [.. batch.Where(e => e.Settle).Select(e => e.Key)], limit);
                    await ChangeAsync(Free, [.. batch.Where(e => !e.Settle).Select(e => e.Key)], limit);
                    batch.Clear();
                }
                catch (EventLogUnavailableException e)
                {
                    if (stoppingToken.IsCancellationRequested)
                        return;
                    Log.NotSettled(logger, batch.Count, e.InnerException?.Message ?? e.Message);
                    await Task.Delay(s_pause, time, CancellationToken.None);
                }
            }
        }
    }

    /// <summary>Nothing more is appended.</summary>
    public void Complete() => _ended.Writer.TryComplete();

    /// <summary>
    /// Reserves what is free, the idempotency key first: who loses it reserves no external id. The request comes back under the ids that
    /// it holds its keys with.
    /// </summary>
    private async Task<(AppendRequest Request, Dictionary<KeyId, Holder> Holders)> ReserveAsync(
        AppendRequest request, IReadOnlyCollection<KeyId> adopt, List<Held> held, TimeLimit limit)
    {
        var tenant = request.TenantId;
        if (request.IdempotencyKey is { } key)
        {
            var taken = await TakeAsync(tenant, KeyKind.Idempotency, [(key, request.FirstId)], request.CorrelationId, adopt, limit);
            if (taken.Count == 0)
                return (request, await ReadHoldersAsync(request, limit));
            held.Add(new Held(KeyId.Idempotency(tenant, key), taken[0].EventId, taken[0].EventId == request.FirstId));
            request = request.Under(taken[0].EventId, taken[0].CorrelationId);
        }
        var externals = request.Events.Where(e => e.ExternalKey is not null).Select(e => (e.ExternalKey!, e.Id)).ToList();
        if (externals.Count > 0)
        {
            var ids = externals.ConvertAll(e => e.Id).ToHashSet();
            var events = request.Events.ToList();
            foreach (var (hash, eventId, _) in await TakeAsync(tenant, KeyKind.External, externals, request.CorrelationId, adopt, limit))
            {
                var at = events.FindIndex(e => e.ExternalKey is { } external && external.KeyHash.AsSpan().SequenceEqual(hash));
                held.Add(new Held(KeyId.External(tenant, events[at].ExternalKey!), eventId, ids.Contains(eventId)));
                events[at] = events[at] with { Id = eventId };
            }
            request = request with { Events = events };
        }
        return (request, await ReadHoldersAsync(request, limit));
    }

    /// <summary>
    /// Takes the keys that nobody has, or whose time is over; of <paramref name="adopt"/> also those whose owner died over the same
    /// content, under the ids stored then. Rows in the order of keys, as everybody locks them; doubles are folded to the first.
    /// </summary>
    private Task<List<(byte[] Hash, Guid EventId, string CorrelationId)>> TakeAsync(
        Guid tenantId, KeyKind kind, IReadOnlyList<(RequestKey Key, Guid EventId)> keys, string correlationId,
        IReadOnlyCollection<KeyId> adopt, TimeLimit limit) =>
        WithinAsync(limit, async (connection, cancellationToken) =>
        {
            await using var command = new NpgsqlCommand(
                """
                INSERT INTO request_keys AS k
                    (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, reserved_by, busy_until, expires_at)
                SELECT DISTINCT ON (key_hash) @tenant, @kind, key_hash, fingerprint, event_id, @correlation, @log,
                    clock_timestamp() + interval '10 seconds',
                    CASE @kind WHEN 0 THEN now() + interval '24 hours' ELSE 'infinity' END
                FROM unnest(@hashes, @fingerprints, @events) WITH ORDINALITY AS u (key_hash, fingerprint, event_id, ord)
                ORDER BY key_hash, ord
                ON CONFLICT (tenant_id, kind, key_hash) DO UPDATE SET
                    busy_until = excluded.busy_until,
                    fingerprint = excluded.fingerprint,
                    event_id = CASE WHEN k.expires_at <= now() THEN excluded.event_id ELSE k.event_id END,
                    correlation_id = CASE WHEN k.expires_at <= now() THEN excluded.correlation_id ELSE k.correlation_id END,
                    created_at = CASE WHEN k.expires_at <= now() THEN now() ELSE k.created_at END,
                    reserved_by = CASE WHEN k.expires_at <= now() THEN excluded.reserved_by ELSE k.reserved_by END,
                    expires_at = CASE WHEN k.expires_at <= now() THEN excluded.expires_at ELSE k.expires_at END
                    WHERE k.expires_at <= now() OR k.key_hash = ANY (@adopt) AND k.fingerprint = excluded.fingerprint
                        AND k.busy_until <= clock_timestamp()
                RETURNING key_hash, event_id, correlation_id
                """, connection);
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("kind", NpgsqlDbType.Smallint, (short)kind);
            command.Parameters.AddWithValue("correlation", correlationId);
            command.Parameters.AddWithValue("log", log);
            command.Parameters.Add(Column(
                "adopt", NpgsqlDbType.Bytea, adopt.Where(k => k.Kind == kind).Select(k => Convert.FromHexString(k.Hash)).ToArray()));
            command.Parameters.Add(Column("hashes", NpgsqlDbType.Bytea, keys.Select(k => k.Key.KeyHash).ToArray()));
            command.Parameters.Add(Column("fingerprints", NpgsqlDbType.Bytea, keys.Select(k => k.Key.Fingerprint).ToArray()));
            command.Parameters.Add(Column("events", NpgsqlDbType.Uuid, keys.Select(k => k.EventId).ToArray()));
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            var taken = new List<(byte[], Guid, string)>();
            while (await reader.ReadAsync(cancellationToken))
                taken.Add((reader.GetFieldValue<byte[]>(0), reader.GetGuid(1), reader.GetString(2)));
            return taken;
        });

    /// <summary>
    /// Finds out what dead owners left in the log. Nothing: their keys are free. The event of an external id: it is settled. Some events
    /// of a request: its key stays as it is, for a repetition to append the others.
    /// </summary>
    /// <returns>False when it could not be found out in time.</returns>
    private async Task<bool> ResolveAsync(AppendRequest request, IReadOnlyList<KeyId> keys, TimeLimit limit)
    {
        var holders = await WithinAsync(limit, (connection, cancellationToken) => ReadHoldersAsync(connection, keys, cancellationToken));
        var found = holders.Where(h => h.Value.State == HolderState.Abandoned).ToList();
        if (found.Count == 0)
            return true;
        // The other half is for the append, which goes on without knowing if it is the same request.
        if (!await isVisible(request.TenantId, found.ConvertAll(h => h.Value), limit.AtMost(limit.Left / 2)))
            return false;
        return await WithinAsync(limit, async (connection, cancellationToken) =>
        {
            await using var command = new NpgsqlCommand(
                """
                WITH abandoned AS MATERIALIZED (
                    SELECT k.tenant_id, k.kind, k.key_hash,
                        EXISTS (SELECT FROM events e WHERE e.tenant_id = k.tenant_id AND e.id BETWEEN u.event_id AND u.last) AS stored
                    FROM unnest(@tenants, @kinds, @hashes, @events, @lasts) AS u (tenant_id, kind, key_hash, event_id, last)
                    JOIN request_keys k ON k.tenant_id = u.tenant_id AND k.kind = u.kind AND k.key_hash = u.key_hash
                        AND k.event_id = u.event_id
                    WHERE k.busy_until <= clock_timestamp()
                    ORDER BY k.tenant_id, k.kind, k.key_hash FOR UPDATE OF k
                ), settled AS (
                    UPDATE request_keys k SET busy_until = NULL FROM abandoned a
                    WHERE k.tenant_id = a.tenant_id AND k.kind = a.kind AND k.key_hash = a.key_hash AND a.stored AND a.kind = 1
                )
                DELETE FROM request_keys k USING abandoned a
                WHERE k.tenant_id = a.tenant_id AND k.kind = a.kind AND k.key_hash = a.key_hash AND NOT a.stored
                """, connection);
            AddKeys(command, found.ConvertAll(h => h.Key));
            command.Parameters.Add(Column("events", NpgsqlDbType.Uuid, found.Select(h => h.Value.EventId).ToArray()));
            command.Parameters.Add(Column("lasts", NpgsqlDbType.Uuid, found.Select(h =>
                h.Key.Kind == KeyKind.External ? h.Value.EventId : TypeId.Add(h.Value.EventId, MaxEvents - 1)).ToArray()));
            await command.ExecuteNonQueryAsync(cancellationToken);
            return true;
        });
    }

    private const string Settle = "UPDATE request_keys k SET busy_until = NULL FROM";
    private const string Free = "DELETE FROM request_keys k USING";

    /// <summary>Ids are checked: a key that expired meanwhile may be somebody else's.</summary>
    private Task ChangeAsync(string change, IReadOnlyList<Held> keys, TimeLimit limit) =>
        keys.Count == 0 ? Task.CompletedTask : WithinAsync(
        limit, async (connection, cancellationToken) =>
    {
        // Locked in the order everybody locks them.
        await using var command = new NpgsqlCommand(
            $"""
            WITH mine AS MATERIALIZED (
                SELECT tenant_id, kind, key_hash FROM request_keys
                WHERE (tenant_id, kind, key_hash, event_id) IN (SELECT * FROM unnest(@tenants, @kinds, @hashes, @events))
                ORDER BY tenant_id, kind, key_hash FOR UPDATE
            )
            {change} mine m
            WHERE k.tenant_id = m.tenant_id AND k.kind = m.kind AND k.key_hash = m.key_hash
            """, connection);
        AddKeys(command, [.. keys.Select(k => k.Key)]);
        command.Parameters.Add(Column("events", NpgsqlDbType.Uuid, keys.Select(k => k.EventId).ToArray()));
        return await command.ExecuteNonQueryAsync(cancellationToken);
    });

    private Task<Dictionary<KeyId, Holder>> ReadHoldersAsync(AppendRequest request, TimeLimit limit) =>
        WithinAsync(limit, (connection, cancellationToken) => ReadHoldersAsync(connection, [.. KeyId.AllOf(request)], cancellationToken));

    /// <summary>Who holds these keys now.</summary>
    public static async Task<Dictionary<KeyId, Holder>> ReadHoldersAsync(
        NpgsqlConnection connection, IReadOnlyCollection<KeyId> keys, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT k.tenant_id, k.kind, k.key_hash, k.fingerprint, k.event_id, k.correlation_id,
                CASE WHEN k.busy_until IS NULL THEN 0 WHEN k.busy_until > clock_timestamp() THEN 1 ELSE 2 END, k.reserved_by
            FROM request_keys k
            WHERE (k.tenant_id, k.kind, k.key_hash) IN (SELECT * FROM unnest(@tenants, @kinds, @hashes)) AND k.expires_at > now()
            """, connection);
        AddKeys(command, keys);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var holders = new Dictionary<KeyId, Holder>();
        while (await reader.ReadAsync(cancellationToken))
        {
            holders[new KeyId(reader.GetGuid(0), (KeyKind)reader.GetInt16(1), Convert.ToHexString(reader.GetFieldValue<byte[]>(2)))] =
                new Holder(
                    reader.GetFieldValue<byte[]>(3), reader.GetGuid(4), reader.GetString(5), (HolderState)reader.GetInt32(6),
                    reader.IsDBNull(7) ? null : reader.GetString(7));
        }
        return holders;
    }

    /// <summary>What a request would be answered if nothing of it is new; null when it has something to append.</summary>
    public async Task<AppendResult?> FindRepeatedAsync(AppendRequest request, TimeLimit limit) =>
        KeyId.AllOf(request).Any() && Decision.Decide(request, WithOwnKey(request, await ReadHoldersAsync(request, limit)))
            is Decision.Answer { ToAppend.Count: 0 } answer ? answer.Result : null;

    /// <summary>The events of a request that were accepted before, by their external ids.</summary>
    public async Task<IReadOnlySet<Guid>> FindAcceptedAsync(AppendRequest request, TimeLimit limit)
    {
        request = request with { IdempotencyKey = null };
        if (!KeyId.AllOf(request).Any())
            return new HashSet<Guid>();
        var holders = await ReadHoldersAsync(request, limit);
        return request.Events.Where(IsAccepted).Select(e => e.Id).ToHashSet();

        bool IsAccepted(NewEvent e) => e.ExternalKey is not null && Decision.Decide(request with { Events = [e] }, holders)
            is Decision.Answer { Result.Events: [{ Outcome: AppendedEventOutcome.Repeated }] };
    }

    /// <summary>Holders as if an idempotency key that nobody holds were the request's own.</summary>
    public static Dictionary<KeyId, Holder> WithOwnKey(AppendRequest request, Dictionary<KeyId, Holder> holders)
    {
        if (request.IdempotencyKey is not { } key || holders.ContainsKey(KeyId.Idempotency(request.TenantId, key)))
            return holders;
        var own = new Holder(key.Fingerprint, request.FirstId, request.CorrelationId, HolderState.Settled);
        return new(holders) { { KeyId.Idempotency(request.TenantId, key), own } };
    }

    private async Task<T> WithinAsync<T>(TimeLimit limit, Func<NpgsqlConnection, CancellationToken, Task<T>> step)
    {
        using var timeout = new CancellationTokenSource(limit.Left, time);
        try
        {
            await using var connection = await dataSource.OpenConnectionAsync(timeout.Token);
            return await step(connection, timeout.Token);
        }
        catch (OperationCanceledException e)
        {
            throw new EventLogUnavailableException("The database did not answer for the request's keys in time.", e);
        }
        catch (Exception e) when (Storage.IsAway(e))
        {
            throw new EventLogUnavailableException("The database does not answer for the request's keys.", e);
        }
    }

    private static void AddKeys(NpgsqlCommand command, IReadOnlyCollection<KeyId> keys)
    {
        command.Parameters.Add(Column("tenants", NpgsqlDbType.Uuid, keys.Select(k => k.TenantId).ToArray()));
        command.Parameters.Add(Column("kinds", NpgsqlDbType.Smallint, keys.Select(k => (short)k.Kind).ToArray()));
        command.Parameters.Add(Column("hashes", NpgsqlDbType.Bytea, keys.Select(k => Convert.FromHexString(k.Hash)).ToArray()));
    }

    internal static NpgsqlParameter Column(string name, NpgsqlDbType type, Array values) =>
        new(name, type | NpgsqlDbType.Array) { Value = values };

    private static partial class Log
    {
        [LoggerMessage(EventId = 101, Level = LogLevel.Warning, Message = "{Keys} request keys are not settled yet: {Problem}")]
        public static partial void NotSettled(ILogger logger, int keys, string problem);
    }
}
