using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

/// <summary>What runs, and wired to what.</summary>
internal static class Model
{
    public const string LoopbackNetworks = "127.0.0.0/8,::1/128";

    public static void AddTriggers(this IDistributedApplicationBuilder builder, Settings settings, bool containers)
    {
        var database = builder.AddStore(settings, "postgres", "triggersdb", containers ? Postgres.AddContainer : Postgres.AddLocal);
        var redis = builder.AddStore(settings, "redis", "redis", containers ? Redis.AddContainer : Redis.AddLocal);
        // azd is left to do without, unless asked.
        var withKafka = settings["with-kafka"] is { } asked ? bool.Parse(asked) : builder.ExecutionContext.IsRunMode
            || builder.PublishesChart();
        var kafka = withKafka ? builder.AddStore(settings, "kafka", "kafka", containers ? Kafka.AddContainer : Kafka.AddLocal) : null;
        if (settings.StoresOnly || database is null || redis is null)
            return;

        // Generated once, and kept beside the data; published, it is asked for.
        var adminKey = builder.AddParameter("admin-key", () => settings.AdminKey(), secret: true);

        // Database and tables are made once, before anything that uses them.
        var migrations = builder.AddProject<Projects.Triggers_Api>("migrations", launchProfileName: null)
            .AsProgram(settings)
            .WithArgs("--migrate")
            .WithReference(database).WaitFor(database);

        var api = builder.AddProject<Projects.Triggers_Api>("api", launchProfileName: null)
            .AsProgram(settings)
            .AsService(settings, replicas: settings.Replicas)
            .WithReference(database).WaitForCompletion(migrations)
            .WithReference(redis).WaitFor(redis)
            .WithKafka(kafka)
            .WithEnvironment("Auth__BootstrapAdminKey", adminKey)
            .WithExternalHttpEndpoints();

        var delivery = builder.AddProject<Projects.Triggers_Delivery>("delivery", launchProfileName: null)
            .AsProgram(settings)
            .AsService(settings, replicas: settings.Replicas)
            .WithReference(database).WaitForCompletion(migrations)
            // Only for limits of subscriptions, and not before there are any.
            .WithReference(redis)
            .WithKafka(kafka);

        if (builder.ExecutionContext.IsRunMode)
        {
            builder.AddProject<Projects.Triggers_Receiver>("receiver", launchProfileName: null)
                .AsProgram(settings)
                .AsService(settings, replicas: 1)
                .WithUrlForEndpoint("http", url => url.DisplayText = "Receiver");
            // Webhooks to this machine are refused everywhere else; here the receiver and the developer's own service are on it.
            delivery.WithEnvironment("Delivery__AllowedNetworks", settings["Delivery:AllowedNetworks"] ?? LoopbackNetworks)
                .WithUrlForEndpoint("http", url => (url.Url, url.DisplayText) = ("/health/ready", "Health"));
            api.WithUrlForEndpoint("http", url => url.DisplayText = "API")
                .WithUrlForEndpoint("http", _ => new() { Url = "/scalar", DisplayText = "Reference" })
                .WithSampleEventCommand(adminKey)
                .WithRedriveCommand(adminKey);
            if (settings["ConnectionStrings:triggersdb"] is null)
                database.WithResetCommand(kafka, migrations, api, delivery);
        }
#if HELM_CHART
        else
        {
            builder.PublishChart(settings, migrations, api, delivery);
        }
#endif
    }

    private static IResourceBuilder<ProjectResource> WithKafka(
        this IResourceBuilder<ProjectResource> project, IResourceBuilder<IResourceWithConnectionString>? kafka) =>
        kafka is null ? project : project.WithReference(kafka).WaitFor(kafka);

