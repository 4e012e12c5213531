using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

public sealed class SubscriptionsTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_subscription_is_made_with_a_secret_that_is_never_shown_again()
    {
        var tenant = await api.NewTenantAsync();

        var made = (await tenant.Client.PostAsync("/subscriptions",
            """{"url":"https://receiver.example/hooks?a=1","eventTypes":["order.*","invoice"],"description":"The warehouse","headers":{"X-Team":"w","x-empty":""}}""")).Is(201);

        Assert.Equal($"/subscriptions/{made.Id}", made.Headers["Location"]);
        Assert.StartsWith("whsec_", made["secret"]);
        Assert.Equal(32, Convert.FromBase64String(made["secret"]!["whsec_".Length..]).Length);
        var read = (await tenant.Client.GetAsync($"/subscriptions/{made.Id}")).Is(200);
        var withoutSecret = made.Json.AsObject();
        withoutSecret.Remove("secret");
        Assert.True(JsonNode.DeepEquals(withoutSecret, read.Json), $"{withoutSecret} is not {read.Json}");
        Assert.True(read.Json["enabled"]!.GetValue<bool>());
        Assert.Equal("w", read.Json["headers"]!["X-Team"]!.GetValue<string>());
        Assert.DoesNotContain("whsec_", (await tenant.Client.GetAsync("/subscriptions")).Is(200).Text);
    }

    [Theory]
    [InlineData("""{"eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example"}""", "/eventTypes")]
    [InlineData("""{"url":"ftp://a.example","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"/hooks","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://user:pass@a.example","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://@a.example","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example/#part","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example/#","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example/ b","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https:///x","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example:0/","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example:65536/","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://[fe80::1%25eth0]/","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a..example/","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example/\u00fc","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example/a\\b","eventTypes":["*"]}""", "/url")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"Last-Modified":"x"}}""", "/headers/Last-Modified")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"expires":"x"}}""", "/headers/expires")]
    [InlineData("""{"url":"https://a.example","eventTypes":[]}""", "/eventTypes")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*","a b"]}""", "/eventTypes/1")]
    [InlineData("""{"url":"https://a.example","eventTypes":["a*"]}""", "/eventTypes/0")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*","triggers.*"]}""", "/eventTypes/1")]
    [InlineData("""{"url":"https://a.example","eventTypes":["triggers.test"]}""", "/eventTypes/0")]
    [InlineData("""{"url":"https://a.example","eventTypes":[null]}""", "/eventTypes/0")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"enabled":"yes"}""", "/enabled")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"Webhook-Id":"1"}}""", "/headers/Webhook-Id")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"host":"1"}}""", "/headers/host")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"a b":"1"}}""", "/headers/a b")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"x":"a\r\nb: c"}}""", "/headers/x")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"headers":{"x":"1","X":"2"}}""", "/headers/X")]
    [InlineData("""{"url":"https://a.example","eventTypes":["*"],"secret":"mine"}""", "/secret")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal([place], (await tenant.Client.PostAsync("/subscriptions", body)).IsProblem(400, "invalid_request").Pointers);
        Assert.Empty((await tenant.Client.GetAsync("/subscriptions")).Ids);
    }

    [Fact]
    public async Task A_change_changes_what_it_names_and_nothing_else()
    {
        var tenant = await api.NewTenantAsync();
        var id = (await tenant.Client.PostAsync("/subscriptions",
            """{"url":"https://a.example","eventTypes":["a"],"description":"d","headers":{"x":"1"}}""")).Is(201).Id;

        var url = (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"url":"https://b.example"}""")).Is(200);
        Assert.Equal("https://b.example", url["url"]);
        Assert.Equal("d", url["description"]);
        Assert.Equal("""["a"]""", url.Json["eventTypes"]!.ToJsonString());
        Assert.Equal("""{"x":"1"}""", url.Json["headers"]!.ToJsonString());

        var rest = (await tenant.Client.PatchAsync(
            $"/subscriptions/{id}", """{"eventTypes":["b","c.*"],"description":null,"headers":{"y":"2"}}""")).Is(200);
        Assert.Equal("https://b.example", rest["url"]);
        Assert.Null(rest.Json["description"]);
        Assert.Equal("""["b","c.*"]""", rest.Json["eventTypes"]!.ToJsonString());
        Assert.Equal("""{"x":"1","y":"2"}""", rest.Json["headers"]!.ToJsonString());

        Assert.Equal("{}", (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"headers":null}"""))
            .Is(200).Json["headers"]!.ToJsonString());
        Assert.Equal(["/url", "/eventTypes", "/enabled"],
            (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"url":null,"eventTypes":null,"enabled":null}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/id"], (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"id":"x"}"""))
            .IsProblem(400, "invalid_request").Pointers);
    }

    [Theory]
    [InlineData("""{"X-Team":null}""", """{"b":"2"}""")]
    [InlineData("""{"x-team":"new"}""", """{"b":"2","x-team":"new"}""")]
    [InlineData("""{"c":"3","B":null,"unknown":null}""", """{"c":"3","x-team":"1"}""")]
    [InlineData("{}", """{"b":"2","x-team":"1"}""")]
    public async Task Headers_are_merged_name_by_name(string patch, string merged)
    {
        var tenant = await api.NewTenantAsync();
        var id = (await tenant.Client.PostAsync("/subscriptions",
            """{"url":"https://a.example","eventTypes":["a"],"headers":{"x-team":"1","b":"2"}}""")).Is(201).Id;

        var changed = (await tenant.Client.PatchAsync($"/subscriptions/{id}", $$"""{"headers":{{patch}}}""")).Is(200);

        Assert.Equal(
            JsonNode.Parse(merged)!.AsObject().OrderBy(h => h.Key).Select(h => $"{h.Key}: {h.Value}"),
            changed.Json["headers"]!.AsObject().OrderBy(h => h.Key).Select(h => $"{h.Key}: {h.Value}"));
    }

    [Fact]
    public async Task Headers_are_no_more_than_20_after_a_merge_either()
    {
        var tenant = await api.NewTenantAsync();
        string Headers(int from, int count) => "{" + string.Join(",", Enumerable.Range(from, count).Select(i => $"\"x-{i}\":\"1\"")) + "}";
        var id = (await tenant.Client.PostAsync("/subscriptions",
            $$"""{"url":"https://a.example","eventTypes":["a"],"headers":{{Headers(0, 15)}}}""")).Is(201).Id;

        Assert.Equal(["/headers"],
            (await tenant.Client.PatchAsync($"/subscriptions/{id}", $$"""{"url":"https://b.example","headers":{{Headers(15, 6)}}}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal("https://a.example", (await tenant.Client.GetAsync($"/subscriptions/{id}"))["url"]);
        (await tenant.Client.PatchAsync($"/subscriptions/{id}", $$"""{"headers":{{Headers(10, 10)}}}""")).Is(200);
    }

    [Fact]
    public async Task What_can_not_be_sent_is_refused_in_a_change_too()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();

        Assert.Equal(["/headers/Last-Modified"],
            (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"headers":{"Last-Modified":"x"}}"""))
                .IsProblem(400, "invalid_request").Pointers);
        Assert.Equal(["/url"], (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"url":"https://a.example:0/"}"""))
            .IsProblem(400, "invalid_request").Pointers);
    }

    [Theory]
    [InlineData("https://b\u00fccher.example:8443/%7Eme/../x?q=%zz", "https://xn--bcher-kva.example:8443/%7Eme/../x?q=%zz")]
    [InlineData("https://B\u00dcCHER.example", "https://xn--bcher-kva.example")]
    [InlineData("https://\u65e5\u672c\u8a9e.jp?x", "https://xn--wgv71a119e.jp?x")]
    [InlineData("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/")]
    public async Task An_address_is_kept_as_given_with_an_international_host_as_punycode(string given, string kept)
    {
        var tenant = await api.NewTenantAsync();

        var made = (await tenant.Client.PostAsync("/subscriptions", $$"""{"url":"{{given}}","eventTypes":["*"]}""")).Is(201);
        Assert.Equal(kept, made["url"]);
        Assert.Equal(kept, (await tenant.Client.PatchAsync($"/subscriptions/{made.Id}", $$"""{"url":"{{given}}"}""")).Is(200)["url"]);
    }

    [Theory]
    // Composed it is another name; without its composition this one would be sent to a stranger.
    [InlineData("https://bu\u0308cher.example/")]
    [InlineData("https://\uff11\uff12\uff17.0.0.1/")]
    public async Task AHost_name_that_would_have_to_be_normalized_is_refused_with_the_reason(string url)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Contains("punycode",
            (await tenant.Client.PostAsync("/subscriptions", $$"""{"url":"{{url}}","eventTypes":["*"]}""")).IsProblem(
                400, "invalid_request").Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Disabling_says_why_and_enabling_forgets_it()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();

        Assert.Equal(
            "requested", (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).Is(200)["disabledReason"]);
        await api.Rows.ExecuteAsync("UPDATE subscriptions SET disabled_reason = 'gone' WHERE id = @id", ("id", Rows.Uuid(id)));
        // Another change leaves it gone; who disables it wants it so, whatever did before.
        Assert.Equal("gone", (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"description":"d"}""")).Is(200)["disabledReason"]);
        Assert.Equal(
            "requested", (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).Is(200)["disabledReason"]);
        var enabled = (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":true}""")).Is(200);
        Assert.True(enabled.Json["enabled"]!.GetValue<bool>());
        Assert.Null(enabled["disabledReason"]);
        Assert.Equal("requested", (await tenant.Client.PostAsync("/subscriptions",
            """{"url":"https://a.example","eventTypes":["*"],"enabled":false}""")).Is(201)["disabledReason"]);
    }

    [Fact]
    public async Task Every_write_bumps_the_version_that_matching_reads()
    {
        var tenant = await api.NewTenantAsync();
        async Task<long> VersionAsync() => await api.Rows.ScalarAsync<long>("SELECT version FROM subscriptions_version");

        var before = await VersionAsync();
        var id = await tenant.Client.SubscribeAsync();
        Assert.Equal(before + 1, await VersionAsync());
        (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":false}""")).Is(200);
        Assert.Equal(before + 2, await VersionAsync());
        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).Is(204);
        Assert.Equal(before + 3, await VersionAsync());
    }

    [Fact]
    public async Task A_deleted_subscription_is_gone_and_its_history_is_not()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();
        var e = await tenant.Client.PublishAsync();
        await api.Rows.ProjectAsync();
        var delivery = await api.Rows.AddDeliveryAsync(tenant, e, id);

        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).Is(204);

        (await tenant.Client.GetAsync($"/subscriptions/{id}")).IsProblem(404, "not_found");
        (await tenant.Client.PatchAsync($"/subscriptions/{id}", """{"enabled":true}""")).IsProblem(404, "not_found");
        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).IsProblem(404, "not_found");
        (await tenant.Client.PostAsync($"/subscriptions/{id}/secret/rotate")).IsProblem(404, "not_found");
        (await tenant.Client.PostAsync($"/subscriptions/{id}/test")).IsProblem(404, "not_found");
        Assert.Empty((await tenant.Client.GetAsync("/subscriptions")).Ids);
        Assert.Equal([delivery], (await tenant.Client.GetAsync($"/deliveries?subscriptionId={id}")).Ids);
    }

    [Fact]
    public async Task After_a_rotation_both_secrets_sign_for_a_day_and_at_most_ten_are_kept()
    {
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);
        var before = TimeProvider.System.GetUtcNow();

        var rotated = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate")).Is(200);

        Assert.NotEqual(made["secret"], rotated["secret"]);
        var expires = DateTimeOffset.Parse(rotated["previousExpiresAt"]!);
        Assert.InRange(expires, before.AddHours(24).AddSeconds(-5), before.AddHours(24).AddSeconds(30));
        var kept = await SecretsAsync(made.Id);
        Assert.Equal([rotated["secret"], made["secret"]], kept.Select(s => s.Secret));
        Assert.Equal([null, expires], kept.Select(s => s.ExpiresAt));

        for (var i = 0; i < 12; i++)
            rotated = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate")).Is(200);
        kept = await SecretsAsync(made.Id);
        Assert.Equal(10, kept.Length);
        Assert.Equal(rotated["secret"], kept[0].Secret);
        Assert.Single(kept, s => s.ExpiresAt is null);
    }

    [Fact]
    public async Task A_leaked_secret_is_revoked_at_once()
    {
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);
        await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate");

        var rotated = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"overlap":"00:00:00"}""")).Is(200);

        Assert.Null(rotated["previousExpiresAt"]);
        var kept = Assert.Single(await SecretsAsync(made.Id));
        Assert.Equal((rotated["secret"], null), (kept.Secret, kept.ExpiresAt));
    }

    [Fact]
    public async Task An_overlap_shortens_and_never_lengthens_what_earlier_ones_left()
    {
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);
        var hour = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"overlap":"01:00:00"}""")).Is(200);

        var week = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", """{"overlap":"7.00:00:00"}""")).Is(200);

        var kept = await SecretsAsync(made.Id);
        Assert.Equal([week["secret"], hour["secret"], made["secret"]], kept.Select(s => s.Secret));
        Assert.Equal(DateTimeOffset.Parse(hour["previousExpiresAt"]!), kept[2].ExpiresAt);
        Assert.Equal(TimeSpan.FromDays(7).TotalHours, (kept[1].ExpiresAt!.Value - DateTimeOffset.UtcNow).TotalHours, 0.1);
    }

    [Fact]
    public async Task A_secret_that_exists_is_taken()
    {
        const string First = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
        const string Second = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync(
            "/subscriptions", $$"""{"url":"https://a.example","eventTypes":["*"],"secret":"{{First}}"}""")).Is(201);
        Assert.Equal(First, made["secret"]);

        Assert.Equal(Second, (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", $$"""{"secret":"{{Second}}"}"""))
            .Is(200)["secret"]);

        Assert.Equal([Second, First], (await SecretsAsync(made.Id)).Select(s => s.Secret));
        // One that signs already is there once, as the newest.
        await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", $$"""{"secret":"{{First}}"}""");
        Assert.Equal([First, Second], (await SecretsAsync(made.Id)).Select(s => s.Secret));
    }

    [Theory]
    [InlineData("""{"overlap":"-00:00:01"}""", "/overlap")]
    [InlineData("""{"overlap":"7.00:00:01"}""", "/overlap")]
    [InlineData("""{"overlap":"1h"}""", "/overlap")]
    [InlineData("""{"overlap":0}""", "/overlap")]
    [InlineData("""{"secret":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"}""", "/secret")]
    [InlineData("""{"secret":"whsec_c2hvcnQ="}""", "/secret")]
    [InlineData("""{"secret":"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}""", "/secret")]
    [InlineData("""{"secret":"whsec_MDEyMzQ1Njc4OWFi Y2RlZjAxMjM0NTY3"}""", "/secret")]
    [InlineData(
        """{"secret":"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ekFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFla"}""",
        "/secret")]
    [InlineData("""{"all":true}""", "/all")]
    public async Task A_mistake_in_a_rotation_is_named_and_nothing_is_rotated(string body, string place)
    {
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", """{"url":"https://a.example","eventTypes":["*"]}""")).Is(201);

        Assert.Equal([place], (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/secret/rotate", body))
            .IsProblem(400, "invalid_request").Pointers);

        Assert.Equal(made["secret"], Assert.Single(await SecretsAsync(made.Id)).Secret);
    }

    [Fact]
    public async Task A_test_answers_with_the_attempt()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();

        var testing = tenant.Client.PostAsync($"/subscriptions/{id}/test");
        await Wait.UntilAsync("the delivery is due", async () => await api.Rows.ScalarAsync<long>(
            "SELECT count(*) FROM delivery_queue WHERE subscription_id = @id AND test AND next_attempt_at <= now()",
            ("id", Rows.Uuid(id))) == 1);
        var delivery = (await tenant.Client.GetAsync($"/deliveries?subscriptionId={id}")).Ids.Single();
        await api.Rows.SucceedAsync(delivery);
        var answer = (await testing).Is(200);

        Assert.Equal(delivery, answer["deliveryId"]);
        Assert.Equal("delivered", answer.Json["attempt"]!["outcome"]!.GetValue<string>());
        Assert.Equal(200, answer.Json["attempt"]!["statusCode"]!.GetValue<int>());
        Assert.Equal("triggers.test", (await tenant.Client.GetAsync($"/events/{answer["eventId"]}")).Is(200)["type"]);
        Assert.Empty((await tenant.Client.GetAsync("/inbox")).Ids);
    }

    [Fact]
    public async Task A_test_that_nobody_attempts_ends_after_20_seconds()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();

        (await tenant.Client.PostAsync($"/subscriptions/{id}/test")).IsProblem(504, "test_not_attempted");
    }

    private async Task<Triggers.Core.Tables.SigningSecret[]> SecretsAsync(string id)
    {
        var protector = api.Host.Services.GetRequiredService<Triggers.ServiceDefaults.SecretProtector>();
        await using var db = api.Db();
        return [.. db.Subscriptions.Single(s => s.Id == Rows.Uuid(id)).Secrets.ConvertAll(s =>
            new Triggers.Core.Tables.SigningSecret { Secret = protector.Unprotect(s.Secret), ExpiresAt = s.ExpiresAt })];
    }

    [Fact]
    public async Task A_test_of_a_subscription_that_is_deleted_meanwhile_ends_at_once()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();
        // Nobody delivers it here, so that it waits.
        var test = tenant.Client.PostAsync($"/subscriptions/{id}/test");
        await Wait.UntilAsync("it is made", async () => await api.Rows.ScalarAsync<long>(
            "SELECT count(*) FROM events WHERE tenant_id = @tenant AND type = 'triggers.test'", ("tenant", tenant.Key)) == 1);

        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).Is(204);

        var answer = await test.WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);
        answer.IsProblem(409, "subscription_gone");
    }

    [Fact]
    public async Task More_tests_of_a_subscription_than_may_be_under_way_are_told_so()
    {
        await using var host = new ApiHost(api.ConnectionString, ("Limits:TestsPerSubscription", "2"));
        var tenant = await api.NewTenantAsync();
        using var client = host.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();
        var (id, other) = (await client.SubscribeAsync(), await client.SubscribeAsync());

        // Nobody delivers them here, so that they wait.
        var tests = Enumerable.Range(0, 6).Select(_ => client.PostAsync($"/subscriptions/{id}/test")).ToList();
        for (var i = 0; i < 4; i++)
        {
            var refused = await Task.WhenAny(tests);
            tests.Remove(refused);
            (await refused).IsProblem(429, "too_many_concurrent");
        }
        var another = client.PostAsync($"/subscriptions/{other}/test");
        await Wait.UntilAsync("the other's is made", async () => await api.Rows.ScalarAsync<long>(
            "SELECT count(*) FROM events WHERE tenant_id = @tenant AND type = 'triggers.test'", ("tenant", tenant.Key)) == 3);

        Assert.All(tests, t => Assert.False(t.IsCompleted));
        Assert.False(another.IsCompleted);
    }
}
