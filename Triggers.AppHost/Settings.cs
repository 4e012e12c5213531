using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;

namespace Triggers.AppHost;

/// <summary>What the AppHost itself can be told, by environment (<c>Ports__Api=8081</c>) or argument (<c>--Ports:Api=8081</c>).</summary>
internal sealed class Settings
{
    private static readonly string[] s_stores = ["postgres", "redis", "kafka"];

    private static readonly Kind s_text = new("", _ => true);
    private static readonly Kind s_flag = new("true or false", value => bool.TryParse(value, out _));
    private static readonly Kind s_number = new(
        "a number from 1 to 9", value => int.TryParse(value, out var number) && number is > 0 and < 10);
    private static readonly Kind s_port = new(
        "a port, or 0 for a free one", value => int.TryParse(value, out var port) && port is >= 0 and <= 65535);

    private static readonly Setting[] s_own =
    [
        new("reset", "false", s_flag, "drops the data first"),
        new("Replicas", "1", s_number, "so many API and Delivery processes"),
        new("Stores", "", new("local or containers", value => value is "" or "local" or "containers"),
            "otherwise containers where a container runtime answers"),
        new("with-kafka", "", new("true or false", value => value is "" || bool.TryParse(value, out _)),
            "whether Kafka is the event log; otherwise where there is one"),
        new("Kafka:Home", "", s_text, "an Apache Kafka, unpacked; otherwise KAFKA_HOME"), new("KAFKA_HOME", "", s_text, "the same"),
        new("Kafka:Brokers", "1", s_number, "a cluster of so many, for drills"),
        .. new[] { "Api=8080", "Receiver=8090", "Dashboard=18888", "Kafka=9092", "Delivery=0", "Postgres=0", "Redis=0" }.Select(
            port => port.Split('='))
            .Select(port => new Setting("Ports:" + port[0], port[1], s_port, "0 takes a free one")),
        new("ConnectionStrings:triggersdb", "", s_text, "a PostgreSQL of yours, 16 or newer"),
        new("ConnectionStrings:redis", "", s_text, "a Redis of yours"), new("ConnectionStrings:kafka", "", s_text, "a Kafka of yours"),
        new("Data:Directory", "", s_text, "where the data is kept"),
        new("Data:Temporary", "false", s_flag, "that of containers goes with them"),
        new("Cache:Directory", "", s_text, "where downloads are kept"),
        new("Dashboard:Enabled", "true", s_flag, "whether there is one"),
        new("Resources", "all", new("'all', 'stores' or some of postgres,redis,kafka", value =>
            value is "all" or "stores" || !value.Split(',').Except(s_stores).Any()),
            "what is started"),
        new("Restarts", "true", s_flag, "what crashes is started again"),
        new("in-cluster-stores", "false", s_flag, "the Helm chart has stores in it"),
        new("Volumes:Size", "", s_text, "of those"), new("Volumes:Class", "", s_text, "of those"),
        .. new[] { "Host", "Class", "TlsSecret" }.Select(name => new Setting("Ingress:" + name, "", s_text, "of the Helm chart")),
    ];

    /// <summary>Sections of the services, which check what is in them.</summary>
    private static readonly string[] s_services =
        ["AllowedHosts", "Auth", "Cors", "Delivery", "Kafka", "Kestrel", "Limits",
            "Logging", "Protection", "RateLimiting", "Requests", "Retention", "Shutdown", "Telemetry", "Transformations"];

    /// <summary>Of the framework, and the orchestrator.</summary>
    private static readonly string[] s_aspires =
        ["publisher", "operation", "step", "output-path", "environment", "log-level",
            "deploy", "AppHost", "DcpPublisher", "Parameters", "Pipeline", "Publishing"];

    private readonly IConfiguration _configuration;
    private readonly Lock _kept = new();

