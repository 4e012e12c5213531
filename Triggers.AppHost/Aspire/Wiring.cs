namespace Triggers.AppHost.Aspire;

/// <summary>
/// Makes the parts of the <see cref="Topology"/> and ties them together. A store is a container when the system runs here or goes into
/// the cluster as a whole; otherwise, and wherever its connection string is given, it is that connection string.
/// </summary>
internal sealed class Wiring(IDistributedApplicationBuilder builder, AspireSettings settings)
{
    private const string Http = "http";

    private readonly Dictionary<string, IResourceBuilder<IResourceWithConnectionString>> _connections = [];
    private readonly Dictionary<string, IResourceBuilder<IResource>> _parts = [];
    private readonly List<IResourceBuilder<ContainerResource>> _containers = [];

    /// <summary>Generated once, and kept as a user secret; published, it is a parameter.</summary>
    public IResourceBuilder<ParameterResource> AdminKey { get; } = settings.Given("Auth__BootstrapAdminKey") is { Length: > 0 } given
        ? builder.AddParameter("admin-key", given, secret: true)
        : builder.AddParameter("admin-key", new GenerateParameterDefault { MinLength = 43, Special = false }, secret: true, persist: true);

    public static string Volume(string store) => "triggers-" + store;

    /// <returns>The database that the services use.</returns>
    public IResourceBuilder<IResourceWithConnectionString> AddPostgres()
    {
        if (!IsContainer(Topology.Database))
            return Connection(Topology.Postgres, Topology.Database);
        var server = builder.AddPostgres(Topology.Postgres);
        if (!settings.TemporaryData)
            server.WithDataVolume(Volume(Topology.Postgres));
        return Container(server, server.AddDatabase(Topology.Database));
    }

    public IResourceBuilder<IResourceWithConnectionString> AddRedis()
    {
        if (!IsContainer(Topology.Redis))
            return Connection(Topology.Redis, Topology.Redis);
        var redis = builder.AddRedis(Topology.Redis);
        // What is left of a day's quota is in it.
        if (!settings.TemporaryData)
            redis.WithDataVolume(Volume(Topology.Redis));
        return Container(redis, redis);
    }

    public IResourceBuilder<IResourceWithConnectionString> AddKafka()
    {
        if (!IsContainer(Topology.Kafka))
            return Connection(Topology.Kafka, Topology.Kafka);
        var kafka = builder.AddKafka(Topology.Kafka);
        // The positions in Postgres belong to this log: both are kept, or neither.
        if (!settings.TemporaryData)
            kafka.WithDataVolume(Volume(Topology.Kafka));
        return Container(kafka, kafka);
    }

    /// <summary>One of our own programs, as the topology has it.</summary>
    public IResourceBuilder<ProjectResource> AddService<TProject>(string name) where TProject : IProjectMetadata, new()
    {
        var service = Topology.Services.Single(s => s.Name == name);
        var runs = builder.ExecutionContext.IsRunMode;
        var project = builder.AddProject<TProject>(name, launchProfileName: null).WithArgs(service.Arguments);
        _parts[name] = project;
        if (service.Replicated)
            project.WithReplicas(settings.Replicas);

        if (!service.RunsToCompletion)
#pragma warning disable ASPIREPROBES001 // A health check when it runs here, and a probe in the chart.
            project.WithHttpEndpoint(runs ? settings.PortOf(service) : null, name: Http)
                // It asks the stores, and says so in time when one doesn't answer.
                .WithHttpProbe(ProbeType.Readiness, "/health/ready", timeoutSeconds: 5, endpointName: Http)
                .WithHttpProbe(ProbeType.Liveness, "/health/live", timeoutSeconds: 5, endpointName: Http);
#pragma warning restore ASPIREPROBES001

        // Only connection strings: the services read nothing else. It must come before the references.
        project.WithReferenceEnvironment(ReferenceEnvironmentInjectionFlags.ConnectionString);
        foreach (var connection in service.References.Where(_connections.ContainsKey))
            project.WithReference(_connections[connection]);

        foreach (var dependency in service.WaitsFor.Where(_parts.ContainsKey))
        {
            if (Topology.Services.Any(s => s.Name == dependency && s.RunsToCompletion))
                project.WaitForCompletion(_parts[dependency]);
            else
                project.WaitFor(_parts[dependency]);
        }

        foreach (var (key, value) in service.Environment)
        {
            if (value == Topology.AdminKey)
                project.WithEnvironment(key, AdminKey);
            // The others are for a system that runs on one machine.
            else if (runs)
                project.WithEnvironment(key, settings.Given(key) ?? value);
        }
        foreach (var (key, value) in settings.ForServices)
            project.WithEnvironment(key, value);
        return project;
    }

    /// <summary>Those that go into the cluster.</summary>
    public void PublishStoresOnVolumes()
    {
        foreach (var container in _containers)
            container.PublishOnVolume();
    }

    private bool IsContainer(string connection) =>
        builder.ExecutionContext.IsRunMode ? settings.Named(connection) is null : settings.InClusterStores;

    private IResourceBuilder<IResourceWithConnectionString> Connection(string store, string name)
    {
        // The chart leaves it to values.yaml; a plain one would be asked for here and now, on a terminal that may not be there.
        var connection = settings.PublishesChart
            ? builder.AddConnectionString(name, ReferenceExpression.Create($"{builder.AddParameter(name + "-connection", settings.Named(name) ?? "", secret: true)}"))
            : builder.AddConnectionString(name);
        _parts[store] = connection;
        return _connections[name] = connection;
    }

    private IResourceBuilder<IResourceWithConnectionString> Container(
        IResourceBuilder<ContainerResource> server, IResourceBuilder<IResourceWithConnectionString> connection)
    {
        _containers.Add(server);
        _parts[server.Resource.Name] = server;
        return _connections[connection.Resource.Name] = connection;
    }
}
