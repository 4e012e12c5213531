using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;
using Triggers.AppHost.Processes;

namespace Triggers.AppHost;

/// <summary>Says what is wrong in words for the person at the terminal: shown without a stack trace, and ends the AppHost.</summary>
internal sealed class AppHostException(string message) : Exception(message);

/// <summary>What the AppHost itself can be told, by environment (<c>Ports__Api=8081</c>) or argument (<c>--Ports:Api=8081</c>).</summary>
internal sealed class Settings
{
    /// <summary>Sections that are the AppHost's own. Every other argument is meant for the services.</summary>
    private static readonly string[] s_own = ["Ports", "Data", "Cache", "Dashboard", "Resources", "Guard", "Replicas", "KAFKA_HOME"];

    /// <summary>Settings of the AppHost in a section where the services have theirs.</summary>
    private static readonly string[] s_ownAmongOthers = ["Kafka:Home", "Kafka:Brokers"];

    private readonly IConfiguration _configuration;
    private readonly List<string> _mistakes = [];

    private Settings(IConfiguration configuration, IReadOnlyList<string> arguments)
    {
        _configuration = configuration;
        Reset = arguments.Contains("--reset");
        ForServices = arguments
            .Where(a => a.Contains('=') && !IsOwn(a[2..].Split('=')[0]))
            .Select(a => a[2..].Split('=', 2))
            .ToDictionary(pair => pair[0].Replace(":", "__", StringComparison.Ordinal), pair => pair[1], StringComparer.OrdinalIgnoreCase);

        DataDirectory = Path.GetFullPath(configuration["Data:Directory"] ?? DefaultDataDirectory());
        CacheDirectory = Path.GetFullPath(configuration["Cache:Directory"] ?? DefaultCacheDirectory());
        ProgramsDirectory = configuration["Guard:Programs"] ?? Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory))!;
        TemporaryData = Flag("Data:Temporary", false);
        DashboardEnabled = Flag("Dashboard:Enabled", true);
        DashboardPort = PortOf(Topology.Dashboard, Topology.DashboardPort);
        KafkaHome = (configuration["Kafka:Home"] ?? configuration["KAFKA_HOME"]) is { Length: > 0 } home ? home : null;
        KafkaBrokers = Number("Kafka:Brokers", 1);
        Replicas = Number("Replicas", 1);
        var resources = configuration["Resources"] is { Length: > 0 } named ? named : "all";
        StoresOnly = resources != "all";
        Stores = resources is "all" or "stores" ? Topology.Stores : resources.Split(',');
        if (Stores.Except(Topology.Stores).Any())
            _mistakes.Add($"Resources must be 'all', 'stores' or some of {string.Join(',', Topology.Stores)}, not '{resources}'.");
        EndsWithParent = Flag("Guard:EndsWithParent", false);
        Owner = int.TryParse(configuration["Guard:Owner"], out var owner) ? owner : 0;
        foreach (var service in Topology.Services)
            _ = PortOf(service);
        foreach (var store in Topology.Stores)
            _ = PortOf(store, 0);
        ExternalDatabase = External(Topology.Database);
        if (Reset && ExternalDatabase is not null)
            _mistakes.Add($"--reset drops only data that the AppHost keeps; ConnectionStrings:{Topology.Database} names a database of yours.");
        if (_mistakes.Count > 0)
            throw new AppHostException(string.Join(Environment.NewLine, _mistakes));
    }

    public string DataDirectory { get; }

    public string CacheDirectory { get; }

    /// <summary>Where this run's copies of the programs are, a directory each: the guard is one of them.</summary>
    public string ProgramsDirectory { get; }

    public string LogsDirectory => Path.Combine(DataDirectory, "logs");

    /// <summary>The data is deleted at the end: for tests.</summary>
    public bool TemporaryData { get; }

    public bool DashboardEnabled { get; }

    public int DashboardPort { get; }

    /// <summary>Nothing but <see cref="Stores"/> is started: what the tests use.</summary>
    public bool StoresOnly { get; }

    /// <summary>The stores that are started, each unless an existing one is named, and Kafka only if there is a <see cref="KafkaHome"/>.</summary>
    public IReadOnlyCollection<string> Stores { get; }

    /// <summary>Where an Apache Kafka was unpacked; null: the events are logged in Postgres.</summary>
    public string? KafkaHome { get; }

    /// <summary>More than one make a cluster, for drills.</summary>
    public int KafkaBrokers { get; }

    /// <summary>How many processes there are of each service that can be more than one.</summary>
    public int Replicas { get; }

    /// <summary>The process that started this guard.</summary>
    public int Owner { get; }

    /// <summary>Whoever started the AppHost must not be outlived by it: for tests. With `dotnet run` it is always so.</summary>
    public bool EndsWithParent { get; }

    public bool Reset { get; }

    /// <summary>An existing PostgreSQL to use instead of one of our own.</summary>
    public string? ExternalDatabase { get; }

    /// <summary>Arguments meant for the services, as environment.</summary>
    public IReadOnlyDictionary<string, string> ForServices { get; }

    /// <summary>What the services get under this name, if the AppHost was given it.</summary>
    public string? Given(string environmentName) => _configuration[environmentName.Replace("__", ":", StringComparison.Ordinal)];

    /// <summary>The connection string of an existing store that is used instead of one of our own.</summary>
    public string? External(string connection) => _configuration.GetConnectionString(connection) is { Length: > 0 } given ? given : null;

    /// <summary>0: a free port.</summary>
    public int PortOf(Service service) => PortOf(service.Name, service.Port ?? 0);

    /// <summary>0: a free port.</summary>
    public int PortOf(string resource, int otherwise)
    {
        var key = PortKey(resource);
        var value = _configuration[key];
        if (value is null)
            return otherwise;
        if (int.TryParse(value, out var port) && port is >= 0 and <= 65535)
            return port;
        _mistakes.Add($"{key} must be a port, or 0 for a free one, not '{value}'.");
        return otherwise;
    }

    public static string PortKey(string resource) => $"Ports:{char.ToUpperInvariant(resource[0])}{resource[1..]}";

    /// <summary>Reads environment and arguments.</summary>
    /// <exception cref="AppHostException">Names every mistake.</exception>
    public static Settings Read(IReadOnlyList<string> arguments)
    {
        arguments = JoinReplicas(arguments);
        var strange = arguments.Where(a => a is not ("--reset" or "--guard") && !(a.StartsWith("--", StringComparison.Ordinal) && a.IndexOf('=') > 2)).ToList();
        if (strange.Count > 0)
            throw new AppHostException($"Not understood: {string.Join(' ', strange)}. Known are --reset, --replicas N, --help and settings as in --Ports:Api=8081.");
        var configuration = new ConfigurationBuilder()
            .AddEnvironmentVariables()
            .AddCommandLine([.. arguments.Where(a => a.Contains('='))])
            .Build();
        return new Settings(configuration, arguments);
    }

    /// <summary>It is the one setting that may also be written in two words.</summary>
    private static List<string> JoinReplicas(IReadOnlyList<string> arguments)
    {
        var joined = arguments.ToList();
        if (joined.IndexOf("--replicas") is var at and >= 0 && at + 1 < joined.Count)
        {
            joined[at] = "--replicas=" + joined[at + 1];
            joined.RemoveAt(at + 1);
        }
        return joined;
    }

    private bool Flag(string key, bool otherwise) => _configuration[key] switch
    {
        null or "" => otherwise,
        var value when bool.TryParse(value, out var flag) => flag,
        var value => Mistake($"{key} must be true or false, not '{value}'."),
    };

    private int Number(string key, int otherwise)
    {
        if (_configuration[key] is not { Length: > 0 } value)
            return otherwise;
        if (int.TryParse(value, out var number) && number is >= 1 and <= 9)
            return number;
        _mistakes.Add($"{key} must be a number from 1 to 9, not '{value}'.");
        return otherwise;
    }

    private static bool IsOwn(string key) =>
        s_own.Contains(key.Split(':')[0], StringComparer.OrdinalIgnoreCase) || s_ownAmongOthers.Contains(key, StringComparer.OrdinalIgnoreCase);

    private bool Mistake(string what)
    {
        _mistakes.Add(what);
        return false;
    }

    /// <summary>Root can't run Postgres, and the user it runs as instead can't enter root's home or a clone in it.</summary>
    private static string DefaultDataDirectory() => Unix.IsRoot
        ? Path.Combine("/var/lib/triggers/data", Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(Clone.Root)))[..12])
        : Path.Combine(Clone.Root, ".data");

    private static string DefaultCacheDirectory()
    {
        if (Unix.IsRoot)
            return "/var/lib/triggers/cache";
        var xdg = Environment.GetEnvironmentVariable("XDG_CACHE_HOME");
        return string.IsNullOrEmpty(xdg)
            ? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), "triggers", "cache")
            : Path.Combine(xdg, "triggers");
    }
}
