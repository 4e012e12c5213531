using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Hooks;

/// <summary>Subscribing by an address, as automation platforms do.</summary>
public abstract class HooksTests(PostgresServer postgres, KafkaServer? kafka = null) : ApiAndEngineTests(postgres, kafka)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        // What failed once stays pending for as long as a test takes.
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "00:10:00"));
    }

    [Fact]
    public async Task An_address_is_subscribed_once_and_unsubscribed_by_itself_however_often()
    {
        var made = await HookAsync("\"a\"");
        var again = await HookAsync("\"b\"");
        Assert.Equal(made.Id, again.Id);
        Assert.StartsWith("whsec_", made["secret"]);
        Assert.Null(again["secret"]);
        Assert.Equal([made.Id], (await Client.GetAsync("/subscriptions")).Is(200).Ids);
        await Client.PublishAsync("a");
        await Client.PublishAsync("b");
        await Wait.UntilAsync("the one is sent", () => Receiver.Received.Count == 1);

        await UnsubscribeAsync(Client);
        await UnsubscribeAsync(Client);

        Assert.Empty((await Client.GetAsync("/subscriptions")).Is(200).Ids);
        await Client.PublishAsync("b");
        // A subscription like any other at the same address is no hook.
        await Client.SubscribeAsync("\"marker\"", Receiver.Url);
        await UnsubscribeAsync(Client);
        await Client.PublishAsync("marker");
        await Wait.UntilAsync("the marker is sent", () => Receiver.Received.Count == 2);
        Assert.NotEqual(made.Id, (await HookAsync("\"b\"")).Id);
    }

    [Fact]
    public async Task A_receiver_that_is_gone_is_deleted_and_what_it_had_pending_cancelled()
    {
        Answers(503);
        var hook = await HookAsync("\"*\"", ",\"expiresAt\":\"2099-01-01T00:00:00Z\"");
        var first = await Client.PublishAsync();
        await Wait.UntilAsync("it waits to be tried again", () => Receiver.Received.Count > 0);

        Answers(410);
        var second = await Client.PublishAsync();

        await Engine.WaitForStatusAsync(Rows.Uuid(first), DeliveryStatus.Cancelled);
        await Engine.WaitForStatusAsync(Rows.Uuid(second), DeliveryStatus.Cancelled);
        (await Client.GetAsync($"/subscriptions/{hook.Id}")).IsProblem(404, "not_found");
        // The address may be subscribed again.
        Assert.NotEqual(hook.Id, (await HookAsync("\"*\"")).Id);
    }

    [Fact]
    public async Task Gone_counts_also_for_a_hook_that_was_disabled_meanwhile()
    {
        var (came, mayAnswer) = (new TaskCompletionSource(), new TaskCompletionSource());
        Receiver.Respond = async (_, context) =>
        {
            came.TrySetResult();
            await mayAnswer.Task;
            context.Response.StatusCode = 410;
        };
        var hook = await HookAsync("\"*\"");
        await Client.PublishAsync();
        await came.Task.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);

        (await Client.PatchAsync($"/subscriptions/{hook.Id}", """{"enabled":false}""")).Is(200);
        mayAnswer.SetResult();

        await Wait.UntilAsync("it is gone", async () => (await Client.GetAsync($"/subscriptions/{hook.Id}")).Status == 404);
    }

    [Fact]
    public async Task Gone_from_before_an_address_was_subscribed_again_does_not_count()
    {
        var (came, mayAnswer) = (new TaskCompletionSource(), new TaskCompletionSource());
        Receiver.Respond = async (_, context) =>
        {
            if (!came.TrySetResult())
                return;
            await mayAnswer.Task;
            context.Response.StatusCode = 410;
        };
        var hook = await HookAsync("\"*\"");
        var id = await Client.PublishAsync();
        await came.Task.WaitAsync(Wait.Long, TestContext.Current.CancellationToken);

        await HookAsync("\"*\"");
        mayAnswer.SetResult();

        await Engine.WaitForStatusAsync(Rows.Uuid(id), DeliveryStatus.Succeeded);
        (await Client.GetAsync($"/subscriptions/{hook.Id}")).Is(200);
        Assert.Equal(2, Receiver.Received.Count);
    }

    [Fact]
    public async Task What_ends_is_deleted_and_what_it_has_pending_cancelled()
    {
        var kept = (await Client.PostAsync("/subscriptions",
            $$"""{"url":"{{Receiver.Url}}","eventTypes":["never"],"expiresAt":"2099-01-01T00:00:00Z"}""")).Is(201);
        Assert.Equal("2099-01-01T00:00:00Z", kept["expiresAt"]);
        var told = (await Client.PostAsync("/subscriptions",
            $$"""{"url":"{{Receiver.Url}}/told","eventTypes":["triggers.subscription.expired"]}""")).Is(201);
        Answers(503);
        var ending = await HookAsync("\"*\"", ",\"expiresAt\":\"2099-01-01T00:00:00Z\"");
        var id = await Client.PublishAsync();
        await Wait.UntilAsync("it waits to be tried again", () => Receiver.Received.Count > 0);

        await Engine.ExecuteAsync($"UPDATE subscriptions SET expires_at = now() WHERE id = '{Rows.Uuid(ending.Id)}'");

        (await Client.GetAsync($"/subscriptions/{ending.Id}")).IsProblem(404, "not_found");
        await Engine.WaitForStatusAsync(Rows.Uuid(id), DeliveryStatus.Cancelled);
        await Wait.UntilAsync("it is deleted", () => Engine.ScalarAsync<bool>(
            $"SELECT deleted_at IS NOT NULL FROM subscriptions WHERE id = '{Rows.Uuid(ending.Id)}'"));
        Assert.Equal(new HashSet<string> { kept.Id, told.Id }, [.. (await Client.GetAsync("/subscriptions")).Is(200).Ids]);
        Answers(200);
        await Wait.UntilAsync("the tenant is told", () => Receiver.At("/told").Any());
        var data = System.Text.Json.Nodes.JsonNode.Parse(Receiver.At("/told").First().Body)!["data"]!;
        Assert.Equal((ending.Id, Receiver.Url), (data["subscriptionId"]!.ToString(), data["url"]!.ToString()));
    }

    [Fact]
    public async Task The_tenant_is_told_what_ended_its_subscriptions()
    {
        Receiver.Respond = (webhook, context) =>
        {
            context.Response.StatusCode = webhook.Path.StartsWith("/gone", StringComparison.Ordinal) ? 410 : 200;
            return Task.CompletedTask;
        };
        var unsubscribed = (await HookAsync("\"never\"")).Id;
        var deleted = (await HookAsync("\"never\"", path: "/deleted")).Id;
        var gone = (await HookAsync("\"*\"", path: "/gone-hook")).Id;
        var disabled = await Client.SubscribeAsync("\"*\"", $"{Receiver.Url}/gone");
        // The newest subscription of all is told, and one in order as well.
        (await Client.PostAsync("/subscriptions", $$"""
            {"url":"{{Receiver.Url}}/told","eventTypes":["triggers.subscription.*"],"ordering":"strict"}
            """)).Is(201);

        await UnsubscribeAsync(Client);
        await UnsubscribeAsync(Client);
        (await Client.DeleteAsync($"/subscriptions/{deleted}")).Is(204);
        await Client.PublishAsync();

        await Wait.UntilAsync("the tenant is told of all", () => Receiver.At("/told").Count() >= 4);
        var told = Receiver.At("/told").Select(w => System.Text.Json.Nodes.JsonNode.Parse(w.Body)!).Select(e =>
            $"{e["type"]} {e["data"]!["subscriptionId"]} {e["data"]!["url"]} {e["data"]!["reason"]}".Replace(Receiver.Url, "")).ToList();
        Assert.Equal(
            [
                $"triggers.subscription.deleted {unsubscribed}  unsubscribed",
                $"triggers.subscription.deleted {deleted} /deleted requested",
            ], told.Take(2));
        Assert.Equal(
            [
                $"triggers.subscription.deleted {gone} /gone-hook gone",
                $"triggers.subscription.disabled {disabled} /gone gone",
            ], told.Skip(2).Order());
        Assert.Equal("gone", (await Client.GetAsync($"/subscriptions/{disabled}")).Is(200)["disabledReason"]);
    }

    [Fact]
    public async Task Samples_are_the_newest_bodies_of_a_type_or_made_up()
    {
        var samples = (await Client.GetAsync("/hooks/samples?type=order.created")).Is(200);
        Assert.Equal(
            """{"items":[{"id":"evt_00000000000000000000000000","type":"order.created","timestamp":"2026-01-31T09:30:00Z","data":{"example":true}}],"builtIn":true}""",
            samples.Text);
        await HookAsync("\"order.created\"");
        var ids = new List<string>();
        for (var i = 0; i < 4; i++)
            ids.Add(await Client.PublishAsync(data: $"{{\"n\":{i}}}", more: ",\"subject\":\"s\""));
        await Client.PublishAsync("order.paid");
        await Wait.UntilAsync("they are sent", () => Receiver.Received.Count == 4);
        await Wait.UntilAsync(
            "they are stored", async () => (await Client.GetAsync("/events?type=order.created")).Is(200).Ids.Length == 4);

        samples = (await Client.GetAsync("/hooks/samples?type=order.created")).Is(200);

        Assert.Equal([ids[3], ids[2], ids[1]], samples.Ids.AsEnumerable());
        Assert.False(samples.Json["builtIn"]!.GetValue<bool>());
        // What is shown is what is sent.
        var newest = System.Text.Encoding.UTF8.GetString(Receiver.Received.Single(w => w.EventId == ids[3]).Body);
        Assert.Contains(newest, samples.Text, StringComparison.Ordinal);
        Assert.Equal(3, (await Client.GetAsync("/hooks/samples")).Is(200).Ids.Length);
        (await Client.GetAsync("/hooks/samples?type=order.*")).IsProblem(400, "invalid_request");

        await HookAsync("\"order.created\"", ",\"format\":\"data\"");
        await Client.PublishAsync(data: "{\"n\":4}");
        await Wait.UntilAsync("it is sent as its data", () => Receiver.Received.Any(w => w.Body.AsSpan().SequenceEqual("{\"n\":4}"u8)));
        await Wait.UntilAsync("it is a sample as it was sent", async () =>
            (await Client.GetAsync("/hooks/samples?type=order.created&format=data")).Is(200).Text
                .StartsWith("{\"items\":[{\"n\":4},{\"n\":3},", StringComparison.Ordinal));
    }

    private void Answers(int status) => Receiver.Respond = (_, context) =>
    {
        context.Response.StatusCode = status;
        return Task.CompletedTask;
    };

    private async Task<Answer> HookAsync(string types, string more = "", string path = "") =>
        (await Client.PostAsync("/hooks", $$"""{"targetUrl":"{{Receiver.Url}}{{path}}","eventTypes":[{{types}}]{{more}}}""")).Is(201);

    private async Task UnsubscribeAsync(ApiClient client) =>
        (await client.PostAsync("/hooks/unsubscribe", $$"""{"targetUrl":"{{Receiver.Url}}"}""")).Is(204);
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresHooksTests(PostgresServer postgres) : HooksTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaHooksTests(PostgresServer postgres, KafkaServer kafka) : HooksTests(postgres, kafka);
