using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;

namespace Triggers.AppHost.Stores;

/// <summary>Where a store comes from.</summary>
internal enum StoreKind
{
    /// <summary>A process on this machine.</summary>
    Local,

    /// <summary>A container.</summary>
    Container,

    /// <summary>Somebody else's, by its connection string.</summary>
    Given,
}

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
                $"{builder.AddParameter(name + "-connection", settings.Text("ConnectionStrings:" + name) ?? "", secret: true)}"))
            : builder.AddConnectionString(name);

    /// <summary>Done before each start of the resource; what goes wrong ends the AppHost with the reason.</summary>
    public static IResourceBuilder<T> PreparedBy<T>(this IResourceBuilder<T> resource, Func<T, ILogger, CancellationToken, Task> prepare) where T : ExecutableResource =>
        resource.OnBeforeResourceStarted(async (store, start, cancellation) =>
        {
            try
            {
                await prepare(store, start.Services.GetRequiredService<ResourceLoggerService>().GetLogger(store), cancellation);
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
        var asked = settings.Text("Stores");
        var (containers, why) = asked is null ? await LookAsync(settings.Text("ASPIRE_CONTAINER_RUNTIME")) : (asked == "containers", "as asked");
        var data = containers ? settings.TemporaryData ? "gone with them" : "in the volumes triggers-*" : $"in {settings.DataDirectory}";
        Console.WriteLine($"Stores: {(containers ? "containers" : "processes")} ({why}; --Stores={(containers ? "local" : "containers")} overrides), data {data}");
        return containers;
    }

    /// <summary>Asks Aspire's own orchestrator, which will start the containers and knows Docker and Podman.</summary>
    /// <returns>Whether it answers, and a sentence about it.</returns>
    private static async Task<(bool Answers, string Why)> LookAsync(string? name)
    {
        var orchestrator = typeof(ContainerRuntime).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(a => a.Key == "dcpclipath").Value!;
        var start = new ProcessStartInfo(orchestrator, name is null ? ["info"] : ["info", "--container-runtime", name])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(start)!;
        using var bound = new CancellationTokenSource(s_bound);
        try
        {
            // {"containers":{"runtime":"docker","installed":true,"running":false,"error":"…"}}
            using var info = JsonDocument.Parse(await process.StandardOutput.ReadToEndAsync(bound.Token));
            if (!info.RootElement.TryGetProperty("containers", out var containers))
                return (false, "no container runtime was found");
            var runtime = containers.GetProperty("runtime").GetString();
            return containers.GetProperty("running").GetBoolean() ? (true, $"{runtime} runs")
                : (false, containers.GetProperty("installed").GetBoolean() ? $"{runtime} is installed and does not run" : $"{runtime} is not installed");
        }
        catch (Exception e) when (e is OperationCanceledException or JsonException or KeyNotFoundException or InvalidOperationException)
        {
            if (!process.HasExited)
                process.Kill();
            return (false, "no container runtime answered");
        }
    }
}

/// <summary>Our own programs, as the build leaves them.</summary>
internal static class Dotnet
{
    // …/dotnet/shared/Microsoft.NETCore.App/10.0.1/
    private static readonly string s_beside =
        Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", OperatingSystem.IsWindows() ? "dotnet.exe" : "dotnet"));

    /// <summary>What runs them: that whose runtime runs this one.</summary>
    public static string Program { get; } = File.Exists(s_beside) ? s_beside : Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";

    /// <summary>Of a project in this clone, in the configuration that this one was built in.</summary>
    public static string AssemblyOf(string projectDirectory)
    {
        // …/bin/Debug/net10.0/
        var output = new DirectoryInfo(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        return Path.Combine(projectDirectory, "bin", output.Parent!.Name, output.Name, Path.GetFileName(projectDirectory) + ".dll");
    }
}
