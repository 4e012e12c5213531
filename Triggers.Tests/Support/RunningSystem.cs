using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using Aspire.Hosting;
using Aspire.Hosting.ApplicationModel;
using Aspire.Hosting.Testing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Triggers.AppHost;
using Triggers.AppHost.Stores;

namespace Triggers.Tests.Support;

/// <summary>
/// The AppHost inside this process, on free ports and data of its own: a killed test run leaves no process behind, and its data is deleted
/// by the next. What crashes stays down until it is started.
/// </summary>
internal sealed class RunningSystem : IAsyncDisposable
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(3);

    private readonly DistributedApplication _app;

    /// <summary>The last that is known of each, by resource and by its instances' ids.</summary>
    private readonly ConcurrentDictionary<string, ConcurrentDictionary<string, ResourceEvent>> _instances = [];

    private RunningSystem(DistributedApplication app, string directory) => (_app, Directory) = (app, directory);

    public string Directory { get; }

    public DistributedApplication App => _app;

    /// <param name="onDemand">Nothing is started before <see cref="StartAsync"/>.</param>
    /// <param name="settings">The AppHost's, and the services'.</param>
    public static async Task<RunningSystem> CreateAsync(bool onDemand, params string[] settings)
    {
        var directory = TestDirectory.New();
        using var bound = new CancellationTokenSource(s_bound);
        var builder = await DistributedApplicationTestingBuilder.CreateAsync<Projects.Triggers_AppHost>(
        [
            $"--Data:Directory={directory}", "--Data:Temporary=true", "--Stores=local", "--Restarts=false",
            "--Dashboard:Enabled=false", "--Ports:api=0", "--Ports:receiver=0",
            "--Ports:kafka=0", $"--Kafka:Home={KafkaServer.Home}", .. settings,
        ], bound.Token);
        // Failures come as exceptions; what the stores say is kept beside them.
        builder.Services.AddLogging(
            logging => logging.SetMinimumLevel(LogLevel.Error).AddFilter("Triggers.AppHost.Resources", LogLevel.None));
        if (onDemand)
            foreach (var resource in builder.Resources.OfType<ExecutableResource>())
                resource.Annotations.Add(new ExplicitStartupAnnotation());
        var app = await builder.BuildAsync(bound.Token);
        var system = new RunningSystem(app, directory);
        _ = system.WatchAsync();
        try
        {
            await app.StartAsync(bound.Token);
            return system;
        }
        catch
        {
            await system.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts it, on the same data and port as before, and waits until it is ready.</summary>
    public async Task StartAsync(string name)
    {
        var (resource, id) = InstanceOf(name);
        using var bound = new CancellationTokenSource(s_bound);
        var result = await _app.ResourceCommands.ExecuteCommandAsync(id, KnownResourceCommands.StartCommand, bound.Token);
        Assert.True(result.Success, $"{name} was not started: {result.Message}");
        await _app.ResourceNotifications.WaitForResourceAsync(
            resource, e => e.ResourceId == id && e.Snapshot.State?.Text == KnownResourceStates.Running, bound.Token);
        await AnswersAsync(resource, bound.Token);
    }

    /// <summary>Waits until it is ready.</summary>
    public async Task ReadyAsync(string resource)
    {
        using var bound = new CancellationTokenSource(s_bound);
        await _app.ResourceNotifications.WaitForResourceHealthyAsync(resource, bound.Token);
    }

    /// <summary>Kills it at once, as a crash of the machine would; it stays down until <see cref="StartAsync"/>.</summary>
    public async Task KillAsync(string name)
    {
        var (resource, id) = InstanceOf(name);
        using (var process = Process.GetProcessById(ProcessOf(name)))
            process.Kill();
        using var bound = new CancellationTokenSource(s_bound);
        await _app.ResourceNotifications.WaitForResourceAsync(
            resource, e => e.ResourceId == id && KnownResourceStates.TerminalStates.Contains(e.Snapshot.State?.Text), bound.Token);
    }

    /// <summary>The id of the running process.</summary>
    public int ProcessOf(string name)
    {
        // A shell is in between, to stop it in time.
        if (name == "postgres")
            return Postgres.RunningOn(Directory) ?? throw new InvalidOperationException("Postgres does not run.");
        var properties = StateOf(name).Snapshot.Properties;
        return Convert.ToInt32(properties.Single(property => property.Name == "executable.pid").Value, CultureInfo.InvariantCulture);
    }

    /// <summary>What the instances of a resource are called here: <c>api</c> alone, of several <c>api-1</c> and so on.</summary>
    public IEnumerable<string> NamesOf(string resource) => _instances[resource] is { Count: > 1 } several
        ? Enumerable.Range(1, several.Count).Select(i => $"{resource}-{i}") : [resource];

    /// <summary>Where it is, not by way of the proxy that several instances are behind.</summary>
    public Uri UrlOf(string name)
    {
        var variables = StateOf(name).Snapshot.EnvironmentVariables;
        return new Uri(variables.Single(variable => variable.Name == "ASPNETCORE_URLS").Value!);
    }

    /// <summary>What Aspire calls it.</summary>
    public string IdOf(string name) => InstanceOf(name).Id;

    public async Task<string> ConnectionStringAsync(string name) =>
        await _app.GetConnectionStringAsync(name) ?? throw new InvalidOperationException($"There is no {name}.");

    /// <summary>Stops everything and deletes the data.</summary>
    public async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync();
        await TestDirectory.DeleteAsync(Directory);
    }

    /// <summary>One that only listens again may not be ready: what the state says of its health is from before.</summary>
    private async Task AnswersAsync(string resource, CancellationToken cancellationToken)
    {
        var health = _app.Services.GetRequiredService<HealthCheckService>();
        var report = await health.CheckHealthAsync(check => check.Name == resource + "-ready", cancellationToken);
        while (report.Status != HealthStatus.Healthy)
            report = await health.CheckHealthAsync(check => check.Name == resource + "-ready", cancellationToken);
    }

    private ResourceEvent StateOf(string name)
    {
        var (resource, id) = InstanceOf(name);
        return _instances[resource][id];
    }

    /// <param name="name">A resource's, or, of several instances, with the number of one, as in <c>api-2</c>.</param>
    private (string Resource, string Id) InstanceOf(string name)
    {
        var parts = name.Split('-');
        return _instances.TryGetValue(name, out var single) ? (name, single.Keys.Single())
            : (parts[0], _instances[parts[0]].Keys.Order().ElementAt(int.Parse(parts[1], CultureInfo.InvariantCulture) - 1));
    }

    private async Task WatchAsync()
    {
        await foreach (var e in _app.ResourceNotifications.WatchAsync(
            _app.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopped))
            _instances.GetOrAdd(e.Resource.Name, _ => [])[e.ResourceId] = e;
    }
}

