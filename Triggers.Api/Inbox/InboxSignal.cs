using System.Collections.Concurrent;
using Npgsql;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Inbox;

/// <summary>
/// Wakes who waits at an inbox: one connection of this process listens for all of them. It says that events were appended, whose way into
/// the inbox takes the projection a moment more, or that something came into an inbox.
/// </summary>
internal sealed class InboxSignal(
    NpgsqlDataSource dataSource, Readiness readiness, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<InboxSignal> logger)
    : BackgroundLoop(time, logger)
{
    // Of tenants that somebody has waited for since their last signal.
    private readonly ConcurrentDictionary<Guid, TaskCompletionSource> _next = new();

    /// <summary>Ends at the tenant's next signal. To be taken before looking, so that nothing falls between looking and waiting.</summary>
    public Task NextOf(Guid tenantId) =>
        _next.GetOrAdd(tenantId, static _ => new(TaskCreationOptions.RunContinuationsAsynchronously)).Task;

    /// <summary>Whether nobody should wait any longer.</summary>
    public bool IsEnding => readiness.Draining;

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(stoppingToken);
        connection.Notification += (_, notification) => Wake(notification.Payload);
        await using (var listen = new NpgsqlCommand(
            $"LISTEN {Notifications.Events}; LISTEN {Notifications.Inbox}; LISTEN {Notifications.Deliveries}", connection))
            await listen.ExecuteNonQueryAsync(stoppingToken);
        Recovered();
        // What was said before we listened.
        WakeAll();
        while (true)
            await connection.WaitAsync(stoppingToken);
    }

    protected override Task PrepareAsync(CancellationToken stoppingToken)
    {
        // Registered after the one that begins the draining, so that who is woken sees it.
        lifetime.ApplicationStopping.Register(WakeAll);
        return readiness.SchemaIsThere.WaitAsync(stoppingToken);
    }

    private void Wake(string payload)
    {
        if (!Notifications.TryReadTenants(payload, out var tenants))
            WakeAll();
        foreach (var tenant in tenants)
            Wake(tenant);
    }

    private void WakeAll()
    {
        foreach (var tenant in _next.Keys)
            Wake(tenant);
    }

    private void Wake(Guid tenantId)
    {
        if (_next.TryRemove(tenantId, out var signal))
            signal.TrySetResult();
    }
}
