namespace Triggers.AppHost;

/// <summary>
/// What runs, and wired to what. The engine decides how: this page is all there is to know about the system's shape.
/// Services are listed in the order they start; they stop in the reverse of it, and after them the dashboard and the stores.
/// </summary>
internal static class Topology
{
    /// <summary>The connection string of <see cref="Postgres"/>; those of the other stores have the store's name.</summary>
    public const string Database = "triggersdb";

    public const string Postgres = "postgres";
    public const string Redis = "redis";
    public const string Kafka = "kafka";
    public const string Dashboard = "dashboard";
    public const string Migrations = "migrations";
    public const string Api = "api";
    public const string Delivery = "delivery";
    public const string Receiver = "receiver";

    public static readonly IReadOnlyList<string> Stores = [Postgres, Redis, Kafka];

    public static readonly IReadOnlyList<Service> Services =
    [
        // Database and tables are made once, before anything that uses them.
        new(Migrations, "Triggers.Api")
        {
            Arguments = ["--migrate"],
            References = [Database],
            WaitsFor = [Postgres],
            RunsToCompletion = true,
        },
        new(Receiver, "Triggers.Receiver")
        {
            Port = 8090,
        },
        new(Api, "Triggers.Api")
        {
            Port = 8080,
            Replicated = true,
            References = [Database, Kafka, Redis],
            WaitsFor = [Migrations, Kafka, Redis],
            Environment = { ["Auth__BootstrapAdminKey"] = AdminKey },
        },
        new(Delivery, "Triggers.Delivery")
        {
            Replicated = true,
            References = [Database, Kafka],
            WaitsFor = [Migrations, Kafka],
            // Webhooks to this machine are refused everywhere else; here the receiver and the developer's own service are on it.
            Environment = { ["Delivery__AllowedNetworks"] = LoopbackNetworks },
        },
    ];

    public const int DashboardPort = 18888;
    public const int KafkaPort = 9092;
    public const string LoopbackNetworks = "127.0.0.0/8,::1/128";

    public static readonly IReadOnlyList<string> StopOrder = [.. Services.Reverse().Select(service => service.Name), Dashboard, Kafka, Redis, Postgres];

    /// <summary>Stands for the admin key, which is generated once and kept beside the data.</summary>
    public const string AdminKey = "{admin-key}";
}

/// <summary>One of our own programs.</summary>
/// <param name="Name">What it is called in the table, in the logs and in telemetry.</param>
/// <param name="Project">The project that it is built from.</param>
internal sealed record Service(string Name, string Project)
{
    /// <summary>The port of <c>http://localhost</c> it serves; null: a free one, for health only.</summary>
    public int? Port { get; init; }

    public string[] Arguments { get; init; } = [];

    /// <summary>Connection strings it gets, as <c>ConnectionStrings__NAME</c>; that of a store that is off is left out.</summary>
    public string[] References { get; init; } = [];

    /// <summary>What must be ready, or off, or have ended well, before it starts.</summary>
    public string[] WaitsFor { get; init; } = [];

    /// <summary>Defaults: what the AppHost was given under the same name wins.</summary>
    public Dictionary<string, string> Environment { get; } = [];

    public bool RunsToCompletion { get; init; }

    /// <summary>There are as many as <c>--replicas</c> says: any number may work side by side.</summary>
    public bool Replicated { get; init; }
}
