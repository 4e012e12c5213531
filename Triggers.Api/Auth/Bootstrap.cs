using System.ComponentModel.DataAnnotations;
using System.Net;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Auth;

/// <summary>Settings <c>Auth:*</c>.</summary>
internal sealed class AuthOptions
{
    /// <summary>
    /// The first admin key of the tenant <c>default</c>, made at a start that doesn't find it. Never generated or shown here. One that
    /// was revoked stays so; one that another takes the place of goes on for a day.
    /// </summary>
    public string? BootstrapAdminKey { get; set; }

    /// <summary>How long a process goes by what it knows of a key, unless it is told that the key was changed.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:05:00", ErrorMessage = "Auth:KeepKeys must be between 0.1 seconds and 5 minutes.")]
    public TimeSpan KeepKeys { get; set; } = TimeSpan.FromSeconds(3);

    /// <summary>How many unknown keys an address may send a second, ten seconds' worth at once, before they are refused unseen.</summary>
    [Range(1, 1_000_000, ErrorMessage = "Auth:UnknownKeysPerSecond must be between 1 and 1000000.")]
    public int UnknownKeysPerSecond { get; set; } = 10;

    /// <summary>
    /// Networks of reverse proxies, comma-separated: from these, <c>X-Forwarded-For</c> says whose address it is. Empty: the address is
    /// that of the connection.
    /// </summary>
    public string TrustedProxies { get; set; } = "";

    /// <summary>The same, read; null when it can't be.</summary>
    internal IReadOnlyList<IPNetwork>? TrustedNetworks
    {
        get
        {
            var networks = new List<IPNetwork>();
            foreach (var text in TrustedProxies.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
            {
                if (!IPNetwork.TryParse(text, out var network))
                    return null;
                networks.Add(network);
            }
            return networks;
        }
    }
}

/// <summary>
/// Makes sure, at every start once the schema is there, that the tenant <c>default</c> exists, and makes the configured key its admin
/// key. Requests wait for it, within their deadline.
/// </summary>
internal sealed partial class Bootstrap(
    Readiness readiness, NpgsqlDataSource dataSource, IOptions<AuthOptions> options, TimeProvider time, ILogger<Bootstrap> logger)
    : BackgroundLoop(time, logger)
{
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Ends when requests can be answered.</summary>
    public Task Done => _done.Task;

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await EnsureAsync(stoppingToken);
        _done.TrySetResult();
        End();
    }

    private async Task EnsureAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var batch = new NpgsqlBatch(connection);
        batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Bootstrap})"));
        batch.BatchCommands.Add(new NpgsqlBatchCommand("INSERT INTO tenants (id, name) VALUES (@id, @name) ON CONFLICT (name) DO NOTHING")
        {
            Parameters = { new("id", TypeId.NewGuid()), new("name", Tenant.DefaultName) },
        });
        if (options.Value.BootstrapAdminKey is { } secret)
        {
            batch.BatchCommands.Add(new NpgsqlBatchCommand(
                """
                INSERT INTO api_keys AS k (id, tenant_id, name, prefix, hash, scopes, bootstrap)
                SELECT @id, t.id, 'bootstrap', @prefix, @hash, ARRAY[@admin], 'current' FROM tenants t WHERE t.name = @tenant
                ON CONFLICT (hash) DO UPDATE SET bootstrap = 'current', expires_at = NULL WHERE k.bootstrap = 'replaced'
                    AND k.revoked_at IS NULL
                """)
            {
                Parameters =
                {
                    new("id", TypeId.NewGuid()),
                    new("prefix", KeySecret.Prefix(secret)),
                    new("hash", KeySecret.Hash(secret)),
                    new("admin", Scopes.Admin),
                    new("tenant", Tenant.DefaultName),
                },
            });
            batch.BatchCommands.Add(new NpgsqlBatchCommand(
                """
                UPDATE api_keys k SET bootstrap = 'replaced', expires_at = least(k.expires_at, now() + interval '1 day')
                FROM api_keys c WHERE c.hash = @hash AND c.bootstrap = 'current' AND c.revoked_at IS NULL AND k.bootstrap = 'current'
                    AND k.hash <> @hash
                RETURNING k.prefix
                """)
            {
                Parameters = { new("hash", KeySecret.Hash(secret)) },
            });
            batch.BatchCommands.Add(new NpgsqlBatchCommand(
                """
                SELECT FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
                WHERE k.hash = @hash AND t.name = @tenant AND @admin = ANY (k.scopes) AND k.revoked_at IS NULL
                    AND (k.expires_at IS NULL OR k.expires_at > now())
                """)
            {
                Parameters = { new("hash", KeySecret.Hash(secret)), new("admin", Scopes.Admin), new("tenant", Tenant.DefaultName) },
            });
        }
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        // Three statements answer something; the first takes the lock.
        if (!await reader.NextResultAsync(cancellationToken))
            return;
        while (await reader.ReadAsync(cancellationToken))
            Log.Replaced(logger, reader.GetString(0));
        await reader.NextResultAsync(cancellationToken);
        if (!await reader.ReadAsync(cancellationToken))
            Log.NotValid(logger);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 2, Level = LogLevel.Information,
            Message =
                "Auth:BootstrapAdminKey was changed: the admin key before it, {Prefix}…, expires within a day; revoke it to end it now")]
        public static partial void Replaced(ILogger logger, string prefix);

        [LoggerMessage(EventId = 3, Level = LogLevel.Warning,
            Message = "Auth:BootstrapAdminKey was revoked or changed, and stays so; give it another value for a new admin key")]
        public static partial void NotValid(ILogger logger);
    }
}
