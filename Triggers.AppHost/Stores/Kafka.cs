using System.Globalization;
using System.Security.Cryptography;
using Confluent.Kafka;
using Microsoft.Extensions.Logging;

namespace Triggers.AppHost.Stores;

/// <summary>Kafka as a container. (Aspire's own integration is not needed for the little there is to say.)</summary>
internal sealed class KafkaContainer() : ContainerResource("kafka"), IResourceWithConnectionString
{
    public EndpointReference Endpoint => field ??= new(this, "tcp");

    public ReferenceExpression ConnectionStringExpression => ReferenceExpression.Create($"{Endpoint.Property(EndpointProperty.HostAndPort)}");
}

/// <summary>
/// A broker of Apache Kafka from where it was unpacked, data below the data directory, reachable from this machine only. Each broker is also a
/// controller, so that one is enough; several are for drills that kill some of them.
/// </summary>
internal sealed class LocalKafka(string name, int id, string command, string directory) : ExecutableResource(name, command, directory), IResourceWithConnectionString
{
    public int Id { get; } = id;

    public EndpointReference Endpoint => field ??= new(this, "tcp");

    public EndpointReference Controller => field ??= new(this, "controller");

    /// <summary>Not by name: clients would try ::1 first, and complain.</summary>
    public ReferenceExpression ConnectionStringExpression => ReferenceExpression.Create(
        $"{Endpoint.Property(EndpointProperty.IPV4Host)}:{Endpoint.Property(EndpointProperty.Port)}");
}

internal static class Kafka
{
    private const string DoWithout = "Without Kafka, events are logged in Postgres: --Kafka:Home= (empty).";

    /// <summary>The event log; null: Postgres is.</summary>
    public static IResourceBuilder<IResourceWithConnectionString>? AddTriggersKafka(this IDistributedApplicationBuilder builder, Settings settings, StoreKind kind)
    {
        if (!(settings.WithKafka ?? (builder.ExecutionContext.IsRunMode || builder.PublishesChart())))
            return null;
        if (kind == StoreKind.Given)
            return builder.AddGivenStore(settings, "kafka");
        if (kind == StoreKind.Container)
            return builder.AddKafkaContainer(settings);
        if (settings.KafkaHome is null)
            return settings.WithKafka is true ? throw new DistributedApplicationException("with-kafka takes KAFKA_HOME or Kafka:Home to say where one is.") : null;
        return builder.AddLocalKafka(settings, settings.KafkaHome);
    }

