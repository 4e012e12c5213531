using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Ingest;

/// <summary>What keys and external ids mean to clients, whichever log the events are in.</summary>
public abstract class IdempotencyTests(ApiFixture api)
{
    private const string Marker = "Idempotency-Replayed";

    [Theory]
    [InlineData("/events", """{"type":"a","data":1}""")]
    [InlineData("/events/batch", """{"events":[{"type":"a","data":1},{"type":"b"},{"type":"c","data":3}]}""")]
    public async Task The_same_key_and_body_give_the_first_answer_again(string path, string body)
    {
        var tenant = await api.NewTenantAsync();

        var first = (await tenant.Client.PostAsync(path, body, ("Idempotency-Key", "k"), ("X-Correlation-ID", "first"))).Is(202);
        var second = (await tenant.Client.PostAsync(path, body, ("Idempotency-Key", "k"), ("X-Correlation-ID", "second"))).Is(202);

        Assert.Equal(first.Text, second.Text);
        Assert.DoesNotContain(Marker, first.Headers.Keys);
        Assert.Equal("true", second.Headers[Marker]);
        Assert.Equal("second", second.Headers["X-Correlation-ID"]);
        Assert.Equal(path == "/events" ? 1 : 2, (await ListAsync(tenant, "/events")).Length);
    }

