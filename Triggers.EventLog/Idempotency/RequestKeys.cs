using Npgsql;
using NpgsqlTypes;
using Triggers.Core;

namespace Triggers.EventLog.Idempotency;

/// <summary>
/// Idempotency keys and external ids: who came first, and with what. Both logs share the table. The Postgres log writes its rows in
/// the append itself; where the append can't be in the same transaction, a request first reserves its keys here, for a time longer
/// than an append may take, and settles them after it. Who finds a reservation that its owner did not live to settle takes it over,
/// and appends again under the ids stored in it: the projection knows them if they are in the log already.
/// </summary>
internal sealed class RequestKeys(NpgsqlDataSource dataSource, TimeProvider time)
{
    /// <summary>How long the database may take over one step.</summary>
    private static readonly TimeSpan s_maxStep = TimeSpan.FromSeconds(1.2);

    /// <summary>How long a request waits for another that is running with its keys.</summary>
    private static readonly TimeSpan s_maxWait = TimeSpan.FromSeconds(1);

    /// <summary>A key that this request holds.</summary>
    internal readonly record struct Held(Guid TenantId, KeyKind Kind, byte[] KeyHash, Guid EventId);

    /// <summary>What an append came to, and which keys are to be settled now that it did.</summary>
    internal sealed record Outcome(AppendResult Result, IReadOnlyList<Held> ToSettle);

    /// <summary>Reserves the keys of a request, and appends what they let in. Waits a moment for a request that runs with the same ones.</summary>
    /// <param name="request">With at least one key.</param>
    /// <param name="append">Appends events, under the ids they are given with.</param>
    /// <exception cref="EventLogUnavailableException">The database did not answer in time.</exception>
    public async Task<Outcome> AppendAsync(AppendRequest request, Func<AppendRequest, Task> append)
    {
        var started = time.GetTimestamp();
        // The first request with these keys is mostly about to have its answer.
        for (var pause = TimeSpan.FromMilliseconds(10); ; pause *= 2)
        {
            var outcome = await TryAppendAsync(request, append);
            if (outcome.Result.Outcome != AppendOutcome.InProgress || time.GetElapsedTime(started) + pause > s_maxWait)
                return outcome;
            await Task.Delay(pause, time);
        }
    }

    private async Task<Outcome> TryAppendAsync(AppendRequest request, Func<AppendRequest, Task> append)
    {
        var held = new List<Held>();
        var fresh = new List<Held>();
        var appending = false;
        try
        {
            var decision = await ReserveAsync(request, held, fresh);
            if (decision.ToAppend is { Events.Count: > 0 } toAppend)
            {
                appending = true;
                await append(toAppend);
            }
            if (decision.Lost.Count > 0)
                await ForgetAsync(decision.Lost);
            return new Outcome(decision.Result, [.. held.Except(decision.Lost)]);
        }
        catch (EventLogUnavailableException e)
        {
            // What surely is not in the log leaves no trace. What may be keeps its ids, and whoever comes next may try at once.
            await GiveUpAsync(held, appending && !e.NothingWasKept ? [] : fresh);
            throw;
        }
    }

    private sealed record Decision(AppendResult Result, AppendRequest? ToAppend, IReadOnlyList<Held> Lost);

