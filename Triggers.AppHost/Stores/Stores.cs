using System.ComponentModel;
using System.Diagnostics;
using System.Reflection;
using System.Text.Json;
using CliWrap;
using CliWrap.Buffered;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Triggers.AppHost.Stores;

/// <summary>A store that runs as a process of this machine, its data below the data directory, reachable from this machine only.</summary>
internal sealed class LocalStore(string name, string command, string directory, Func<EndpointReference, ReferenceExpression> connection)
    : ExecutableResource(name, command, directory), IResourceWithConnectionString
{
    public EndpointReference Endpoint => field ??= new(this, "tcp");

    public ReferenceExpression ConnectionStringExpression => connection(Endpoint);

    /// <summary>Not by name: clients would try ::1 first, and complain.</summary>
    public static ReferenceExpression Address(EndpointReference endpoint) => ReferenceExpression.Create(
        $"{endpoint.Property(EndpointProperty.IPV4Host)}:{endpoint.Property(EndpointProperty.Port)}");
}

/// <summary>What the stores have in common.</summary>
internal static class StoreExtensions
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    /// <summary>A Helm chart is written, and not the manifest that azd reads.</summary>
    public static bool PublishesChart(this IDistributedApplicationBuilder builder) =>
        builder.ExecutionContext.IsPublishMode && string.IsNullOrEmpty(builder.Configuration["Publishing:Publisher"]);

    /// <summary>Adds a store, if it is wanted, and not given by its connection string already.</summary>
    public static IResourceBuilder<IResourceWithConnectionString>? AddStore(
        this IDistributedApplicationBuilder builder, Settings settings, string store, string name,
        Func<IDistributedApplicationBuilder, Settings, IResourceBuilder<IResourceWithConnectionString>?> add)
    {
        if (!settings.Stores.Contains(store))
            return null;
        var given = settings["ConnectionStrings:" + name];
        if (builder.ExecutionContext.IsRunMode ? given is null : settings.Is("in-cluster-stores"))
            return add(builder, settings);
        // The chart leaves it to values.yaml; a plain one would be asked for here and now, on a terminal that may not be there.
        return builder.PublishesChart()
            ? builder.AddConnectionString(
                name, ReferenceExpression.Create($"{builder.AddParameter(name + "-connection", given ?? "", secret: true)}"))
            : builder.AddConnectionString(name);
    }

    /// <summary>Clients talk to it directly: no proxy in between.</summary>
    public static IResourceBuilder<LocalStore> AddLocalStore(
        this IDistributedApplicationBuilder builder, LocalStore store, int? port, string icon) =>
        builder.AddResource(store)
            .WithEndpoint(port: port, targetPort: port, scheme: "tcp", name: "tcp", isProxied: false)
            .WithIconName(icon)
            .ExcludeFromManifest();

    /// <summary>Done before each start of the resource; what goes wrong ends the AppHost with the reason.</summary>
    public static IResourceBuilder<LocalStore> PreparedBy(
        this IResourceBuilder<LocalStore> resource, Func<ILogger, CancellationToken, Task> prepare) =>
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

    /// <summary>
    /// Aspire asks at longer and longer intervals, so that what is ready soon would be noticed late: this answers as soon as it is.
    /// </summary>
    public static IResourceBuilder<T> WithPatientHealthCheck<T>(
        this IResourceBuilder<T> resource, Func<CancellationToken, Task> ask) where T : IResource
    {
        var key = resource.Resource.Name + "-ready";
        resource.ApplicationBuilder.Services.AddHealthChecks().AddAsyncCheck(key, async cancellation =>
        {
            for (var started = Stopwatch.GetTimestamp(); ; await Task.Delay(TimeSpan.FromMilliseconds(50), cancellation))
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
            }
        });
        return resource.WithHealthCheck(key);
    }
}

/// <summary>What containers would run in, as in <c>docker</c>; whether it answers, and why it is thought so.</summary>
internal sealed record ContainerRuntime(string Name, bool Answers, string Why)
{
    /// <summary>Null when the stores are processes. Says so, and why: it is the first line that a start prints.</summary>
    /// <exception cref="DistributedApplicationException">Containers were asked for, and nothing would run them.</exception>
    public static async Task<ContainerRuntime?> ChooseAsync(Settings settings)
    {
        var asked = settings["Stores"];
        var runtime = asked == "local" ? new("", false, "as asked") : await LookAsync(settings["ASPIRE_CONTAINER_RUNTIME"]);
        var containers = asked == "containers" || runtime.Answers;
        var data = !containers ? $"in {settings.DataDirectory}" : settings.Is("Data:Temporary") ? "gone with them"
            : "in the volumes triggers-*";
        Console.WriteLine(
            $"Stores: {(containers ? "containers" : "processes")} ({runtime.Why}; --Stores={(containers ? "local" : "containers")} "
                + $"overrides), data {data}");
        if (containers && !runtime.Answers)
            throw new DistributedApplicationException($"--Stores=containers needs Docker or Podman: {runtime.Why}.");
        return containers ? runtime : null;
    }

    public Task DropVolumesAsync()
    {
        string[] command = ["volume", "rm", "--force", "triggers-postgres", "triggers-redis", "triggers-kafka"];
        return Tool.RunAsync(Name, command, ".", NullLogger.Instance, default);
    }

    /// <summary>Asks Aspire's own orchestrator, which will start the containers and knows Docker and Podman.</summary>
    private static async Task<ContainerRuntime> LookAsync(string? name)
    {
        var orchestrator = typeof(ContainerRuntime).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
            .First(a => a.Key == "dcpclipath").Value!;
        using var bound = new CancellationTokenSource(TimeSpan.FromSeconds(25));
        try
        {
            // {"containers":{"runtime":"docker","installed":true,"running":false,"error":"…"}}
            var said = await Cli.Wrap(orchestrator).WithArguments(name is null ? ["info"] : ["info", "--container-runtime", name])
                .WithValidation(CommandResultValidation.None).ExecuteBufferedAsync(bound.Token);
            var containers = JsonDocument.Parse(said.StandardOutput).RootElement.GetProperty("containers");
            var (runtime, runs) = (containers.GetProperty("runtime").GetString()!, containers.GetProperty("running").GetBoolean());
            var isThere = containers.GetProperty("installed").GetBoolean();
            var state = runs ? "runs" : isThere ? "is installed and does not run" : "is not installed";
            return new(runtime, runs, $"{runtime} {state}");
        }
        catch (Exception e) when (
            e is OperationCanceledException or JsonException or KeyNotFoundException or InvalidOperationException or Win32Exception)
        {
            return new(name ?? "", false, "no container runtime answered");
        }
    }
}
