using System.Text.Json;
using Aspire.Hosting.Testing;

namespace Triggers.Tests.AppHost;

/// <summary>What is written for a cluster and for azd. Nothing is started.</summary>
public sealed class PublishTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("triggers-publish-").FullName;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_manifest_has_our_programs_and_asks_for_the_stores()
    {
        var resources = await ManifestAsync();

        Assert.Equal(["admin-key", "api", "delivery", "migrations", "redis", "triggersdb"], resources.EnumerateObject().Select(r => r.Name)
            .Order());
        Assert.Equal("parameter.v0", resources.GetProperty("triggersdb").GetProperty("type").GetString());
        Assert.True(resources.GetProperty("triggersdb").GetProperty("inputs").GetProperty("value").GetProperty("secret").GetBoolean());
        Assert.Equal("{triggersdb.connectionString}", Environment(resources, "api", "ConnectionStrings__triggersdb"));
        Assert.Equal("{redis.connectionString}", Environment(resources, "api", "ConnectionStrings__redis"));
        Assert.Equal("{admin-key.value}", Environment(resources, "api", "Auth__BootstrapAdminKey"));
        Assert.Equal("{triggersdb.connectionString}", Environment(resources, "delivery", "ConnectionStrings__triggersdb"));
        Assert.Equal("{redis.connectionString}", Environment(resources, "delivery", "ConnectionStrings__redis"));
        Assert.Equal("{triggersdb.connectionString}", Environment(resources, "migrations", "ConnectionStrings__triggersdb"));
        Assert.Equal("--migrate", Assert.Single(resources.GetProperty("migrations").GetProperty("args").EnumerateArray()).GetString());
        Assert.True(resources.GetProperty("api").GetProperty("bindings").GetProperty("http").GetProperty("external").GetBoolean());
        Assert.False(resources.GetProperty("delivery").GetProperty("bindings").GetProperty("http").TryGetProperty("external", out _));
    }

    [Fact]
    public async Task Webhooks_to_the_own_machine_are_allowed_only_where_it_runs() =>
        Assert.Null(Environment(await ManifestAsync(), "delivery", "Delivery__AllowedNetworks"));

    [Fact]
    public async Task The_manifest_has_Kafka_when_asked()
    {
        Assert.Null(Environment(await ManifestAsync(), "api", "ConnectionStrings__kafka"));
        Assert.Equal("{kafka.connectionString}", Environment(await ManifestAsync("--with-kafka=true"), "api", "ConnectionStrings__kafka"));
    }

