using Triggers.Delivery.Maintenance;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>A lost answer to the making of a subscription.</summary>
public sealed class RetriedRequestsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Body = """{"url":"https://a.example","eventTypes":["*"]}""";

    [Fact]
    public async Task The_same_request_gets_its_first_answer_again_with_the_secret()
    {
        var tenant = await api.NewTenantAsync();

        var first = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);
        // What becomes of it meanwhile doesn't matter: the answer is that of then.
        await tenant.Client.PatchAsync($"/subscriptions/{first.Id}", """{"url":"https://b.example"}""");
        await tenant.Client.PostAsync($"/subscriptions/{first.Id}/secret/rotate");
        var second = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);

        Assert.Equal(first.Text, second.Text);
        Assert.Equal(first.Headers["Location"], second.Headers["Location"]);
        Assert.False(first.Headers.ContainsKey("Idempotency-Replayed"));
        Assert.Equal("true", second.Headers["Idempotency-Replayed"]);
        Assert.Equal([first.Id], (await tenant.Client.GetAsync("/subscriptions")).Ids);
    }

    [Fact]
    public async Task Of_many_at_once_one_makes_it_and_all_get_its_answer()
    {
        var tenant = await api.NewTenantAsync();

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => AnsweredAsync()));

        Assert.All(answers, a => a.Is(201));
        Assert.Single(answers.Select(a => a.Text).Distinct());
        Assert.Single(answers, a => !a.Headers.ContainsKey("Idempotency-Replayed"));
        Assert.Single((await tenant.Client.GetAsync("/subscriptions")).Ids);

        // Who waits too long on a busy machine is told to come again.
        async Task<Answer> AnsweredAsync()
        {
            var answer = await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"));
            return answer.Status == 503 ? await AnsweredAsync() : answer;
        }
    }

    [Fact]
    public async Task A_key_stands_for_one_request_of_one_tenant_for_a_day()
    {
        var (tenant, other) = (await api.NewTenantAsync(), await api.NewTenantAsync());
        var first = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);

        (await tenant.Client.PostAsync("/subscriptions", Body.Replace("a.example", "b.example"), ("Idempotency-Key", "k")))
            .IsProblem(422, "idempotency_key_reused");
        Assert.NotEqual(first.Id, (await other.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201).Id);
        // What was refused is not kept.
        (await tenant.Client.PostAsync("/subscriptions", "{}", ("Idempotency-Key", "l"))).IsProblem(400, "invalid_request");
        (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "l"))).Is(201);

        await api.Rows.ExecuteAsync("UPDATE first_answers SET expires_at = now() WHERE tenant_id = @tenant", ("tenant", tenant.Key));
        var next = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);
        Assert.NotEqual(first.Id, next.Id);
        Assert.False(next.Headers.ContainsKey("Idempotency-Replayed"));
    }

    [Fact]
    public async Task The_answer_is_kept_encrypted_and_goes_when_its_day_is_over()
    {
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);
        var kept = await api.Rows.ScalarAsync<byte[]>(
            "SELECT answer FROM first_answers WHERE tenant_id = @tenant", ("tenant", tenant.Key));
        var text = System.Text.Encoding.Latin1.GetString(kept);
        Assert.DoesNotContain(made["secret"]!["whsec_".Length..], text, StringComparison.Ordinal);
        Assert.DoesNotContain("a.example", text, StringComparison.Ordinal);

        await api.Rows.ExecuteAsync(
            "UPDATE first_answers SET expires_at = now() - interval '1 second' WHERE tenant_id = @tenant", ("tenant", tenant.Key));
        await Housekeeping.KeepAsync(api.DataSource, TestContext.Current.CancellationToken);

        Assert.Equal(
            0, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM first_answers WHERE tenant_id = @tenant", ("tenant", tenant.Key)));
    }

    [Fact]
    public async Task Any_api_process_gives_the_answer()
    {
        var tenant = await api.NewTenantAsync();
        var key = await api.NewKeyAsync(tenant.Id);
        var first = (await tenant.Client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201);
        await using var another = new ApiHost(api.ConnectionString);
        using var client = another.Client(key);
        await client.WaitUntilReadyAsync();

        Assert.Equal(first.Text, (await client.PostAsync("/subscriptions", Body, ("Idempotency-Key", "k"))).Is(201).Text);
    }
}
