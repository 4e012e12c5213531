using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;

namespace Triggers.Api.Auth;

/// <summary>
/// Who a secret belongs to, and what it may do. Answers are kept for <see cref="AuthOptions.KeepKeys"/> (3 s), so that a revoked key is
/// refused everywhere within 5 s, even when <see cref="KeyChanges"/> reaches nobody, and a busy key costs one query every 3 s, however
/// many requests ask at once. Refusals are kept for 10 s. A key that is not known here is looked up only as often as its address may ask.
/// </summary>
internal sealed class KeyCache(
    NpgsqlDataSource dataSource, IOptions<AuthOptions> options,
    IOptions<RateLimitingOptions> defaults, StrangerLimits strangers, TimeProvider time)
{
    private static readonly TimeSpan KeepRefused = TimeSpan.FromSeconds(10);
    private const int MaxEntries = 20_000;
    private const string TenantPrefix = "tenant:";

    // A key stays known when its answer is old, so that a flood of unknown keys from the same address does not stop it.
    private readonly ConcurrentDictionary<string, Entry> _known = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, long> _refused = new(StringComparer.Ordinal);
    private int _generation;

    /// <summary>The caller, or null when no valid key is this one.</summary>
    /// <param name="secret">The key.</param>
    /// <param name="address">Who sent it.</param>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <exception cref="ApiException"><c>rate_limited</c>: the address has sent too many unknown keys.</exception>
    public async Task<Caller?> FindAsync(string secret, IPAddress? address, CancellationToken cancellationToken)
    {
        var hash = KeySecret.Hash(secret);
        var name = Convert.ToHexString(hash);
        if (_refused.TryGetValue(name, out var since) && time.GetElapsedTime(since) < KeepRefused)
            return null;

        var caller = await EntryOf(name, hash, address).Answer.Value.WaitAsync(cancellationToken);
        return caller is null || caller.ExpiresAt <= time.GetUtcNow() ? null : caller;
    }

    /// <summary>Forgets what this process knows of a key.</summary>
    /// <param name="name">The hash of its secret in hex; empty for all keys; see <see cref="KeysOf"/> for those of a tenant.</param>
    public void Forget(string name)
    {
        if (name.Length == 0)
        {
            Interlocked.Increment(ref _generation);
            _refused.Clear();
        }
        else if (name.StartsWith(TenantPrefix, StringComparison.Ordinal))
        {
            // Whose a key is that is being looked up nobody knows yet.
            foreach (var entry in _known.Values)
            {
                var answer = entry.Answer.Value;
                if (!answer.IsCompletedSuccessfully || answer.Result is { } caller && KeysOf(caller.TenantId) == name)
                    entry.IsOver = true;
            }
        }
        else
        {
            _refused.TryRemove(name, out _);
            if (_known.TryGetValue(name, out var entry))
                entry.IsOver = true;
        }
    }

    /// <summary>What stands for all keys of a tenant.</summary>
    public static string KeysOf(Guid tenantId) => TenantPrefix + tenantId.ToString("N");

    private Entry EntryOf(string name, byte[] hash, IPAddress? address)
    {
        var generation = Volatile.Read(ref _generation);
        var isKnown = _known.TryGetValue(name, out var entry);
        if (isKnown && !entry!.IsOver && entry.Generation == generation && time.GetElapsedTime(entry.Since) <= options.Value.KeepKeys)
            return entry;

        if (!isKnown)
        {
            strangers.EnsureMayAsk(address);
            if (_known.Count >= MaxEntries)
                _known.Clear();
        }
        Entry fresh = null!;
        fresh = new Entry(
            generation, time.GetTimestamp(), new Lazy<Task<Caller?>>(() => AnswerAsync(name, hash, fresh, isKnown, address)));
        return entry is null || !_known.TryUpdate(name, fresh, entry) ? _known.GetOrAdd(name, fresh) : fresh;
    }

    // It goes on when nobody waits for it any more, so that who asks and leaves has asked all the same.
    private async Task<Caller?> AnswerAsync(string name, byte[] hash, Entry entry, bool isKnown, IPAddress? address)
    {
        using var timeout = new CancellationTokenSource(RequestBudget.Request, time);
        Caller? caller;
        try
        {
            caller = isKnown ? await LoadAsync(hash, timeout.Token)
                : await strangers.FindAsync(address, () => LoadAsync(hash, timeout.Token), timeout.Token);
        }
        catch (Exception e)
        {
            // The next request asks again, by its own right if nobody knows the key yet.
            entry.IsOver = true;
            if (!isKnown)
                _known.TryRemove(new KeyValuePair<string, Entry>(name, entry));
            if (e is OperationCanceledException)
                throw new TimeoutException("The database did not say in time whose key it is.", e);
            throw;
        }
        if (caller is null && _known.TryRemove(new KeyValuePair<string, Entry>(name, entry)))
        {
            if (_refused.Count >= MaxEntries)
                _refused.Clear();
            _refused[name] = time.GetTimestamp();
        }
        return caller;
    }

    private async Task<Caller?> LoadAsync(byte[] hash, CancellationToken cancellationToken)
    {
        await using var command = dataSource.CreateCommand(
            """
            SELECT k.id, k.tenant_id, k.scopes, k.expires_at, k.hash, coalesce(k.limit_id, k.id), k.requests_per_second, k.burst,
                p.requests_per_second, p.burst, p.events_per_second, p.bytes_per_second, p.events_per_day,
                t.contracts_version
            FROM api_keys k JOIN tenants t ON t.id = k.tenant_id LEFT JOIN usage_plans p ON p.id = t.usage_plan_id
            WHERE k.hash = @hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
            """);
        command.Parameters.AddWithValue("hash", hash);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        if (!await reader.ReadAsync(cancellationToken) || !CryptographicOperations.FixedTimeEquals(reader.GetFieldValue<byte[]>(4), hash))
            return null;
        int? Number(int column) => reader.IsDBNull(column) ? null : reader.GetInt32(column);
        var tenantId = reader.GetGuid(1);
        var scopes = Scopes.Expand(reader.GetFieldValue<string[]>(2));
        var limits = Limits.Of(
            tenantId, scopes, reader.GetGuid(5), Number(6), Number(7),
            Number(8) is { } perSecond ? new PlanLimits(perSecond, Number(9)!.Value, Number(10), Number(11), Number(12)) : null,
            defaults.Value);
        return new Caller(
            reader.GetGuid(0), tenantId, scopes, reader.IsDBNull(3) ? null : reader.GetFieldValue<DateTimeOffset>(3), limits,
            reader.GetInt64(13));
    }

    private sealed class Entry(int generation, long since, Lazy<Task<Caller?>> answer)
    {
        private volatile bool _isOver;

        public int Generation { get; } = generation;

        public long Since { get; } = since;

        public Lazy<Task<Caller?>> Answer { get; } = answer;

        public bool IsOver
        {
            get => _isOver;
            set => _isOver = value;
        }
    }
}