    private async Task<Decision> ReserveAsync(AppendRequest request, List<Held> held, List<Held> fresh)
    {
        var first = request.FirstId;
        var correlationId = request.CorrelationId;
        var externals = request.Events.Where(e => e.ExternalKey is not null).ToList();
        if (request.IdempotencyKey is { } key)
        {
            var taken = await TakeAsync(request.TenantId, KeyKind.Idempotency, [(key, first)], correlationId);
            if (taken.Count == 0)
                return new Decision(Answer(request, [], await ReadHoldersAsync(request)) ?? InProgress(request), null, []);
            (_, first, correlationId) = taken[0];
            Hold(held, fresh, request, KeyKind.Idempotency, taken, request.FirstId);
        }

        var ids = request.Events.ToDictionary(e => e, e => TypeId.Add(first, TypeId.Difference(e.Id, request.FirstId)));
        var owned = new Dictionary<string, Guid>();
        if (externals.Count > 0)
        {
            var taken = await TakeAsync(request.TenantId, KeyKind.External, [.. externals.Select(e => (e.ExternalKey!, ids[e]))], correlationId);
            foreach (var (hash, id, _) in taken)
                owned.Add(Convert.ToHexString(hash), id);
            Hold(held, fresh, request, KeyKind.External, taken, ids.Values);
        }

        var theirs = externals.Exists(e => !owned.ContainsKey(Convert.ToHexString(e.ExternalKey!.KeyHash)))
            ? await ReadHoldersAsync(request)
            : [];
        var toAppend = new List<NewEvent>();
        var events = new List<AppendedEvent>();
        foreach (var item in request.Events)
        {
            var id = ids[item];
            var hash = item.ExternalKey is { } external ? Convert.ToHexString(external.KeyHash) : null;
            if (hash is null || owned.TryGetValue(hash, out var stored) && !events.Exists(e => e.Id == stored && e.Outcome == AppendedEventOutcome.Appended))
            {
                id = hash is null ? id : owned[hash];
                toAppend.Add(item with { Id = id });
                events.Add(new AppendedEvent(id, AppendedEventOutcome.Appended, correlationId));
            }
            else if (owned.TryGetValue(hash, out var firstOfTheBatch))
            {
                // The same external id twice in one request: the first of them is the event.
                var same = request.Events.First(e => e.ExternalKey is { } k && k.KeyHash.AsSpan().SequenceEqual(item.ExternalKey!.KeyHash))
                    .ExternalKey!.Fingerprint.AsSpan().SequenceEqual(item.ExternalKey!.Fingerprint);
                events.Add(new AppendedEvent(firstOfTheBatch, same ? AppendedEventOutcome.Repeated : AppendedEventOutcome.ExternalIdConflict, correlationId));
            }
            else if (theirs.TryGetValue(new KeyId(request.TenantId, KeyKind.External, hash), out var holder))
            {
                var same = holder.Fingerprint.AsSpan().SequenceEqual(item.ExternalKey!.Fingerprint);
                if (same && holder.State != HolderState.Settled)
                {
                    // Its first appearance is still running elsewhere: nothing can be said of it yet, so nothing of this request is kept.
                    await GiveUpAsync(held, fresh);
                    held.Clear();
                    return new Decision(InProgress(request), null, []);
                }
                events.Add(new AppendedEvent(holder.EventId, same ? AppendedEventOutcome.Repeated : AppendedEventOutcome.ExternalIdConflict, holder.CorrelationId));
            }
            else
            {
                // It was given up between our two looks.
                await GiveUpAsync(held, fresh);
                held.Clear();
                return new Decision(InProgress(request), null, []);
            }
        }

        // A request that won its idempotency key and lost every event to others has not used the key.
        var lost = events.TrueForAll(e => e.Outcome != AppendedEventOutcome.Appended && !ids.ContainsValue(e.Id)) ? held.FindAll(h => h.Kind == KeyKind.Idempotency) : [];
        return new Decision(
            new AppendResult(AppendOutcome.Appended, correlationId, events),
            request with { FirstId = first, CorrelationId = correlationId, IdempotencyKey = null, Events = toAppend.ConvertAll(e => e with { ExternalKey = null }) },
            lost);
    }

    private static void Hold(
        List<Held> held, List<Held> fresh, AppendRequest request, KeyKind kind, List<(byte[] Hash, Guid EventId, string CorrelationId)> taken, params IEnumerable<Guid> ours)
    {
        foreach (var (hash, eventId, _) in taken)
        {
            var key = new Held(request.TenantId, kind, hash, eventId);
            held.Add(key);
            if (ours.Contains(eventId))
                fresh.Add(key);
        }
    }

    private static AppendResult InProgress(AppendRequest request) => new(AppendOutcome.InProgress, request.CorrelationId, []);

