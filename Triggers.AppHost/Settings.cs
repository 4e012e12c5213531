using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;

namespace Triggers.AppHost;

/// <summary>What the AppHost itself can be told, by environment (<c>Ports__Api=8081</c>) or argument (<c>--Ports:Api=8081</c>).</summary>
internal sealed class Settings
{
    public const string Help = """
        dotnet run --project Triggers.AppHost -- [--reset] [--replicas N] [--Setting:Name=value …]

          --reset                    drops the data first
          --replicas 2               starts so many API and Delivery processes
          --Stores=local             Postgres, Redis and Kafka as processes; or containers. Otherwise containers where a container runtime answers
          --Ports:Api=8080           also Ports:Receiver, Ports:Delivery, Ports:Postgres, Ports:Redis, Ports:Kafka, Ports:Dashboard;
                                     0 takes a free one
          --Kafka:Home=DIR           an Apache Kafka, unpacked, that logs the events (default: the environment's KAFKA_HOME); empty: Postgres does
          --Kafka:Brokers=3          a cluster of so many brokers, for drills
          --with-kafka=false         the same with containers
          --Data:Directory=DIR       where the data is kept
          --Cache:Directory=DIR      where downloads are kept
          --Dashboard:Enabled=false  runs without the dashboard
          --Resources=stores         starts only the stores; or some of postgres,redis,kafka
          --Restarts=false           leaves what has crashed as it is
          ConnectionStrings__triggersdb=…   (environment) uses a PostgreSQL of yours, 16 or newer
          ConnectionStrings__redis=…, ConnectionStrings__kafka=…   the same for Redis and Kafka

        Any setting of the services, and the whole environment, goes to the services.
        """;

    private static readonly string[] s_flags = ["reset", "with-kafka", "in-cluster-stores"];
    private static readonly string[] s_parts = ["api", "delivery", "receiver", "postgres", "redis", "kafka", "dashboard"];
    private static readonly string[] s_stores = ["postgres", "redis", "kafka"];

    private static readonly HashSet<string> s_own = new(StringComparer.OrdinalIgnoreCase)
    {
        "Replicas", "Stores", "Resources", "Restarts", "Data:Directory", "Data:Temporary", "Cache:Directory", "Dashboard:Enabled", "Kafka:Home", "Kafka:Brokers",
        "KAFKA_HOME", "Ingress:Host", "Ingress:Class", "Ingress:TlsSecret", "Volumes:Size", "Volumes:Class",
        "ConnectionStrings:triggersdb", "ConnectionStrings:redis", "ConnectionStrings:kafka",
    };

    /// <summary>What Aspire itself takes, by its first part.</summary>
    private static readonly HashSet<string> s_aspires = new(StringComparer.OrdinalIgnoreCase)
    {
        "publisher", "operation", "step", "output-path", "environment", "log-level", "include-exception-details", "clear-cache", "deploy",
        "AppHost", "DcpPublisher", "Parameters", "Pipeline", "Publishing",
    };

    /// <summary>Sections of the services, which check what is in them.</summary>
    private static readonly HashSet<string> s_services = new(StringComparer.OrdinalIgnoreCase)
    {
        "AllowedHosts", "Auth", "Cors", "Delivery", "Kafka", "Kestrel", "Logging", "RateLimiting", "Shutdown", "Telemetry",
    };

    private readonly IConfiguration _configuration;
    private readonly List<string> _mistakes = [];

