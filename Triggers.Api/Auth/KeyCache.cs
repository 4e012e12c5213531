using System.Collections.Concurrent;
using System.Security.Cryptography;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Setup;
using Triggers.Core;

namespace Triggers.Api.Auth;

/// <summary>
/// Who a secret belongs to, and what it may do. Answers are kept for <see cref="AuthOptions.KeepKeys"/> (3 s), unknown keys for 1 s,
/// so that a revoked key is refused everywhere within 5 s, even when <see cref="KeyChanges"/> reaches nobody, and a busy key costs
/// one query every 3 s, however many requests ask at once.
/// </summary>
internal sealed class KeyCache(NpgsqlDataSource dataSource, IOptions<AuthOptions> options, TimeProvider time)
{
    private static readonly TimeSpan KeepUnknown = TimeSpan.FromSeconds(1);
    private const int MaxEntries = 10_000;

    private readonly ConcurrentDictionary<string, Entry> _entries = new(StringComparer.Ordinal);

    /// <summary>The caller, or null when no valid key is this one.</summary>
    public async Task<Caller?> FindAsync(string secret, CancellationToken cancellationToken)
    {
        var hash = KeySecret.Hash(secret);
        var name = Convert.ToHexString(hash);
        if (!_entries.TryGetValue(name, out var entry) || entry.IsOver(time, options.Value.KeepKeys))
        {
            // Strangers can fill this with keys that don't exist; starting over costs each known key one query.
            if (_entries.Count >= MaxEntries)
                _entries.Clear();
            var fresh = new Entry(time, () => LoadAsync(hash));
            entry = entry is null ? _entries.GetOrAdd(name, fresh) : _entries.TryUpdate(name, fresh, entry) ? fresh : _entries.GetOrAdd(name, fresh);
        }

        try
        {
            var caller = await entry.Answer.Value.WaitAsync(cancellationToken);
            return caller is null || caller.ExpiresAt <= time.GetUtcNow() ? null : caller;
        }
        catch (Exception) when (entry.Answer.Value.IsFaulted || entry.Answer.Value.IsCanceled)
        {
            // The next request asks again.
            _entries.TryRemove(new KeyValuePair<string, Entry>(name, entry));
            throw;
        }
    }

    /// <summary>Forgets what this process knows of a key.</summary>
    /// <param name="name">The hash of its secret in hex; empty for all keys.</param>
    public void Forget(string name)
    {
        if (name.Length == 0)
            _entries.Clear();
        else
            _entries.TryRemove(name, out _);
    }

    private async Task<Caller?> LoadAsync(byte[] hash)
    {
        using var timeout = new CancellationTokenSource(RequestBudget.Request, time);
        try
        {
            await using var command = dataSource.CreateCommand(
                """
                SELECT k.id, k.tenant_id, k.scopes, coalesce(k.requests_per_second, p.requests_per_second), coalesce(k.burst, p.burst), k.expires_at,
                    k.hash, k.usage_plan_id, p.events_per_day
                FROM api_keys k LEFT JOIN usage_plans p ON p.id = k.usage_plan_id
                WHERE k.hash = @hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
                """);
            command.Parameters.AddWithValue("hash", hash);
            await using var reader = await command.ExecuteReaderAsync(timeout.Token);
            if (!await reader.ReadAsync(timeout.Token) || !CryptographicOperations.FixedTimeEquals(reader.GetFieldValue<byte[]>(6), hash))
                return null;
            return new Caller(
                reader.GetGuid(0), reader.GetGuid(1), reader.GetFieldValue<string[]>(2),
                reader.IsDBNull(3) ? null : reader.GetInt32(3), reader.IsDBNull(4) ? null : reader.GetInt32(4),
                reader.IsDBNull(5) ? null : reader.GetFieldValue<DateTimeOffset>(5),
                reader.IsDBNull(7) ? null : reader.GetGuid(7), reader.IsDBNull(8) ? null : reader.GetInt32(8));
        }
        catch (OperationCanceledException e)
        {
            throw new TimeoutException("The database did not say in time whose key it is.", e);
        }
    }

    private sealed class Entry(TimeProvider time, Func<Task<Caller?>> load)
    {
        private readonly long _since = time.GetTimestamp();

        public Lazy<Task<Caller?>> Answer { get; } = new(load);

        public bool IsOver(TimeProvider clock, TimeSpan keepKnown)
        {
            var age = clock.GetElapsedTime(_since);
            return age > keepKnown
                || age > KeepUnknown && Answer is { IsValueCreated: true, Value: { IsCompletedSuccessfully: true, Result: null } };
        }
    }
}
