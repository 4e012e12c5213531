using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;

namespace Triggers.AppHost;

/// <summary>What somebody at the terminal wants to know when everything is ready. Said once.</summary>
internal static class StartTable
{
    private static readonly string[] s_services = ["api", "receiver", "delivery"];

    public static async Task ShowAsync(IServiceProvider services, Settings settings, CancellationToken cancellation)
    {
        var notifications = services.GetRequiredService<ResourceNotificationService>();
        await Task.WhenAll(s_services.Select(service => notifications.WaitForResourceHealthyAsync(service, cancellation)));
        var resources = services.GetRequiredService<DistributedApplicationModel>().Resources;

        string Url(string service) => ((IResourceWithEndpoints)resources.Single(r => r.Name == service)).GetEndpoint("http").Url;

        async Task<string?> ConnectionString(string name) =>
            resources.FirstOrDefault(r => r.Name == name) is IResourceWithConnectionString store ? await store.GetConnectionStringAsync(cancellation) : null;

        var (api, receiver) = (Url("api"), Url("receiver"));
        var key = settings.AdminKey();
        var kafka = await ConnectionString("kafka") ?? "off: events are logged in Postgres";
        var note = settings.Text("Delivery:AllowedNetworks") is null
            ? $"  For local development, webhooks may go to this machine (Delivery:AllowedNetworks = {Model.LoopbackNetworks}).{Environment.NewLine}" : "";
        Console.WriteLine($"""

              api         {api}   reference: {api}/scalar
              receiver    {receiver}   shows the webhooks sent to {receiver}/hook
              delivery    {Url("delivery")}   health: {Url("delivery")}/health/ready
              dashboard   {(settings.DashboardEnabled ? settings.DashboardUrl : "off")}
              postgres    {await ConnectionString("triggersdb")}
              redis       {await ConnectionString("redis")}
              kafka       {kafka}
              data        {settings.DataDirectory}
              admin key   {key}

            {note}  Publish an event:
              {Curl(api, key)}

            Ctrl-C stops everything.
            """);
    }

    private static string Curl(string api, string adminKey)
    {
        var body = JsonSerializer.Serialize(new { type = "demo.hello", data = new { text = "world" } });
        // cmd and PowerShell know only double quotes that hold escaped ones.
        var (quote, quoted) = OperatingSystem.IsWindows() ? ('"', body.Replace("\"", "\\\"", StringComparison.Ordinal)) : ('\'', body);
        return $"curl -i {api}/events -H \"X-API-Key: {adminKey}\" -H \"Content-Type: application/json\" -d {quote}{quoted}{quote}";
    }
}
