using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Aspire.Hosting;
using Aspire.Hosting.ApplicationModel;
using Aspire.Hosting.Testing;
using Triggers.AppHost;
using Triggers.AppHost.Aspire;
using Triggers.Tests.Support;

namespace Triggers.Tests.Aspire;

/// <summary>The main job, once, on the containers. Everything else about it is tested on the processes engine.</summary>
public sealed class EndToEndTests
{
    private const string Key = "trg_0123456789012345678901234567890123456789012";
    private static readonly TimeSpan s_images = TimeSpan.FromMinutes(10);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task An_event_gets_to_the_receiver_and_the_buttons_work()
    {
        var builder = await DistributedApplicationTestingBuilder.CreateAsync<Projects.Triggers_AppHost>(
            ["--Data:Temporary=true", $"--Auth:BootstrapAdminKey={Key}"], Cancellation);
        await using var app = await builder.BuildAsync(Cancellation);
        await app.StartAsync(Cancellation);
        foreach (var service in new[] { Topology.Receiver, Topology.Api, Topology.Delivery })
            await app.ResourceNotifications.WaitForResourceHealthyAsync(service, Cancellation).WaitAsync(s_images, Cancellation);
        using var api = app.CreateHttpClient(Topology.Api, "http");
        api.DefaultRequestHeaders.Add("X-API-Key", Key);
        using var receiver = app.CreateHttpClient(Topology.Receiver, "http");

        await PostAsync(api, "subscriptions", new { url = new Uri(receiver.BaseAddress!, "hook"), eventTypes = new[] { "*" } }, HttpStatusCode.Created);
        await PostAsync(api, "events", new { type = "order.created", data = new { total = 42 } }, HttpStatusCode.Accepted);
        await Wait.UntilAsync("the webhook came", async () => await ReceivedAsync(receiver) == 1);
        await Wait.UntilAsync("the event is delivered", async () =>
            (await api.GetFromJsonAsync<JsonElement>("events?type=order.created", Cancellation)).GetProperty("items")[0].GetProperty("status").GetString() == "delivered");

        Assert.True((await app.ResourceCommands.ExecuteCommandAsync(Topology.Api, Commands.SampleEvent, Cancellation)).Success);
        await Wait.UntilAsync("the sample event came", async () => await ReceivedAsync(receiver) == 2);
        Assert.True((await app.ResourceCommands.ExecuteCommandAsync(Topology.Api, Commands.Redrive, Cancellation)).Success);
        Assert.True((await app.ResourceCommands.ExecuteCommandAsync(Topology.Database, Commands.Reset, Cancellation)).Success);
        await Wait.UntilAsync("the services are back, on an empty database", () => HasNoEventsAsync(api), TimeSpan.FromMinutes(2));
    }

    private static async Task<bool> HasNoEventsAsync(HttpClient api)
    {
        try
        {
            using var answer = await api.GetAsync("events", Cancellation);
            return answer.IsSuccessStatusCode
                && (await answer.Content.ReadFromJsonAsync<JsonElement>(Cancellation)).GetProperty("items").GetArrayLength() == 0;
        }
        catch (HttpRequestException)
        {
            // It is being started.
            return false;
        }
    }

    /// <summary>503 means that nothing was done, and to ask again: a machine that has just begun to run all this may be slow.</summary>
    private static async Task PostAsync(HttpClient api, string path, object body, HttpStatusCode expected)
    {
        var status = HttpStatusCode.ServiceUnavailable;
        await Wait.UntilAsync($"{path} are taken", async () =>
        {
            using var answer = await api.PostAsJsonAsync(path, body, Cancellation);
            status = answer.StatusCode;
            return status != HttpStatusCode.ServiceUnavailable;
        });
        Assert.Equal(expected, status);
    }

    private static async Task<long> ReceivedAsync(HttpClient receiver) =>
        (await receiver.GetFromJsonAsync<JsonElement>("received", Cancellation)).GetProperty("total").GetInt64();
}
