using Microsoft.Extensions.DependencyInjection;

namespace Triggers.AppHost;

/// <summary>What somebody at the terminal wants to know when everything is ready. Said once.</summary>
internal static class StartTable
{
    public static async Task ShowAsync(IServiceProvider services, Settings settings, CancellationToken cancellation)
    {
        var notifications = services.GetRequiredService<ResourceNotificationService>();
        var resources = services.GetRequiredService<DistributedApplicationModel>().Resources.ToDictionary(resource => resource.Name);
        foreach (var service in resources.Values.OfType<ProjectResource>().Where(project => project.Name != "migrations"))
            await notifications.WaitForResourceHealthyAsync(service.Name, cancellation);

        string Url(string service) => ((IResourceWithEndpoints)resources[service]).GetEndpoint("http").Url;
        async Task<string?> Address(string store) =>
            resources.GetValueOrDefault(store) is IResourceWithConnectionString found ? await found.GetConnectionStringAsync(cancellation)
                : null;

        var (api, receiver, key) = (Url("api"), Url("receiver"), settings.AdminKey());
        var sample = """{"type":"demo.hello","data":{"text":"world"}}""";
        // cmd and PowerShell know only double quotes that hold escaped ones.
        var quoted = OperatingSystem.IsWindows() ? $"\"{sample.Replace("\"", "\\\"", StringComparison.Ordinal)}\"" : $"'{sample}'";
        Console.WriteLine($"""

              api         {api}   reference: {api}/scalar
              receiver    {receiver}   shows the webhooks sent to {receiver}/hook
              delivery    {Url("delivery")}   health: {Url("delivery")}/health/ready
              dashboard   {(settings.Is("Dashboard:Enabled") ? settings["ASPNETCORE_URLS"] : "off")}
              postgres    {await Address("triggersdb")}
              redis       {await Address("redis")}
              kafka       {await Address("kafka") ?? "off: events are logged in Postgres"}
              data        {settings.DataDirectory}
              admin key   {key}

              Webhooks may go to {settings["Delivery:AllowedNetworks"] ?? $"this machine ({Model.LoopbackNetworks})"} beside public addresses (Delivery:AllowedNetworks).
              Publish an event:
              curl -i {api}/events -H "X-API-Key: {key}" --json {quoted}

            Ctrl-C stops everything.
            """);
    }
}
