namespace Triggers.AppHost.Processes;

/// <summary>A service of the topology as a process: a copy of the product's own output, told everything by its environment.</summary>
internal sealed class ServiceLaunch(Settings settings, string adminKey, int? telemetryPort)
{
    /// <param name="service">Which.</param>
    /// <param name="port">Where it listens.</param>
    /// <param name="connections">The connection strings there are, by name.</param>
    public Launch Of(Service service, int port, IReadOnlyDictionary<string, string> connections)
    {
        var assembly = Programs.AssemblyOf(settings, service.Project);
        var url = $"http://{(service.Port is null ? "127.0.0.1" : "localhost")}:{port}";
        return new Launch
        {
            Name = service.Name,
            Program = Clone.Dotnet,
            Arguments = [assembly, .. service.Arguments],
            WorkingDirectory = Path.GetDirectoryName(assembly)!,
            Environment = EnvironmentOf(service, url, connections),
            RunsToCompletion = service.RunsToCompletion,
            IsReady = token => service.RunsToCompletion ? Task.FromResult(false) : HealthProbe.IsOkAsync(url + "/health/ready", token),
            IsWorthShowing = IsWarningOrWorse,
        };
    }

    private Dictionary<string, string> EnvironmentOf(Service service, string url, IReadOnlyDictionary<string, string> connections)
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
