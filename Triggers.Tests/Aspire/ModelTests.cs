using Aspire.Hosting;
using Aspire.Hosting.ApplicationModel;
using Aspire.Hosting.Testing;
using Microsoft.Extensions.DependencyInjection;
using Triggers.AppHost;
using Triggers.AppHost.Aspire;

namespace Triggers.Tests.Aspire;

/// <summary>The system as it would run, built and not started.</summary>
public sealed class ModelTests
{
    private static readonly string[] s_services = [Topology.Migrations, Topology.Receiver, Topology.Api, Topology.Delivery];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Running_it_is_everything_in_the_topology()
    {
        await using var app = await BuildAsync();

        Assert.Superset(
            new HashSet<string> { "postgres", "triggersdb", "redis", "kafka", "migrations", "receiver", "api", "delivery", "admin-key" },
            Model(app).Resources.Select(resource => resource.Name).ToHashSet());
        Assert.Equal(Topology.Services.Select(service => service.Name).Order(), Model(app).GetProjectResources().Select(project => project.Name).Order());
    }

    [Fact]
    public async Task Services_wait_for_what_the_topology_says()
    {
        await using var app = await BuildAsync();

        foreach (var service in Topology.Services)
        {
            var waits = Resource(app, service.Name).Annotations.OfType<WaitAnnotation>().ToList();
            // Aspire adds the parents of a reference by itself.
            Assert.Superset(service.WaitsFor.ToHashSet(), waits.Select(wait => wait.Resource.Name).ToHashSet());
            Assert.All(waits, wait => Assert.Equal(wait.Resource.Name == Topology.Migrations ? WaitType.WaitForCompletion : WaitType.WaitUntilHealthy, wait.WaitType));
        }
    }

    [Fact]
    public async Task Services_refer_to_the_stores_that_the_topology_says()
    {
        await using var app = await BuildAsync();

        foreach (var service in Topology.Services)
        {
            var references = Resource(app, service.Name).Annotations.OfType<ResourceRelationshipAnnotation>()
                .Where(relationship => relationship.Type == "Reference" && relationship.Resource is IResourceWithConnectionString)
                .Select(relationship => relationship.Resource.Name);
            Assert.Equal(service.References.Order(), references.Distinct().Order());
        }
    }

    [Fact]
    public async Task What_runs_on_is_asked_for_its_health()
    {
        await using var app = await BuildAsync();

        foreach (var service in s_services.Except([Topology.Migrations]))
            Assert.NotEmpty(Resource(app, service).Annotations.OfType<HealthCheckAnnotation>());
        Assert.Empty(Resource(app, Topology.Migrations).Annotations.OfType<HealthCheckAnnotation>());
    }

    [Fact]
    public async Task The_data_is_on_named_volumes_unless_it_is_temporary()
    {
        await using var app = await BuildAsync();
        Assert.Equal(["triggers-kafka", "triggers-postgres", "triggers-redis"], Volumes(app));

        await using var temporary = await BuildAsync("--Data:Temporary=true");
        Assert.Empty(Volumes(temporary));
    }

    [Fact]
    public async Task A_store_that_was_named_is_used_and_never_reset()
    {
        await using var app = await BuildAsync("--ConnectionStrings:triggersdb=Host=db.example", "--with-kafka=false");

        Assert.DoesNotContain(Model(app).Resources, resource => resource.Name is "postgres" or "kafka");
        Assert.DoesNotContain(CommandNames(app, Topology.Database), name => name == Commands.Reset);
        Assert.Equal("Host=db.example", await ((IResourceWithConnectionString)Resource(app, Topology.Database)).GetConnectionStringAsync(Cancellation));
    }

    [Fact]
    public async Task The_dashboard_has_its_buttons()
    {
        await using var app = await BuildAsync();

        Assert.Superset(new HashSet<string> { Commands.SampleEvent, Commands.Redrive }, CommandNames(app, Topology.Api).ToHashSet());
        Assert.Contains(Commands.Reset, CommandNames(app, Topology.Database));
    }

    [Fact]
    public async Task Replicas_are_for_the_API_and_for_Delivery()
    {
        await using var app = await BuildAsync("--replicas=2");

        Assert.Equal(2, Resource(app, Topology.Api).GetReplicaCount());
        Assert.Equal(2, Resource(app, Topology.Delivery).GetReplicaCount());
        Assert.Equal(1, Resource(app, Topology.Migrations).GetReplicaCount());
    }

    [Fact]
    public void A_run_gets_what_it_needs_and_a_flag_a_value()
    {
        Assert.Contains("--ASPIRE_ALLOW_UNSECURED_TRANSPORT=true", AspireSettings.Complete([]));
        Assert.Equal(["--publisher=manifest", "--in-cluster-stores=true"], AspireSettings.Complete(["--publisher=manifest", "--in-cluster-stores"]));
    }

    private static async Task<DistributedApplication> BuildAsync(params string[] arguments)
    {
        var builder = await DistributedApplicationTestingBuilder.CreateAsync<Projects.Triggers_AppHost>(arguments, Cancellation);
        return await builder.BuildAsync(Cancellation);
    }

    private static DistributedApplicationModel Model(DistributedApplication app) => app.Services.GetRequiredService<DistributedApplicationModel>();

    private static IResource Resource(DistributedApplication app, string name) => Model(app).Resources.Single(resource => resource.Name == name);

    private static IEnumerable<string> CommandNames(DistributedApplication app, string name) =>
        Resource(app, name).Annotations.OfType<ResourceCommandAnnotation>().Select(command => command.Name);

    private static IEnumerable<string?> Volumes(DistributedApplication app) => Model(app).Resources
        .SelectMany(resource => resource.Annotations.OfType<ContainerMountAnnotation>())
        .Where(mount => mount.Type == ContainerMountType.Volume)
        .Select(mount => mount.Source)
        .Order();
}