    /// <param name="configuration">Environment and arguments.</param>
    /// <param name="arguments">As <see cref="Parse"/> returns them.</param>
    /// <param name="appHostDirectory">The project's.</param>
    /// <exception cref="DistributedApplicationException">Names every mistake.</exception>
    public Settings(IConfiguration configuration, IReadOnlyList<(string Key, string Value)> arguments, string appHostDirectory)
    {
        _configuration = configuration;
        AppHostDirectory = appHostDirectory;
        var clone = Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(appHostDirectory))!;
        // Root can't run Postgres, and the user it runs as instead can't enter root's home or a clone in it.
        var system = !OperatingSystem.IsWindows() && Environment.IsPrivilegedProcess;
        DataDirectory = Path.GetFullPath(Text("Data:Directory") ?? (system
            ? "/var/lib/triggers/data/" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(clone)))[..12]
            : Path.Combine(clone, ".data")));
        CacheDirectory = Path.GetFullPath(Text("Cache:Directory") ?? (system ? "/var/lib/triggers/cache" : UserCache()));
        TemporaryData = Flag("Data:Temporary", false);
        Reset = Flag("reset", false);
        Restarts = Flag("Restarts", true);
        DashboardEnabled = Flag("Dashboard:Enabled", true);
        Replicas = Number("Replicas");
        KafkaBrokers = Number("Kafka:Brokers");
        KafkaHome = (configuration["Kafka:Home"] ?? configuration["KAFKA_HOME"]) is { Length: > 0 } home ? home : null;
        WithKafka = Text("with-kafka") is null ? null : Flag("with-kafka", true);
        InClusterStores = Flag("in-cluster-stores", false);
        Ports = s_parts.ToDictionary(part => part, Port);

        var resources = Text("Resources") ?? "all";
        StoresOnly = resources != "all";
        Stores = resources is "all" or "stores" ? s_stores : resources.Split(',');
        if (Stores.Except(s_stores).Any())
            _mistakes.Add($"Resources must be 'all', 'stores' or some of {string.Join(',', s_stores)}, not '{resources}'.");
        if (Text("Stores") is not (null or "local" or "containers"))
            _mistakes.Add($"Stores must be 'local' or 'containers', not '{Text("Stores")}'.");
        if (Reset && Text("ConnectionStrings:triggersdb") is not null)
            _mistakes.Add("--reset drops only data that the AppHost keeps; ConnectionStrings:triggersdb names a database of yours.");

        var ports = configuration.GetSection("Ports").GetChildren().Select(child => child.Path);
        foreach (var key in arguments.Select(argument => argument.Key).Concat(ports).Distinct(StringComparer.OrdinalIgnoreCase).Where(key => !IsKnown(key)))
            _mistakes.Add($"{key} is not a setting. --help lists those of the AppHost, docs/operations.md those of the services.");
        if (_mistakes.Count > 0)
            throw new DistributedApplicationException(string.Join(Environment.NewLine, _mistakes));
        foreach (var (key, value) in arguments.Where(argument => IsForServices(argument.Key)))
            ForServices[key.Replace(":", "__", StringComparison.Ordinal)] = value;
    }

    public string AppHostDirectory { get; }

    public string DataDirectory { get; }

    public string CacheDirectory { get; }

    /// <summary>The data is deleted at the end, or goes with its containers: for tests.</summary>
    public bool TemporaryData { get; }

    public bool Reset { get; }

    /// <summary>What crashes is started again.</summary>
    public bool Restarts { get; }

    public bool DashboardEnabled { get; }

    public string? DashboardUrl => Text("ASPNETCORE_URLS");

    /// <summary>How many of the API and of Delivery.</summary>
    public int Replicas { get; }

    /// <summary>Where an Apache Kafka was unpacked; null: the events are logged in Postgres.</summary>
    public string? KafkaHome { get; }

    /// <summary>More than one make a cluster, for drills.</summary>
    public int KafkaBrokers { get; }

    /// <summary>Null: as is usual for what is asked.</summary>
    public bool? WithKafka { get; }

    /// <summary>The Helm chart has Postgres, Redis and Kafka in it, one of each.</summary>
    public bool InClusterStores { get; }

    /// <summary>Nothing but <see cref="Stores"/> is started: what the tests use.</summary>
    public bool StoresOnly { get; }

    public IReadOnlyCollection<string> Stores { get; }

    /// <summary>By part of the system; null is a free one.</summary>
    public IReadOnlyDictionary<string, int?> Ports { get; }

    /// <summary>Arguments meant for the services, as environment.</summary>
    public Dictionary<string, string> ForServices { get; } = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>Null when it is not there, or empty.</summary>
    public string? Text(string key) => _configuration[key] is { Length: > 0 } value ? value : null;

    /// <summary>Whether the store is started, or named.</summary>
    public bool Has(string store) => Stores.Contains(store);

    /// <summary>The one that was given, else the one kept beside the data.</summary>
    public string AdminKey() => Text("Auth:BootstrapAdminKey") ?? PrivateFile.ReadOrCreate(Path.Combine(DataDirectory, "admin-key"), Triggers.AppHost.AdminKey.Generate);

    /// <summary>OpenTelemetry's own settings.</summary>
    public IEnumerable<(string Key, string Value)> Telemetry() => _configuration.AsEnumerable()
        .Where(pair => pair is { Value.Length: > 0 } && pair.Key.StartsWith("OTEL_", StringComparison.Ordinal)).Select(pair => (pair.Key, pair.Value!));

    /// <summary>The arguments as pairs: bare flags are true, and a value may be a word of its own.</summary>
    /// <exception cref="DistributedApplicationException">Names what is none.</exception>
    public static IReadOnlyList<(string Key, string Value)> Parse(IReadOnlyList<string> arguments)
    {
        var parsed = new List<(string, string)>();
        for (var i = 0; i < arguments.Count; i++)
        {
            var argument = arguments[i];
            if (!argument.StartsWith("--", StringComparison.Ordinal))
                throw new DistributedApplicationException($"Not understood: {argument}. --help lists what is.");
            var (name, equals) = (argument[2..], argument.IndexOf('='));
            if (equals > 2)
                parsed.Add((argument[2..equals], argument[(equals + 1)..]));
            else if (!s_flags.Contains(name) && i + 1 < arguments.Count && !arguments[i + 1].StartsWith("--", StringComparison.Ordinal))
                parsed.Add((name, arguments[++i]));
            else
                parsed.Add((name, "true"));
        }
        return parsed;
    }

    /// <summary>The arguments as Aspire needs them: with what a launchSettings.json would hold, over which the environment can't win.</summary>
    public static string[] Complete(IReadOnlyList<(string Key, string Value)> arguments)
    {
        var asked = new ConfigurationBuilder().AddEnvironmentVariables().AddCommandLine(Joined(arguments)).Build();
        List<(string Key, string Value)> defaults = [];
        if (asked["publisher"] is null && asked["operation"] is not "publish")
        {
            // In Development what Aspire generates is kept, as user secrets, for the data it belongs to.
            if ((asked["environment"] ?? asked["DOTNET_ENVIRONMENT"] ?? asked["ASPNETCORE_ENVIRONMENT"]) is null)
                defaults.Add(("environment", "Development"));
            // On this machine only, so neither certificates nor passwords.
            defaults.AddRange([
                ("ASPNETCORE_URLS", $"http://localhost:{asked["Ports:Dashboard"] ?? "18888"}"),
                ("ASPIRE_DASHBOARD_OTLP_ENDPOINT_URL", "http://localhost:0"), ("ASPIRE_RESOURCE_SERVICE_ENDPOINT_URL", "http://localhost:0"),
                ("ASPIRE_ALLOW_UNSECURED_TRANSPORT", "true"), ("ASPIRE_DASHBOARD_UNSECURED_ALLOW_ANONYMOUS", "true"),
                ("ASPIRE_VERSION_CHECK_DISABLED", "true"), ("Logging:LogLevel:Default", "Warning"),
            ]);
        }
        return Joined([.. defaults, .. arguments]);
    }

    private static string[] Joined(IEnumerable<(string Key, string Value)> arguments) => [.. arguments.Select(argument => $"--{argument.Key}={argument.Value}")];

    private static bool IsKnown(string key) =>
        s_own.Contains(key) || s_flags.Contains(key) || IsForServices(key) || s_aspires.Contains(key.Split(':')[0])
        || (key.Split(':') is [var ports, var part] && ports.Equals("Ports", StringComparison.OrdinalIgnoreCase) && s_parts.Contains(part.ToLowerInvariant()))
        || key.Split('_')[0] is "ASPIRE" or "ASPNETCORE" or "DOTNET";

    private static bool IsForServices(string key) =>
        !s_own.Contains(key) && (s_services.Contains(key.Split(':')[0]) || key.StartsWith("OTEL_", StringComparison.Ordinal));

    private static string UserCache() => Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } xdg
        ? Path.Combine(xdg, "triggers")
        : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), "triggers", "cache");

    private int? Port(string part)
    {
        var value = Text("Ports:" + part);
        if (value is null)
            return part switch { "api" => 8080, "receiver" => 8090, "dashboard" => 18888, "kafka" when !StoresOnly => 9092, _ => null };
        if (!int.TryParse(value, out var port) || port is < 0 or > 65535)
            _mistakes.Add($"Ports:{part} must be a port, or 0 for a free one, not '{value}'.");
        return port == 0 ? null : port;
    }

    private bool Flag(string key, bool otherwise)
    {
        if (Text(key) is not { } value)
            return otherwise;
        if (!bool.TryParse(value, out var flag))
            _mistakes.Add($"{key} must be true or false, not '{value}'.");
        return flag;
    }

    private int Number(string key)
    {
        if (Text(key) is not { } value)
            return 1;
        if (!int.TryParse(value, out var number) || number is < 1 or > 9)
            _mistakes.Add($"{key} must be a number from 1 to 9, not '{value}'.");
        return number;
    }
}