    private static IResourceBuilder<KafkaContainer> AddKafkaContainer(this IDistributedApplicationBuilder builder, Settings settings)
    {
        var kafka = new KafkaContainer();
        var container = builder.AddResource(kafka)
            .WithImage("confluentinc/confluent-local", "8.2.0").WithImageRegistry("docker.io")
            .WithEndpoint(port: settings.Ports["kafka"], targetPort: 9092, scheme: "tcp", name: "tcp")
            .WithEnvironment("KAFKA_LISTENERS", "INNER://localhost:29092,CONTROLLER://localhost:29093,HOST://0.0.0.0:9092")
            .WithEnvironment("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "INNER:PLAINTEXT,CONTROLLER:PLAINTEXT,HOST:PLAINTEXT")
            .WithEnvironment("KAFKA_INTER_BROKER_LISTENER_NAME", "INNER")
            // Clients are told to come to the port of this machine.
            .WithEnvironment("KAFKA_ADVERTISED_LISTENERS", ReferenceExpression.Create(
                $"INNER://localhost:29092,HOST://{kafka.Endpoint.Property(EndpointProperty.HostAndPort)}"))
            .WithEnvironment("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
            .WithIconName("MailMultiple")
            .WithPatientHealthCheck(async cancellation => await AskAsync((await kafka.ConnectionStringExpression.GetValueAsync(cancellation))!, id: null));
        // The positions in Postgres belong to this log: both are kept, or neither.
        return settings.TemporaryData ? container
            : container.WithEnvironment("KAFKA_LOG_DIRS", "/var/lib/kafka/data").WithVolume("triggers-kafka", "/var/lib/kafka/data");
    }

    private static IResourceBuilder<IResourceWithConnectionString> AddLocalKafka(this IDistributedApplicationBuilder builder, Settings settings, string home)
    {
        foreach (var script in new[] { Script(home, "kafka-server-start"), Script(home, "kafka-storage") })
            if (!File.Exists(script))
                throw new DistributedApplicationException($"KAFKA_HOME (or Kafka:Home) is {home}, and {script} is not there. {DoWithout}");
        if (!HasJava())
            throw new DistributedApplicationException($"Kafka needs Java 17 or newer: set JAVA_HOME, or put java on the PATH. {DoWithout}");
        var count = settings.KafkaBrokers;
        var brokers = Enumerable.Range(1, count)
            .Select(id => new LocalKafka(count == 1 ? "kafka" : $"kafka-{id}", id, Script(home, "kafka-server-start"), settings.DataDirectory))
            .ToArray();
        var added = brokers.Select(broker => builder.AddBroker(settings, home, broker, brokers)).ToArray();
        if (count == 1)
            return added[0];
        var all = new ReferenceExpressionBuilder();
        foreach (var broker in brokers)
        {
            all.AppendLiteral(broker.Id == 1 ? "" : ",");
            all.AppendFormatted(broker);
        }
        return builder.AddConnectionString("kafka", all.Build());
    }

    private static IResourceBuilder<LocalKafka> AddBroker(
        this IDistributedApplicationBuilder builder, Settings settings, string home, LocalKafka broker, LocalKafka[] brokers)
    {
        // A cluster does not change its size.
        var data = Path.Combine(settings.DataDirectory, "kafka", $"of-{brokers.Length}", $"{broker.Id}");
        var port = broker.Id == 1 ? settings.Ports["kafka"] : null;
        return builder.AddResource(broker)
            .WithEndpoint(port: port, targetPort: port, scheme: "tcp", name: "tcp", isProxied: false)
            .WithEndpoint(scheme: "tcp", name: "controller", isProxied: false)
            .WithArgs(data + ".properties")
            .WithEnvironment("KAFKA_HEAP_OPTS", settings.Text("KAFKA_HEAP_OPTS") ?? "-Xms128m -Xmx512m")
            // It also writes files, next to itself unless told otherwise; and a log of its garbage collector unless this is set.
            .WithEnvironment("LOG_DIR", Path.Combine(settings.DataDirectory, "logs")).WithEnvironment("EXTRA_ARGS", "")
            .WithIconName("MailMultiple")
            .WithPatientHealthCheck(async cancellation => await AskAsync((await broker.ConnectionStringExpression.GetValueAsync(cancellation))!, broker.Id))
            .PreparedBy(async (_, log, cancellation) =>
            {
                Directory.CreateDirectory(Path.GetDirectoryName(data)!);
                await File.WriteAllTextAsync(data + ".properties", await ConfigureAsync(broker, brokers, data, cancellation), cancellation);
                // Brokers of a cluster must agree on its name; a format that is interrupted leaves no such file, and is done again.
                var cluster = PrivateFile.ReadOrCreate(Path.Combine(Path.GetDirectoryName(data)!, "cluster"), NewCluster);
                if (!File.Exists(Path.Combine(data, "meta.properties")))
                    await Tool.RunAsync(Script(home, "kafka-storage"), ["format", "-t", cluster, "-c", data + ".properties"], settings.DataDirectory, log, cancellation,
                        ("LOG_DIR", Path.Combine(settings.DataDirectory, "logs")));
            })
            .ExcludeFromManifest();
    }

    private static string NewCluster() => Convert.ToBase64String(RandomNumberGenerator.GetBytes(16)).Replace('+', 'a').Replace('/', 'b').TrimEnd('=');

    private static async Task<string> ConfigureAsync(LocalKafka broker, LocalKafka[] brokers, string data, CancellationToken cancellation)
    {
        async Task<int> Port(EndpointReference endpoint) =>
            int.Parse((await endpoint.Property(EndpointProperty.TargetPort).GetValueAsync(cancellation))!, CultureInfo.InvariantCulture);

        var voters = new List<string>();
        foreach (var other in brokers)
            voters.Add($"{other.Id}@127.0.0.1:{await Port(other.Controller)}");
        var (port, controller) = (await Port(broker.Endpoint), await Port(broker.Controller));
        var replicas = Math.Min(3, brokers.Length);
        // What is acknowledged is then on more than one broker, and one may be away.
        var inSync = Math.Max(1, replicas - 1);
        return $"""
            process.roles=broker,controller
            node.id={broker.Id}
            controller.quorum.voters={string.Join(',', voters)}
            listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
            advertised.listeners=PLAINTEXT://127.0.0.1:{port}
            listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
            controller.listener.names=CONTROLLER
            inter.broker.listener.name=PLAINTEXT
            log.dirs={data.Replace('\\', '/')}
            default.replication.factor={replicas}
            min.insync.replicas={inSync}
            offsets.topic.replication.factor={replicas}
            offsets.topic.num.partitions=6
            transaction.state.log.replication.factor={replicas}
            transaction.state.log.min.isr={inSync}
            share.coordinator.state.topic.replication.factor={replicas}
            share.coordinator.state.topic.min.isr={inSync}
            auto.create.topics.enable=false
            group.initial.rebalance.delay.ms=0
            broker.heartbeat.interval.ms=500
            broker.session.timeout.ms=3000
            log.cleaner.dedupe.buffer.size=16777216

            """;
    }

    /// <summary>One that only listens, or that the controller does not count in yet, takes no records.</summary>
    private static Task AskAsync(string servers, int? id) => Task.Run(() =>
    {
        using var admin = new AdminClientBuilder(new AdminClientConfig { BootstrapServers = servers }).SetLogHandler((_, _) => { }).Build();
        if (!admin.GetMetadata(TimeSpan.FromSeconds(2)).Brokers.Exists(broker => id is null || broker.BrokerId == id))
            throw new KafkaException(ErrorCode.BrokerNotAvailable);
    });

    /// <summary>On Unix the scripts end in an <c>exec java</c>, so that the process started is the broker itself.</summary>
    private static string Script(string home, string name) =>
        OperatingSystem.IsWindows() ? Path.Combine(home, "bin", "windows", name + ".bat") : Path.Combine(home, "bin", name + ".sh");

    private static bool HasJava()
    {
        var program = OperatingSystem.IsWindows() ? "java.exe" : "java";
        var directories = Environment.GetEnvironmentVariable("JAVA_HOME") is { Length: > 0 } home
            ? [Path.Combine(home, "bin")]
            : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator);
        return directories.Any(directory => File.Exists(Path.Combine(directory, program)));
    }
}