    [Fact]
    public async Task The_same_key_with_another_body_or_path_is_refused()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "k"))).Is(202);

        (await tenant.Client.PostAsync("/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k")))
            .IsProblem(422, "idempotency_key_reused");
        (await tenant.Client.PostAsync("/events", """{"type":"a", "data":1}""", ("Idempotency-Key", "k")))
            .IsProblem(422, "idempotency_key_reused");
        (await tenant.Client.PostAsync("/events/batch", """{"events":[{"type":"a","data":1}]}""", ("Idempotency-Key", "k")))
            .IsProblem(422, "idempotency_key_reused");
        Assert.Single((await ListAsync(tenant, "/events")));
    }

    [Fact]
    public async Task Keys_are_a_tenants_own()
    {
        var one = await api.NewTenantAsync();
        var other = await api.NewTenantAsync();

        var first = (await one.Client.PostAsync("/events", """{"type":"a","data":1,"externalId":"x"}""", ("Idempotency-Key", "k")))
            .Is(202);
        var second = (await other.Client.PostAsync("/events", """{"type":"a","data":2,"externalId":"x"}""", ("Idempotency-Key", "k")))
            .Is(202);

        Assert.NotEqual(first.Id, second.Id);
    }

    [Fact]
    public async Task A_key_is_free_again_after_its_day()
    {
        var tenant = await api.NewTenantAsync();
        var first = (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "k"))).Is(202);
        var kept = await api.Rows.ScalarAsync<TimeSpan>(
            "SELECT expires_at - created_at FROM request_keys WHERE tenant_id = @tenant", ("tenant", tenant.Key));
        Assert.Equal(TimeSpan.FromHours(24), kept);
        await api.Rows.ExecuteAsync(
            "UPDATE request_keys SET expires_at = now() - interval '1 second' WHERE tenant_id = @tenant", ("tenant", tenant.Key));

        var second = (await tenant.Client.PostAsync("/events", """{"type":"a","data":2}""", ("Idempotency-Key", "k"))).Is(202);

        Assert.NotEqual(first.Id, second.Id);
        Assert.DoesNotContain(Marker, second.Headers.Keys);
    }

    [Fact]
    public async Task A_request_that_was_invalid_leaves_its_key_free()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/events", """{"type":"a"}""", ("Idempotency-Key", "k"))).IsProblem(400, "invalid_request");

        (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "k"))).Is(202);
    }

    [Fact]
    public async Task A_request_still_running_elsewhere_is_waited_for_by_the_client()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "k"))).Is(202);
        await Wait.UntilAsync("the key is settled", async () =>
            await api.Rows.ScalarAsync<long>(
                "SELECT count(*) FROM request_keys WHERE tenant_id = @tenant AND busy_until IS NULL", ("tenant", tenant.Key)) == 1);
        await api.Rows.ExecuteAsync(
            "UPDATE request_keys SET busy_until = now() + interval '1 hour' WHERE tenant_id = @tenant", ("tenant", tenant.Key));

        var answer = (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "k")))
            .IsProblem(409, "idempotency_in_progress");

        Assert.Equal("1", answer.Headers["Retry-After"]);
    }

    [Fact]
    public async Task Racing_duplicates_make_one_event()
    {
        var tenant = await api.NewTenantAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 40).Select(_ =>
            tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", "race"))));

        Assert.All(answers, answer => answer.Is(202));
        Assert.Single(answers.Select(a => a.Text).Distinct());
        Assert.Equal(39, answers.Count(a => a.Headers.ContainsKey(Marker)));
        Assert.Single((await ListAsync(tenant, "/events")));
    }

    [Fact]
    public async Task Racing_conflicts_have_one_winner()
    {
        var tenant = await api.NewTenantAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 40).Select(i =>
            tenant.Client.PostAsync("/events", $$"""{"type":"a","data":{{i}},"externalId":"x"}""")));

        var winner = Assert.Single(answers, a => a.Status == 202);
        Assert.All(answers.Where(a => a != winner), a => a.IsProblem(409, "external_id_conflict"));
        Assert.Equal([winner.Id], (await ListAsync(tenant, "/events")));
    }

    [Fact]
    public async Task An_external_id_with_the_same_content_is_the_same_event_however_it_is_written()
    {
        var tenant = await api.NewTenantAsync();

        var first = (await tenant.Client.PostAsync("/events",
            """{"type":"a","data":{"n":1},"externalId":"x","time":"2026-01-31T10:00:00+01:00"}""", ("X-Correlation-ID", "first"))).Is(202);
        var second = (await tenant.Client.PostAsync("/events",
            """ { "time":"2026-01-31T09:00:00Z", "externalId":"x", "data":{"n":1}, "type":"a" } """)).Is(202);

        Assert.Equal(first.Text, second.Text);
        Assert.Equal("true", second.Headers[Marker]);
        Assert.Equal([first.Id], (await ListAsync(tenant, "/events?externalId=x")));
        Assert.Empty((await ListAsync(tenant, "/events?externalId=y")));
    }

    [Theory]
    [InlineData("""{"type":"b","data":1,"externalId":"x"}""")]
    [InlineData("""{"type":"a","data":1.0,"externalId":"x"}""")]
    [InlineData("""{"type":"a","data":1,"externalId":"x","source":"s"}""")]
    [InlineData("""{"type":"a","data":1,"externalId":"x","subject":"s"}""")]
    [InlineData("""{"type":"a","data":1,"externalId":"x","time":"2026-01-31T09:00:00Z"}""")]
    public async Task An_external_id_with_other_content_is_a_conflict(string body)
    {
        var tenant = await api.NewTenantAsync();
        var holder = await tenant.Client.PublishAsync("a", "1", ",\"externalId\":\"x\"");

        var answer = (await tenant.Client.PostAsync("/events", body)).IsProblem(409, "external_id_conflict");

        Assert.Contains(holder, answer["detail"]);
        Assert.Equal(["/externalId"], answer.Pointers);
    }

    [Fact]
    public async Task Data_in_another_order_is_other_content_and_the_conflict_says_so()
    {
        var tenant = await api.NewTenantAsync();
        await tenant.Client.PublishAsync("a", """{"a":1,"b":2}""", ",\"externalId\":\"x\"");

        var answer = (await tenant.Client.PostAsync("/events", """{"type":"a","data":{"b":2,"a":1},"externalId":"x"}"""))
            .IsProblem(409, "external_id_conflict");

        Assert.Contains("byte for byte", answer["detail"]);
    }

    [Fact]
    public async Task Key_and_external_id_together_hold_together()
    {
        var tenant = await api.NewTenantAsync();
        const string body = """{"type":"a","data":1,"externalId":"x"}""";

        var first = (await tenant.Client.PostAsync("/events", body, ("Idempotency-Key", "k1"))).Is(202);
        var sameKey = (await tenant.Client.PostAsync("/events", body, ("Idempotency-Key", "k1"))).Is(202);
        var otherKey = (await tenant.Client.PostAsync("/events", body, ("Idempotency-Key", "k2"))).Is(202);
        var conflict = await tenant.Client.PostAsync("/events", """{"type":"a","data":2,"externalId":"x"}""", ("Idempotency-Key", "k3"));

        Assert.Equal(first.Text, sameKey.Text);
        Assert.Equal(first.Id, otherKey.Id);
        Assert.Equal("true", otherKey.Headers[Marker]);
        conflict.IsProblem(409, "external_id_conflict");
        // Its key was not used up by being refused.
        (await tenant.Client.PostAsync("/events", """{"type":"a","data":2,"externalId":"y"}""", ("Idempotency-Key", "k3"))).Is(202);
        Assert.Equal(2, (await ListAsync(tenant, "/events")).Length);
    }

    [Theory]
    [InlineData("")]
    [InlineData("naïve")]
    public async Task A_key_must_be_printable(string key)
    {
        var tenant = await api.NewTenantAsync();

        var answer = await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", key));

        Assert.Equal(["Idempotency-Key"], answer.IsProblem(400, "invalid_request").Pointers);
        (await tenant.Client.PostAsync("/events", """{"type":"a","data":1}""", ("Idempotency-Key", new string('k', 256))))
            .IsProblem(400, "invalid_request");
    }

    [Fact]
    public async Task Elsewhere_a_key_is_refused_rather_than_ignored()
    {
        var tenant = await api.NewTenantAsync();

        var before = (await tenant.Client.GetAsync("/api-keys")).Ids;

        (await tenant.Client.PostAsync("/api-keys", """{"name":"k","scopes":["events:read"]}""", ("Idempotency-Key", "k")))
            .IsProblem(400, "idempotency_not_supported");
        Assert.Equal(before, (await tenant.Client.GetAsync("/api-keys")).Ids);
    }

    private async Task<string[]> ListAsync(TestTenant tenant, string path)
    {
        await api.CaughtUpAsync();
        return (await tenant.Client.GetAsync(path)).Ids;
    }
}

public sealed class IdempotencyOnPostgresTests(ApiFixture api) : IdempotencyTests(api), IClassFixture<ApiFixture>;

public sealed class IdempotencyOnKafkaTests : IdempotencyTests, IClassFixture<KafkaApiFixture>
{
    public IdempotencyOnKafkaTests(KafkaApiFixture api) : base(api) => KafkaServer.SkipIfMissing();
}
