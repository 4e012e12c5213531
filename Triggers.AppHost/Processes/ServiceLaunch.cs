namespace Triggers.AppHost.Processes;

/// <summary>A service of the topology as a process: a copy of the product's own output, told everything by its environment.</summary>
internal sealed class ServiceLaunch(Settings settings, string adminKey, int? telemetryPort)
{
    /// <param name="service">Which.</param>
    /// <param name="instance">Which of its processes.</param>
    /// <param name="connections">The connection strings there are, by name.</param>
    public Launch Of(Service service, Instance instance, IReadOnlyDictionary<string, string> connections)
    {
        var assembly = Programs.AssemblyOf(settings, service.Project);
        var url = $"http://{(service.Port is null ? "127.0.0.1" : "localhost")}:{instance.Port}";
        return new Launch
        {
            Name = instance.Name,
            Resource = service.Name,
            Program = Clone.Dotnet,
            Arguments = [assembly, .. service.Arguments],
            WorkingDirectory = Path.GetDirectoryName(assembly)!,
            Environment = EnvironmentOf(service, instance, url, connections),
            RunsToCompletion = service.RunsToCompletion,
            IsReady = token => service.RunsToCompletion ? Task.FromResult(false) : HealthProbe.IsOkAsync(url + "/health/ready", token),
            IsWorthShowing = IsWarningOrWorse,
        };
    }

    private Dictionary<string, string> EnvironmentOf(Service service, Instance instance, string url, IReadOnlyDictionary<string, string> connections)
    {
        var environment = ChildEnvironment.Inherited();
        foreach (var (name, value) in settings.ForServices)
            environment[name] = value;
        if (!environment.ContainsKey("ASPNETCORE_ENVIRONMENT") && !environment.ContainsKey("DOTNET_ENVIRONMENT"))
            environment["ASPNETCORE_ENVIRONMENT"] = environment["DOTNET_ENVIRONMENT"] = "Development";
        // One line for each log entry, so that warnings can be shown as a whole.
        environment.TryAdd("Logging__Console__FormatterName", "simple");
        environment.TryAdd("Logging__Console__FormatterOptions__SingleLine", "true");
        environment.TryAdd("Logging__Console__FormatterOptions__UseUtcTimestamp", "true");
        environment.TryAdd("Logging__Console__FormatterOptions__TimestampFormat", "HH:mm:ss.fff ");
        foreach (var (name, value) in service.Environment)
            environment.TryAdd(name, value == Topology.AdminKey ? adminKey : value);
        foreach (var reference in service.References)
            if (connections.TryGetValue(reference, out var connection))
                environment["ConnectionStrings__" + reference] = connection;
        environment["OTEL_SERVICE_NAME"] = service.Name;
        var attributes = environment.GetValueOrDefault("OTEL_RESOURCE_ATTRIBUTES");
        environment["OTEL_RESOURCE_ATTRIBUTES"] = (string.IsNullOrEmpty(attributes) ? "" : attributes + ",") + "service.instance.id=" + instance.Name;
        if (telemetryPort is not null)
        {
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = $"http://localhost:{telemetryPort}";
            environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc";
            // Seen at once, as one expects while developing; the defaults are made for throughput.
            environment.TryAdd("OTEL_BSP_SCHEDULE_DELAY", "1000");
            environment.TryAdd("OTEL_BLRP_SCHEDULE_DELAY", "1000");
            environment.TryAdd("OTEL_METRIC_EXPORT_INTERVAL", "5000");
        }
        if (!service.RunsToCompletion)
            environment["ASPNETCORE_URLS"] = url;
        return environment;
    }

    /// <summary>As in <c>12:00:00.123 warn: Microsoft.AspNetCore…</c>.</summary>
    internal static bool IsWarningOrWorse(string line)
    {
        var level = line.AsSpan(Math.Min(line.Length, 13));
        return level.StartsWith("warn:") || level.StartsWith("fail:") || level.StartsWith("crit:");
    }
}

/// <summary>One process of a service.</summary>
/// <param name="Name">The service's, with a number if there are several.</param>
/// <param name="Port">Where it listens.</param>
internal sealed record Instance(string Name, int Port)
{
    public string Url => $"http://localhost:{Port}";

    /// <summary>All processes of a service; the first gets the service's port.</summary>
    /// <exception cref="AppHostException">The port is not free.</exception>
    public static Instance[] Of(Service service, Settings settings) => service switch
    {
        { RunsToCompletion: true } => [new Instance(service.Name, 0)],
        { Replicated: true } when settings.Replicas > 1 => [.. Enumerable.Range(1, settings.Replicas)
            .Select(number => new Instance($"{service.Name}-{number}", Ports.Claim(service.Name, number == 1 ? settings.PortOf(service) : 0)))],
        _ => [new Instance(service.Name, Ports.Claim(service.Name, settings.PortOf(service)))],
    };
}
