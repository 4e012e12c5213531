using System.Collections.Concurrent;
using System.ComponentModel.DataAnnotations;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
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
public sealed class Readiness
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

    internal void SchemaFound() => _schema.TrySetResult();

    internal void Drain() => _draining = true;
}

/// <summary>Takes the service out of rotation before it ends.</summary>
internal sealed class Drain(
    Readiness readiness, IOptions<ShutdownOptions> shutdown, IHostEnvironment environment, IHostApplicationLifetime lifetime, TimeProvider time)
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
    Readiness readiness, IDbContextFactory<TriggersDbContext> contexts, TimeProvider time, ILogger<SchemaWait> logger) : BackgroundLoop(time, logger)
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

/// <summary>The endpoints that orchestrators and collectors ask. They are not counted as requests.</summary>
public static class HealthEndpoints
{
    /// <summary>
    /// <c>/health/live</c> checks nothing outside the process. <c>/health/ready</c> is 503 until first ready and while draining;
    /// a dependency lost later is 200 <c>degraded</c>, naming the part, since removing every process at once helps nobody.
    /// <c>/metrics</c> is there when <see cref="TelemetryOptions.Prometheus"/> is on.
    /// </summary>
    public static void MapLiveAndReady(this WebApplication app)
    {
        app.MapGet("/health/live", () => TypedResults.Json(new HealthReport("healthy", []))).ExcludeFromDescription().AllowAnonymous().DisableHttpMetrics();
        app.MapGet("/health/ready", async (Readiness readiness, IEnumerable<IHealthPart> parts, CancellationToken cancellationToken) =>
        {
            var report = await HealthReport.CheckAsync(parts, cancellationToken);
            return readiness.IsReady
                ? Results.Json(report)
                : Results.Json(report with { Status = readiness.Draining ? "draining" : "starting" }, statusCode: StatusCodes.Status503ServiceUnavailable);
        }).ExcludeFromDescription().AllowAnonymous().DisableHttpMetrics();
        app.MapMetrics();
    }
}

/// <summary>Something a service depends on.</summary>
public interface IHealthPart
{
    /// <summary>As in <c>postgres</c>.</summary>
    string Name { get; }

    /// <summary>Null when it is well, else one line saying what is wrong. Bounded in time by the caller.</summary>
    Task<string?> CheckAsync(CancellationToken cancellationToken);
}

/// <summary>The state of a service.</summary>
/// <param name="Status"><c>healthy</c>, <c>degraded</c>, <c>starting</c> or <c>draining</c>.</param>
/// <param name="Parts">One for each dependency.</param>
public sealed record HealthReport(string Status, IReadOnlyList<HealthPartReport> Parts)
{
    /// <summary>Asks every part, one second each at most.</summary>
    public static async Task<HealthReport> CheckAsync(IEnumerable<IHealthPart> parts, CancellationToken cancellationToken)
    {
        var reports = await Task.WhenAll(parts.Select(async part =>
        {
            try
            {
                var problem = await part.CheckAsync(cancellationToken).WaitAsync(TimeSpan.FromSeconds(1), cancellationToken);
                return new HealthPartReport(part.Name, problem is null ? "healthy" : "unhealthy", problem);
            }
            catch (TimeoutException)
            {
                return new HealthPartReport(part.Name, "unhealthy", "no answer within 1 s");
            }
        }));
        return new HealthReport(reports.All(r => r.Status == "healthy") ? "healthy" : "degraded", reports);
    }
}

/// <summary>The state of one dependency.</summary>
/// <param name="Name">As in <c>postgres</c>.</param>
/// <param name="Status"><c>healthy</c> or <c>unhealthy</c>.</param>
/// <param name="Detail">What is wrong.</param>
public sealed record HealthPartReport(string Name, string Status, string? Detail);

/// <summary>Postgres answers, and has partitions for the days ahead.</summary>
public sealed class PostgresHealth(NpgsqlDataSource dataSource) : IHealthPart
{
    /// <inheritdoc />
    public string Name => "postgres";

    /// <inheritdoc />
    public async Task<string?> CheckAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using var command = dataSource.CreateCommand(
                "SELECT to_regclass('events_' || to_char((now() AT TIME ZONE 'UTC') + interval '2 days', 'YYYYMMDD')) IS NOT NULL");
            return await command.ExecuteScalarAsync(cancellationToken) is true
                ? null
                : "fewer than 2 days of partitions are left: is a delivery service running?";
        }
        catch (Exception e) when (e is NpgsqlException || Storage.IsAway(e))
        {
            return e.Message;
        }
    }
}