#if HELM_CHART
    [Fact]
    public async Task The_chart_leaves_stores_and_secrets_to_its_values()
    {
        await ChartAsync();

        var secrets = Read("templates/api/secrets.yaml");
        Assert.Contains("ConnectionStrings__triggersdb: \"{{ .Values.secrets.api.triggersdb_connection }}\"", secrets);
        Assert.Contains("ConnectionStrings__kafka: \"{{ .Values.secrets.api.kafka_connection }}\"", secrets);
        Assert.Contains("ConnectionStrings__redis: \"{{ .Values.secrets.api.redis_connection }}\"", secrets);
        Assert.Contains("Auth__BootstrapAdminKey: \"{{ .Values.secrets.api.admin_key }}\"", secrets);
        Assert.Contains(
            "ConnectionStrings__kafka: \"{{ .Values.secrets.delivery.kafka_connection }}\"", Read("templates/delivery/secrets.yaml"));
        var values = Read("values.yaml");
        Assert.Contains("triggersdb_connection: \"\"", values);
        Assert.Contains("admin_key: \"\"", values);
        Assert.Equal(["api", "delivery", "migrations"], Templates());
    }

    [Theory]
    [InlineData("api")]
    [InlineData("delivery")]
    public async Task Probes_are_such_as_Kubernetes_takes(string service)
    {
        await ChartAsync();

        var deployment = Read($"templates/{service}/deployment.yaml");
        Assert.Contains("path: \"/health/ready\"", deployment);
        Assert.Contains("path: \"/health/live\"", deployment);
        Assert.Equal(2, deployment.Split("scheme: \"HTTP\"").Length - 1);
        Assert.DoesNotContain("scheme: \"http", deployment);
        Assert.Contains("maxUnavailable: 0", deployment);
    }

    [Fact]
    public async Task Migrations_are_a_Job_of_each_release()
    {
        await ChartAsync();

        Assert.False(File.Exists(Path.Combine(_directory, "templates/migrations/deployment.yaml")));
        var job = Directory.GetFiles(Path.Combine(_directory, "templates/migrations")).Select(File.ReadAllText)
            .Single(text => text.Contains("kind: \"Job\""));
        Assert.Contains("name: \"migrations-{{ .Release.Revision }}\"", job);
        Assert.Contains("restartPolicy: \"OnFailure\"", job);
        Assert.Contains("- \"--migrate\"", job);
    }

    [Fact]
    public async Task Stores_in_the_cluster_are_on_volumes_that_last()
    {
        await ChartAsync("--in-cluster-stores=true", "--Volumes:Size=5Gi");

        Assert.Equal(["api", "delivery", "kafka", "migrations", "postgres", "redis"], Templates());
        foreach (var store in new[] { "kafka", "postgres", "redis" })
        {
            var all = string.Concat(Directory.GetFiles(Path.Combine(_directory, "templates", store)).Select(File.ReadAllText));
            Assert.Contains("kind: \"PersistentVolumeClaim\"", all);
            Assert.Contains("storage: \"5Gi\"", all);
            Assert.Contains($"name: \"triggers-{store}\"", all);
            Assert.Contains("subPath: \"data\"", all);
            Assert.DoesNotContain("emptyDir", all);
        }
        Assert.Contains("Host=postgres-service;Port=5432", Read("templates/api/secrets.yaml"));
        Assert.Contains("ConnectionStrings__kafka: \"kafka-service:9092\"", Read("values.yaml"));
    }

    [Fact]
    public async Task An_ingress_replicas_and_settings_are_there_when_asked()
    {
        await ChartAsync();
        Assert.False(Directory.Exists(Path.Combine(_directory, "templates/public")));

        await ChartAsync(
            "--Ingress:Host=triggers.example.com", "--Ingress:TlsSecret=certificate", "--replicas=3", "--Delivery:LaneConcurrency=64");
        var ingress = Read("templates/public/public.yaml");
        Assert.Contains("host: \"triggers.example.com\"", ingress);
        Assert.Contains("secretName: \"certificate\"", ingress);
        Assert.Contains("replicas: 3", Read("templates/delivery/deployment.yaml"));
        Assert.Contains("Delivery__LaneConcurrency: \"64\"", Read("values.yaml"));
    }
#endif

    private async Task<JsonElement> ManifestAsync(params string[] arguments)
    {
        var file = Path.Combine(_directory, "manifest.json");
        await PublishAsync(["--publisher=manifest", $"--output-path={file}", .. arguments]);
        return JsonDocument.Parse(await File.ReadAllTextAsync(file, Cancellation)).RootElement.GetProperty("resources");
    }

#if HELM_CHART
    private Task ChartAsync(params string[] arguments) =>
        PublishAsync(["--operation=publish", "--step=publish-k8s", $"--output-path={_directory}", .. arguments]);
#endif

    private static async Task PublishAsync(string[] arguments)
    {
        var builder = await DistributedApplicationTestingBuilder.CreateAsync<Projects.Triggers_AppHost>(arguments, Cancellation);
        await using var app = await builder.BuildAsync(Cancellation);
        await app.RunAsync(Cancellation);
    }

    private static string? Environment(JsonElement resources, string resource, string name) =>
        resources.GetProperty(resource).GetProperty("env").TryGetProperty(name, out var value) ? value.GetString() : null;

#if HELM_CHART
    private string Read(string path) => File.ReadAllText(Path.Combine(_directory, path));

    private IEnumerable<string?> Templates() =>
        Directory.GetDirectories(Path.Combine(_directory, "templates")).Select(Path.GetFileName).Order();
#endif

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