    /// <summary>
    /// Takes the keys that nobody has, whose time is over, or whose owner died over the same content; the latter with the ids stored
    /// then. Rows in the order of keys, as everybody locks them; doubles are folded to the first.
    /// </summary>
    private async Task<List<(byte[] Hash, Guid EventId, string CorrelationId)>> TakeAsync(
        Guid tenantId, KeyKind kind, IReadOnlyList<(RequestKey Key, Guid EventId)> keys, string correlationId)
    {
        return await WithinAsync(async (connection, cancellationToken) =>
        {
            await using var command = new NpgsqlCommand(
                """
                INSERT INTO request_keys AS k (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, busy_until, expires_at)
                SELECT DISTINCT ON (key_hash) @tenant, @kind, key_hash, fingerprint, event_id, @correlation, clock_timestamp() + interval '10 seconds',
                    CASE @kind WHEN 0 THEN now() + interval '24 hours' ELSE 'infinity' END
                FROM unnest(@hashes, @fingerprints, @events) WITH ORDINALITY AS u (key_hash, fingerprint, event_id, ord)
                ORDER BY key_hash, ord
                ON CONFLICT (tenant_id, kind, key_hash) DO UPDATE SET
                    busy_until = excluded.busy_until,
                    fingerprint = excluded.fingerprint,
                    event_id = CASE WHEN k.expires_at <= now() THEN excluded.event_id ELSE k.event_id END,
                    correlation_id = CASE WHEN k.expires_at <= now() THEN excluded.correlation_id ELSE k.correlation_id END,
                    created_at = CASE WHEN k.expires_at <= now() THEN now() ELSE k.created_at END,
                    expires_at = CASE WHEN k.expires_at <= now() THEN excluded.expires_at ELSE k.expires_at END
                    WHERE k.expires_at <= now() OR k.fingerprint = excluded.fingerprint AND k.busy_until <= clock_timestamp()
                RETURNING key_hash, event_id, correlation_id
                """, connection);
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("kind", NpgsqlDbType.Smallint, (short)kind);
            command.Parameters.AddWithValue("correlation", correlationId);
            command.Parameters.Add(Column("hashes", NpgsqlDbType.Bytea, keys.Select(k => k.Key.KeyHash).ToArray()));
            command.Parameters.Add(Column("fingerprints", NpgsqlDbType.Bytea, keys.Select(k => k.Key.Fingerprint).ToArray()));
            command.Parameters.Add(Column("events", NpgsqlDbType.Uuid, keys.Select(k => k.EventId).ToArray()));
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            var taken = new List<(byte[], Guid, string)>();
            while (await reader.ReadAsync(cancellationToken))
                taken.Add((reader.GetFieldValue<byte[]>(0), reader.GetGuid(1), reader.GetString(2)));
            return taken;
        });
    }

    /// <summary>What was appended is no longer running. Ids are checked: a key that expired meanwhile may be somebody else's.</summary>
    public Task SettleAsync(IReadOnlyList<Held> keys) => ChangeAsync("UPDATE request_keys k SET busy_until = NULL", keys);

    /// <summary>What was not used is free again.</summary>
    private Task ForgetAsync(IReadOnlyList<Held> keys) => ChangeAsync("DELETE FROM request_keys k", keys);

    /// <summary>Leaves keys to whoever comes next. Failing to costs them ten seconds, no more.</summary>
    /// <param name="held">All keys that the request holds.</param>
    /// <param name="unused">Those of them that nothing was ever appended under.</param>
    private async Task GiveUpAsync(List<Held> held, List<Held> unused)
    {
        try
        {
            await ForgetAsync(unused);
            await ChangeAsync("UPDATE request_keys k SET busy_until = clock_timestamp()", [.. held.Except(unused)]);
        }
        catch (EventLogUnavailableException)
        {
        }
    }

