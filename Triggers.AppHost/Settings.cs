using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;

namespace Triggers.AppHost;

/// <summary>What the AppHost itself can be told, by environment (<c>Ports__Api=8081</c>) or argument (<c>--Ports:Api=8081</c>).</summary>
internal sealed class Settings
{
    private static readonly string[] s_stores = ["postgres", "redis", "kafka"];

    private static readonly Setting[] s_own =
    [
        Flag("reset", "false", "drops the data first"),
        Number("Replicas", "1", "so many API and Delivery processes"),
        OneOf("Stores", ["", "local", "containers"], "processes or containers; otherwise containers where a container runtime answers"),
        OneOf("with-kafka", ["", "true", "false"], "whether Kafka is the event log; otherwise where there is one"),
        Text("Kafka:Home", "an Apache Kafka, unpacked; otherwise KAFKA_HOME"), Text("KAFKA_HOME", "the same"),
        Number("Kafka:Brokers", "1", "a cluster of so many, for drills"),
        Port("Api", "8080"), Port("Receiver", "8090"), Port("Dashboard", "18888"), Port("Kafka", "9092"), Port("Delivery", "0"), Port("Postgres", "0"), Port("Redis", "0"),
        Text("ConnectionStrings:triggersdb", "a PostgreSQL of yours, 16 or newer"), Text("ConnectionStrings:redis", "a Redis of yours"),
        Text("ConnectionStrings:kafka", "a Kafka of yours"),
        Text("Data:Directory", "where the data is kept"), Flag("Data:Temporary", "false", "that of containers goes with them"),
        Text("Cache:Directory", "where downloads are kept"),
        Flag("Dashboard:Enabled", "true", "whether there is one"),
        new("Resources", "all", "'all', 'stores' or some of postgres,redis,kafka", value => value is "all" or "stores" || !value.Split(',').Except(s_stores).Any(), "what is started"),
        Flag("Restarts", "true", "what crashes is started again"),
        Flag("in-cluster-stores", "false", "the Helm chart has stores in it"), Text("Volumes:Size", "of those"), Text("Volumes:Class", "of those"),
        Text("Ingress:Host", "of the Helm chart"), Text("Ingress:Class", "of the Helm chart"), Text("Ingress:TlsSecret", "of the Helm chart"),
    ];

    /// <summary>Sections of the services, which check what is in them.</summary>
    private static readonly string[] s_services =
        ["AllowedHosts", "Auth", "Cors", "Delivery", "Kafka", "Kestrel", "Limits", "Logging", "RateLimiting", "Requests", "Retention", "Shutdown", "Telemetry"];

    private static readonly string[] s_aspires =
    [
        "publisher", "operation", "step", "output-path", "environment", "log-level", "deploy", "AppHost", "DcpPublisher", "Parameters", "Pipeline", "Publishing",
    ];

    private readonly IConfiguration _configuration;

    /// <param name="configuration">Environment and arguments.</param>
    /// <param name="arguments">As <see cref="Parse"/> returns them.</param>
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
        CacheDirectory = Path.GetFullPath(this["Cache:Directory"] ?? (IsRoot ? "/var/lib/triggers/cache" : Path.Combine(this["XDG_CACHE_HOME"] ?? home, "triggers")));