    /// <param name="configuration">Environment and arguments.</param>
    /// <param name="arguments">The arguments alone.</param>
    /// <param name="appHostDirectory">The project's.</param>
    /// <exception cref="DistributedApplicationException">Names every mistake.</exception>
    public Settings(IConfiguration configuration, IReadOnlyList<(string Key, string Value)> arguments, string appHostDirectory)
    {
        (_configuration, AppHostDirectory) = (configuration, appHostDirectory);
        // Root can't run Postgres, and the user it runs as instead can't enter root's home or a clone in it.
        var clone = Path.GetDirectoryName(Path.TrimEndingDirectorySeparator(appHostDirectory))!;
        DataDirectory = Path.GetFullPath(this["Data:Directory"] ?? (IsRoot
            ? "/var/lib/triggers/data/" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(clone)))[..12]
            : Path.Combine(clone, ".data")));
        var home = Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify);
        CacheDirectory = Path.GetFullPath(
            this["Cache:Directory"] ?? (IsRoot ? "/var/lib/triggers/cache" : Path.Combine(this["XDG_CACHE_HOME"] ?? home, "triggers")));

        var given = arguments.Select(argument => argument.Key)
            .Concat(configuration.GetSection("Ports").GetChildren().Select(child => child.Path));
        List<string> mistakes =
        [
            .. s_own.Where(setting => !setting.Kind.Holds(this[setting.Name] ?? ""))
                .Select(setting => $"{setting.Name} must be {setting.Kind.MustBe}, not '{this[setting.Name]}'."),
            .. given.Where(key => !IsOwn(key) && !IsForServices(key) && !IsAspires(key)).Distinct()
                .Select(key => $"{key} is not a setting. --help lists those of the AppHost, docs/operations.md the others."),
        ];
        if (Is("reset") && this["ConnectionStrings:triggersdb"] is not null)
            mistakes.Add("--reset drops only data that the AppHost keeps; ConnectionStrings:triggersdb names a database of yours.");
        if (mistakes.Count > 0)
            throw new DistributedApplicationException(string.Join(Environment.NewLine, mistakes));
        foreach (var (key, value) in arguments.Where(argument => IsForServices(argument.Key)))
            ForServices[key.Replace(":", "__", StringComparison.Ordinal)] = value;
    }

    public static string Help =>
        "dotnet run --project Triggers.AppHost -- [--reset] [--replicas N] [--Setting:Name=value …]" + Environment.NewLine
        + string.Concat(s_own.Select(setting => $"{Environment.NewLine}  --{setting.Name + "=" + setting.Default,-32}{setting.Meaning}"))
        + $"{Environment.NewLine}{Environment.NewLine}Those of the services (docs/operations.md), and the whole environment, go to the "
        + "services.";

    public static bool IsRoot { get; } = !OperatingSystem.IsWindows() && Environment.IsPrivilegedProcess;

    public string AppHostDirectory { get; }

    public string DataDirectory { get; }

    public string CacheDirectory { get; }

    public int Replicas => int.Parse(this["Replicas"]!);

    /// <summary>Where an Apache Kafka was unpacked; null: the events are logged in Postgres.</summary>
    public string? KafkaHome => (_configuration["Kafka:Home"] ?? _configuration["KAFKA_HOME"]) is { Length: > 0 } home ? home : null;

    /// <summary>Nothing but <see cref="Stores"/> is started: what the tests use.</summary>
    public bool StoresOnly => this["Resources"] != "all";

    public IReadOnlyCollection<string> Stores => this["Resources"] is "all" or "stores" ? s_stores : this["Resources"]!.Split(',');

    /// <summary>OpenTelemetry's own settings, over which Aspire's would win.</summary>
    public IEnumerable<KeyValuePair<string, string?>> Telemetry =>
        _configuration.AsEnumerable().Where(pair => pair.Key.StartsWith("OTEL_", StringComparison.Ordinal));

    /// <summary>Arguments meant for the services, as environment.</summary>
    public Dictionary<string, string> ForServices { get; } = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>What was given, or else the default; null for neither.</summary>
    public string? this[string key] => _configuration[key] is { Length: > 0 } value ? value
        : s_own.FirstOrDefault(setting =>
            setting.Name.Equals(key, StringComparison.OrdinalIgnoreCase))?.Default is { Length: > 0 } otherwise ? otherwise : null;

    public bool Is(string flag) => bool.Parse(this[flag]!);

    /// <summary>Of a part of the system; null: a free one.</summary>
    public int? PortOf(string part) => int.Parse(this["Ports:" + part]!) is > 0 and var port ? port : null;

    /// <summary>The one that was given, else one that is made once and kept beside the data: <c>trg_</c> and 256 random bits.</summary>
    public string AdminKey() => this["Auth:BootstrapAdminKey"] ?? Kept("admin-key", () =>
        "trg_" + RandomNumberGenerator.GetString("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 43));

    /// <summary>What a file beside the data holds, that only its owner may read: generated at the first call.</summary>
    public string Kept(string file, Func<string> generate)
    {
        var path = Path.Combine(DataDirectory, file);
        // The brokers of a cluster ask at the same time, and must have the same answer.
        lock (_kept)
        {
            if (new FileInfo(path) is not { Exists: true, Length: > 0 })
            {
                File.WriteAllText(path, "");
                if (!OperatingSystem.IsWindows())
                    File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
                File.WriteAllText(path, generate());
            }
            return File.ReadAllText(path);
        }
    }

    /// <summary>The arguments as pairs: bare flags are true, and a value may be a word of its own.</summary>
    /// <exception cref="DistributedApplicationException">Names what is none.</exception>
    public static IReadOnlyList<(string Key, string Value)> Parse(IReadOnlyList<string> arguments)
    {
        var parsed = new List<(string, string)>();
        for (var i = 0; i < arguments.Count; i++)
        {
            if (!arguments[i].StartsWith("--", StringComparison.Ordinal))
                throw new DistributedApplicationException($"Not understood: {arguments[i]}. --help lists what is.");
            var pair = arguments[i][2..].Split('=', 2);
            var wordFollows = pair.Length == 1 && i + 1 < arguments.Count && !arguments[i + 1].StartsWith("--", StringComparison.Ordinal);
            parsed.Add((pair[0], pair.Length == 2 ? pair[1] : wordFollows ? arguments[++i] : "true"));
        }
        return parsed;
    }

    /// <summary>
    /// The arguments as Aspire needs them: with what a launchSettings.json would hold, over which the environment can't win.
    /// </summary>
    public static string[] Complete(IReadOnlyList<(string Key, string Value)> arguments)
    {
        string[] given = [.. arguments.Select(argument => $"--{argument.Key}={argument.Value}")];
        var asked = Asked(arguments);
        if (asked["publisher"] is not null || asked["operation"] is "publish")
            return given;
        return
        [
            // In Development what Aspire generates is kept, as user secrets, for the data it belongs to.
            "--environment=" + (asked["DOTNET_ENVIRONMENT"] ?? asked["ASPNETCORE_ENVIRONMENT"] ?? "Development"),
            $"--ASPNETCORE_URLS=http://localhost:{asked["Ports:Dashboard"] ?? "18888"}",
            // On this machine only, so neither certificates nor passwords, nor warnings that there are none.
            "--ASPIRE_DASHBOARD_OTLP_ENDPOINT_URL=http://localhost:0", "--ASPIRE_RESOURCE_SERVICE_ENDPOINT_URL=http://localhost:0",
            "--ASPIRE_ALLOW_UNSECURED_TRANSPORT=true",
            "--ASPIRE_DASHBOARD_UNSECURED_ALLOW_ANONYMOUS=true", "--ASPIRE_DASHBOARD_API_DISABLED=true",
            "--ASPIRE_VERSION_CHECK_DISABLED=true", "--DcpPublisher:WaitForResourceCleanup=true",
            "--Logging:LogLevel:Default=Warning", "--Logging:LogLevel:Aspire.Hosting.Dashboard=Critical",
            "--Logging:LogLevel:Microsoft.AspNetCore.DataProtection=Error",
            // What ends a start is said by us.
            "--Logging:LogLevel:Microsoft.Extensions.Hosting.Internal.Host=None",
            .. given,
        ];
    }

    /// <summary>Whether there is to be a dashboard, which must be known before anything else is. A mistake is named later.</summary>
    public static bool HasDashboard(IReadOnlyList<(string Key, string Value)> arguments) =>
        !bool.TryParse(Asked(arguments)["Dashboard:Enabled"], out var isEnabled) || isEnabled;

    /// <summary>What the environment and the arguments say, which win.</summary>
    private static IConfigurationRoot Asked(IReadOnlyList<(string Key, string Value)> arguments) => new ConfigurationBuilder()
        .AddEnvironmentVariables()
        .AddCommandLine([.. arguments.Select(argument => $"--{argument.Key}={argument.Value}")])
        .Build();

    private static bool IsAspires(string key) =>
        key.Split('_')[0] is "ASPIRE" or "ASPNETCORE" or "DOTNET"
            || s_aspires.Contains(key.Split(':')[0], StringComparer.OrdinalIgnoreCase);

    private static bool IsForServices(string key) =>
        !IsOwn(key) && (
            s_services.Contains(key.Split(':')[0], StringComparer.OrdinalIgnoreCase) || key.StartsWith("OTEL_", StringComparison.Ordinal));

    private static bool IsOwn(string key) => s_own.Any(setting => setting.Name.Equals(key, StringComparison.OrdinalIgnoreCase));

    private sealed record Kind(string MustBe, Func<string, bool> Holds);

    private sealed record Setting(string Name, string Default, Kind Kind, string Meaning);
}