    private Task ChangeAsync(string change, IReadOnlyList<Held> keys) => keys.Count == 0 ? Task.CompletedTask : WithinAsync(async (connection, cancellationToken) =>
    {
        // Locked in the order everybody locks them.
        await using var command = new NpgsqlCommand(
            $"""
            WITH mine AS MATERIALIZED (
                SELECT tenant_id, kind, key_hash FROM request_keys
                WHERE (tenant_id, kind, key_hash, event_id) IN (SELECT * FROM unnest(@tenants, @kinds, @hashes, @events))
                ORDER BY tenant_id, kind, key_hash FOR UPDATE
            )
            {change} {(change.StartsWith("DELETE", StringComparison.Ordinal) ? "USING" : "FROM")} mine m
            WHERE k.tenant_id = m.tenant_id AND k.kind = m.kind AND k.key_hash = m.key_hash
            """, connection);
        command.Parameters.Add(Column("tenants", NpgsqlDbType.Uuid, keys.Select(k => k.TenantId).ToArray()));
        command.Parameters.Add(Column("kinds", NpgsqlDbType.Smallint, keys.Select(k => (short)k.Kind).ToArray()));
        command.Parameters.Add(Column("hashes", NpgsqlDbType.Bytea, keys.Select(k => k.KeyHash).ToArray()));
        command.Parameters.Add(Column("events", NpgsqlDbType.Uuid, keys.Select(k => k.EventId).ToArray()));
        return await command.ExecuteNonQueryAsync(cancellationToken);
    });

    private Task<Dictionary<KeyId, Holder>> ReadHoldersAsync(AppendRequest request) =>
        WithinAsync((connection, cancellationToken) => ReadHoldersAsync(connection, [.. KeyId.AllOf(request)], cancellationToken));

