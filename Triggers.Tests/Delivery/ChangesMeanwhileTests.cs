using Microsoft.AspNetCore.Http;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What happens to a delivery while an operator changes what it depends on: API and delivery service on one database.</summary>
public sealed class ChangesMeanwhileTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Theory]
    [InlineData(410)]
    [InlineData(400)]
    public async Task A_refusal_of_the_old_address_counts_for_the_old_address_only(int status)
    {
        var arrived = new TaskCompletionSource();
        var answer = new TaskCompletionSource();
        Receiver.Respond = async (webhook, context) =>
        {
            if (webhook.Path != "/old")
                return;
            arrived.TrySetResult();
            await answer.Task;
            context.Response.StatusCode = status;
        };
        var (api, client) = await ApiAsync();
        await using var host = api;
        var subscription = await client.SubscribeAsync(url: $"{Receiver.Url}/old");
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxRejectedAttempts", "1"), ("Delivery:Retry:BaseDelay", "01:00:00"));
        var id = await client.PublishAsync();
        await arrived.Task.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);

        (await client.PatchAsync($"/subscriptions/{subscription}", $$"""{"url":"{{Receiver.Url}}/new"}""")).Is(200);
        answer.SetResult();

        await Wait.UntilAsync(
            "the event is delivered", async () => (await client.GetAsync($"/events/{id}")).Is(200)["status"] == "delivered");
        Assert.Equal(["/old", "/new"], Receiver.Received.Select(w => w.Path));
        Assert.Equal("true", (await client.GetAsync($"/subscriptions/{subscription}")).Is(200)["enabled"]);
        var delivery = (await client.GetAsync($"/deliveries?eventId={id}")).Is(200).Ids.Single();
        var detail = (await client.GetAsync($"/deliveries/{delivery}")).Is(200);
        // It is recorded, and doesn't count.
        Assert.Equal([$"{status}", "200"], detail.Json["attempts"]!.AsArray().Select(a => a!["statusCode"]!.ToString()));
        Assert.Equal("0", detail["failedAttempts"]);
        Assert.Empty((await client.GetAsync("/dead-letters")).Is(200).Ids);
    }

    [Fact]
    public async Task Of_many_who_replay_a_dead_letter_at_once_one_succeeds_and_one_webhook_goes_out()
    {
        var (client, dead, _, host) = await DeadLetterAsync();
        await using var _1 = host;
        var before = Receiver.Received.Count;
        var held = HoldAnswers();

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => client.PostAsync($"/dead-letters/{dead}/replay")));

        Assert.Single(answers, a => a.Status == 202);
        Assert.All(answers.Where(a => a.Status != 202), a => a.IsProblem(409, "delivery_pending"));
        held.SetResult();
        await Wait.UntilAsync("the replay died", async () => (await UnresolvedAsync(client)) is [var one] && one != dead);
        Assert.Equal(before + 1, Receiver.Received.Count);
        // Its dead letter took the place of the first.
        Assert.Equal("discarded", (await client.GetAsync($"/dead-letters/{dead}")).Is(200)["state"]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Of_many_who_replay_an_event_at_once_one_succeeds_and_leaves_one_dead_letter(bool named)
    {
        var (client, dead, e, host) = await DeadLetterAsync();
        await using var _1 = host;
        var subscription = (await client.GetAsync($"/dead-letters/{dead}")).Is(200)["subscriptionId"];
        var held = HoldAnswers();
        var body = named ? $$"""{"subscriptionIds":["{{subscription}}"]}""" : null;

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => client.PostAsync($"/events/{e}/replay", body)));

        Assert.Single(answers, a => a.Status == 202);
        Assert.All(answers.Where(a => a.Status != 202), a => a.IsProblem(409, "delivery_pending"));
        held.SetResult();
        await Wait.UntilAsync("the replay died", async () => (await UnresolvedAsync(client)) is [var one] && one != dead);
    }

    [Fact]
    public async Task A_dead_letter_waits_for_the_replay_of_its_event_whatever_came_between()
    {
        var (client, dead, e, host) = await DeadLetterAsync();
        await using var _1 = host;
        // A replay that is cancelled leaves the dead letter open, and is the newest delivery.
        Receiver.Respond = (_, context) => Answer(context, 410);
        (await client.PostAsync($"/dead-letters/{dead}/replay")).Is(202);
        await Wait.UntilAsync(
            "the dead letter is open again", async () => (await client.GetAsync($"/dead-letters/{dead}")).Is(200)["state"] == "open");
        var subscription = (await client.GetAsync($"/dead-letters/{dead}")).Is(200)["subscriptionId"];
        (await client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":true}""")).Is(200);

        Receiver.Respond = (_, context) => Answer(context, 400);
        (await client.PostAsync($"/events/{e}/replay")).Is(202);

        await Wait.UntilAsync("the replay died", async () => (await UnresolvedAsync(client)) is [var one] && one != dead);
    }

    [Fact]
    public async Task Deleting_a_subscription_cancels_what_is_scheduled_and_its_dead_letters_are_given_up_together()
    {
        Receiver.Respond = (webhook, context) => Answer(context, webhook.Path == "/slow" ? 503 : 400);
        var (api, client) = await ApiAsync();
        await using var host = api;
        var slow = await client.SubscribeAsync(url: $"{Receiver.Url}/slow");
        var dying = await client.SubscribeAsync(url: $"{Receiver.Url}/dying");
        var other = await client.SubscribeAsync(url: $"{Receiver.Url}/other");
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxRejectedAttempts", "1"), ("Delivery:Retry:BaseDelay", "01:00:00"));
        for (var i = 0; i < 3; i++)
            await client.PublishAsync();
        await Wait.UntilAsync("every first attempt is recorded", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM all_attempts") == 9);

        (await client.DeleteAsync($"/subscriptions/{slow}")).Is(204);
        (await client.DeleteAsync($"/subscriptions/{dying}")).Is(204);

        await Wait.UntilAsync("what was an hour ahead is cancelled", async () =>
            (await client.GetAsync($"/deliveries?subscriptionId={slow}&status=cancelled")).Is(200).Ids.Length == 3);
        var discarded = (await client.PostAsync("/dead-letters/discard", $$"""{"subscriptionId":"{{dying}}"}""")).Is(200);
        Assert.Equal(("3", "false"), (discarded["discarded"], discarded["remaining"]));
        Assert.Empty((await client.GetAsync($"/dead-letters?state=open&subscriptionId={dying}")).Is(200).Ids);
        Assert.Equal(3, (await client.GetAsync($"/dead-letters?state=open&subscriptionId={other}")).Is(200).Ids.Length);
        Assert.Equal("0", (await client.PostAsync("/dead-letters/discard", $$"""{"subscriptionId":"{{dying}}"}""")).Is(200)["discarded"]);
        Assert.Equal("3", (await client.PostAsync("/dead-letters/discard", $$"""{"subscriptionId":"{{other}}"}""")).Is(200)["discarded"]);
        // Nothing is left unresolved, and nobody got them: they are back in the inbox.
        Assert.Equal(3, (await client.GetAsync("/inbox")).Is(200).Ids.Length);
    }

    private async Task<(ApiHost Host, ApiClient Client)> ApiAsync()
    {
        var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        var client = host.Client();
        await client.WaitUntilReadyAsync();
        return (host, client);
    }

    /// <summary>The receiver refuses, once it is let; until then a replay is on its way.</summary>
    private TaskCompletionSource HoldAnswers()
    {
        var held = new TaskCompletionSource();
        Receiver.Respond = async (_, context) =>
        {
            await held.Task;
            context.Response.StatusCode = 400;
        };
        return held;
    }

    private async Task<(ApiClient Client, string DeadLetter, string Event, ApiHost Host)> DeadLetterAsync()
    {
        Receiver.Respond = (_, context) => Answer(context, 400);
        var (host, client) = await ApiAsync();
        await client.SubscribeAsync(url: Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxRejectedAttempts", "1"));
        var e = await client.PublishAsync();
        await Engine.WaitForStatusAsync(TypeId.TryParse(TypeId.Event, e, out var id) ? id : default, DeliveryStatus.DeadLettered);
        return (client, (await UnresolvedAsync(client)).Single(), e, host);
    }

    private static async Task<string[]> UnresolvedAsync(ApiClient client) =>
        [.. (await client.GetAsync("/dead-letters?state=open")).Is(200).Ids, .. (await client.GetAsync("/dead-letters?state=replaying"))
            .Is(200).Ids];

    private static Task Answer(HttpContext context, int statusCode)
    {
        context.Response.StatusCode = statusCode;
        return Task.CompletedTask;
    }
}