        var given = arguments.Select(argument => argument.Key).Concat(configuration.GetSection("Ports").GetChildren().Select(child => child.Path));
        List<string> mistakes =
        [
            .. s_own.Where(setting => !setting.Holds(this[setting.Name] ?? "")).Select(setting => $"{setting.Name} must be {setting.MustBe}, not '{this[setting.Name]}'."),
            .. given.Where(key => !IsKnown(key)).Distinct().Select(key => $"{key} is not a setting. --help lists those of the AppHost, docs/operations.md the others."),
        ];
        if (Is("reset") && this["ConnectionStrings:triggersdb"] is not null)
            mistakes.Add("--reset drops only data that the AppHost keeps; ConnectionStrings:triggersdb names a database of yours.");
        if (mistakes.Count > 0)
            throw new DistributedApplicationException(string.Join(Environment.NewLine, mistakes));
        foreach (var (key, value) in arguments.Where(argument => IsForServices(argument.Key)))
            ForServices[key.Replace(":", "__", StringComparison.Ordinal)] = value;
    }

    public static string Help => "dotnet run --project Triggers.AppHost -- [--reset] [--replicas N] [--Setting:Name=value …]" + Environment.NewLine
        + string.Concat(s_own.Select(setting => $"{Environment.NewLine}  --{setting.Name + "=" + setting.Default,-32}{setting.Meaning}"))
        + $"{Environment.NewLine}{Environment.NewLine}Those of the services (docs/operations.md), and the whole environment, go to the services.";

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

    /// <summary>Arguments meant for the services, as environment.</summary>
    public Dictionary<string, string> ForServices { get; } = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>What was given, or else the default; null for neither.</summary>
    public string? this[string key] => _configuration[key] is { Length: > 0 } value ? value
        : s_own.FirstOrDefault(setting => setting.Name.Equals(key, StringComparison.OrdinalIgnoreCase))?.Default is { Length: > 0 } otherwise ? otherwise : null;

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
        if (!File.Exists(path))
        {
            File.WriteAllText(path, "");
            if (!OperatingSystem.IsWindows())
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            File.WriteAllText(path, generate());
        }
        return File.ReadAllText(path);
    }

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
            if (!arguments[i].StartsWith("--", StringComparison.Ordinal))
                throw new DistributedApplicationException($"Not understood: {arguments[i]}. --help lists what is.");
            var pair = arguments[i][2..].Split('=', 2);
            var wordFollows = pair.Length == 1 && i + 1 < arguments.Count && !arguments[i + 1].StartsWith("--", StringComparison.Ordinal);
            parsed.Add((pair[0], pair.Length == 2 ? pair[1] : wordFollows ? arguments[++i] : "true"));
        }
        return parsed;
    }

    /// <summary>The arguments as Aspire needs them: with what a launchSettings.json would hold, over which the environment can't win.</summary>
    public static string[] Complete(IReadOnlyList<(string Key, string Value)> arguments)
    {
        string[] given = [.. arguments.Select(argument => $"--{argument.Key}={argument.Value}")];
        var asked = new ConfigurationBuilder().AddEnvironmentVariables().AddCommandLine(given).Build();
        if (asked["publisher"] is not null || asked["operation"] is "publish")
            return given;
        // In Development what Aspire generates is kept, as user secrets, for the data it belongs to.
        string[] environment = (asked["environment"] ?? asked["DOTNET_ENVIRONMENT"] ?? asked["ASPNETCORE_ENVIRONMENT"]) is null ? ["--environment=Development"] : [];
        return
        [
            .. environment,
            $"--ASPNETCORE_URLS=http://localhost:{asked["Ports:Dashboard"] ?? "18888"}",
            // On this machine only, so neither certificates nor passwords, nor warnings that there are none.
            "--ASPIRE_DASHBOARD_OTLP_ENDPOINT_URL=http://localhost:0", "--ASPIRE_RESOURCE_SERVICE_ENDPOINT_URL=http://localhost:0",
            "--ASPIRE_ALLOW_UNSECURED_TRANSPORT=true", "--ASPIRE_DASHBOARD_UNSECURED_ALLOW_ANONYMOUS=true", "--ASPIRE_DASHBOARD_API_DISABLED=true",
            "--ASPIRE_VERSION_CHECK_DISABLED=true", "--DcpPublisher:WaitForResourceCleanup=true",
            "--Logging:LogLevel:Default=Warning", "--Logging:LogLevel:Aspire.Hosting.Dashboard=Error", "--Logging:LogLevel:Microsoft.AspNetCore.DataProtection=Error",
            .. given,
        ];
    }

    private static bool IsKnown(string key) => IsOwn(key) || IsForServices(key) || key.Split('_')[0] is "ASPIRE" or "ASPNETCORE" or "DOTNET"
        || s_aspires.Contains(key.Split(':')[0], StringComparer.OrdinalIgnoreCase);

    private static bool IsForServices(string key) =>
        !IsOwn(key) && (s_services.Contains(key.Split(':')[0], StringComparer.OrdinalIgnoreCase) || key.StartsWith("OTEL_", StringComparison.Ordinal));

    private static bool IsOwn(string key) => s_own.Any(setting => setting.Name.Equals(key, StringComparison.OrdinalIgnoreCase));

    private static Setting Text(string name, string meaning) => new(name, "", "", _ => true, meaning);

    private static Setting OneOf(string name, string[] values, string meaning) =>
        new(name, values[0], $"one of {string.Join(", ", values.Where(value => value != ""))}", value => values.Contains(value.ToLowerInvariant()), meaning);

    private static Setting Flag(string name, string otherwise, string meaning) => new(name, otherwise, "true or false", value => bool.TryParse(value, out _), meaning);

    private static Setting Number(string name, string otherwise, string meaning) =>
        new(name, otherwise, "a number from 1 to 9", value => int.TryParse(value, out var number) && number is > 0 and < 10, meaning);

    private static Setting Port(string part, string otherwise) =>
        new("Ports:" + part, otherwise, "a port, or 0 for a free one", value => int.TryParse(value, out var port) && port is >= 0 and <= 65535, "0 takes a free one");

    private sealed record Setting(string Name, string Default, string MustBe, Func<string, bool> Holds, string Meaning);
}