    /// <summary>Who holds these keys now.</summary>
    public static async Task<Dictionary<KeyId, Holder>> ReadHoldersAsync(
        NpgsqlConnection connection, IReadOnlyCollection<KeyId> keys, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT k.tenant_id, k.kind, k.key_hash, k.fingerprint, k.event_id, k.correlation_id,
                CASE WHEN k.busy_until IS NULL THEN 0 WHEN k.busy_until > clock_timestamp() THEN 1 ELSE 2 END
            FROM request_keys k
            WHERE (k.tenant_id, k.kind, k.key_hash) IN (SELECT * FROM unnest(@tenants, @kinds, @hashes)) AND k.expires_at > now()
            """, connection);
        command.Parameters.Add(Column("tenants", NpgsqlDbType.Uuid, keys.Select(k => k.TenantId).ToArray()));
        command.Parameters.Add(Column("kinds", NpgsqlDbType.Smallint, keys.Select(k => (short)k.Kind).ToArray()));
        command.Parameters.Add(Column("hashes", NpgsqlDbType.Bytea, keys.Select(k => Convert.FromHexString(k.Hash)).ToArray()));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var holders = new Dictionary<KeyId, Holder>();
        while (await reader.ReadAsync(cancellationToken))
        {
            holders[new KeyId(reader.GetGuid(0), (KeyKind)reader.GetInt16(1), Convert.ToHexString(reader.GetFieldValue<byte[]>(2)))] =
                new Holder(reader.GetFieldValue<byte[]>(3), reader.GetGuid(4), reader.GetString(5), (HolderState)reader.GetInt32(6));
        }
        return holders;
    }

    /// <summary>
    /// What became of a request, by who holds its keys. Null: it can't be said, since a reservation is in the way whose owner is gone,
    /// or one was in the way that is gone. Then the keys have to be reserved.
    /// </summary>
    /// <param name="request">The request.</param>
    /// <param name="insertedIds">Which of its events went in; null for all.</param>
    /// <param name="holders">Who holds its keys; null when all went in.</param>
    public static AppendResult? Answer(AppendRequest request, HashSet<Guid>? insertedIds, Dictionary<KeyId, Holder>? holders)
    {
        var first = request.FirstId;
        var correlationId = request.CorrelationId;
        var outcome = AppendOutcome.Appended;
        if (holders is not null && request.IdempotencyKey is { } key
            && holders.TryGetValue(KeyId.Idempotency(request.TenantId, key), out var holder) && holder.EventId != request.FirstId)
        {
            if (!holder.Fingerprint.AsSpan().SequenceEqual(key.Fingerprint))
                return new AppendResult(AppendOutcome.KeyReused, correlationId, []);
            if (holder.State != HolderState.Settled)
                return holder.State == HolderState.Busy ? InProgress(request) : null;
            first = holder.EventId;
            correlationId = holder.CorrelationId;
            outcome = AppendOutcome.Repeated;
        }

        var events = new AppendedEvent[request.Events.Count];
        for (var i = 0; i < events.Length; i++)
        {
            var item = request.Events[i];
            var id = TypeId.Add(first, TypeId.Difference(item.Id, request.FirstId));
            events[i] = new AppendedEvent(id, AppendedEventOutcome.Appended, correlationId);
            if (insertedIds is null || holders is null || insertedIds.Contains(item.Id))
                continue;
            if (item.ExternalKey is not { } external || !holders.TryGetValue(KeyId.External(request.TenantId, external), out var owner) || owner.EventId == id)
            {
                if (outcome == AppendOutcome.Appended)
                    return null;
                continue;
            }
            var same = owner.Fingerprint.AsSpan().SequenceEqual(external.Fingerprint);
            if (same && owner.State != HolderState.Settled)
                return owner.State == HolderState.Busy ? InProgress(request) : null;
            events[i] = new AppendedEvent(owner.EventId, same ? AppendedEventOutcome.Repeated : AppendedEventOutcome.ExternalIdConflict, owner.CorrelationId);
        }
        return new AppendResult(outcome, correlationId, events);
    }

    /// <summary>What a request would be answered if nothing of it is new; null when it has something to append.</summary>
    public async Task<AppendResult?> FindRepeatedAsync(AppendRequest request)
    {
        if (request.IdempotencyKey is null && request.Events.All(e => e.ExternalKey is null))
            return null;
        var holders = await ReadHoldersAsync(request);
        return Answer(request, [], holders) is { } answer && answer.Events.All(e => e.Outcome != AppendedEventOutcome.Appended || answer.Outcome == AppendOutcome.Repeated)
            ? answer
            : null;
    }

    private async Task<T> WithinAsync<T>(Func<NpgsqlConnection, CancellationToken, Task<T>> step)
    {
        using var timeout = new CancellationTokenSource(s_maxStep, time);
        try
        {
            await using var connection = await dataSource.OpenConnectionAsync(timeout.Token);
            return await step(connection, timeout.Token);
        }
        catch (OperationCanceledException e)
        {
            throw new EventLogUnavailableException("The database did not answer for the request's keys in time.", e);
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException or System.Net.Sockets.SocketException)
        {
            throw new EventLogUnavailableException("The database does not answer for the request's keys.", e);
        }
    }

    internal static NpgsqlParameter Column(string name, NpgsqlDbType type, Array values) => new(name, type | NpgsqlDbType.Array) { Value = values };
}

/// <summary>What a key is.</summary>
internal enum KeyKind : short
{
    /// <summary><c>Idempotency-Key</c>: of a whole request.</summary>
    Idempotency = 0,

    /// <summary><c>externalId</c>: of one event.</summary>
    External = 1,
}

/// <summary>How far the request that holds a key is.</summary>
internal enum HolderState
{
    /// <summary>It has its answer.</summary>
    Settled = 0,

    /// <summary>It is running.</summary>
    Busy = 1,

    /// <summary>It has not come to an end in its time; its events may be in the log or not.</summary>
    Abandoned = 2,
}

/// <summary>Who holds a key.</summary>
internal sealed record Holder(byte[] Fingerprint, Guid EventId, string CorrelationId, HolderState State);

/// <summary>A key as a value.</summary>
internal readonly record struct KeyId(Guid TenantId, KeyKind Kind, string Hash)
{
    public static IEnumerable<KeyId> AllOf(AppendRequest request)
    {
        if (request.IdempotencyKey is { } key)
            yield return Idempotency(request.TenantId, key);
        foreach (var e in request.Events)
        {
            if (e.ExternalKey is { } external)
                yield return External(request.TenantId, external);
        }
    }

    public static KeyId Idempotency(Guid tenantId, RequestKey key) => new(tenantId, KeyKind.Idempotency, Convert.ToHexString(key.KeyHash));

    public static KeyId External(Guid tenantId, RequestKey key) => new(tenantId, KeyKind.External, Convert.ToHexString(key.KeyHash));
}
