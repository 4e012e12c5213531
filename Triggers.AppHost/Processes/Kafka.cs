using System.Buffers.Binary;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using CliWrap;

namespace Triggers.AppHost.Processes;

/// <summary>
/// Apache Kafka from where it was unpacked, data below the data directory, reachable from this machine only. Each broker is also a
/// controller, so that one is enough; several are for drills that kill some of them.
/// </summary>
internal sealed class Kafka
{
    private readonly string _home;
    private readonly string _data;
    private readonly Node[] _nodes;

    private Kafka(string home, string data, Node[] nodes) => (_home, _data, _nodes) = (home, data, nodes);

    /// <summary>For <c>bootstrap.servers</c>. Not by name: clients would try ::1 first, and complain.</summary>
    public string ConnectionString => string.Join(',', _nodes.Select(node => $"127.0.0.1:{node.Port}"));

    /// <summary>Formats the storage and writes the configuration.</summary>
    /// <param name="settings">The AppHost's; has a <see cref="Settings.KafkaHome"/>.</param>
    /// <param name="port">Of the first broker; the others get free ones.</param>
    /// <param name="screen">Says what is made.</param>
    /// <param name="cancellationToken">Half a format is done again.</param>
    /// <exception cref="AppHostException">It can't be used.</exception>
    public static async Task<Kafka> ProvideAsync(Settings settings, int port, Screen screen, CancellationToken cancellationToken)
    {
        var home = settings.KafkaHome!;
        var single = settings.KafkaBrokers == 1;
        // Controllers may move to other ports, since they know each other by number: all of it is written anew at each start.
        var nodes = Enumerable.Range(1, settings.KafkaBrokers)
            .Select(id => new Node(id, single ? Topology.Kafka : $"{Topology.Kafka}-{id}", id == 1 ? port : Ports.Free(), Ports.Free()))
            .ToArray();
        var kafka = new Kafka(home, Path.Combine(settings.DataDirectory, single ? "kafka" : "kafka-cluster"), nodes);
        if (!File.Exists(kafka.Script("kafka-server-start")) || !File.Exists(kafka.Script("kafka-storage")))
            throw new AppHostException($"KAFKA_HOME (or Kafka:Home) is {home}, and {kafka.Script("kafka-server-start")} is not there. {DoWithout}");
        if (!HasJava())
            throw new AppHostException($"Kafka needs Java 17 or newer: set JAVA_HOME, or put java on the PATH. {DoWithout}");
        if (!Directory.Exists(kafka._data))
            await kafka.FormatAsync(screen, cancellationToken);
        foreach (var node in nodes)
            await File.WriteAllTextAsync(ConfigurationOf(node, kafka._data), kafka.Configure(node, kafka._data), cancellationToken);
        return kafka;
    }

    private static string DoWithout => "Without Kafka, events are logged in Postgres: --Kafka:Home= (empty).";

    public IEnumerable<Launch> ToLaunches(string logs) => _nodes.Select(node => new Launch
    {
        Name = node.Name,
        Resource = Topology.Kafka,
        Program = Script("kafka-server-start"),
        Arguments = [ConfigurationOf(node, _data)],
        WorkingDirectory = _data,
        Environment = EnvironmentFor(logs),
        IsReady = token => ServesAsync(node, token),
    });

    private async Task FormatAsync(Screen screen, CancellationToken cancellationToken)
    {
        // Half made, it has another name, and is made anew by the next start.
        var unfinished = _data + ".new";
        if (Directory.Exists(unfinished))
            Directory.Delete(unfinished, recursive: true);
        Directory.CreateDirectory(unfinished);
        var cluster = Convert.ToBase64String(RandomNumberGenerator.GetBytes(16)).Replace('+', 'a').Replace('/', 'b').TrimEnd('=');
        await Task.WhenAll(_nodes.Select(node => FormatAsync(node, unfinished, cluster, cancellationToken)));
        Directory.Move(unfinished, _data);
        screen.Say($"A new Kafka storage is in {_data}");
    }

    private async Task FormatAsync(Node node, string data, string cluster, CancellationToken cancellationToken)
    {
        await File.WriteAllTextAsync(ConfigurationOf(node, data), Configure(node, data), cancellationToken);
        var said = new StringBuilder();
        var result = await Cli.Wrap(Script("kafka-storage"))
            .WithArguments(["format", "-t", cluster, "-c", ConfigurationOf(node, data)])
            .WithWorkingDirectory(data)
            .WithEnvironmentVariables(EnvironmentFor(data).ToDictionary(v => v.Key, string? (v) => v.Value))
            .WithStandardOutputPipe(PipeTarget.ToStringBuilder(said))
            .WithStandardErrorPipe(PipeTarget.ToStringBuilder(said))
            .WithValidation(CommandResultValidation.None)
            .ExecuteAsync(cancellationToken);
        if (!result.IsSuccess)
            throw new AppHostException($"kafka-storage format ended with {result.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}{Environment.NewLine}{DoWithout}");
    }

