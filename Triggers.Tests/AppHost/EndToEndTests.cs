using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using Aspire.Hosting;
using Aspire.Hosting.ApplicationModel;
using Aspire.Hosting.Testing;
using Triggers.AppHost;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>
/// The main job, once, on everything that there is: two of each service, on Kafka where there is one; and the dashboard's buttons.
/// </summary>
[Collection(nameof(AppHostCollection))]
public sealed class EndToEndTests
{
    private const string Key = "trg_0123456789012345678901234567890123456789012";

    private static readonly TimeSpan s_restart = TimeSpan.FromMinutes(2);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task What_one_API_takes_gets_to_the_receiver_and_the_buttons_work()
    {
        // The hosted CI has containers, and asks for them.
        var stores = Environment.GetEnvironmentVariable("TEST_STORES") ?? "local";
        await using var system = await RunningSystem.CreateAsync(
            onDemand: false, $"--Stores={stores}", "--replicas=2", "--Delivery:Retry:MaxAttempts=1", $"--Auth:BootstrapAdminKey={Key}");
        foreach (var service in new[] { "receiver", "api", "delivery" })
            await system.ReadyAsync(service);
        using var receiver = new HttpClient { BaseAddress = system.UrlOf("receiver") };
        using var shared = Client(system.App.GetEndpoint("api", "http"));
        using var first = Client(system.UrlOf("api-1"));
        using var second = Client(system.UrlOf("api-2"));
        Assert.NotEqual(first.BaseAddress, second.BaseAddress);

        await PostAsync(first, "subscriptions",
            new { url = new Uri(receiver.BaseAddress!, "hook"), eventTypes = new[] { "*" } }, HttpStatusCode.Created);
        await PostAsync(second, "events", new { type = "order.created", data = new { total = 42 } }, HttpStatusCode.Accepted);
        await Wait.UntilAsync("the webhook came", async () => await ReceivedAsync(receiver) == 1);
        await Wait.UntilAsync("the event is delivered", async () =>
            (await shared.GetFromJsonAsync<JsonElement>("events?type=order.created", Cancellation)).GetProperty("items")[0]
                .GetProperty("status").GetString() == "delivered");

        await ExecuteAsync(system, "api-1", Commands.SampleEvent);
        await Wait.UntilAsync("the sample event came", async () => await ReceivedAsync(receiver) == 2);

        // A dead letter of a subscription that was mistaken.
        using var nobody = new TcpListener(IPAddress.Loopback, 0);
        nobody.Start();
        var mistaken = await PostAsync(first, "subscriptions",
            new { url = $"http://{nobody.LocalEndpoint}/", eventTypes = new[] { "order.lost" } }, HttpStatusCode.Created);
        nobody.Stop();
        await PostAsync(first, "events", new { type = "order.lost", data = new { } }, HttpStatusCode.Accepted);
        await Wait.UntilAsync("it is a dead letter", async () =>
            (await shared.GetFromJsonAsync<JsonElement>("dead-letters?state=open", Cancellation)).GetProperty("items")
                .GetArrayLength() == 1);
        using (var mended = await shared.PatchAsJsonAsync(
            $"subscriptions/{mistaken.GetProperty("id")}", new { url = new Uri(receiver.BaseAddress!, "hook") }, Cancellation))
            Assert.Equal(HttpStatusCode.OK, mended.StatusCode);
        Assert.Contains("rpl_", await ExecuteAsync(system, "api-2", Commands.Redrive));
        await Wait.UntilAsync("it came to both", async () => await ReceivedAsync(receiver) == 4);
        await ExecuteAsync(system, "triggersdb", Commands.Reset);
        await Wait.UntilAsync("the services are back, on an empty database", () => HasNoEventsAsync(shared), s_restart);
    }

    private static async Task<string?> ExecuteAsync(RunningSystem system, string resource, string command)
    {
        var result = await system.App.ResourceCommands.ExecuteCommandAsync(system.IdOf(resource), command, Cancellation);
        Assert.True(result.Success, $"{command}: {result.Message}");
        return result.Message;
    }

    private static HttpClient Client(Uri address)
    {
        var client = new HttpClient(new ContractHandler(new SocketsHttpHandler())) { BaseAddress = address };
        client.DefaultRequestHeaders.Add("X-API-Key", Key);
        return client;
    }

    private static async Task<bool> HasNoEventsAsync(HttpClient api)
    {
        using var bound = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        bound.CancelAfter(Wait.Answer);
        try
        {
            using var answer = await api.GetAsync("events", bound.Token);
            return answer.IsSuccessStatusCode
                && (await answer.Content.ReadFromJsonAsync<JsonElement>(bound.Token)).GetProperty("items").GetArrayLength() == 0;
        }
        catch (Exception e) when (e is HttpRequestException or OperationCanceledException && !Cancellation.IsCancellationRequested)
        {
            // They are being started; the orchestrator's proxy holds what came meanwhile, and tries less and less often to pass it on.
            return false;
        }
    }

    /// <summary>503 means that nothing was done, and to ask again: a machine that has just begun to run all this may be slow.</summary>
    private static async Task<JsonElement> PostAsync(HttpClient api, string path, object body, HttpStatusCode expected)
    {
        var status = HttpStatusCode.ServiceUnavailable;
        var said = default(JsonElement);
        await Wait.UntilAsync($"{path} are taken", async () =>
        {
            using var answer = await api.PostAsJsonAsync(path, body, Cancellation);
            status = answer.StatusCode;
            said = await answer.Content.ReadFromJsonAsync<JsonElement>(Cancellation);
            return status != HttpStatusCode.ServiceUnavailable;
        });
        Assert.Equal(expected, status);
        return said;
    }

    private static async Task<long> ReceivedAsync(HttpClient receiver) =>
        (await receiver.GetFromJsonAsync<JsonElement>("received", Cancellation)).GetProperty("total").GetInt64();
}
