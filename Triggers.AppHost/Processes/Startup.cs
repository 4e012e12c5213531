using System.Collections.Concurrent;
using System.Text.Json;

namespace Triggers.AppHost.Processes;

/// <summary>Starts what the topology says, in its order.</summary>
internal sealed class Startup(Settings settings, Screen screen, RunRecord record, Children children, TimeProvider time)
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    private readonly Dictionary<string, Task> _ready = [];

    /// <summary>By name; what is off is not in it.</summary>
    private readonly ConcurrentDictionary<string, string> _connections = new();

    private Dictionary<string, Instance[]> _instances = [];

    /// <summary>Ends when all is up, or, with a service that takes its time, when that has been said.</summary>
    /// <exception cref="AppHostException">Something is wrong that trying again will not mend.</exception>
    public async Task RunAsync(CancellationToken stop)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(stop);
        try
        {
            await StartAllAsync(giveUp.Token);
        }
        catch
        {
            // Nothing is still being made, or started, when this ends.
            await giveUp.CancelAsync();
            await Task.WhenAll(_ready.Values).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            throw;
        }
    }

    private async Task StartAllAsync(CancellationToken stop)
    {
        // Before anything is downloaded: this is the commonest mistake.
        var dashboardPort = WantsDashboard ? Ports.Claim(Topology.Dashboard, settings.DashboardPort) : 0;
        if (!settings.StoresOnly)
            _instances = Topology.Services.ToDictionary(service => service.Name, service => Instance.Of(service, settings));
        var kafkaPort = HasKafka ? Ports.Claim(Topology.Kafka, settings.PortOf(Topology.Kafka, settings.StoresOnly ? 0 : Topology.KafkaPort)) : 0;
        var redisPort = Ports.Claim(Topology.Redis, settings.PortOf(Topology.Redis, 0));
        var cache = new PackageCache(settings.CacheDirectory, screen, time);

        StartStore(Topology.Postgres, Topology.Database, () => StartPostgresAsync(cache, stop));
        StartStore(Topology.Redis, Topology.Redis, () => StartRedisAsync(cache, redisPort, stop));
        StartStore(Topology.Kafka, Topology.Kafka, () => StartKafkaAsync(kafkaPort, stop));
        var stores = _ready.Values.ToList();
        if (settings.StoresOnly)
        {
            await AllOrFirstFailureAsync(stores);
            screen.Say("ready");
            return;
        }
        var adminKey = AdminKey.Of(settings);
        int? telemetryPort = WantsDashboard ? Ports.Free() : null;
        var launches = new ServiceLaunch(settings, adminKey, telemetryPort);
        foreach (var service in Topology.Services)
            _ready[service.Name] = StartServiceAsync(service, launches, stop);
        foreach (var instance in _instances.Values.SelectMany(instances => instances).Where(instance => instance.Port != 0))
            record.Address(instance.Name, instance.Url);

        // However long a download takes.
        await AllOrFirstFailureAsync(stores);
        var all = Task.WhenAll(_ready.Values);
        await Task.WhenAny(all, Task.Delay(s_patience, time, stop));
        stop.ThrowIfCancellationRequested();
        if (_ready.Values.FirstOrDefault(task => task.IsFaulted) is { } failed)
            await failed;
        ShowTable(adminKey, dashboardPort);
        if (telemetryPort is not null)
            await StartDashboardAsync(cache, dashboardPort, telemetryPort.Value, stop);
    }

    private bool WantsDashboard => settings is { DashboardEnabled: true, StoresOnly: false } && Environment.GetEnvironmentVariable("OTEL_EXPORTER_OTLP_ENDPOINT") is null or "";

    private bool HasKafka => settings.KafkaHome is not null && settings.External(Topology.Kafka) is null;

    /// <param name="name">The store.</param>
    /// <param name="connection">What its connection string is called.</param>
    /// <param name="start">Ends when it is ready, with its connection string; null if it is off.</param>
    private void StartStore(string name, string connection, Func<Task<string?>> start)
    {
        if (settings.Stores.Contains(name))
            _ready[name] = StartAsync();

        async Task StartAsync()
        {
            if (await start() is not { } connectionString)
                return;
            _connections[connection] = connectionString;
            record.Address(connection, connectionString);
        }
    }

    private static async Task AllOrFirstFailureAsync(IEnumerable<Task> tasks)
    {
        await foreach (var task in Task.WhenEach(tasks))
            await task;
    }

    private async Task<string?> StartPostgresAsync(PackageCache cache, CancellationToken stop)
    {
        if (settings.ExternalDatabase is not null)
        {
            await Postgres.CheckExternalAsync(settings.ExternalDatabase, stop);
            return settings.ExternalDatabase;
        }
        var postgres = await Postgres.ProvideAsync(settings, cache, screen, stop);
        await Start(postgres.ToLaunch(settings.LogsDirectory)).ReadyAtOnceAsync(stop);
        return postgres.ConnectionString(Topology.Database);
    }

    private async Task<string?> StartRedisAsync(PackageCache cache, int port, CancellationToken stop)
    {
        if (settings.External(Topology.Redis) is { } external)
            return external;
        await Start(await Garnet.ProvideAsync(settings, cache, port, stop)).ReadyAtOnceAsync(stop);
        return $"127.0.0.1:{port}";
    }

    private async Task<string?> StartKafkaAsync(int port, CancellationToken stop)
    {
        if (!HasKafka)
            return settings.External(Topology.Kafka);
        var kafka = await Kafka.ProvideAsync(settings, port, screen, stop);
        // All at once: a broker of several is ready only with the others.
        await Task.WhenAll(kafka.ToLaunches(settings.LogsDirectory).Select(Start).ToList().Select(broker => broker.ReadyAtOnceAsync(stop)));
        return kafka.ConnectionString;
    }

    private async Task StartServiceAsync(Service service, ServiceLaunch launches, CancellationToken stop)
    {
        await Task.WhenAll(service.WaitsFor.Select(name => _ready[name]));
        stop.ThrowIfCancellationRequested();
        var processes = _instances[service.Name].Select(instance => Start(launches.Of(service, instance, _connections))).ToList();
        await Task.WhenAll(processes.Select(process => service.RunsToCompletion ? process.ReadyAtOnceAsync(stop) : process.Ready.WaitAsync(stop)));
    }

    /// <summary>After everything else: it is large, and nothing depends on it.</summary>
    private async Task StartDashboardAsync(PackageCache cache, int port, int telemetryPort, CancellationToken stop)
    {
        try
        {
            await Start(await Dashboard.ProvideAsync(cache, port, telemetryPort, stop)).ReadyAtOnceAsync(stop);
            record.Address(Topology.Dashboard, $"http://localhost:{port}");
            screen.Say($"The dashboard is at http://localhost:{port}");
        }
        catch (AppHostException e)
        {
            screen.Say($"Going on without the dashboard: {e.Message}");
        }
    }

    private SupervisedProcess Start(Launch launch)
    {
        var process = new SupervisedProcess(launch, record, screen, settings.LogsDirectory, time);
        children.Start(process);
        return process;
    }

    private void ShowTable(string adminKey, int dashboardPort)
    {
        void Row(string service, Func<Instance, string> what)
        {
            var state = _ready[service].IsCompletedSuccessfully ? "" : "   (not ready yet)";
            foreach (var instance in _instances[service])
                screen.Say($"  {instance.Name,-11} {instance.Url}{state}   {what(instance)}");
        }

        screen.Say();
        Row(Topology.Api, api => $"reference: {api.Url}/scalar");
        Row(Topology.Receiver, receiver => $"shows the webhooks sent to {receiver.Url}/hook");
        Row(Topology.Delivery, delivery => $"health: {delivery.Url}/health/ready");
        screen.Say(WantsDashboard ? $"  dashboard   http://localhost:{dashboardPort}   (starting)" : "  dashboard   off");
        screen.Say($"  postgres    {_connections[Topology.Database]}");
        screen.Say($"  redis       {_connections[Topology.Redis]}");
        screen.Say(_connections.TryGetValue(Topology.Kafka, out var kafka) ? $"  kafka       {kafka}" : "  kafka       off (KAFKA_HOME is not set): events are logged in Postgres");
        screen.Say($"  data        {settings.DataDirectory}");
        screen.Say($"  logs        {settings.LogsDirectory}");
        screen.Say($"  admin key   {adminKey}");
        screen.Say();
        if (settings.Given("Delivery__AllowedNetworks") is null)
            screen.Say($"  For local development, webhooks may go to this machine (Delivery:AllowedNetworks = {Topology.LoopbackNetworks}).");
        screen.Say("  Publish an event:");
        screen.Say($"  {Curl(_instances[Topology.Api][0].Url, adminKey)}");
        screen.Say();
        screen.Say("Ctrl-C stops everything.");
    }

    private static string Curl(string api, string adminKey)
    {
        var body = JsonSerializer.Serialize(new { type = "demo.hello", data = new { text = "world" } });
        // cmd and PowerShell know only double quotes that hold escaped ones.
        var (quote, quoted) = OperatingSystem.IsWindows() ? ('"', body.Replace("\"", "\\\"", StringComparison.Ordinal)) : ('\'', body);
        return $"curl -i {api}/events -H \"X-API-Key: {adminKey}\" -H \"Content-Type: application/json\" -d {quote}{quoted}{quote}";
    }
}
