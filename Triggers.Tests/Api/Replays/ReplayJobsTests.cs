using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Replays;

public sealed class ReplayJobsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_replay_is_a_resource_that_is_listed_and_cancelled()
    {
        var tenant = await api.NewTenantAsync();
        var (first, second) = (await tenant.Client.SubscribeAsync(), await tenant.Client.SubscribeAsync());

        var made = (await tenant.Client.PostAsync("/replays",
            $$"""{"subscriptionId":"{{first}}","from":"2026-01-31T10:00:00+01:00","to":"2026-01-31T12:00:00Z","eventTypes":["order.*"],"include":"all"}""")).Is(202);
        Assert.StartsWith("rpl_", made.Id);
        Assert.Equal($"/replays/{made.Id}", made.Headers["Location"]);
        Assert.Equal(("running", "all", "0", "0"), (made["status"], made["include"], made["matched"], made["deliveries"]));
        Assert.Equal(DateTimeOffset.Parse("2026-01-31T09:00:00Z"), DateTimeOffset.Parse(made["from"]!));
        Assert.Equal(made["from"], made["doneUntil"]);
        Assert.Equal(made.Text, (await tenant.Client.GetAsync($"/replays/{made.Id}")).Is(200).Text);
        var other = (await tenant.Client.PostAsync("/replays", Body(second))).Is(202);
        Assert.Equal("undelivered", other["include"]);
        Assert.InRange(DateTimeOffset.Parse(other["to"]!) - DateTimeOffset.UtcNow, TimeSpan.FromMinutes(-1), TimeSpan.FromMinutes(1));

        (await tenant.Client.PostAsync("/replays", Body(first))).IsProblem(409, "replay_running");
        var cancelled = (await tenant.Client.PostAsync($"/replays/{made.Id}/cancel")).Is(200);
        Assert.Equal("cancelled", cancelled["status"]);
        Assert.NotNull(cancelled["finishedAt"]);
        (await tenant.Client.PostAsync($"/replays/{made.Id}/cancel")).IsProblem(409, "replay_ended");
        var third = (await tenant.Client.PostAsync("/replays", Body(first))).Is(202);

        Assert.Equal([third.Id, other.Id, made.Id], (await tenant.Client.GetAsync("/replays")).Is(200).Ids);
        Assert.Equal([made.Id], (await tenant.Client.GetAsync("/replays?status=cancelled")).Is(200).Ids);
        Assert.Equal([other.Id], (await tenant.Client.GetAsync($"/replays?subscriptionId={second}")).Is(200).Ids);
        (await tenant.Client.GetAsync("/replays?status=lost")).IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task Of_many_at_once_one_runs()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => tenant.Client.PostAsync("/replays", Body(subscription))));

        Assert.Single(answers, a => a.Status == 202);
        Assert.All(answers.Where(a => a.Status != 202), a => a.IsProblem(409, "replay_running"));
    }

    [Fact]
    public async Task A_lost_answer_is_given_again()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();

        var answers = await Task.WhenAll(
            Enumerable.Range(0, 4).Select(_ => tenant.Client.PostAsync("/replays", Body(subscription), ("Idempotency-Key", "k"))));

        Assert.All(answers, a => a.Is(202));
        Assert.Single(answers.Select(a => a.Text).Distinct());
        Assert.Single((await tenant.Client.GetAsync("/replays")).Is(200).Ids);
    }

    [Fact]
    public async Task What_a_replay_makes_is_charged_while_it_is_made()
    {
        using var admin = api.Host.Client();
        var plan = (await admin.PostAsync("/usage-plans",
            $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":1000,"burst":1000,"eventsPerSecond":1,"eventsPerDay":20}""")).Is(201).Id;
        var tenant = await api.NewTenantAsync();
        (await admin.PatchAsync($"/tenants/{tenant.Id}", $$"""{"usagePlanId":"{{plan}}"}""")).Is(200);
        var job = Rows.Uuid(
            (await tenant.Client.PostAsync("/replays", Body(await tenant.Client.SubscribeAsync()), ("Idempotency-Key", "k"))).Is(202).Id);
        await ExpectUsedAsync(1);

        await MakeAsync(15);
        await ExpectUsedAsync(15);
        // More than are left: those are charged, and the others once there are some again.
        await MakeAsync(30);
        await Wait.UntilAsync("it is held up", async () =>
            await api.Rows.ScalarAsync<bool>("SELECT charge_at > now() FROM replay_jobs WHERE id = @id", ("id", job)));
        await ExpectUsedAsync(20);
        (await tenant.Client.PostAsync("/replays", Body(await tenant.Client.SubscribeAsync()))).IsProblem(429, "quota_exceeded");
        // Its first answer all the same.
        var again = await tenant.Client.PostAsync(
            "/replays", Body((await tenant.Client.GetAsync($"/subscriptions?order=asc")).Ids[0]), ("Idempotency-Key", "k"));
        Assert.Equal(job, Rows.Uuid(again.Is(202).Id));

        // Also when it ends before. The next one wakes whoever charges.
        (await tenant.Client.PostAsync($"/replays/{again.Id}/cancel")).Is(200);
        (await admin.PatchAsync($"/usage-plans/{plan}", """{"eventsPerDay":null}""")).Is(200);
        (await tenant.Client.PostAsync("/replays", Body(await tenant.Client.SubscribeAsync()))).Is(202);
        await ExpectUsedAsync(31);

        Task MakeAsync(int deliveries) =>
            api.Rows.ExecuteAsync("UPDATE replay_jobs SET deliveries = @made WHERE id = @id", ("made", deliveries), ("id", job));
        Task ExpectUsedAsync(int events) => Wait.UntilAsync($"{events} events are counted", async () =>
            (await admin.GetAsync($"/tenants/{tenant.Id}/usage")).Is(200)["eventsToday"] == events.ToString(), TimeSpan.FromSeconds(15));
    }

    [Theory]
    [InlineData("""{"from":"2026-01-31T09:00:00Z"}""", "/subscriptionId")]
    [InlineData("""{"subscriptionId":"SUB"}""", "/from")]
    [InlineData("""{"subscriptionId":"SUB","from":"yesterday"}""", "/from")]
    [InlineData("""{"subscriptionId":"SUB","from":"2999-01-31T09:00:00Z"}""", "/from")]
    [InlineData("""{"subscriptionId":"SUB","from":"2026-01-31T09:00:00Z","to":"2026-01-31T09:00:00Z"}""", "/to")]
    [InlineData("""{"subscriptionId":"SUB","from":"2026-01-31T09:00:00Z","eventTypes":[]}""", "/eventTypes")]
    [InlineData("""{"subscriptionId":"SUB","from":"2026-01-31T09:00:00Z","eventTypes":["a","triggers.*"]}""", "/eventTypes/1")]
    [InlineData("""{"subscriptionId":"SUB","from":"2026-01-31T09:00:00Z","include":"some"}""", "/include")]
    [InlineData("""{"subscriptionId":"sub_01jd0000000000000000000000","from":"2026-01-31T09:00:00Z"}""", "/subscriptionId")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();

        Assert.Equal([place], (await tenant.Client.PostAsync("/replays", body.Replace("SUB", subscription)))
            .IsProblem(400, "invalid_request").Pointers);
        Assert.Empty((await tenant.Client.GetAsync("/replays")).Is(200).Ids);
    }

    [Fact]
    public async Task A_range_from_before_there_were_events_is_taken()
    {
        var tenant = await api.NewTenantAsync();

        (await tenant.Client.PostAsync("/replays", Body(await tenant.Client.SubscribeAsync()).Replace("2026", "0001"))).Is(202);
        (await tenant.Client.PostAsync("/replays", Body(await tenant.Client.SubscribeAsync())
            .Replace("}", ",\"to\":\"1931-01-01T00:00:00Z\"}").Replace("2026", "1930"))).Is(202);
    }

    [Fact]
    public async Task Nothing_is_sent_now_to_a_subscription_that_is_disabled_or_gone()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        var delivery = await api.Rows.AddDeliveryAsync(tenant, e, subscription);

        await tenant.Client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""");
        (await tenant.Client.PostAsync($"/deliveries/{delivery}/send-now")).IsProblem(409, "subscription_disabled");
        (await tenant.Client.PostAsync($"/subscriptions/{subscription}/send-now")).IsProblem(409, "subscription_disabled");
        await tenant.Client.DeleteAsync($"/subscriptions/{subscription}");
        (await tenant.Client.PostAsync($"/deliveries/{delivery}/send-now")).IsProblem(409, "subscription_gone");
        (await tenant.Client.PostAsync($"/subscriptions/{subscription}/send-now")).IsProblem(404, "not_found");
    }

    private static string Body(string subscription) => $$"""{"subscriptionId":"{{subscription}}","from":"2026-01-31T09:00:00Z"}""";
}
