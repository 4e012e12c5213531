using System.Globalization;
using System.Security.Cryptography;
using Confluent.Kafka;

namespace Triggers.AppHost.Stores;

/// <summary>Kafka as a container. (Aspire's own integration is not needed for the little there is to say.)</summary>
internal sealed class KafkaContainer() : ContainerResource("kafka"), IResourceWithConnectionString
{
    public EndpointReference Endpoint => field ??= new(this, "tcp");

    public ReferenceExpression ConnectionStringExpression =>
        ReferenceExpression.Create($"{Endpoint.Property(EndpointProperty.HostAndPort)}");
}

/// <summary>
/// The event log. As processes: each broker is also a controller, so that one is enough; several are for drills that kill some of them.
/// </summary>
internal static class Kafka
{
    public static IResourceBuilder<IResourceWithConnectionString> AddContainer(IDistributedApplicationBuilder builder, Settings settings)
    {
        var kafka = new KafkaContainer();
        var container = builder.AddResource(kafka)
            .WithImage("confluentinc/confluent-local", "8.2.0").WithImageRegistry("docker.io")
            .WithEndpoint(port: settings.PortOf("kafka"), targetPort: 9092, scheme: "tcp", name: "tcp")
            .WithEnvironment("KAFKA_LISTENERS", "INNER://localhost:29092,CONTROLLER://localhost:29093,HOST://0.0.0.0:9092")
            .WithEnvironment("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "INNER:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT")
            .WithEnvironment("KAFKA_INTER_BROKER_LISTENER_NAME", "INNER")
            // Clients are told to come to the port of this machine.
            .WithEnvironment("KAFKA_ADVERTISED_LISTENERS", ReferenceExpression.Create(
                $"INNER://localhost:29092,HOST://{kafka.Endpoint.Property(EndpointProperty.HostAndPort)}"))
            .WithEnvironment("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
            .WithIconName("MailMultiple")
            .WithPatientHealthCheck(
                async cancellation => await AskAsync((await kafka.ConnectionStringExpression.GetValueAsync(cancellation))!, id: null));
        // The positions in Postgres belong to this log: both are kept, or neither.
        return settings.Is("Data:Temporary") ? container
            : container.WithEnvironment("KAFKA_LOG_DIRS", "/var/lib/kafka/data").WithVolume("triggers-kafka", "/var/lib/kafka/data");
    }

    /// <returns>Null: Postgres is the event log.</returns>
    public static IResourceBuilder<IResourceWithConnectionString>? AddLocal(IDistributedApplicationBuilder builder, Settings settings)
    {
        if (settings.KafkaHome is not { } home)
            return settings["with-kafka"] is null ? null
                : throw new DistributedApplicationException("with-kafka takes KAFKA_HOME or Kafka:Home to say where one is.");
        if (!File.Exists(Script(home, "kafka-storage")))
            throw new DistributedApplicationException(
                $"KAFKA_HOME (or Kafka:Home) is {home}, and {Script(home, "kafka-storage")} is not there. With --Kafka:Home= (empty) "
                    + "events are logged in Postgres.");
        var count = int.Parse(settings["Kafka:Brokers"]!, CultureInfo.InvariantCulture);
        // A cluster does not change its size.
        var data = Path.Combine(settings.DataDirectory, "kafka", $"of-{count}");
        var brokers = Enumerable.Range(1, count)
            .Select(id => builder.AddLocalStore(
                new LocalStore(
                    count == 1 ? "kafka" : $"kafka-{id}", Script(home, "kafka-server-start"), settings.DataDirectory, LocalStore.Address),
                id == 1 ? settings.PortOf("kafka") : null, icon: "MailMultiple")
                    .WithEndpoint(scheme: "tcp", name: "controller", isProxied: false))
            .ToArray();
        foreach (var (i, broker) in brokers.Index())
            broker.AsBroker(settings, home, Path.Combine(data, $"{i + 1}"), i + 1, brokers);
        if (count == 1)
            return brokers[0];
        var all = new ReferenceExpressionBuilder();
        foreach (var (i, broker) in brokers.Index())
        {
            all.AppendLiteral(i == 0 ? "" : ",");
            all.AppendFormatted(broker.Resource);
        }
        return builder.AddConnectionString("kafka", all.Build());
    }

    private static void AsBroker(
        this IResourceBuilder<LocalStore> broker, Settings settings,
        string home, string data, int id, IResourceBuilder<LocalStore>[] brokers)
    {
        // The scripts write files next to themselves unless told otherwise.
        var logs = Path.Combine(settings.DataDirectory, "logs");
        broker.WithUrlForEndpoint("controller", url => url.DisplayLocation = UrlDisplayLocation.DetailsOnly)
            .WithArgs(data + ".properties")
            .WithEnvironment("KAFKA_HEAP_OPTS", settings["KAFKA_HEAP_OPTS"] ?? "-Xms128m -Xmx512m")
            // A broker that has just started spends more on the optimizing compiler than on records, for minutes.
            .WithEnvironment(
                "KAFKA_JVM_PERFORMANCE_OPTS", settings["KAFKA_JVM_PERFORMANCE_OPTS"] ?? "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
            // Empty: no log of its garbage collector.
            .WithEnvironment("LOG_DIR", logs).WithEnvironment("EXTRA_ARGS", "")
            .WithPatientHealthCheck(
                async cancellation => await AskAsync((await broker.Resource.ConnectionStringExpression.GetValueAsync(cancellation))!, id))
            .PreparedBy(async (log, cancellation) =>
            {
                Directory.CreateDirectory(Path.GetDirectoryName(data)!);
                await File.WriteAllTextAsync(
                    data + ".properties", await ConfigureAsync(settings, data, id, brokers, cancellation), cancellation);
                // Brokers of a cluster must agree on its name; a format that is interrupted leaves no such file, and is done again.
                var cluster = settings.Kept(Path.Combine("kafka", $"of-{brokers.Length}", "cluster"), () =>
                    Convert.ToBase64String(RandomNumberGenerator.GetBytes(16)).Replace('+', 'a').Replace('/', 'b').TrimEnd('='));
                if (!File.Exists(Path.Combine(data, "meta.properties")))
                    await Tool.RunAsync(
                        Script(home, "kafka-storage"), ["format", "-t", cluster, "-c", data + ".properties"],
                        settings.DataDirectory, log, cancellation, ("LOG_DIR", logs));
            });
    }

    private static async Task<string> ConfigureAsync(
        Settings settings, string data, int id, IResourceBuilder<LocalStore>[] brokers, CancellationToken cancellation)
    {
        async Task<string> Port(int broker, string endpoint) =>
            (await brokers[broker - 1].GetEndpoint(endpoint).Property(EndpointProperty.TargetPort).GetValueAsync(cancellation))!;

        var voters = await Task.WhenAll(
            Enumerable.Range(1, brokers.Length).Select(async other => $"{other}@127.0.0.1:{await Port(other, "controller")}"));
        var replicas = Math.Min(3, brokers.Length);
        var template = await File.ReadAllTextAsync(Path.Combine(settings.AppHostDirectory, "Stores", "kafka.properties"), cancellation);
        return template.Replace("{id}", $"{id}").Replace("{port}", await Port(id, "tcp"))
            .Replace("{controller}", await Port(id, "controller"))
            .Replace("{voters}", string.Join(',', voters)).Replace("{directory}", data.Replace('\\', '/'))
                .Replace("{replicas}", $"{replicas}")
            // What is acknowledged is then on more than one broker, and one may be away.
            .Replace("{in-sync}", $"{Math.Max(1, replicas - 1)}");
    }

    /// <summary>One that only listens, or that the controller does not count in yet, takes no records.</summary>
    private static Task AskAsync(string servers, int? id) => Task.Run(() =>
    {
        using var admin = new AdminClientBuilder(new AdminClientConfig { BootstrapServers = servers }).SetLogHandler((_, _) => { })
            .Build();
        if (!admin.GetMetadata(TimeSpan.FromSeconds(2)).Brokers.Exists(broker => id is null || broker.BrokerId == id))
            throw new KafkaException(ErrorCode.BrokerNotAvailable);
    });

    /// <summary>On Unix the scripts end in an <c>exec java</c>, so that the process started is the broker itself.</summary>
    private static string Script(string home, string name) =>
        OperatingSystem.IsWindows() ? Path.Combine(home, "bin", "windows", name + ".bat") : Path.Combine(home, "bin", name + ".sh");
}
