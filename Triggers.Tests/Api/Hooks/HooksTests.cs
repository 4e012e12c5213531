using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Hooks;

/// <summary>Subscribing by an address, as automation platforms do.</summary>
public abstract class HooksTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka), IAsyncLifetime
{
    private ApiHost _api = null!;
    private ApiClient _client = null!;

    async ValueTask IAsyncLifetime.InitializeAsync()
    {
        await InitializeAsync();
        _api = new ApiHost(Engine.ConnectionString, Engine.Settings);
        _client = _api.Client();
        await _client.WaitUntilReadyAsync();
        await Engine.StartDeliveryAsync();
    }

    async ValueTask IAsyncDisposable.DisposeAsync()
    {
        if (_api is not null)
            await _api.DisposeAsync();
        await DisposeAsync();
    }

    [Fact]
    public async Task An_address_is_subscribed_once_and_unsubscribed_by_itself()
    {
        var made = await HookAsync("\"a\"");
        var again = await HookAsync("\"b\"");
        Assert.Equal((made.Id, made["secret"]), (again.Id, again["secret"]));
        Assert.Equal([made.Id], (await _client.GetAsync("/subscriptions")).Is(200).Ids);
        await _client.PublishAsync("a");
        await _client.PublishAsync("b");
        await Wait.UntilAsync("the one is sent", () => Receiver.Received.Count == 1);

        (await _client.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Receiver.Url}}"}""")).Is(204);
        (await _client.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Receiver.Url}}"}""")).IsProblem(404, "not_found");

        Assert.Empty((await _client.GetAsync("/subscriptions")).Is(200).Ids);
        await _client.PublishAsync("b");
        // A subscription like any other at the same address is no hook.
        await _client.SubscribeAsync("\"marker\"", Receiver.Url);
        (await _client.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Receiver.Url}}"}""")).IsProblem(404, "not_found");
        await _client.PublishAsync("marker");
        await Wait.UntilAsync("the marker is sent", () => Receiver.Received.Count == 2);
    }

    [Fact]
    public async Task A_receiver_that_is_gone_is_removed()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 410;
            return Task.CompletedTask;
        };
        var hook = await HookAsync("\"*\"");

        var id = await _client.PublishAsync();

        await Engine.WaitForStatusAsync(Rows.Uuid(id), DeliveryStatus.Cancelled);
        (await _client.GetAsync($"/subscriptions/{hook.Id}")).IsProblem(404, "not_found");
        // The address may be subscribed again.
        Assert.NotEqual(hook.Id, (await HookAsync("\"*\"")).Id);
    }

    [Fact]
    public async Task It_ends_when_it_was_to_end()
    {
        var ending = await HookAsync("\"*\"", $",\"expiresAt\":\"{DateTimeOffset.Now.AddSeconds(3):O}\"");
        var kept = (await _client.PostAsync("/subscriptions",
            $$"""{"url":"{{Receiver.Url}}","eventTypes":["*"],"expiresAt":"2099-01-01T00:00:00Z"}""")).Is(201);
        Assert.Equal("2099-01-01T00:00:00Z", kept["expiresAt"]);

        await Wait.UntilAsync("it has ended", async () => (await _client.GetAsync($"/subscriptions/{ending.Id}")).Status == 404);

        (await _client.GetAsync($"/subscriptions/{kept.Id}")).Is(200);
        Assert.Null((await _client.PatchAsync($"/subscriptions/{kept.Id}", """{"expiresAt":null}""")).Is(200)["expiresAt"]);
        (await _client.PatchAsync($"/subscriptions/{kept.Id}", """{"expiresAt":"2020-01-01T00:00:00Z"}"""))
            .IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task Samples_are_the_newest_events_of_a_type_and_none_is_made_up()
    {
        Assert.Empty((await _client.GetAsync("/event-types/order.created/samples")).Is(200).Ids);
        var ids = new List<string>();
        for (var i = 0; i < 4; i++)
            ids.Add(await _client.PublishAsync(data: $"{{\"n\":{i}}}"));
        await _client.PublishAsync("order.paid");

        await Wait.UntilAsync("they are stored",
            async () => (await _client.GetAsync("/event-types/order.created/samples")).Is(200).Ids.Length == 3);
        await _client.GetAsync($"/events/{ids[3]}");
        var samples = (await _client.GetAsync("/event-types/order.created/samples")).Is(200);
        Assert.Equal([ids[3], ids[2], ids[1]], samples.Ids.AsEnumerable());
        Assert.Contains("""{"n":3}""", samples.Text);
    }

    private async Task<Answer> HookAsync(string types, string more = "") =>
        (await _client.PostAsync("/hooks", $$"""{"targetUrl":"{{Receiver.Url}}","eventTypes":[{{types}}]{{more}}}""")).Is(201);
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresHooksTests(PostgresServer postgres) : HooksTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaHooksTests(PostgresServer postgres, KafkaServer kafka) : HooksTests(postgres, kafka);