    private string Configure(Node node, string data) =>
        $"""
        process.roles=broker,controller
        node.id={node.Id}
        controller.quorum.voters={string.Join(',', _nodes.Select(n => $"{n.Id}@127.0.0.1:{n.ControllerPort}"))}
        listeners=PLAINTEXT://127.0.0.1:{node.Port},CONTROLLER://127.0.0.1:{node.ControllerPort}
        advertised.listeners=PLAINTEXT://127.0.0.1:{node.Port}
        listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
        controller.listener.names=CONTROLLER
        inter.broker.listener.name=PLAINTEXT
        log.dirs={Path.Combine(data, $"{node.Id}").Replace('\\', '/')}
        default.replication.factor={Replicas}
        min.insync.replicas={InSync}
        offsets.topic.replication.factor={Replicas}
        offsets.topic.num.partitions=6
        transaction.state.log.replication.factor={Replicas}
        transaction.state.log.min.isr={InSync}
        share.coordinator.state.topic.replication.factor={Replicas}
        share.coordinator.state.topic.min.isr={InSync}
        auto.create.topics.enable=false
        group.initial.rebalance.delay.ms=0
        broker.heartbeat.interval.ms=500
        broker.session.timeout.ms=3000
        log.cleaner.dedupe.buffer.size=16777216

        """;

    private int Replicas => Math.Min(3, _nodes.Length);

    /// <summary>What is acknowledged is then on more than one broker, and one may be away.</summary>
    private int InSync => Math.Max(1, Replicas - 1);

    private static string ConfigurationOf(Node node, string data) => Path.Combine(data, $"{node.Id}.properties");

    /// <summary>On Unix the scripts end in an <c>exec java</c>, so that the process started is the broker itself.</summary>
    private string Script(string name) => OperatingSystem.IsWindows()
        ? Path.Combine(_home, "bin", "windows", name + ".bat")
        : Path.Combine(_home, "bin", name + ".sh");

    private static Dictionary<string, string> EnvironmentFor(string logs)
    {
        var environment = ChildEnvironment.Inherited();
        environment.TryAdd("KAFKA_HEAP_OPTS", "-Xms128m -Xmx512m");
        // A downloaded Kafka also writes files, next to itself unless told otherwise; and a log of its garbage collector unless this is set.
        environment["LOG_DIR"] = Path.Combine(logs, "kafka");
        environment["EXTRA_ARGS"] = "";
        return environment;
    }

    private static bool HasJava()
    {
        var program = OperatingSystem.IsWindows() ? "java.exe" : "java";
        var directories = Environment.GetEnvironmentVariable("JAVA_HOME") is { Length: > 0 } home
            ? [Path.Combine(home, "bin")]
            : (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator);
        return directories.Any(directory => File.Exists(Path.Combine(directory, program)));
    }

    /// <summary>
    /// Whether the broker answers a request for metadata and is itself in the answer: one that only listens, or that the controller
    /// does not count in yet, takes no records.
    /// </summary>
    private static async Task<bool> ServesAsync(Node node, CancellationToken cancellationToken)
    {
        // Length, api 3, version 1, correlation id, no client id, no topics: https://kafka.apache.org/protocol#The_Messages_Metadata
        byte[] request = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
        try
        {
            using var client = new TcpClient();
            await client.ConnectAsync("127.0.0.1", node.Port, cancellationToken);
            var stream = client.GetStream();
            await stream.WriteAsync(request, cancellationToken);
            var header = new byte[4];
            await stream.ReadExactlyAsync(header, cancellationToken);
            var answer = new byte[BinaryPrimitives.ReadInt32BigEndian(header)];
            await stream.ReadExactlyAsync(answer, cancellationToken);
            return BrokersIn(answer).Contains(node.Id);
        }
        catch (Exception e) when (e is SocketException or IOException)
        {
            return false;
        }
    }

    /// <summary>Correlation id, number of brokers, then for each its id, host, port and rack; what follows is of no interest.</summary>
    internal static IReadOnlyList<int> BrokersIn(ReadOnlySpan<byte> answer)
    {
        var ids = new List<int>();
        var count = BinaryPrimitives.ReadInt32BigEndian(answer[4..]);
        answer = answer[8..];
        for (var i = 0; i < count; i++)
        {
            ids.Add(BinaryPrimitives.ReadInt32BigEndian(answer));
            answer = SkipString(SkipString(answer[4..])[4..]);
        }
        return ids;
    }

    /// <summary>A length of 2 bytes, -1 for null.</summary>
    private static ReadOnlySpan<byte> SkipString(ReadOnlySpan<byte> rest) => rest[(2 + Math.Max((short)0, BinaryPrimitives.ReadInt16BigEndian(rest)))..];

    private sealed record Node(int Id, string Name, int Port, int ControllerPort);
}
