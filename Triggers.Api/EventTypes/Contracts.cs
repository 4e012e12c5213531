using System.Collections.Concurrent;
using System.Collections.Frozen;
using Microsoft.Extensions.Caching.Memory;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Schemas;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.EventTypes;

/// <summary>What events of a type are held to.</summary>
/// <param name="Id">The type.</param>
/// <param name="Mode">What becomes of those that don't match.</param>
/// <param name="Version">The schema; 0 for none.</param>
/// <param name="SchemaLength">Characters of it.</param>
/// <param name="Deprecation">Why it should not be used; null unless it is deprecated.</param>
internal sealed record TypeContract(Guid Id, ContractMode Mode, int Version, int SchemaLength, string? Deprecation);

/// <summary>What the events of a tenant are held to.</summary>
/// <param name="Version">As <see cref="Caller.ContractsVersion"/>.</param>
/// <param name="RefusesUnknown">Whether events of other types are refused.</param>
/// <param name="Types">By name.</param>
internal sealed record TenantContracts(long Version, bool RefusesUnknown, FrozenDictionary<string, TypeContract> Types);

/// <summary>
/// The event types of tenants as ingest needs them, kept per process. How old they may be the caller's key says, which is looked up anew
/// every few seconds, and at once when this process, or with Redis another, has changed one: see <see cref="KeyCache"/>. Schemas never
/// change; compiled ones are kept up to so many characters in all.
/// </summary>
internal sealed class Contracts(NpgsqlDataSource dataSource) : IDisposable
{
    private const int MaxTenants = 10_000;
    private const int MaxSchemaCharacters = 16 * 1024 * 1024;
    private static readonly TimeSpan s_unused = TimeSpan.FromMinutes(30);

    private readonly ConcurrentDictionary<Guid, Entry> _tenants = new();
    private readonly MemoryCache _schemas = new(new MemoryCacheOptions { SizeLimit = MaxSchemaCharacters });
    // To compile one takes far longer than to judge by it: those who need it meanwhile wait for it.
    private readonly ConcurrentDictionary<(Guid Type, int Version), Lazy<Task<EventSchema>>> _compiling = new();

    /// <summary>The types of a caller's tenant, at least as new as its key knows of.</summary>
    public async ValueTask<TenantContracts> OfAsync(Caller caller, CancellationToken cancellationToken)
    {
        if (!_tenants.TryGetValue(caller.TenantId, out var entry) || entry.Version < caller.ContractsVersion)
        {
            if (_tenants.Count >= MaxTenants)
                _tenants.Clear();
            var fresh = new Entry(caller.ContractsVersion, new(() => LoadAsync(caller.TenantId)));
            entry = _tenants.AddOrUpdate(
                caller.TenantId, fresh, (_, other) => other.Version >= fresh.Version ? other : fresh);
        }
        try
        {
            return await entry.Types.Value.WaitAsync(cancellationToken);
        }
        catch (Exception) when (entry.Types.Value.IsFaulted || entry.Types.Value.IsCanceled)
        {
            _tenants.TryRemove(new KeyValuePair<Guid, Entry>(caller.TenantId, entry));
            throw;
        }
    }

    /// <summary>The compiled schema of a type.</summary>
    /// <param name="contract">Which has one.</param>
    /// <param name="steps">What compiling it is taken from.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <exception cref="StepsExceededException">There are not enough steps left.</exception>
    /// <exception cref="SchemaRefusedException">It was taken by another version of this service.</exception>
    public ValueTask<EventSchema> SchemaAsync(TypeContract contract, Steps steps, CancellationToken cancellationToken) =>
        _schemas.TryGetValue((contract.Id, contract.Version), out EventSchema? schema) ? ValueTask.FromResult(schema!)
            : WaitAsync(contract, steps, cancellationToken);

    public void Dispose() => _schemas.Dispose();

    private async ValueTask<EventSchema> WaitAsync(TypeContract contract, Steps steps, CancellationToken cancellationToken)
    {
        steps.Take(contract.SchemaLength);
        var compiling = _compiling.GetOrAdd((contract.Id, contract.Version), _ => new(() => CompileAsync(contract)));
        return await compiling.Value.WaitAsync(cancellationToken);
    }

    private async Task<EventSchema> CompileAsync(TypeContract contract)
    {
        var key = (contract.Id, contract.Version);
        try
        {
            using var timeout = new CancellationTokenSource(RequestBudget.Request);
            await using var command = dataSource.CreateCommand(
                "SELECT schema FROM event_type_versions WHERE event_type_id = @id AND version = @version");
            command.Parameters.AddWithValue("id", contract.Id);
            command.Parameters.AddWithValue("version", contract.Version);
            // The type was deleted a moment ago: the request came first.
            var compiled = EventSchema.Compile(await command.ExecuteScalarAsync(timeout.Token) as string ?? "true");
            return _schemas.Set(key, compiled, new MemoryCacheEntryOptions
            {
                Size = contract.SchemaLength + 1,
                SlidingExpiration = s_unused,
            });
        }
        finally
        {
            _compiling.TryRemove(key, out _);
        }
    }

    private async Task<TenantContracts> LoadAsync(Guid tenantId)
    {
        using var timeout = new CancellationTokenSource(RequestBudget.Request);
        await using var command = dataSource.CreateCommand(
            """
            SELECT t.contracts_version, t.unknown_event_types, e.name, e.id, e.mode, e.version, coalesce(length(v.schema), 0), e.deprecation
            FROM tenants t LEFT JOIN event_types e ON e.tenant_id = t.id
            LEFT JOIN event_type_versions v ON v.event_type_id = e.id AND v.version = e.version
            WHERE t.id = @tenant
            """);
        command.Parameters.AddWithValue("tenant", tenantId);
        await using var reader = await command.ExecuteReaderAsync(timeout.Token);
        var (version, refusesUnknown) = (0L, false);
        var types = new Dictionary<string, TypeContract>(StringComparer.Ordinal);
        while (await reader.ReadAsync(timeout.Token))
        {
            version = reader.GetInt64(0);
            refusesUnknown = SnakeCase<UnknownEventTypes>.Parse(reader.GetString(1)) == UnknownEventTypes.Refuse;
            if (reader.IsDBNull(2))
                continue;
            types.Add(reader.GetString(2), new TypeContract(
                reader.GetGuid(3), SnakeCase<ContractMode>.Parse(reader.GetString(4)), reader.GetInt32(5), reader.GetInt32(6),
                reader.IsDBNull(7) ? null : reader.GetString(7)));
        }
        return new TenantContracts(version, refusesUnknown, types.ToFrozenDictionary(StringComparer.Ordinal));
    }

    private sealed record Entry(long Version, Lazy<Task<TenantContracts>> Types);
}
