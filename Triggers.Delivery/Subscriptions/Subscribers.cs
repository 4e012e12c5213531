using System.Collections.Frozen;
using System.Text.Json;
using Npgsql;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Delivery.Subscriptions;

/// <summary>A subscription as delivery needs it. Immutable.</summary>
internal sealed record Subscriber(
    Guid Id, Guid TenantId, int Revision, string Url, string[] EventTypes, Dictionary<string, string> Headers,
    IReadOnlyList<SigningSecret> Secrets, bool Enabled)
{
    /// <summary>The secrets that sign at that moment, newest first.</summary>
    public IEnumerable<string> SecretsAt(DateTimeOffset now) => Secrets.Where(s => s.ExpiresAt is null || s.ExpiresAt > now).Select(s => s.Secret);
}

/// <summary>
/// Every subscription that is not deleted, in memory. <c>subscriptions_version</c>, which the database bumps at every write, says
/// when to read them again.
/// </summary>
internal sealed class Subscribers
{
    private sealed record Snapshot(long Version, FrozenDictionary<Guid, Subscriber> ById, ILookup<Guid, Subscriber> Enabled);

    private readonly SemaphoreSlim _reading = new(1);
    private volatile Snapshot _snapshot = new(0, FrozenDictionary<Guid, Subscriber>.Empty, Array.Empty<Subscriber>().ToLookup(s => s.TenantId));

    /// <summary>The subscription, or null when it is deleted, or newer than what was read last.</summary>
    public Subscriber? Find(Guid id) => _snapshot.ById.GetValueOrDefault(id);

    /// <summary>The enabled subscriptions of a tenant that want this type.</summary>
    public IEnumerable<Subscriber> Matching(Guid tenantId, string type) =>
        _snapshot.Enabled[tenantId].Where(s => EventTypePattern.MatchesAny(s.EventTypes, type));

    /// <summary>Reads the subscriptions if <paramref name="version"/> is not the one that was read.</summary>
    public async Task RefreshAsync(NpgsqlConnection connection, long version, CancellationToken cancellationToken)
    {
        if (_snapshot.Version == version)
            return;
        await _reading.WaitAsync(cancellationToken);
        try
        {
            // The version comes first: what is read after it is at least as new.
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    new("SELECT version FROM subscriptions_version"),
                    new(
                        """
                        SELECT id, tenant_id, revision, url, event_types, headers::text, secrets::text, enabled
                        FROM subscriptions WHERE deleted_at IS NULL
                        """),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
            await reader.ReadAsync(cancellationToken);
            version = reader.GetInt64(0);
            await reader.NextResultAsync(cancellationToken);
            var all = new List<Subscriber>();
            while (await reader.ReadAsync(cancellationToken))
            {
                all.Add(new Subscriber(
                    reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(2), reader.GetString(3), reader.GetFieldValue<string[]>(4),
                    JsonSerializer.Deserialize<Dictionary<string, string>>(reader.GetString(5))!,
                    JsonSerializer.Deserialize<List<SigningSecret>>(reader.GetString(6))!,
                    reader.GetBoolean(7)));
            }
            if (version >= _snapshot.Version)
                _snapshot = new Snapshot(version, all.ToFrozenDictionary(s => s.Id), all.Where(s => s.Enabled).ToLookup(s => s.TenantId));
        }
        finally
        {
            _reading.Release();
        }
    }

    /// <summary>Reads the subscriptions if they changed.</summary>
    public async Task RefreshAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var command = new NpgsqlCommand("SELECT version FROM subscriptions_version", connection);
        await RefreshAsync(connection, (long)(await command.ExecuteScalarAsync(cancellationToken))!, cancellationToken);
    }
}