/// <summary>The stores of the test run. They start when first asked for.</summary>
internal static class SharedStores
{
    private static readonly Lock s_lock = new();
    private static readonly Dictionary<string, Task> s_started = [];
    private static Task<RunningSystem>? s_system;

    public static async Task<RunningSystem> StartedAsync(string store)
    {
        Task<RunningSystem> system;
        lock (s_lock)
            system = s_system ??= RunningSystem.CreateAsync(onDemand: true, "--Resources=stores");
        var running = await system;
        Task started;
        lock (s_lock)
            started = s_started.TryGetValue(store, out var known) ? known : s_started[store] = running.StartAsync(store);
        await started;
        return running;
    }

    /// <summary>After the last test.</summary>
    public static async Task StopAsync()
    {
        Task<RunningSystem>? system;
        lock (s_lock)
            (system, s_system) = (s_system, null);
        if (system is not null)
            await (await system).DisposeAsync();
    }
}

/// <summary>Directories of this test run, where the user that Postgres runs as can reach them.</summary>
internal static class TestDirectory
{
    private static readonly string s_parent = Settings.IsRoot ? "/var/lib/triggers/tests" : Path.GetTempPath();

    static TestDirectory()
    {
        PackageCache.CreateReadable(s_parent);
        // Of test runs that were killed: nobody holds their locks.
        foreach (var directory in Directory.GetDirectories(s_parent, "triggers-*")
            .Where(directory => File.Exists(Path.Combine(directory, "lock"))))
            using (var abandoned = FileLock.Try(Path.Combine(directory, "lock")))
                if (abandoned is not null)
                    Directory.Delete(directory, recursive: true);
    }

    public static string New() => Path.Combine(s_parent, "triggers-" + Guid.NewGuid().ToString("N"));

    /// <summary>Once the AppHost has let go of it.</summary>
    public static Task DeleteAsync(string directory) => Wait.UntilAsync($"{directory} is let go", () =>
    {
        if (!Directory.Exists(directory))
            return true;
        using var ours = FileLock.Try(Path.Combine(directory, "lock"));
        if (ours is not null)
            Directory.Delete(directory, recursive: true);
        return ours is not null;
    });
}
