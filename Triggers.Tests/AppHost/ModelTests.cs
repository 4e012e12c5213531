using Aspire.Hosting;
using Aspire.Hosting.ApplicationModel;
using Microsoft.Extensions.DependencyInjection;
using Triggers.AppHost;
using Triggers.AppHost.Stores;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>The system as it would run, built and not started.</summary>
public sealed class ModelTests
{
    private static readonly string[] s_services = ["api", "delivery", "receiver"];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Everything_is_there_in_both_forms(bool containers)
    {
        KafkaServer.SkipIfMissing();
        await using var app = Build(containers, $"--Kafka:Home={KafkaServer.Home}");

        Assert.Superset(
            new HashSet<string> { "postgres", "triggersdb", "redis", "kafka", "migrations", "receiver", "api", "delivery", "admin-key" },
            Model(app).Resources.Select(resource => resource.Name).ToHashSet());
        foreach (var store in new[] { "postgres", "redis", "kafka" })
            Assert.Equal(containers, Resource(app, store).IsContainer());
    }

    [Fact]
    public async Task Services_wait_for_their_stores_and_the_migrations()
    {
        await using var app = Build(containers: false);

        Assert.Superset(Set("migrations", "redis"), Waits(app, "api"));
        Assert.Superset(Set("migrations"), Waits(app, "delivery"));
        // It does without, until a subscription has limits.
        Assert.DoesNotContain("redis", Waits(app, "delivery"));
        Assert.Superset(Set("triggersdb"), Waits(app, "migrations"));
        Assert.All(
            s_services.Append("migrations").SelectMany(service => Resource(app, service).Annotations.OfType<WaitAnnotation>()), wait =>
            Assert.Equal(wait.Resource.Name == "migrations" ? WaitType.WaitForCompletion : WaitType.WaitUntilHealthy, wait.WaitType));
    }

    [Fact]
    public async Task What_runs_on_is_asked_for_its_health()
    {
        await using var app = Build(containers: false);

        foreach (var service in s_services)
            Assert.NotEmpty(Resource(app, service).Annotations.OfType<HealthCheckAnnotation>());
        Assert.Empty(Resource(app, "migrations").Annotations.OfType<HealthCheckAnnotation>());
    }

    [Fact]
    public async Task The_data_of_containers_is_on_named_volumes_unless_it_is_temporary()
    {
        await using var app = Build(containers: true, "--Data:Temporary=false");
        Assert.Equal(["triggers-kafka", "triggers-postgres", "triggers-redis"], Volumes(app));

        await using var temporary = Build(containers: true);
        Assert.Empty(Volumes(temporary));
    }

    [Fact]
    public async Task A_store_that_was_named_is_used_and_never_reset()
    {
        await using var app = Build(
            containers: false, "--ConnectionStrings:redis=redis.example", "--ConnectionStrings:kafka=kafka.example");

        Assert.DoesNotContain(Model(app).Resources, resource => resource is LocalStore { Name: "redis" or "kafka" });
        Assert.Equal(
            "redis.example", await ((IResourceWithConnectionString)Resource(app, "redis")).GetConnectionStringAsync(Cancellation));
        Assert.Superset(Set("kafka"), Resource(app, "api").Annotations.OfType<ResourceRelationshipAnnotation>()
            .Select(r => r.Resource.Name).ToHashSet());
    }

    [Fact]
    public async Task The_dashboard_has_its_buttons()
    {
        await using var app = Build(containers: false);

        Assert.Superset(new HashSet<string> { Commands.SampleEvent, Commands.Redrive }, CommandNames(app, "api").ToHashSet());
        Assert.Contains(Commands.Reset, CommandNames(app, "triggersdb"));
    }

    [Fact]
    public async Task Replicas_are_for_the_API_and_for_Delivery()
    {
        await using var app = Build(containers: false, "--replicas=2");

        Assert.Equal(2, Resource(app, "api").GetReplicaCount());
        Assert.Equal(2, Resource(app, "delivery").GetReplicaCount());
        Assert.Equal(1, Resource(app, "receiver").GetReplicaCount());
    }

    /// <summary>Without the program around it, which would go on to start it, and end it where there is no container runtime.</summary>
    private static DistributedApplication Build(bool containers, params string[] arguments)
    {
        var given = Settings.Parse(
        [
            $"--Data:Directory={TestDirectory.New()}", "--Data:Temporary=true", "--Kafka:Home=",
            "--Ports:api=0", "--Ports:receiver=0", "--Ports:kafka=0", .. arguments,
        ]);
        var builder = DistributedApplication.CreateBuilder(new DistributedApplicationOptions
        {
            Args = Settings.Complete(given),
            AssemblyName = typeof(Settings).Assembly.GetName().Name,
            DisableDashboard = true,
        });
        builder.AddTriggers(new Settings(builder.Configuration, given, builder.AppHostDirectory), containers);
        return builder.Build();
    }

    private static DistributedApplicationModel Model(DistributedApplication app) =>
        app.Services.GetRequiredService<DistributedApplicationModel>();

    private static IResource Resource(DistributedApplication app, string name) =>
        Model(app).Resources.Single(resource => resource.Name == name);

    private static HashSet<string> Set(params string[] names) => [.. names];

    private static HashSet<string> Waits(DistributedApplication app, string service) =>
        Resource(app, service).Annotations.OfType<WaitAnnotation>().Select(wait => wait.Resource.Name).ToHashSet();

    private static IEnumerable<string> CommandNames(DistributedApplication app, string name) =>
        Resource(app, name).Annotations.OfType<ResourceCommandAnnotation>().Select(command => command.Name);

    private static IEnumerable<string?> Volumes(DistributedApplication app) => Model(app).Resources
        .SelectMany(resource => resource.Annotations.OfType<ContainerMountAnnotation>())
        .Where(mount => mount.Type == ContainerMountType.Volume)
        .Select(mount => mount.Source)
        .Order();
}
