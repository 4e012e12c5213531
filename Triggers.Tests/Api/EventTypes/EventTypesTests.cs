using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.EventTypes;

/// <summary>Event types: what they look like, how they change, and what becomes of events that don't match.</summary>
public abstract class EventTypesTests(ApiFixture api)
{
    private const string Order = """{"type":"object","properties":{"orderId":{"type":"integer"}},"required":["orderId"]}""";

    [Fact]
    public async Task A_type_is_made_shown_listed_changed_and_deleted()
    {
        var tenant = await api.NewTenantAsync();

        var made = (await tenant.Client.PostAsync("/event-types",
            $$$"""{"name":"order.created","description":"placed","group":"orders","mode":"warn","compatibility":"full","schema":{{{Order}}},"example":{"orderId":1}}"""))
                .Is(201);
        Assert.StartsWith("typ_", made.Id);
        Assert.Equal("/event-types/order.created", made.Headers["Location"]);
        Assert.Equal(made.Text, (await tenant.Client.GetAsync("/event-types/order.created")).Is(200).Text);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(Order), made.Json["schema"]));
        Assert.Equal(("1", "warn", "full", "orders"), (made["version"], made["mode"], made["compatibility"], made["group"]));
        Assert.Equal(["/name"], (await tenant.Client.PostAsync("/event-types", """{"name":"order.created"}"""))
            .IsProblem(409, "name_taken").Pointers);

        var second = (await tenant.Client.PostAsync("/event-types", """{"name":"user.created"}""")).Is(201);
        Assert.Equal(("0", "off", "none"), (second["version"], second["mode"], second["compatibility"]));
        Assert.Equal([second.Id, made.Id], (await tenant.Client.GetAsync("/event-types")).Is(200).Ids);
        Assert.Equal([made.Id], (await tenant.Client.GetAsync("/event-types?group=orders")).Is(200).Ids);
        var page = (await tenant.Client.GetAsync("/event-types?limit=1&order=asc")).Is(200);
        Assert.Equal([second.Id], (await tenant.Client.GetAsync($"/event-types?limit=1&order=asc&cursor={page.NextCursor}")).Is(200).Ids);

        var changed = (await tenant.Client.PatchAsync(
            "/event-types/order.created", """{"mode":"off","group":null,"deprecation":"Use order.placed."}""")).Is(200);
        Assert.Equal(("off", null, "Use order.placed.", "placed"),
            (changed["mode"], changed["group"], changed["deprecation"], changed["description"]));
        Assert.Equal(changed.Text, (await tenant.Client.GetAsync("/event-types/order.created")).Is(200).Text);

        (await tenant.Client.DeleteAsync("/event-types/order.created")).Is(204);
        (await tenant.Client.GetAsync("/event-types/order.created")).IsProblem(404, "not_found");
        (await tenant.Client.GetAsync("/event-types/order.created/versions")).IsProblem(404, "not_found");
        (await tenant.Client.PatchAsync("/event-types/order.created", "{}")).IsProblem(404, "not_found");
        (await tenant.Client.DeleteAsync("/event-types/order.created")).IsProblem(404, "not_found");
    }

    [Theory]
    [InlineData("""{"name":"triggers.mine"}""", "/name")]
    [InlineData("""{"name":"a b"}""", "/name")]
    [InlineData("""{"name":"a","mode":"strict"}""", "/mode")]
    [InlineData("""{"name":"a","mode":"enforce"}""", "/mode")]
    [InlineData("""{"name":"a","compatibility":"some"}""", "/compatibility")]
    [InlineData("""{"name":"a","schema":{"properties":{"b":{"type":"text"}}}}""", "/schema/properties/b/type")]
    [InlineData("""{"name":"a","schema":{"$ref":"https://example.com/schema.json"}}""", "/schema/$ref")]
    [InlineData("""{"name":"a","schema":{"properties":{"b":{"type":"integer"}}},"example":{"b":"x"}}""", "/example/b")]
    public async Task A_mistake_is_named_with_its_place(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal([place], (await tenant.Client.PostAsync("/event-types", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task A_version_is_held_to_the_compatibility_of_its_type_and_kept()
    {
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "enforce", Order, "backward");

        var refused = (await ChangeAsync(tenant, """{"type":"object","properties":{"orderId":{"type":"string"}},"required":["orderId"]}"""))
            .IsProblem(409, "incompatible_schema");
        Assert.Equal(["/schema/properties/orderId/type"], refused.Pointers);
        (await ChangeAsync(tenant, """{"not":{"const":1}}""")).IsProblem(409, "incompatible_schema");
        Assert.Equal("1", (await tenant.Client.GetAsync("/event-types/order.created"))["version"]);

        const string Wider = """{"type":"object","properties":{"orderId":{"type":"number"},"note":{"type":"string"}},"required":["orderId"]}""";
        Assert.Equal("2", (await ChangeAsync(tenant, Wider)).Is(200)["version"]);
        Assert.Equal("2", (await ChangeAsync(tenant, Wider.Replace(":", " : "))).Is(200)["version"]);
        (await tenant.Client.PatchAsync("/event-types/order.created", $$"""{"schema":{{Order}},"compatibility":"forward"}""")).Is(200);
        (await ChangeAsync(tenant, Wider)).IsProblem(409, "incompatible_schema");
        (await tenant.Client.PatchAsync("/event-types/order.created", """{"schema":false,"compatibility":"none"}""")).Is(200);

        var versions = (await tenant.Client.GetAsync("/event-types/order.created/versions")).Is(200).Json["items"]!.AsArray();
        Assert.Equal([4, 3, 2, 1], versions.Select(v => v!["version"]!.GetValue<int>()));
        var one = (await tenant.Client.GetAsync("/event-types/order.created/versions/1")).Is(200);
        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(Order), one.Json["schema"]));
        (await tenant.Client.GetAsync("/event-types/order.created/versions/5")).IsProblem(404, "not_found");
        (await tenant.Client.GetAsync("/event-types/order.created/versions/x")).IsProblem(404, "not_found");
    }

    [Fact]
    public async Task What_does_not_match_is_refused_with_a_pointer_for_each_violation_and_never_in_the_log()
    {
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "enforce", """
            {"properties":{"orderId":{"type":"integer"},"lines":{"items":{"required":["sku"]}}},"required":["orderId"]}
            """);

        var refused = (await tenant.Client.PostAsync("/events",
            """{"type":"order.created","data":{"orderId":"x","lines":[{"sku":1},{}]}}""")).IsProblem(422, "schema_violation");
        Assert.Equal(["/data/orderId", "/data/lines/1"], refused.Pointers);
        (await tenant.Client.PostAsync("/events", """{"type":"order.created","data":{}}""")).IsProblem(422, "schema_violation");
        var many = (await tenant.Client.PostAsync("/events",
            $$$"""{"type":"order.created","data":{"orderId":1,"lines":[{{{string.Join(',', Enumerable.Repeat("{}", 500))}}}]}}"""))
                .IsProblem(422, "schema_violation");
        Assert.Equal(100, many.Pointers.Length);

        var accepted = await tenant.Client.PublishAsync(data: """{"orderId":1,"lines":[{"sku":1}]}""");
        var other = await tenant.Client.PublishAsync("order.paid", "{}");
        await api.CaughtUpAsync();
        Assert.Equal([accepted, other], (await tenant.Client.GetAsync("/events?order=asc")).Is(200).Ids);
    }

    [Fact]
    public async Task A_batch_refuses_what_does_not_match_alone()
    {
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "enforce", Order);

        var answer = (await tenant.Client.PostAsync("/events/batch", """
            {"events":[{"type":"order.created","data":{"orderId":1}},{"type":"order.created","data":{"orderId":"x"}},
            {"type":"other","data":1},{"type":"order.created","data":7}]}
            """)).Is(202);

        var items = answer.Json["items"]!.AsArray();
        Assert.Equal(["accepted", "refused", "accepted", "refused"], items.Select(i => i!["status"]!.GetValue<string>()));
        Assert.Equal("schema_violation", items[1]!["code"]!.GetValue<string>());
        Assert.Equal("/events/1/data/orderId", items[1]!["errors"]![0]!["pointer"]!.GetValue<string>());
        Assert.Equal("/events/3/data", items[3]!["errors"]![0]!["pointer"]!.GetValue<string>());
        await api.CaughtUpAsync();
        Assert.Equal(2, (await tenant.Client.GetAsync("/events")).Ids.Length);
        (await tenant.Client.PostAsync("/events/batch", """{"events":[{"type":"order.created","data":1}]}"""))
            .IsProblem(400, "batch_refused");
    }

    [Fact]
    public async Task A_warning_is_in_the_answer_in_the_trace_and_counted_and_the_event_in_the_log()
    {
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "warn", Order);
        var traced = new List<ActivityEvent>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Microsoft.AspNetCore",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllData,
            ActivityStopped = activity =>
            {
                lock (traced)
                    traced.AddRange(activity.Events.Where(e => e.Name == "triggers.schema_violation"));
            },
        };
        ActivitySource.AddActivityListener(listener);
        var counted = 0L;
        var meters = api.Host.Services.GetRequiredService<IMeterFactory>();
        using var counter = new MeterListener
        {
            InstrumentPublished = (instrument, l) =>
            {
                if (instrument.Meter.Scope == meters && instrument.Name == "triggers.events.schema_violations")
                    l.EnableMeasurementEvents(instrument);
            },
        };
        counter.SetMeasurementEventCallback<long>((_, value, tags, _) =>
            Interlocked.Add(ref counted, tags[0] is { Key: "mode", Value: "warn" } ? value : 1_000));
        counter.Start();

        var accepted = (await tenant.Client.PostAsync("/events", """{"type":"order.created","data":{"orderId":"secret"}}""")).Is(202);
        Assert.Equal("/data/orderId", accepted.Json["warnings"]![0]!["pointer"]!.GetValue<string>());
        Assert.Null((await tenant.Client.PostAsync("/events", """{"type":"order.created","data":{"orderId":1}}""")).Is(202).Json["warnings"]);
        var batch = (await tenant.Client.PostAsync("/events/batch",
            """{"events":[{"type":"other","data":1},{"type":"order.created","data":2}]}""")).Is(202);
        Assert.Equal("/events/1/data", batch.Json["items"]![1]!["warnings"]![0]!["pointer"]!.GetValue<string>());

        Assert.Equal(2, Interlocked.Read(ref counted));
        await Wait.UntilAsync("the trace shows it", () =>
        {
            lock (traced)
            {
                return traced.Any(e => e.Tags.Any(t => t.Key == "triggers.schema.pointers" && t.Value is string[] and ["/data/orderId"]))
                    && !traced.SelectMany(e => e.Tags).Any(t => t.Value?.ToString()?.Contains("secret") is true);
            }
        });
        await api.CaughtUpAsync();
        Assert.Equal(4, (await tenant.Client.GetAsync("/events")).Ids.Length);
    }

    [Fact]
    public async Task A_deprecated_type_is_taken_with_a_warning()
    {
        var tenant = await api.NewTenantAsync();
        (await tenant.Client.PostAsync("/event-types", """{"name":"order.created","deprecation":"Use order.placed."}""")).Is(201);

        var warning = (await tenant.Client.PostAsync("/events", """{"type":"order.created","data":1}""")).Is(202).Json["warnings"]![0]!;

        Assert.Equal("/type", warning["pointer"]!.GetValue<string>());
        Assert.Contains("Use order.placed.", warning["detail"]!.GetValue<string>());
    }

    [Fact]
    public async Task A_version_is_held_to_what_the_one_before_refers_to()
    {
        const string Schema =
            """
            {"type":"object","allOf":[{"$ref":"#/$defs/base"}],"properties":{"n":{"type":"integer"}},
             "$defs":{"base":{"properties":{"id":{"type":"string"}}}}}
            """;
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "enforce", Schema, "full");

        Assert.Contains("/schema/$defs/base/properties/id/type",
            (await ChangeAsync(tenant, Schema.Replace("string", "integer"))).IsProblem(409, "incompatible_schema").Pointers);
        (await ChangeAsync(tenant, Schema.Replace("\"base\":{", "\"base\":{\"title\":\"What all have\","))).Is(200);
    }

    [Fact]
    public async Task Types_that_are_not_described_are_refused_where_the_tenant_has_it_so()
    {
        var tenant = await api.NewTenantAsync();
        using var admin = api.Host.Client();
        (await tenant.Client.PostAsync("/event-types", """{"name":"order.created"}""")).Is(201);
        Assert.Equal("allow", (await tenant.Client.GetAsync($"/tenants/{tenant.Id}"))["unknownEventTypes"]);
        await tenant.Client.PublishAsync("other");

        (await admin.PatchAsync($"/tenants/{tenant.Id}", """{"unknownEventTypes":"refuse"}""")).Is(200);
        Assert.Equal(["/type"], (await tenant.Client.PostAsync("/events", """{"type":"other","data":1}"""))
            .IsProblem(422, "unknown_event_type").Pointers);
        await tenant.Client.PublishAsync();
        var batch = (await tenant.Client.PostAsync(
            "/events/batch", """{"events":[{"type":"order.created","data":1},{"type":"other","data":2}]}""")).Is(202);
        Assert.Equal("unknown_event_type", batch.Json["items"]![1]!["code"]!.GetValue<string>());
        (await tenant.Client.PostAsync("/events", """{"type":"triggers.mine","data":1}""")).IsProblem(400, "reserved_event_type");

        (await admin.PatchAsync($"/tenants/{tenant.Id}", """{"unknownEventTypes":"allow"}""")).Is(200);
        await tenant.Client.PublishAsync("other");
        var strict = (await admin.PostAsync("/tenants", """{"name":"strict","unknownEventTypes":"refuse"}""")).Is(201);
        using var client = api.Host.Client(await api.NewKeyAsync(strict.Id));
        (await client.PostAsync("/events", """{"type":"other","data":1}""")).IsProblem(422, "unknown_event_type");
    }

    [Fact]
    public async Task Another_process_holds_to_what_was_changed_within_seconds()
    {
        var tenant = await api.NewTenantAsync();
        await using var other = new ApiHost(api.ConnectionString, await api.OtherSettingsAsync());
        using var client = other.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();
        await client.PublishAsync(data: "{}");

        await MakeAsync(tenant, "enforce", Order);
        await Wait.UntilAsync("what does not match is refused there", async () =>
            (await client.PostAsync("/events", """{"type":"order.created","data":{}}""")).Status == 422);
        (await ChangeAsync(tenant, """{"type":"object"}""")).Is(200);
        await Wait.UntilAsync("it is accepted there", async () =>
            (await client.PostAsync("/events", """{"type":"order.created","data":{}}""")).Status == 202);
        (await tenant.Client.DeleteAsync("/event-types/order.created")).Is(204);
        await Wait.UntilAsync("nothing is asked of it there", async () =>
            (await client.PostAsync("/events", """{"type":"order.created","data":1}""")).Status == 202);
    }

    [Fact]
    public async Task What_was_accepted_before_its_type_refused_it_gets_its_first_answer()
    {
        var tenant = await api.NewTenantAsync();
        const string Event = """{"type":"order.created","data":{},"externalId":"one"}""";
        const string Batch = """{"events":[{"type":"order.created","data":{}},{"type":"other","data":1}]}""";
        var first = (await tenant.Client.PostAsync("/events", Event)).Is(202);
        var keyed = (await tenant.Client.PostAsync("/events", """{"type":"order.created","data":1}""", ("Idempotency-Key", "single"))).Is(202);
        var batch = (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "batch"))).Is(202);

        await MakeAsync(tenant, "enforce", Order);
        (await tenant.Client.PostAsync("/events", """{"type":"order.created","data":{}}""")).IsProblem(422, "schema_violation");

        Assert.Equal(first.Id, (await tenant.Client.PostAsync("/events", Event)).Is(202).Id);
        Assert.Equal(keyed.Id, (await tenant.Client.PostAsync(
            "/events", """{"type":"order.created","data":1}""", ("Idempotency-Key", "single"))).Is(202).Id);
        var again = (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "batch"))).Is(202);
        Assert.Equal(Ids(batch), Ids(again));
        Assert.Equal("true", again.Headers["Idempotency-Replayed"]);
    }

    [Theory]
    [InlineData(null, null)]
    [InlineData("key", "another")]
    [InlineData(null, "key")]
    public async Task A_batch_is_told_of_each_event_that_was_accepted_before_its_type_refused_it(string? firstKey, string? secondKey)
    {
        var tenant = await api.NewTenantAsync();
        var apiKey = await api.NewKeyAsync(tenant.Id);
        const string Cloud = """[{"specversion":"1.0","id":"one","source":"/shop","type":"order.created","data":1}]""";
        const string Known = """{"type":"order.created","data":{},"externalId":"one"}""";
        var first = (await PostAsync($"[{Known}]", firstKey)).Is(202);
        var cloud = (await PostCloudAsync()).Is(202);
        await MakeAsync(tenant, "enforce", Order);

        var again = (await PostAsync($$"""
            [{{Known}},{"type":"order.created","data":{},"externalId":"two"},{"type":"order.created","data":2,"externalId":"one"}]
            """, secondKey)).Is(202);
        var cloudAgain = (await PostCloudAsync()).Is(202);

        Assert.Equal(
            [("accepted", true, null), ("refused", false, "schema_violation"), ("refused", false, "schema_violation")],
            again.Json["items"]!.AsArray().Select(i => (i!["status"]!.ToString(), i["repeated"] is not null, i["code"]?.ToString())));
        Assert.Equal(Ids(first).First(), Ids(again).First());
        Assert.Equal(Ids(cloud), Ids(cloudAgain));
        await api.CaughtUpAsync();
        Assert.Equal(2, (await tenant.Client.GetAsync("/events")).Ids.Length);

        Task<Answer> PostAsync(string events, string? key) => tenant.Client.PostAsync(
            "/events/batch", $$"""{"events":{{events}}}""", key is null ? [] : [("Idempotency-Key", key)]);
        // Not held against the contract, which has the answer to one event.
        async Task<Answer> PostCloudAsync()
        {
            using var http = new HttpClient { BaseAddress = api.Host.Address };
            http.DefaultRequestHeaders.Add("X-API-Key", apiKey);
            using var content = new StringContent(Cloud, Encoding.UTF8, "application/cloudevents-batch+json");
            using var response = await http.PostAsync("/events", content, TestContext.Current.CancellationToken);
            return new Answer(
                (int)response.StatusCode, await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken),
                response.Content.Headers.ContentType?.MediaType, new Dictionary<string, string>());
        }
    }

    [Fact]
    public async Task A_batch_with_a_key_keeps_its_answer_though_another_request_had_more_of_it_accepted()
    {
        var tenant = await api.NewTenantAsync();
        const string Refused = """{"type":"order.created","data":{},"externalId":"one"}""";
        const string Batch = $$"""{"events":[{{Refused}},{"type":"other","data":1}]}""";
        await MakeAsync(tenant, "enforce", Order);
        var first = (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "key"))).Is(202);
        (await tenant.Client.PatchAsync("/event-types/order.created", """{"mode":"off"}""")).Is(200);
        (await tenant.Client.PostAsync("/events", Refused)).Is(202);
        (await tenant.Client.PatchAsync("/event-types/order.created", """{"mode":"enforce"}""")).Is(200);

        Assert.Equal(first.Text, (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "key"))).Is(202).Text);
    }

    [Fact]
    public async Task A_batch_that_its_types_judge_otherwise_by_now_is_not_the_same_request()
    {
        var tenant = await api.NewTenantAsync();
        const string Batch = """{"events":[{"type":"order.created","data":{}},{"type":"other","data":1}]}""";
        await MakeAsync(tenant, "enforce", Order);
        var first = (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "key"))).Is(202);
        Assert.Equal(Ids(first), Ids((await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "key"))).Is(202)));

        (await tenant.Client.PatchAsync("/event-types/order.created", """{"mode":"off"}""")).Is(200);

        // To call the first event accepted would be a lie: nothing of it is in the log.
        (await tenant.Client.PostAsync("/events/batch", Batch, ("Idempotency-Key", "key"))).IsProblem(422, "idempotency_key_reused");
        await api.CaughtUpAsync();
        Assert.Single((await tenant.Client.GetAsync("/events")).Ids);
    }

    [Fact]
    public async Task A_hostile_schema_holds_up_no_request()
    {
        var tenant = await api.NewTenantAsync();
        await MakeAsync(tenant, "enforce", """
            {"properties":{"a":{"$ref":"#"}},"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}],"pattern":"^(a+)+$"}
            """);
        var deep = string.Concat(Enumerable.Repeat("{\"a\":", 60)) + "1" + new string('}', 60);

        var refused = (await tenant.Client.PostAsync("/events", $$"""{"type":"order.created","data":{{deep}}}""")).IsProblem(422, "schema_violation");
        Assert.Contains("steps", refused.Json["errors"]![0]!["detail"]!.GetValue<string>());
        (await tenant.Client.PostAsync("/events", $$"""{"type":"order.created","data":"{{new string('a', 5_000)}}!"}"""))
            .IsProblem(422, "schema_violation");
        (await tenant.Client.PostAsync("/events/batch", $$"""
            {"events":[{{string.Join(',', Enumerable.Repeat($$"""{"type":"order.created","data":{{deep}}}""", 50))}},{"type":"other","data":1}]}
            """)).Is(202);
    }

    [Fact]
    public async Task There_are_no_more_than_may_be()
    {
        await using var other = new ApiHost(api.ConnectionString, [.. await api.OtherSettingsAsync(), ("Limits:EventTypesPerTenant", "1")]);
        var tenant = await api.NewTenantAsync();
        using var client = other.Client(await api.NewKeyAsync(tenant.Id));
        await client.WaitUntilReadyAsync();

        (await client.PostAsync("/event-types", """{"name":"a"}""")).Is(201);
        (await client.PostAsync("/event-types", """{"name":"b"}""")).IsProblem(409, "limit_reached");
    }

    private static IEnumerable<string?> Ids(Answer answer) =>
        answer.Json["items"]!.AsArray().Select(item => item!["id"]?.GetValue<string>());

    private static async Task MakeAsync(TestTenant tenant, string mode, string schema, string compatibility = "none") =>
        (await tenant.Client.PostAsync(
            "/event-types", $$"""{"name":"order.created","mode":"{{mode}}","compatibility":"{{compatibility}}","schema":{{schema}}}""")).Is(201);

    private static Task<Answer> ChangeAsync(TestTenant tenant, string schema) =>
        tenant.Client.PatchAsync("/event-types/order.created", $$"""{"schema":{{schema}}}""");
}

/// <summary>The same over the Postgres log.</summary>
public sealed class EventTypesOnPostgresTests(ApiFixture api) : EventTypesTests(api), IClassFixture<ApiFixture>;

/// <summary>The same over the Kafka log.</summary>
public sealed class EventTypesOnKafkaTests : EventTypesTests, IClassFixture<KafkaApiFixture>
{
    public EventTypesOnKafkaTests(KafkaApiFixture api) : base(api) => KafkaServer.SkipIfMissing();
}
