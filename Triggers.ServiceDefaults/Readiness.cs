using System.Collections.Concurrent;
using System.ComponentModel.DataAnnotations;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Triggers.Core;
using Triggers.Core.Schema;

namespace Triggers.ServiceDefaults;

/// <summary>Settings <c>Shutdown:*</c>.</summary>
public sealed class ShutdownOptions
{
    /// <summary>How long the service says it is not ready before it stops taking work. 0 in Development.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "00:05:00", ErrorMessage = "Shutdown:Delay must be between 0 and 5 minutes.")]
    public TimeSpan Delay { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>How long work that has begun may go on after that.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:10:00", ErrorMessage = "Shutdown:GracePeriod must be between 1 second and 10 minutes.")]
    public TimeSpan GracePeriod { get; set; } = TimeSpan.FromSeconds(20);
}

/// <summary>Whether work may be sent here. Once ready, only draining takes it back: a dependency lost later is degradation.</summary>
public sealed class Readiness : IHealthCheck
{
    private static readonly TimeSpan NormalStart = TimeSpan.FromSeconds(15);

    private readonly TaskCompletionSource _schema = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ConcurrentBag<Task> _holds = [];
    private volatile bool _draining;

    /// <summary>Ends when the database has this version's schema. Whatever uses the database waits for it.</summary>
    public Task SchemaIsThere => _schema.Task;

    /// <summary>The process is on its way out: long waits end, nothing new begins.</summary>
    public bool Draining => _draining;

    /// <summary>Whether to send work here.</summary>
    public bool IsReady => _schema.Task.IsCompletedSuccessfully && _holds.All(hold => hold.IsCompleted) && !_draining;

    /// <summary>The service is not ready before this has ended. To be called before the service starts to listen.</summary>
    public void HoldUntil(Task done) => _holds.Add(done);

    /// <summary>How to log that something is waited for: no warning while everything may be starting at the same moment.</summary>
    /// <param name="elapsed">Since the start.</param>
    public static LogLevel LevelOfWaiting(TimeSpan elapsed) => elapsed < NormalStart ? LogLevel.Information : LogLevel.Warning;

    /// <inheritdoc />
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default) =>
        Task.FromResult(IsReady ? HealthCheckResult.Healthy() : HealthCheckResult.Unhealthy(Draining ? "draining" : "starting"));

    internal void SchemaFound() => _schema.TrySetResult();

    internal void Drain() => _draining = true;
}

/// <summary>Takes the service out of rotation before it ends.</summary>
internal sealed class Drain(
    Readiness readiness, IOptions<ShutdownOptions> shutdown,
    IHostEnvironment environment, IHostApplicationLifetime lifetime, TimeProvider time)
    : IHostedLifecycleService
{
    public Task StartAsync(CancellationToken cancellationToken)
    {
        lifetime.ApplicationStopping.Register(readiness.Drain);
        return Task.CompletedTask;
    }

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        var delay = environment.IsDevelopment() ? TimeSpan.Zero : shutdown.Value.Delay;
        if (delay > TimeSpan.Zero)
            await Task.Delay(delay, time, cancellationToken);
    }

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}

/// <summary>Waits for the schema at the start.</summary>
internal sealed partial class SchemaWait(
    Readiness readiness, IDbContextFactory<TriggersDbContext> contexts, TimeProvider time, ILogger<SchemaWait> logger)
        : BackgroundLoop(time, logger)
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    private readonly long _started = time.GetTimestamp();
    private LogLevel? _said;

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        await using var db = await contexts.CreateDbContextAsync(stoppingToken);
        if (await SchemaVersion.IsCurrentAsync(db, stoppingToken))
        {
            readiness.SchemaFound();
            End();
            return;
        }
        var level = Readiness.LevelOfWaiting(Time.GetElapsedTime(_started));
        if (level != _said)
            Log.Missing(Logger, level);
        _said = level;
        await Task.Delay(s_pause, Time, stoppingToken);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Message = "The database does not have this version's schema yet: run the migrations")]
        public static partial void Missing(ILogger logger, LogLevel level);
    }
}
