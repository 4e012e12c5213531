using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Diagnostics.HealthChecks;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Npgsql;
using Triggers.Core;

namespace Triggers.ServiceDefaults;

/// <summary>The endpoints that orchestrators and collectors ask, and what they answer. They are not counted as requests.</summary>
public static class HealthEndpoints
{
    internal const string Ready = "ready";

    /// <summary>
    /// Adds a check of something that the service depends on. It has <see cref="RequestBudget.Health"/> to answer, and its loss is
    /// degradation.
    /// </summary>
    /// <param name="services">The service's.</param>
    /// <param name="name">As in <c>postgres</c>.</param>
    public static void AddDependencyCheck<T>(this IServiceCollection services, string name) where T : class, IHealthCheck =>
        services.AddHealthChecks().AddCheck<T>(name, HealthStatus.Degraded, [], RequestBudget.Health);

    internal static void AddReadinessCheck(this IServiceCollection services) =>
        services.AddSingleton<Readiness>().AddHealthChecks().AddCheck<Readiness>(Ready);

    /// <summary>
    /// <c>/health/live</c> checks nothing outside the process. <c>/health/ready</c> is 503 until first ready and while draining;
    /// a dependency lost later is 200 <c>degraded</c>, naming the part, since removing every process at once helps nobody.
    /// <c>/metrics</c> is there when <see cref="TelemetryOptions.Prometheus"/> is on.
    /// </summary>
    public static void MapLiveAndReady(this WebApplication app)
    {
        app.MapHealth("/health/live", _ => false);
        app.MapHealth("/health/ready", _ => true);
        app.MapMetrics();
    }

    /// <summary>Asks the dependencies, and not whether work may be sent here.</summary>
    public static async Task<ServiceHealth> CheckDependenciesAsync(this HealthCheckService checks, CancellationToken cancellationToken) =>
        ServiceHealth.Of(await checks.CheckHealthAsync(check => check.Name != Ready, cancellationToken), withExceptions: true);

    private static void MapHealth(this WebApplication app, string path, Func<HealthCheckRegistration, bool> predicate) =>
        app.MapHealthChecks(path, new HealthCheckOptions
        {
            Predicate = predicate,
            ResponseWriter = (context, report) => context.Response.WriteAsJsonAsync(ServiceHealth.Of(report, withExceptions: false)),
        }).WithMetadata(new HttpMethodMetadata([HttpMethods.Get])).ExcludeFromDescription().AllowAnonymous().DisableHttpMetrics();
}

/// <summary>The state of a service.</summary>
/// <param name="Status"><c>healthy</c>, <c>degraded</c>, <c>starting</c> or <c>draining</c>.</param>
/// <param name="Parts">One for each dependency.</param>
public sealed record ServiceHealth(string Status, IReadOnlyList<PartHealth> Parts)
{
    /// <param name="report">Of all parts.</param>
    /// <param name="withExceptions">Whether to tell what exceptions say, which names addresses: not to everybody.</param>
    internal static ServiceHealth Of(HealthReport report, bool withExceptions)
    {
        static string Name(HealthStatus status) => status == HealthStatus.Healthy ? "healthy" : "unhealthy";

        // A dependency is never worse than degraded: what is unhealthy is the service itself, and says whether it starts or drains.
        var itself = report.Entries.Values.FirstOrDefault(entry => entry.Status == HealthStatus.Unhealthy).Description;
        var parts = report.Entries.Where(entry => entry.Key != HealthEndpoints.Ready);
        return new ServiceHealth(
            itself ?? (report.Status == HealthStatus.Healthy ? "healthy" : "degraded"),
            [.. parts.Select(part => new PartHealth(
                part.Key, Name(part.Value.Status), withExceptions || part.Value.Exception is null ? part.Value.Description : null))]);
    }
}

/// <summary>The state of one dependency.</summary>
/// <param name="Name">As in <c>postgres</c>.</param>
/// <param name="Status"><c>healthy</c> or <c>unhealthy</c>.</param>
/// <param name="Detail">What is wrong.</param>
public sealed record PartHealth(string Name, string Status, string? Detail);

/// <summary>Postgres answers, and has partitions for the days ahead.</summary>
internal sealed class PostgresHealth(NpgsqlDataSource dataSource) : IHealthCheck
{
    // A server that hangs does not answer a cancellation either. Npgsql waits for that, and in the thread that cancels; whoever asks must
    // not.
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default) =>
        AskAsync().WaitAsync(cancellationToken);

    private async Task<HealthCheckResult> AskAsync()
    {
        await using var command = dataSource.CreateCommand(
            "SELECT to_regclass('events_' || to_char((now() AT TIME ZONE 'UTC') + interval '2 days', 'YYYYMMDD')) IS NOT NULL");
        command.CommandTimeout = (int)RequestBudget.Health.TotalSeconds;
        return await command.ExecuteScalarAsync() is true
            ? HealthCheckResult.Healthy()
            : HealthCheckResult.Degraded("fewer than 2 days of partitions are left: is a delivery service running?");
    }
}
