using Npgsql;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Inbox;

/// <summary>
/// Wakes who waits at the inbox: one connection of this process listens for all of them. It says that events were appended; their
/// way into the inbox takes the projection a moment more.
/// </summary>
internal sealed class InboxSignal(
    NpgsqlDataSource dataSource, Readiness readiness, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<InboxSignal> logger)
    : BackgroundLoop(time, logger)
{
    private volatile TaskCompletionSource _next = NewSignal();

    /// <summary>Ends at the next signal. To be taken before looking, so that nothing falls between looking and waiting.</summary>
    public Task Next => _next.Task;

    /// <summary>Whether nobody should wait any longer.</summary>
    public bool IsEnding => readiness.Draining;

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(stoppingToken);
        connection.Notification += (_, _) => WakeAll();
        await using (var listen = new NpgsqlCommand($"LISTEN {Notifications.Events}; LISTEN {Notifications.Inbox}", connection))
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

    private void WakeAll() => Interlocked.Exchange(ref _next, NewSignal()).TrySetResult();

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
