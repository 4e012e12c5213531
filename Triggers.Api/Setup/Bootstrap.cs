using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Setup;

/// <summary>Settings <c>Auth:*</c>.</summary>
internal sealed class AuthOptions
{
    /// <summary>A key that every start makes sure is an admin key of the tenant <c>default</c>. Never generated or shown here.</summary>
    public string? BootstrapAdminKey { get; set; }

    /// <summary>How long a process goes by what it knows of a key, unless it is told that the key was changed.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:05:00", ErrorMessage = "Auth:KeepKeys must be between 0.1 seconds and 5 minutes.")]
    public TimeSpan KeepKeys { get; set; } = TimeSpan.FromSeconds(3);
}

/// <summary>
/// Makes sure, at every start once the schema is there, that the tenant <c>default</c> exists and that the configured key is its
/// admin key. Requests wait for it, within their deadline.
/// </summary>
internal sealed class Bootstrap(
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
                INSERT INTO api_keys AS k (id, tenant_id, name, prefix, hash, scopes)
                SELECT @id, t.id, 'bootstrap', @prefix, @hash, ARRAY[@admin] FROM tenants t WHERE t.name = @tenant
                ON CONFLICT (hash) DO UPDATE SET tenant_id = excluded.tenant_id, scopes = excluded.scopes, revoked_at = NULL, expires_at = NULL
                    WHERE k.tenant_id <> excluded.tenant_id OR k.scopes <> excluded.scopes OR k.revoked_at IS NOT NULL OR k.expires_at IS NOT NULL
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
        }
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
