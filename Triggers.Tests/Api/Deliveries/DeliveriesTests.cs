using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Deliveries;

public sealed class DeliveriesTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_delivery_is_shown_with_its_attempts()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var id = await api.Rows.AddDeliveryAsync(tenant, e, subscription);

        var pending = (await tenant.Client.GetAsync($"/deliveries/{id}")).Is(200);
        Assert.Equal("pending", pending["status"]);
        Assert.Equal(e, pending["eventId"]);
        Assert.Equal(subscription, pending["subscriptionId"]);
        Assert.NotNull(pending["nextAttemptAt"]);
        Assert.Empty(pending.Json["attempts"]!.AsArray());

        await api.Rows.SucceedAsync(id);
        var succeeded = (await tenant.Client.GetAsync($"/deliveries/{id}")).Is(200);
        Assert.Equal("succeeded", succeeded["status"]);
        Assert.Null(succeeded["nextAttemptAt"]);
        Assert.NotNull(succeeded["finalizedAt"]);
        var attempt = succeeded.Json["attempts"]!.AsArray().Single()!;
        Assert.Equal("delivered", attempt["outcome"]!.GetValue<string>());
        Assert.Equal("thanks", attempt["responseBody"]!.GetValue<string>());
        Assert.Equal("text", attempt["responseBodyEncoding"]!.GetValue<string>());
        Assert.Equal("text/plain", attempt["responseHeaders"]!["content-type"]!.GetValue<string>());
    }

    [Theory]
    [InlineData("text/plain; charset=iso-8859-1", "66fc72", "f\u00fcr", "text")]
    [InlineData("image/png", "89504e470d0a1a0a", "iVBORw0KGgo=", "base64")]
    public async Task The_body_of_an_answer_is_shown_by_its_charset_or_as_base64(
        string contentType, string hex, string shown, string encoding)
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var id = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.SucceedAsync(id, contentType, Convert.FromHexString(hex));

        var attempt = (await tenant.Client.GetAsync($"/deliveries/{id}")).Is(200).Json["attempts"]!.AsArray().Single()!;

        Assert.Equal(
            (shown, encoding), (attempt["responseBody"]!.GetValue<string>(), attempt["responseBodyEncoding"]!.GetValue<string>()));
    }

    [Fact]
    public async Task While_an_attempt_is_in_flight_the_lease_is_not_shown_as_a_time()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var id = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.ClaimAsync(Rows.Uuid(subscription), worker: 1, TimeSpan.FromMinutes(1));

        var read = (await tenant.Client.GetAsync($"/deliveries/{id}")).Is(200);

        Assert.True(read.Json["inFlight"]!.GetValue<bool>());
        Assert.Null(read["nextAttemptAt"]);
    }

    [Fact]
    public async Task Deliveries_are_listed_by_event_subscription_status_and_time()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var other = await tenant.Client.SubscribeAsync();
        var first = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        var second = await api.Rows.AddDeliveryAsync(tenant, e, other);
        await api.Rows.SucceedAsync(first);
        async Task<string[]> ListAsync(string query) => (await tenant.Client.GetAsync($"/deliveries?order=asc&{query}")).Is(200).Ids;

        Assert.Equal([first, second], await ListAsync($"eventId={e}"));
        Assert.Equal([second], await ListAsync($"subscriptionId={other}"));
        Assert.Equal([first], await ListAsync("status=succeeded"));
        Assert.Equal([second], await ListAsync("status=pending"));
        Assert.Equal([first, second], await ListAsync("createdAfter=2020-01-01T00:00:00Z&createdBefore=2120-01-01T00:00:00Z"));
        Assert.Empty(await ListAsync("createdBefore=2020-01-01T00:00:00Z"));
        Assert.Equal([second, first], (await tenant.Client.GetAsync($"/events/{e}/deliveries")).Is(200).Ids);
        var page = (await tenant.Client.GetAsync("/deliveries?limit=1")).Is(200);
        Assert.Equal([second], page.Ids);
        Assert.Equal([first], (await tenant.Client.GetAsync($"/deliveries?limit=1&cursor={page.NextCursor}")).Is(200).Ids);
        (await tenant.Client.GetAsync("/deliveries?eventId=x&status=gone")).IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task A_delivery_and_its_attempts_are_read_as_of_one_moment()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var id = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await using var connection = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        async Task ExecuteAsync(params IEnumerable<Npgsql.NpgsqlBatchCommand> commands)
        {
            await using var batch = new Npgsql.NpgsqlBatch(connection, transaction);
            foreach (var command in commands)
                batch.BatchCommands.Add(command);
            await batch.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }

        // The request has read the delivery, and waits to read its attempts, while the delivery ends.
        await ExecuteAsync(new Npgsql.NpgsqlBatchCommand("LOCK TABLE attempts"));
        var asked = tenant.Client.GetAsync($"/deliveries/{id}");
        await Wait.UntilAsync("the request waits for the attempts", async () =>
            await api.Rows.ScalarAsync<long>("SELECT count(*) FROM pg_locks WHERE relation = 'attempts'::regclass AND NOT granted") > 0);
        await ExecuteAsync(DeliveryResults.Apply(
        [
            new DeliveryResult(tenant.Key, Rows.Uuid(id), Rows.Uuid(e), Rows.Uuid(subscription), 0, DeliveryStatus.Succeeded,
                Rows.Attempt(AttemptOutcome.Delivered, 200)),
        ]));
        await transaction.CommitAsync(TestContext.Current.CancellationToken);

        var answer = (await asked).Is(200);
        Assert.Equal("pending", answer["status"]);
        Assert.Empty(answer.Json["attempts"]!.AsArray());
    }

    [Fact]
    public async Task A_page_of_what_is_pending_has_a_next_one_though_something_of_it_ends_while_it_is_read()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var made = new string[4];
        for (var i = made.Length; i > 0; i--)
            made[i - 1] = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        var path = $"/deliveries?subscriptionId={subscription}&status=pending&limit=2";

        // It has the ids of the page, and is about to read the rows.
        var page = (await api.Host.Statements.AskAsync(
            "all_deliveries", 3, () => tenant.Client.GetAsync(path), () => api.Rows.SucceedAsync(made[0]))).Is(200);

        Assert.Equal(made[..2], page.Ids);
        Assert.Equal(made[2..], (await tenant.Client.GetAsync($"{path}&cursor={page.NextCursor}")).Is(200).Ids);
        Assert.Equal(made[1..3], (await tenant.Client.GetAsync(path)).Is(200).Ids);
    }

    [Fact]
    public async Task A_list_that_is_looked_through_passes_nothing_though_something_leaves_it_meanwhile()
    {
        var tenant = await api.NewTenantAsync();
        // 500 are looked at at once; what is asked for is the one behind them.
        await api.Rows.ExecuteAsync(
            $"""
            INSERT INTO dead_letters (
                tenant_id, delivery_id, event_id, subscription_id, state, reason, attempts, replay_delivery_id)
            SELECT '{tenant.Key}', id, id, id, CASE WHEN i = 0 THEN 'open' ELSE 'replaying' END, 'exhausted', 8, id
            FROM generate_series(0, 500) i, LATERAL (
                SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid AS id) made
            """);

        // It has looked at them, and is about to look where they end.
        const string Open = "/dead-letters?state=open";
        var page = (await api.Host.Statements.AskAsync("dead_letters", 2, () => tenant.Client.GetAsync(Open), () => api.Rows.ExecuteAsync(
            "UPDATE dead_letters SET state = 'resolved', closed_at = now() WHERE tenant_id = @tenant AND delivery_id = @newest",
            ("tenant", tenant.Key), ("newest", Guid.Parse("00000000-0000-7000-8000-0000000001f4"))))).Is(200);
        // What it waited counts: the page may end there, and have a next one.
        var ids = page.Ids.ToList();
        for (; page.NextCursor is { } cursor; ids.AddRange(page.Ids))
            page = (await tenant.Client.GetAsync($"{Open}&cursor={cursor}")).Is(200);

        Assert.Equal([TypeId.Format(TypeId.Delivery, Guid.Parse("00000000-0000-7000-8000-000000000000"))], ids);
    }

    [Fact]
    public async Task Dead_letters_that_another_request_gives_up_meanwhile_are_not_all_there_are()
    {
        var (tenant, subscription, _) = await ArrangeAsync();
        // 500 are chosen at once.
        var first = TypeId.NewGuid();
        var ids = Enumerable.Range(0, 503).Select(i => TypeId.Add(first, i)).ToArray();
        await api.Rows.ExecuteAsync(
            """
            INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, reason, attempts)
            SELECT @tenant, id, id, @subscription, 'exhausted', 8 FROM unnest(@ids) id
            """, ("tenant", tenant.Key), ("subscription", Rows.Uuid(subscription)), ("ids", ids));
        await using var connection = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using var other = new Npgsql.NpgsqlBatch(connection, transaction) { BatchCommands = { EventState.Lock(ids[..500]) } };
        await other.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        Task<Answer> DiscardAsync() => tenant.Client.PostAsync("/dead-letters/discard", $$"""{"subscriptionId":"{{subscription}}"}""");

        // The request has chosen its first 500, and waits for them, while the other one gives them up.
        var asked = DiscardAsync();
        await Wait.UntilAsync("the request waits for the events of those", async () => await api.Rows.ScalarAsync<long>(
            $"""
            SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = {AdvisoryLocks.EventClass} AND NOT granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            """) > 0);
        await using (var discard = new Npgsql.NpgsqlBatch(connection, transaction)
        {
            BatchCommands = { DeadLetterChanges.Discard(tenant.Key, ids[..500]) },
        })
            await discard.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        await transaction.CommitAsync(TestContext.Current.CancellationToken);

        // On a busy machine its time may be over by then: it is sent again as long as it says so.
        while ((await asked).Is(200)["remaining"] == "true")
            asked = DiscardAsync();
        Assert.Empty((await tenant.Client.GetAsync($"/dead-letters?state=open&subscriptionId={subscription}")).Is(200).Ids);
    }

    [Fact]
    public async Task A_replay_is_a_new_delivery_that_names_the_old_one()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var old = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        (await tenant.Client.PostAsync($"/deliveries/{old}/replay")).IsProblem(409, "delivery_pending");
        await api.Rows.SucceedAsync(old);

        var answer = (await tenant.Client.PostAsync($"/deliveries/{old}/replay")).Is(202);

        var made = answer.Json["deliveries"]!.AsArray().Single()!;
        Assert.Equal(old, made["replayOf"]!.GetValue<string>());
        Assert.Equal("pending", made["status"]!.GetValue<string>());
        Assert.Equal($"/deliveries/{made["id"]}", answer.Headers["Location"]);
        // It does not reopen what was settled.
        Assert.Equal("delivered", (await tenant.Client.GetAsync($"/events/{e}")).Is(200)["status"]);
        Assert.Equal("succeeded", (await tenant.Client.GetAsync($"/deliveries/{old}")).Is(200)["status"]);
    }

    [Fact]
    public async Task A_replay_wakes_the_delivery_service()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var old = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.SucceedAsync(old);
        await using var listener = await api.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using (var listen = new Npgsql.NpgsqlCommand("LISTEN triggers_deliveries", listener))
            await listen.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        (await tenant.Client.PostAsync($"/deliveries/{old}/replay")).Is(202);

        Assert.True(await listener.WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task Nothing_is_replayed_to_a_subscription_that_is_disabled_or_gone()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var old = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.SucceedAsync(old);

        await tenant.Client.PatchAsync($"/subscriptions/{subscription}", """{"enabled":false}""");
        (await tenant.Client.PostAsync($"/deliveries/{old}/replay")).IsProblem(409, "subscription_disabled");
        (await tenant.Client.PostAsync($"/events/{e}/replay", $$"""{"subscriptionIds":["{{subscription}}"]}"""))
            .IsProblem(409, "subscription_disabled");
        await tenant.Client.DeleteAsync($"/subscriptions/{subscription}");
        (await tenant.Client.PostAsync($"/deliveries/{old}/replay")).IsProblem(409, "subscription_gone");
        (await tenant.Client.PostAsync($"/events/{e}/replay", $$"""{"subscriptionIds":["{{subscription}}"]}"""))
            .IsProblem(409, "subscription_gone");
        Assert.Empty((await tenant.Client.PostAsync($"/events/{e}/replay")).Is(202).Json["deliveries"]!.AsArray());
    }

    [Fact]
    public async Task An_event_is_replayed_to_all_who_want_it_now_or_to_those_who_are_named()
    {
        var (tenant, early, e) = await ArrangeAsync();
        var old = await api.Rows.AddDeliveryAsync(tenant, e, early);
        await api.Rows.SucceedAsync(old);
        var late = await tenant.Client.SubscribeAsync("\"order.*\"");
        var uninterested = await tenant.Client.SubscribeAsync("\"invoice\"");

        var all = (await tenant.Client.PostAsync($"/events/{e}/replay")).Is(202).Json["deliveries"]!.AsArray();
        Assert.Equal([early, late], all.Select(d => d!["subscriptionId"]!.GetValue<string>()));
        Assert.Equal([old, null], all.Select(d => d!["replayOf"]?.GetValue<string>()));

        // Who has it on its way already gets it anyway.
        (await tenant.Client.PostAsync($"/events/{e}/replay", "{}")).IsProblem(409, "delivery_pending");
        (await tenant.Client.PostAsync($"/events/{e}/replay", $$"""{"subscriptionIds":["{{late}}"]}"""))
            .IsProblem(409, "delivery_pending");
        var named = (await tenant.Client.PostAsync(
            $"/events/{e}/replay", $$"""{"subscriptionIds":["{{uninterested}}","{{uninterested}}"]}""")).Is(202);
        Assert.Equal(uninterested, named.Json["deliveries"]!.AsArray().Single()!["subscriptionId"]!.GetValue<string>());

        Assert.Equal(["/subscriptionIds/0"], (await tenant.Client.PostAsync(
            $"/events/{e}/replay", """{"subscriptionIds":["sub_01jd0000000000000000000000"]}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/to"], (await tenant.Client.PostAsync($"/events/{e}/replay", """{"to":"all"}"""))
            .IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task An_event_that_is_not_processed_yet_is_not_replayed()
    {
        var tenant = await api.NewTenantAsync();
        var e = await tenant.Client.PublishAsync();

        (await tenant.Client.PostAsync($"/events/{e}/replay")).IsProblem(503, "event_not_yet_visible");
    }

    [Fact]
    public async Task A_dead_letter_is_replaying_until_its_replay_ends()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var dead = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.DieAsync(dead);

        var open = (await tenant.Client.GetAsync($"/dead-letters/{dead}")).Is(200);
        Assert.Equal("open", open["state"]);
        Assert.Equal("exhausted", open["reason"]);
        Assert.Equal("503", open["lastStatusCode"]);
        var made = (await tenant.Client.PostAsync($"/dead-letters/{dead}/replay"))
            .Is(202).Json["deliveries"]![0]!["id"]!.GetValue<string>();

        var replaying = (await tenant.Client.GetAsync($"/dead-letters/{dead}")).Is(200);
        Assert.Equal("replaying", replaying["state"]);
        Assert.Equal(made, replaying["replayDeliveryId"]);
        Assert.Equal("dead_lettered", (await tenant.Client.GetAsync($"/events/{e}")).Is(200)["status"]);
        Assert.Equal([dead], (await tenant.Client.GetAsync($"/dead-letters?state=replaying&eventId={e}&subscriptionId={subscription}"))
            .Is(200).Ids);
        Assert.Empty((await tenant.Client.GetAsync("/dead-letters?state=open")).Is(200).Ids);
    }

    [Fact]
    public async Task A_discarded_dead_letter_is_closed_for_good()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var dead = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.DieAsync(dead);

        var discarded = (await tenant.Client.PostAsync($"/dead-letters/{dead}/discard")).Is(200);

        Assert.Equal("discarded", discarded["state"]);
        Assert.NotNull(discarded["closedAt"]);
        (await tenant.Client.PostAsync($"/dead-letters/{dead}/discard")).IsProblem(409, "dead_letter_closed");
        (await tenant.Client.PostAsync($"/dead-letters/{dead}/replay")).IsProblem(409, "dead_letter_closed");
        // Nobody ever got it: it is back in the inbox.
        Assert.Equal([e], (await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
        Assert.Equal("pending", (await tenant.Client.GetAsync($"/events/{e}")).Is(200)["status"]);
    }

    [Fact]
    public async Task Of_many_who_discard_one_succeeds_and_it_counts_once()
    {
        var (tenant, subscription, e) = await ArrangeAsync();
        var dead = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        var other = await api.Rows.AddDeliveryAsync(tenant, e, subscription);
        await api.Rows.DieAsync(dead);
        await api.Rows.DieAsync(other);

        var answers = await Task.WhenAll(Enumerable.Range(0, 10).Select(_ => tenant.Client.PostAsync($"/dead-letters/{dead}/discard")));

        Assert.Single(answers, a => a.Status == 200);
        Assert.All(answers.Where(a => a.Status != 200), a => a.IsProblem(409, "dead_letter_closed"));
        Assert.Equal("dead_lettered", (await tenant.Client.GetAsync($"/events/{e}")).Is(200)["status"]);
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Is(200).Ids);
    }

    private async Task<(TestTenant Tenant, string Subscription, string Event)> ArrangeAsync()
    {
        var tenant = await api.NewTenantAsync();
        var subscription = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        return (tenant, subscription, e);
    }
}
