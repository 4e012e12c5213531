using System.Diagnostics;
using System.Reflection;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;

namespace Triggers.AppHost.Stores;

/// <summary>Where a store comes from: a process on this machine, a container, or, by its connection string, somebody else.</summary>
internal enum StoreKind { Local, Container, Given }

/// <summary>What the stores have in common.</summary>
internal static class StoreExtensions
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    /// <summary>A Helm chart is written, and not the manifest that azd reads.</summary>
    public static bool PublishesChart(this IDistributedApplicationBuilder builder) =>
        builder.ExecutionContext.IsPublishMode && string.IsNullOrEmpty(builder.Configuration["Publishing:Publisher"]);

    /// <summary>A store that is there already.</summary>
    public static IResourceBuilder<IResourceWithConnectionString> AddGivenStore(this IDistributedApplicationBuilder builder, Settings settings, string name) =>
        // The chart leaves it to values.yaml; a plain one would be asked for here and now, on a terminal that may not be there.
        builder.PublishesChart()
            ? builder.AddConnectionString(name, ReferenceExpression.Create(
                $"{builder.AddParameter(name + "-connection", settings["ConnectionStrings:" + name] ?? "", secret: true)}"))
            : builder.AddConnectionString(name);

    /// <summary>Done before each start of the resource; what goes wrong ends the AppHost with the reason.</summary>
    public static IResourceBuilder<T> PreparedBy<T>(this IResourceBuilder<T> resource, Func<ILogger, CancellationToken, Task> prepare) where T : ExecutableResource =>
        resource.OnBeforeResourceStarted(async (store, start, cancellation) =>
        {
            try
            {
                await prepare(start.Services.GetRequiredService<ResourceLoggerService>().GetLogger(store), cancellation);
            }
            catch (Exception e) when (e is DistributedApplicationException or IOException or UnauthorizedAccessException)
            {
                start.Services.GetRequiredService<Supervision>().Fail(e.Message);
                throw;
            }
        });

    /// <summary>Aspire asks at longer and longer intervals, so that what is ready soon would be noticed late: this answers as soon as it is.</summary>
    /// <param name="resource">What is asked.</param>
    /// <param name="ask">Throws when it is not ready.</param>
    public static IResourceBuilder<T> WithPatientHealthCheck<T>(this IResourceBuilder<T> resource, Func<CancellationToken, Task> ask) where T : IResource
    {
        var key = resource.Resource.Name + "-ready";
        resource.ApplicationBuilder.Services.AddHealthChecks().AddAsyncCheck(key, async cancellation =>
        {
            var started = Stopwatch.GetTimestamp();
            while (true)
            {
                try
                {
                    await ask(cancellation);
                    return HealthCheckResult.Healthy();
                }
                catch (Exception e) when (!cancellation.IsCancellationRequested)
                {
                    if (Stopwatch.GetElapsedTime(started) > s_patience)
                        return HealthCheckResult.Unhealthy(e.Message);
                }
                await Task.Delay(TimeSpan.FromMilliseconds(50), cancellation);
            }
        });
        return resource.WithHealthCheck(key);
    }
}

/// <summary>The container runtime of this machine.</summary>
internal static class ContainerRuntime
{
    private static readonly TimeSpan s_bound = TimeSpan.FromSeconds(25);

    /// <summary>Whether the stores are containers. Says so, and why: it is the first line that a start prints.</summary>
    public static async Task<bool> IsChosenAsync(Settings settings)
    {
        var asked = settings["Stores"];
        var (containers, why) = asked is null ? await LookAsync(settings["ASPIRE_CONTAINER_RUNTIME"]) : (asked == "containers", "as asked");
        var data = containers ? settings.Is("Data:Temporary") ? "gone with them" : "in the volumes triggers-*" : $"in {settings.DataDirectory}";
        Console.WriteLine($"Stores: {(containers ? "containers" : "processes")} ({why}; --Stores={(containers ? "local" : "containers")} overrides), data {data}");
        return containers;
    }

    /// <summary>Asks Aspire's own orchestrator, which will start the containers and knows Docker and Podman.</summary>
    private static async Task<(bool Answers, string Why)> LookAsync(string? name)
    {
        var orchestrator = typeof(ContainerRuntime).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(a => a.Key == "dcpclipath").Value!;
        string[] question = name is null ? ["info"] : ["info", "--container-runtime", name];
        using var process = Process.Start(new ProcessStartInfo(orchestrator, question) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        try
        {
            // {"containers":{"runtime":"docker","installed":true,"running":false,"error":"…"}}
            using var info = JsonDocument.Parse(await process.StandardOutput.ReadToEndAsync().WaitAsync(s_bound));
            var containers = info.RootElement.GetProperty("containers");
            var (runtime, runs) = (containers.GetProperty("runtime").GetString(), containers.GetProperty("running").GetBoolean());
            return (runs, $"{runtime} {(runs ? "runs" : containers.GetProperty("installed").GetBoolean() ? "is installed and does not run" : "is not installed")}");
        }
        catch (Exception e) when (e is TimeoutException or JsonException or KeyNotFoundException or InvalidOperationException)
        {
            process.Kill();
            return (false, "no container runtime answered");
        }
    }
}
