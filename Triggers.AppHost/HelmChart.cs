using Aspire.Hosting.Kubernetes;
using Aspire.Hosting.Kubernetes.Resources;
using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

/// <summary>What the Helm chart needs beyond what Aspire writes by itself.</summary>
internal static class HelmChart
{
    public static void PublishChart(
        this IDistributedApplicationBuilder builder,
        Settings settings,
        IResourceBuilder<ProjectResource> migrations,
        IResourceBuilder<ProjectResource> api,
        IResourceBuilder<ProjectResource> delivery)
    {
        if (!builder.PublishesChart())
            return;
        var chart = builder.AddKubernetesEnvironment("k8s")
            .WithDashboard(false)
            .WithHelm(helm => helm.WithChartName("triggers").WithReleaseName("triggers"))
            .WithProperties(properties =>
            {
                // The default is an emptyDir, which goes with its pod.
                properties.DefaultStorageType = "pvc";
                properties.DefaultStorageSize = settings["Volumes:Size"] ?? "10Gi";
                properties.DefaultStorageClassName = settings["Volumes:Class"];
            });
        migrations.PublishAsJob();
        api.PublishAsService();
        delivery.PublishAsService();
        foreach (var store in builder.Resources.OfType<ContainerResource>().ToList())
            builder.CreateResourceBuilder(store).PublishOnVolume();
        // Only where a host is named. TLS ends here.
        if (settings["Ingress:Host"] is not { } host)
            return;
        // A host alone would only be named in the certificate: the rule needs it too.
        var ingress = chart.AddIngress("public").WithHostname(host).WithPath(host, "/", api.GetEndpoint("http"));
        if (settings["Ingress:Class"] is { } name)
            ingress.WithIngressClass(name);
        if (settings["Ingress:TlsSecret"] is { } secret)
            ingress.WithTls(secret);
    }

    /// <summary>Served all the time, also while it is replaced by the next version.</summary>
    private static void PublishAsService(this IResourceBuilder<ProjectResource> service) =>
        service.PublishAsKubernetesService(published =>
        {
            var deployment = (Deployment)published.Workload!;
            deployment.Spec.Strategy.RollingUpdate!.MaxUnavailable = 0;
            // The API server takes only HTTP, in capitals; Aspire writes it small.
            foreach (var container in deployment.PodTemplate.Spec.Containers)
                foreach (var probe in new[] { container.ReadinessProbe, container.LivenessProbe })
                    probe?.HttpGet?.Scheme = "HTTP";
        });

    /// <summary>Runs once for each release, instead of being kept running.</summary>
    private static void PublishAsJob(this IResourceBuilder<ProjectResource> service) =>
        service.PublishAsKubernetesService(
            published => published.Workload = new KubernetesJob(service.Resource.Name, published.Workload!.PodTemplate));

    /// <summary>
    /// On its own directory of the volume, since <c>lost+found</c> is in the other, and open to whatever user the image has.
    /// </summary>
    private static void PublishOnVolume(this IResourceBuilder<ContainerResource> store) =>
        store.PublishAsKubernetesService(published =>
        {
            var pod = published.Workload!.PodTemplate.Spec;
            (pod.SecurityContext ??= new()).FsGroup = 1000;
            // Kafka's image takes every variable KAFKA_… for a setting, and Kubernetes makes such ones for a service of that name.
            pod.EnableServiceLinks = false;
            foreach (var mount in pod.Containers.SelectMany(container => container.VolumeMounts))
                mount.SubPath = "data";
        });
}

/// <summary>
/// A Job. It has the number of the release in its name, because a Job can't be changed: an upgrade makes a new one, and Helm takes the old
/// one away.
/// </summary>
internal sealed class KubernetesJob : Workload
{
    public KubernetesJob(string name, PodTemplateSpecV1 pod) : base("batch/v1", "Job")
    {
        Metadata.Name = name + "-{{ .Release.Revision }}";
        foreach (var (key, value) in pod.Metadata.Labels)
            Metadata.Labels[key] = value;
        pod.Spec.RestartPolicy = "OnFailure";
        Spec = new JobSpec(pod);
    }

    public JobSpec Spec { get; }

    public override PodTemplateSpecV1 PodTemplate => Spec.Template;
}

/// <param name="Template">The pod.</param>
/// <param name="BackoffLimit">Of starts. Each waits for Postgres a minute.</param>
internal sealed record JobSpec(PodTemplateSpecV1 Template, int BackoffLimit = 10);
