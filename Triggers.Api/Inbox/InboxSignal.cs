using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Inbox;

/// <summary>
/// Wakes who waits at the inbox: one connection of this process listens for all of them. It says that events were appended; their
/// way into the inbox takes the projection a moment more.
/// </summary>
internal sealed partial class InboxSignal(
    NpgsqlDataSource dataSource, Readiness readiness, IHostApplicationLifetime lifetime, TimeProvider time, ILogger<InboxSignal> logger)
    : BackgroundService
{
    private volatile TaskCompletionSource _next = NewSignal();

    /// <summary>Ends at the next signal. To be taken before looking, so that nothing falls between looking and waiting.</summary>
    public Task Next => _next.Task;

    /// <summary>Whether nobody should wait any longer.</summary>
    public bool IsEnding => readiness.Draining;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        // Registered after the one that begins the draining, so that who is woken sees it.
        using var ending = lifetime.ApplicationStopping.Register(WakeAll);
        await readiness.SchemaIsThere.WaitAsync(stoppingToken);
        while (true)
        {
            try
            {
                await using var connection = await dataSource.OpenConnectionAsync(stoppingToken);
                connection.Notification += (_, _) => WakeAll();
                await using (var listen = new NpgsqlCommand($"LISTEN {Notifications.Events}; LISTEN {Notifications.Inbox}", connection))
                    await listen.ExecuteNonQueryAsync(stoppingToken);
                // What was said before we listened.
                WakeAll();
                while (true)
                    await connection.WaitAsync(stoppingToken);
            }
            catch (Exception e) when (Problems.MeansStorageIsAway(e) || e is IOException)
            {
                Log.Lost(logger, e.Message);
                await Task.Delay(TimeSpan.FromMilliseconds(500), time, stoppingToken);
            }
        }
    }

    private void WakeAll() => Interlocked.Exchange(ref _next, NewSignal()).TrySetResult();

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Listening for new events was interrupted: {Problem}")]
        public static partial void Lost(ILogger logger, string problem);
    }
}
