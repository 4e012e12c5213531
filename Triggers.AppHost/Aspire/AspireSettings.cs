using Microsoft.Extensions.Configuration;

namespace Triggers.AppHost.Aspire;

/// <summary>What the AppHost itself can be told, by environment (<c>Ports__Api=8081</c>) or argument (<c>--Ports:Api=8081</c>).</summary>
internal sealed class AspireSettings
{
    /// <summary>Sections that are the AppHost's and Aspire's own. Every other <c>--Section:Name=value</c> is meant for the services.</summary>
    private static readonly string[] s_own =
        ["Parameters", "ConnectionStrings", "Ports", "Data", "Ingress", "Volumes", "AppHost", "Dashboard", "DcpPublisher", "Pipeline", "Publishing"];

    private static readonly string[] s_flags = ["--in-cluster-stores", "--with-kafka"];

    private readonly IConfigurationRoot _configuration;

    public AspireSettings(IDistributedApplicationBuilder builder, IReadOnlyList<string> arguments)
    {
        // Aspire reads the arguments too, and takes what follows a bare flag for its value.
        _configuration = new ConfigurationBuilder().AddConfiguration(builder.Configuration).AddCommandLine(Complete(arguments)).Build();
        var publishes = builder.ExecutionContext.IsPublishMode;
        PublishesChart = publishes && string.IsNullOrEmpty(builder.Configuration["Publishing:Publisher"]);
        InClusterStores = PublishesChart && _configuration.GetValue("in-cluster-stores", false);
        WithKafka = _configuration.GetValue("with-kafka", !publishes || PublishesChart);
        Replicas = _configuration.GetValue("replicas", 1);
        TemporaryData = _configuration.GetValue("Data:Temporary", false);
        ForServices = arguments
            .Where(a => a.StartsWith("--", StringComparison.Ordinal) && a.IndexOf('=') > 2)
            .Select(a => a[2..].Split('=', 2))
            .Where(pair => IsForServices(pair[0]))
            .ToDictionary(pair => pair[0].Replace(":", "__", StringComparison.Ordinal), pair => pair[1], StringComparer.OrdinalIgnoreCase);
    }

    /// <summary>A Helm chart is written, and not the manifest that azd reads.</summary>
    public bool PublishesChart { get; }

    /// <summary>The chart has Postgres, Redis and Kafka in it, one of each.</summary>
    public bool InClusterStores { get; }

    /// <summary>Kafka is the event log. Without it Postgres is.</summary>
    public bool WithKafka { get; }

    /// <summary>How many of the API and of Delivery.</summary>
    public int Replicas { get; }

    /// <summary>The data goes with its containers: for tests.</summary>
    public bool TemporaryData { get; }

    /// <summary>Arguments meant for the services, as environment.</summary>
    public IReadOnlyDictionary<string, string> ForServices { get; }

    public string WhereDataIs =>
        Named(Topology.Database) is not null ? "in your PostgreSQL"
        : TemporaryData ? "in the containers, gone with them"
        : $"in the volumes {Wiring.Volume("*")}";

    /// <summary>The connection string of an existing store that is used instead of one of our own.</summary>
    public string? Named(string connection) => _configuration.GetConnectionString(connection) is { Length: > 0 } named ? named : null;

    /// <summary>What the services get under this name, if the AppHost was given it.</summary>
    public string? Given(string environmentName) => _configuration[environmentName.Replace("__", ":", StringComparison.Ordinal)];

    /// <summary>As in <c>Ingress:Host</c>; null when it is not there.</summary>
    public string? Text(string key) => _configuration[key] is { Length: > 0 } value ? value : null;

    /// <summary>Null: a free one.</summary>
    public int? PortOf(Service service) => _configuration.GetValue("Ports:" + service.Name, service.Port) is > 0 and var port ? port : null;

    /// <summary>
    /// The arguments as Aspire needs them: bare flags get a value, and a run gets what launchSettings.json would hold. There is none of those
    /// because <c>dotnet run</c> would apply it to the other engine too, over what was asked for in the environment.
    /// </summary>
    public static string[] Complete(IReadOnlyList<string> arguments)
    {
        string[] complete = [.. arguments.Select(a => s_flags.Contains(a) ? a + "=true" : a)];
        var asked = new ConfigurationBuilder().AddEnvironmentVariables().AddCommandLine(complete).Build();
        if (asked["publisher"] is not null || asked["operation"] is "publish")
            return complete;

        List<string> defaults = [];
        // In Development the generated passwords are kept, as user secrets, for the data they belong to.
        if (asked["DOTNET_ENVIRONMENT"] is null && asked["ASPNETCORE_ENVIRONMENT"] is null && asked["environment"] is null)
            defaults.Add("--environment=Development");
        if (asked["ASPNETCORE_URLS"] is null)
        {
            defaults.Add($"--ASPNETCORE_URLS=http://localhost:{Topology.DashboardPort}");
            defaults.Add("--ASPIRE_DASHBOARD_OTLP_ENDPOINT_URL=http://localhost:0");
            defaults.Add("--ASPIRE_RESOURCE_SERVICE_ENDPOINT_URL=http://localhost:0");
            defaults.Add("--ASPIRE_ALLOW_UNSECURED_TRANSPORT=true");
        }
        return [.. defaults, .. complete];
    }

    private static bool IsForServices(string key) =>
        key.StartsWith("OTEL_", StringComparison.Ordinal) || (key.IndexOf(':') is > 0 and var end && !s_own.Contains(key[..end], StringComparer.OrdinalIgnoreCase));
}