    /// <summary>One of our own programs: how it is started, and what all of them are told.</summary>
    private static IResourceBuilder<ProjectResource> AsProgram(this IResourceBuilder<ProjectResource> project, Settings settings)
    {
        var builder = project.ApplicationBuilder;
        // Only connection strings: the services read nothing else. It must come before the references.
        project.WithReferenceEnvironment(ReferenceEnvironmentInjectionFlags.ConnectionString);
        if (builder.ExecutionContext.IsRunMode)
        {
            // Everything is plain HTTP on this machine: no certificate, and no warning that there is none.
            project.WithoutHttpsCertificate().StartedDirectly()
                // The orchestrator does not pass on the AppHost's own.
                .WithEnvironment("ASPNETCORE_ENVIRONMENT", builder.Environment.EnvironmentName)
                .WithEnvironment("DOTNET_ENVIRONMENT", builder.Environment.EnvironmentName)
                // Aspire asks for both. With the first, a service that ends after the dashboard waits for it until it is killed; the
                // second takes the place of Telemetry:SampleRatio.
                .WithEnvironment("OTEL_DOTNET_EXPERIMENTAL_OTLP_RETRY", "")
                .WithEnvironment("OTEL_TRACES_SAMPLER", "");
            // Nobody would be there.
            if (!settings.Is("Dashboard:Enabled"))
                project.WithEnvironment("OTEL_EXPORTER_OTLP_ENDPOINT", "");
            foreach (var (key, value) in settings.Telemetry)
                project.WithEnvironment(key, value);
        }
        foreach (var (key, value) in settings.ForServices)
            project.WithEnvironment(key, value);
        return project;
    }

    /// <summary>Runs on, serves HTTP, and says whether it is well.</summary>
    private static IResourceBuilder<ProjectResource> AsService(
        this IResourceBuilder<ProjectResource> project, Settings settings, int replicas)
    {
        project.WithReplicas(replicas);
        if (project.ApplicationBuilder.ExecutionContext.IsRunMode)
        {
            // One instance listens on the port itself; several share it behind the orchestrator's proxy.
            var port = settings.PortOf(project.Resource.Name);
            var client = new HttpClient(new SocketsHttpHandler { UseProxy = false }) { Timeout = TimeSpan.FromSeconds(5) };
            return project.WithHttpEndpoint(port, targetPort: replicas == 1 ? port : null, name: "http", isProxied: replicas > 1)
                .WithPatientHealthCheck(async cancellation =>
                {
                    using var answer = await client.GetAsync(project.GetEndpoint("http").Url + "/health/ready", cancellation);
                    answer.EnsureSuccessStatusCode();
                });
        }
        // It asks the stores, and says so in time when one doesn't answer.
        return project.WithHttpEndpoint(name: "http")
            .WithHttpProbe(ProbeType.Readiness, "/health/ready", timeoutSeconds: 5, endpointName: "http")
            .WithHttpProbe(ProbeType.Liveness, "/health/live", timeoutSeconds: 5, endpointName: "http");
    }

    /// <summary>
    /// Its output by `dotnet`: `dotnet run`, which the orchestrator would use, takes 1.4 s of processor time and stays in between. A
    /// debugger and `dotnet watch` have ways of their own.
    /// </summary>
    private static IResourceBuilder<ProjectResource> StartedDirectly(this IResourceBuilder<ProjectResource> project)
    {
        var configuration = project.ApplicationBuilder.Configuration;
        if (configuration["DEBUG_SESSION_PORT"] is not null || configuration["DOTNET_WATCH"] is not null)
            return project;
        var directory = Path.GetDirectoryName(project.Resource.GetProjectMetadata().ProjectPath)!;
        // In the configuration that this one was built in: …/bin/Debug/net10.0/
        var output = new DirectoryInfo(AppContext.BaseDirectory);
        var assembly = Path.Combine(directory, "bin", output.Parent!.Name, output.Name, Path.GetFileName(directory) + ".dll");
        return project.WithAnnotation(new ExecutableAnnotation { Command = "dotnet", WorkingDirectory = directory })
            .WithArgs(context => context.Args.Insert(0, assembly));
    }
}
