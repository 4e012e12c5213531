using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Triggers.Api.EventTypes;
using Triggers.Api.Inbox;
using Triggers.Api.Subscriptions;
using Triggers.Api.UsagePlans;
using Triggers.Tests.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Configuration;

public sealed class ConfigurationTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    private const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYs=";
    private const string OtherSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

    private const string Document =
        """
        # What the shop wants.
        tenant:
          unknownEventTypes: refuse
        eventTypes:
          order.created:
            mode: enforce
            compatibility: backward
            group: orders
            schema: {type: object, properties: {total: {type: number}}, required: [total]}
            example: {total: 12.5}
          order.deleted: {}
        subscriptions:
          warehouse:
            url: https://receiver.example/hooks
            eventTypes: [order.*]
            filter: {data: {total: [{numeric: [">=", 100]}]}}
            headers: {x-team: {secretRef: team}, x-plain: visible}
            secret: {secretRef: signing}
            authentication: {type: basic, username: us, password: {secretRef: password}}
            clientCertificate: {pem: {secretRef: certificate}}
            retry: {schedule: ["00:00:10", "01:00:00"], timeout: "00:00:05"}
            rateLimit: {requests: 10}
            ordering: per_key
          mail: {url: "https://mail.example/", eventTypes: ["*"], description: 'no', enabled: false}
        inboxes:
          billing: {eventTypes: [order.created], filter: {subject: [a]}, lease: 60}
        """;

    private static readonly string s_certificate = Certificates.Client("shop").Pem;

    [Fact]
    public async Task What_is_got_changes_nothing_when_it_is_applied_and_has_no_secret_in_it()
    {
        var tenant = await api.NewTenantAsync();
        var applied = await ApplyAsync(tenant, Document + Secrets());
        Assert.Equal(
            [
                "tenant:", "eventTypes:order.created", "eventTypes:order.deleted", "subscriptions:warehouse", "subscriptions:mail",
                "inboxes:billing",
            ],
            ChangesOf(applied, "update", "create"));
        var nameless = await tenant.Client.SubscribeAsync();
        (await tenant.Client.PostAsync("/hooks", """{"targetUrl":"https://hook.example/","eventTypes":["*"]}""")).Is(201);

        var json = (await tenant.Client.GetAsync("/configuration")).Is(200);
        var yaml = (await GetYamlAsync(tenant)).Is(200);

        Assert.Equal("application/yaml", yaml.ContentType);
        Assert.Equal(
            ["mail", nameless, "warehouse"], json.Json["subscriptions"]!.AsObject().Select(s => s.Key).Order(StringComparer.Ordinal));
        Assert.Equal(
            """{"eventTypes":["order.created"],"filter":{"subject":["a"]},"lease":60}""", json.Json["inboxes"]!["billing"]!.ToJsonString());
        Assert.Equal("""{"secretRef":"warehouse.authentication.password"}""",
            json.Json["subscriptions"]!["warehouse"]!["authentication"]!["password"]!.ToJsonString());
        foreach (var secret in new[] { "whsec_", "PRIVATE KEY", "pass-word", "team-value", "visible" })
        {
            Assert.DoesNotContain(secret, json.Text);
            Assert.DoesNotContain(secret, yaml.Text);
        }
        foreach (var (text, type) in new[] { (json.Text, "application/json"), (yaml.Text, "application/yaml") })
        {
            Assert.Empty((await SendAsync(tenant, "plan?prune=true", text, type)).Is(200).Json["changes"]!.AsArray());
            Assert.Empty((await SendAsync(tenant, "apply?prune=true", text, type)).Is(200).Json["changes"]!.AsArray());
        }
        Assert.Equal(json.Text, (await tenant.Client.GetAsync("/configuration")).Text);
    }

    [Fact]
    public async Task A_plan_says_what_applying_does_and_changes_nothing()
    {
        var tenant = await api.NewTenantAsync();
        await ApplyAsync(tenant, Document + Secrets());
        var before = (await tenant.Client.GetAsync("/configuration")).Is(200).Text;
        const string Changed =
            """
            subscriptions:
              warehouse:
                url: https://other.example/
                eventTypes: [order.*]
                headers: {X-Team: new, x-more: "1"}
                retry: {timeout: "00:00:05"}
              fresh: {url: "https://fresh.example/", eventTypes: ["*"]}
            """;

        var plan = (await SendAsync(tenant, "plan", Changed)).Is(200);

        Assert.Equal(before, (await tenant.Client.GetAsync("/configuration")).Text);
        var fields = plan.Json["changes"]![0]!["fields"]!.AsArray().ToDictionary(f => f!["name"]!.GetValue<string>(), f => f!);
        Assert.Equal(
            ["authentication", "clientCertificate", "filter", "headers", "ordering", "rateLimit", "retry", "url"],
            fields.Keys.Order(StringComparer.Ordinal));
        Assert.Equal("https://other.example/", fields["url"]["after"]!.GetValue<string>());
        Assert.Equal("""{"X-Team":"***","x-more":"***"}""", fields["headers"]["after"]!.ToJsonString());
        Assert.Equal("none", fields["ordering"]["after"]!.GetValue<string>());
        Assert.Null(fields["authentication"]["after"]);
        Assert.DoesNotContain("whsec_", plan.Text);

        (await SendAsync(tenant, "apply?planId=another", Changed)).IsProblem(409, "plan_outdated");
        var applied = (await SendAsync(tenant, $"apply?planId={plan["planId"]}", Changed)).Is(200);
        Assert.StartsWith("whsec_", applied.Json["changes"]![1]!["secret"]!.GetValue<string>());
        var warehouse = (await tenant.Client.GetAsync($"/subscriptions/{await IdOfAsync(tenant, "warehouse")}")).Is(200).Json;
        Assert.Equal("""{"X-Team":"new","x-more":"1"}""", warehouse["headers"]!.ToJsonString());
        Assert.Equal("00:00:05", warehouse["retry"]!["timeout"]!.GetValue<string>());
        Assert.Null(warehouse["retry"]!["schedule"]);
        Assert.Null(warehouse["authentication"]);
        (await SendAsync(tenant, $"apply?planId={plan["planId"]}", Changed)).IsProblem(409, "plan_outdated");
        Assert.Empty((await SendAsync(tenant, "apply", Changed)).Is(200).Json["changes"]!.AsArray());
    }

    [Fact]
    public async Task What_a_document_does_not_name_stays_unless_it_is_pruned()
    {
        var tenant = await api.NewTenantAsync();
        await ApplyAsync(tenant, Document + Secrets());
        var nameless = await tenant.Client.SubscribeAsync();
        const string Rest = "subscriptions: {mail: {url: 'https://mail.example/', eventTypes: ['*'], description: 'no'}}\ninboxes: {}";

        Assert.Empty(ChangesOf((await SendAsync(tenant, "apply", Rest)).Is(200), "create", "update", "delete"));
        var pruned = (await SendAsync(tenant, "apply?prune=true", Rest)).Is(200);

        Assert.Equal(["subscriptions:warehouse", "inboxes:billing"], ChangesOf(pruned, "delete"));
        var left = (await tenant.Client.GetAsync("/configuration")).Is(200).Json;
        Assert.Equal(["mail", nameless], left["subscriptions"]!.AsObject().Select(s => s.Key).Order(StringComparer.Ordinal));
        Assert.Empty(left["inboxes"]!.AsObject());
        Assert.Equal(2, left["eventTypes"]!.AsObject().Count);
    }

    [Fact]
    public async Task All_of_it_is_applied_or_nothing()
    {
        var tenant = await api.NewTenantAsync();
        await ApplyAsync(tenant, Document + Secrets());
        var before = (await tenant.Client.GetAsync("/configuration")).Is(200).Text;
        const string Incompatible =
            """
            eventTypes:
              order.shipped: {}
              order.created:
                {mode: enforce, compatibility: backward, schema: {type: object, properties: {total: {type: string}}, required: [total]}}
            subscriptions: {fresh: {url: "https://fresh.example/", eventTypes: ["*"]}}
            """;

        foreach (var what in new[] { "plan", "apply" })
        {
            var refused = (await SendAsync(tenant, what, Incompatible)).IsProblem(409, "incompatible_schema");
            Assert.StartsWith("/eventTypes/order.created/schema", refused.Pointers[0]);
        }

        Assert.Equal(before, (await tenant.Client.GetAsync("/configuration")).Text);
        // What goes makes room, and a name, for what comes.
        const string Renamed = "inboxes: {accounts: {eventTypes: ['*']}}";
        var renamed = (await SendAsync(tenant, "apply?prune=true", Renamed)).Is(200);
        Assert.Equal(["inboxes:billing", "inboxes:accounts"], ChangesOf(renamed, "delete", "create"));
    }

    [Theory]
    [InlineData("subscriptions: {a: {url: 'ftp://a', eventTypes: ['*'], retry: {maxAttempts: 0}}, b: {eventTypes: [a b]}}",
        "/subscriptions/a/url", "/subscriptions/a/retry/maxAttempts", "/subscriptions/b/url", "/subscriptions/b/eventTypes/0")]
    [InlineData("subscriptions: {a: {url: 'https://a.example', eventTypes: ['*'], secret: {secretRef: no}, headers: {x: {secretRef: y}}}}",
        "/subscriptions/a/secret", "/subscriptions/a/headers/x")]
    [InlineData("subscriptions: {a b: {url: 'https://a.example', eventTypes: ['*']}}", "/subscriptions/a b/name")]
    [InlineData("subscriptions: {a: {name: b, url: 'https://a.example', eventTypes: ['*']}}", "/subscriptions/a/name")]
    [InlineData("subscriptions: {sub_01jd0000000000000000000000: {url: 'https://a.example', eventTypes: ['*']}}",
        "/subscriptions/sub_01jd0000000000000000000000")]
    [InlineData("subscriptions: {sub_01jd0000000000000000000000: {name: a, url: 'https://a.example', eventTypes: ['*']}}",
        "/subscriptions/sub_01jd0000000000000000000000")]
    [InlineData("subscriptions: {a: {url: 'https://a.example', eventTypes: ['*'], expiresAt: 2020-01-01T00:00:00Z}}",
        "/subscriptions/a/expiresAt")]
    [InlineData("subscriptions: {a: 1}\ninboxes: []", "/subscriptions/a", "/inboxes")]
    [InlineData("eventTypes: {a: {mode: enforce}}", "/eventTypes/a/mode")]
    [InlineData("eventTypes: {triggers.a: {}, b: {schema: {type: no such type}}, c: {schema: 1, color: blue}}",
        "/eventTypes/triggers.a/name", "/eventTypes/b/schema/type", "/eventTypes/c/schema", "/eventTypes/c/color")]
    [InlineData("inboxes: {a: {eventTypes: ['*'], lease: 0}}\ntenant: {unknownEventTypes: maybe}\nmore: 1\nsecrets: {a: 1}",
        "/tenant/unknownEventTypes", "/inboxes/a/lease", "/secrets/a", "/more")]
    public async Task Mistakes_are_named_with_their_places_in_the_document(string document, params string[] pointers)
    {
        var tenant = await api.NewTenantAsync();

        var refused = (await SendAsync(tenant, "plan", document)).IsProblem(400, "invalid_request");

        Assert.Equal(pointers, refused.Pointers);
        Assert.Equal(pointers, (await SendAsync(tenant, "apply", document)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_secret_that_is_given_anew_signs_beside_the_one_before_and_the_rest_of_the_secrets_stay()
    {
        var tenant = await api.NewTenantAsync();
        await ApplyAsync(tenant, Document + Secrets());

        var again = ChangesOf((await SendAsync(tenant, "apply", Document + Secrets())).Is(200), "update", "create");
        var changed = (await SendAsync(tenant, "apply", $"{Document}\nsecrets: {{signing: {OtherSecret}, password: other}}")).Is(200);

        Assert.Empty(again);
        var fields = changed.Json["changes"]![0]!["fields"]!.AsArray();
        Assert.Equal(["authentication", "secret"], fields.Select(f => f!["name"]!.GetValue<string>()).Order());
        Assert.DoesNotContain("whsec_", changed.Text);
        Assert.DoesNotContain("\"other\"", changed.Text);
        await using var count = api.DataSource.CreateCommand(
            $"SELECT jsonb_array_length(secrets) FROM subscriptions WHERE name = 'warehouse' AND tenant_id = '{tenant.Key}'");
        Assert.Equal(2, await count.ExecuteScalarAsync(TestContext.Current.CancellationToken));
        Assert.Equal(["v1"], await SignaturesAsync(tenant));

        var signed = Document.Replace("ordering: per_key", "signatures: [v1, v1a]");
        await ApplyAsync(tenant, signed);
        Assert.Equal(["v1", "v1a"], await SignaturesAsync(tenant));
        await ApplyAsync(tenant, Document);
        Assert.Equal(["v1", "v1a"], await SignaturesAsync(tenant));
        Assert.Equal(["/subscriptions/warehouse/signatures"], (await SendAsync(
            tenant, "plan", signed.Replace("[v1, v1a]", "[v1]"))).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_subscription_without_a_name_is_taken_over_by_its_id()
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();
        await ApplyAsync(tenant, $"subscriptions: {{{id}: {{name: mine, url: 'https://new.example/', eventTypes: ['*']}}}}");

        Assert.Equal(id, await IdOfAsync(tenant, "mine"));
        Assert.Equal("https://new.example/", (await tenant.Client.GetAsync($"/subscriptions/{id}"))["url"]);
        Assert.Equal(["/name"], (await tenant.Client.PostAsync(
            "/subscriptions", """{"name":"mine","url":"https://a.example","eventTypes":["*"]}""")).IsProblem(409, "name_taken").Pointers);
        var other = await tenant.Client.SubscribeAsync();
        (await tenant.Client.PatchAsync($"/subscriptions/{other}", """{"name":"mine"}""")).IsProblem(409, "name_taken");
        (await tenant.Client.DeleteAsync($"/subscriptions/{id}")).Is(204);
        (await tenant.Client.PatchAsync($"/subscriptions/{other}", """{"name":"mine"}""")).Is(200);
    }

    [Theory]
    [InlineData("")]
    [InlineData("?prune=true")]
    public async Task The_document_that_took_over_a_subscription_by_its_id_changes_nothing_when_it_is_applied_once_more(string prune)
    {
        var tenant = await api.NewTenantAsync();
        var id = await tenant.Client.SubscribeAsync();
        var document =
            $"subscriptions: {{{id}: {{name: mine, url: 'https://new.example/', eventTypes: ['*'], headers: {{x: {{secretRef: x}}}}}}}}";
        (await SendAsync(tenant, $"apply{prune}", document + "\nsecrets: {x: a secret}")).Is(200);
        Task<string> RowAsync() => api.Rows.ScalarAsync<string>(
            "SELECT row_to_json(s)::text FROM subscriptions s WHERE id = @id", ("id", Rows.Uuid(id)));
        var taken = await RowAsync();

        foreach (var what in new[] { "plan", "apply" })
            Assert.Empty((await SendAsync(tenant, what + prune, document)).Is(200).Json["changes"]!.AsArray());

        Assert.Equal(taken, await RowAsync());
        Assert.Equal([id], (await tenant.Client.GetAsync("/subscriptions")).Is(200).Ids);
        // It can be changed by its id still, and keeps its name, which means the same.
        const string Changed = "{url: 'https://newer.example/', eventTypes: ['*']}";
        var changed = (await SendAsync(tenant, $"apply{prune}", $"subscriptions: {{{id}: {Changed}}}")).Is(200);
        Assert.Equal([$"subscriptions:{id}"], ChangesOf(changed, "update", "create", "delete"));
        Assert.Equal(id, await IdOfAsync(tenant, "mine"));
        Assert.Equal([$"/subscriptions/{id}"], (await SendAsync(
            tenant, $"apply{prune}", $"subscriptions: {{mine: {Changed}, {id}: {Changed}}}")).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task What_the_service_has_disabled_stays_disabled_unless_the_document_says_otherwise()
    {
        var tenant = await api.NewTenantAsync();
        const string Silent = "subscriptions: {a: {url: 'https://a.example/', eventTypes: ['*']}}";
        await ApplyAsync(tenant, Silent);
        await using var disable = api.DataSource.CreateCommand(
            $"UPDATE subscriptions SET enabled = false, disabled_reason = 'gone' WHERE tenant_id = '{tenant.Key}'");
        await disable.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

        Assert.Null((await tenant.Client.GetAsync("/configuration")).Json["subscriptions"]!["a"]!["enabled"]);
        Assert.Empty((await ApplyAsync(tenant, Silent)).Json["changes"]!.AsArray());
        await ApplyAsync(tenant, Silent.Replace("url:", "enabled: true, url:"));
        Assert.True((await tenant.Client.GetAsync($"/subscriptions/{await IdOfAsync(tenant, "a")}")).Json["enabled"]!.GetValue<bool>());
    }

    [Fact]
    public async Task A_key_sees_and_changes_what_its_scopes_let_it()
    {
        var tenant = await api.NewTenantAsync();
        using var subscriber = api.Host.Client(await api.NewKeyAsync(tenant.Id, "subscriptions:read", "subscriptions:write"));
        using var reader = api.Host.Client(
            await api.NewKeyAsync(tenant.Id, "subscriptions:read", "subscriptions:write", "event_types:read", "tenant:admin"));

        Assert.Equal(
            ["subscriptions", "inboxes"], (await subscriber.GetAsync("/configuration")).Is(200).Json.AsObject().Select(s => s.Key));
        foreach (var section in new[] { "eventTypes", "tenant", "usagePlans" })
        {
            var refused = await subscriber.PostAsync("/configuration/plan", $$$"""{"{{{section}}}":{}}""");
            Assert.Equal([$"/{section}"], refused.IsProblem(403, "forbidden").Pointers);
        }
        using var looker = api.Host.Client(
            await api.NewKeyAsync(tenant.Id, "subscriptions:read", "subscriptions:write", "event_types:read"));
        (await looker.PostAsync("/configuration/plan", """{"eventTypes":{}}""")).Is(200);
        Assert.Contains("event_types:write", (await looker.PostAsync("/configuration/plan", """{"eventTypes":{"a":{}}}"""))
            .IsProblem(403, "forbidden")["detail"]);
        (await reader.PatchAsync($"/tenants/{tenant.Id}", """{"unknownEventTypes":"refuse"}""")).Is(200);
        (await reader.PatchAsync($"/tenants/{tenant.Id}", """{"name":"mine"}""")).IsProblem(403, "forbidden");
    }

    [Fact]
    public async Task The_platforms_admin_keeps_usage_plans_in_it()
    {
        using var admin = api.Host.Client();
        (await admin.PostAsync("/configuration/apply",
            """
            {"usagePlans":{
                "starter":{"requestsPerSecond":50,"burst":100,"eventsPerDay":1000},"idle":{"requestsPerSecond":1,"burst":1}}}
            """)).Is(200);

        var got = (await admin.GetAsync("/configuration")).Is(200).Json["usagePlans"]!["starter"]!;
        Assert.Equal("""{"requestsPerSecond":50,"burst":100,"eventsPerDay":1000}""", got.ToJsonString());
        var changed = (await admin.PostAsync("/configuration/apply?prune=true",
            """{"usagePlans":{"starter":{"requestsPerSecond":60,"burst":100}}}""")).Is(200);
        Assert.Equal(["usagePlans:idle", "usagePlans:starter"], ChangesOf(changed, "delete", "update"));
        Assert.Equal("""{"requestsPerSecond":60,"burst":100}""",
            (await admin.GetAsync("/configuration")).Json["usagePlans"]!["starter"]!.ToJsonString());
    }

    [Fact]
    public async Task Two_who_apply_at_once_come_one_after_the_other()
    {
        var tenant = await api.NewTenantAsync();
        var answers = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => SendAsync(
            tenant, "apply", "subscriptions: {a: {url: 'https://a.example/', eventTypes: ['*']}}\neventTypes: {b: {schema: true}}")));

        Assert.All(answers, a => a.Is(200));
        Assert.Single(answers, a => a.Json["changes"]!.AsArray().Count == 2);
        Assert.Equal(3, answers.Count(a => a.Json["changes"]!.AsArray().Count == 0));
    }

    /// <summary>What one can say of a thing and not see would be changed by every document that came from here.</summary>
    [Theory]
    [InlineData(typeof(SubscriptionBody), typeof(SubscriptionView), "Secret")]
    [InlineData(typeof(EventTypeBody), typeof(EventTypeDetails))]
    [InlineData(typeof(InboxBody), typeof(InboxView))]
    [InlineData(typeof(UsagePlanBody), typeof(UsagePlanView))]
    public void What_can_be_said_of_a_thing_is_shown_of_it(Type body, Type view, params string[] butFor) =>
        Assert.Equal(butFor, body.GetProperties().Select(p => p.Name).Except(view.GetProperties().Select(p => p.Name)));

    private static string Secrets()
    {
        var secrets = new JsonObject
        {
            ["team"] = "team-value",
            ["signing"] = Secret,
            ["password"] = "pass-word",
            ["certificate"] = s_certificate,
        };
        return $"\nsecrets: {secrets.ToJsonString()}";
    }

    private static Task<Answer> SendAsync(TestTenant tenant, string what, string document, string type = "application/yaml")
    {
        var request = new HttpRequestMessage(HttpMethod.Post, $"/configuration/{what}")
        {
            Content = new ByteArrayContent(Encoding.UTF8.GetBytes(document)) { Headers = { ContentType = new MediaTypeHeaderValue(type) } },
        };
        return tenant.Client.SendAsync(request);
    }

    private static async Task<Answer> ApplyAsync(TestTenant tenant, string document) =>
        (await SendAsync(tenant, "apply", document)).Is(200);

    private static Task<Answer> GetYamlAsync(TestTenant tenant)
    {
        var request = new HttpRequestMessage(HttpMethod.Get, "/configuration");
        request.Headers.Accept.ParseAdd("application/json;q=0.5, application/yaml");
        return tenant.Client.SendAsync(request);
    }

    private static string[] ChangesOf(Answer answer, params string[] actions) =>
    [
        .. answer.Json["changes"]!.AsArray().Where(c => actions.Contains(c!["action"]!.GetValue<string>()))
            .Select(c => $"{c!["section"]}:{c["name"]}"),
    ];

    private static async Task<string> IdOfAsync(TestTenant tenant, string name) =>
        (await tenant.Client.GetAsync("/subscriptions")).Is(200).Json["items"]!.AsArray()
            .Single(s => s!["name"]?.GetValue<string>() == name)!["id"]!.GetValue<string>();

    private static async Task<string[]> SignaturesAsync(TestTenant tenant) =>
        [.. (await tenant.Client.GetAsync($"/subscriptions/{await IdOfAsync(tenant, "warehouse")}")).Json["signatures"]!.AsArray()
            .Select(s => s!.GetValue<string>())];
}
