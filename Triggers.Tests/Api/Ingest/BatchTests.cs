using System.Text.Json.Nodes;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Ingest;

public sealed class BatchTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_bad_event_refuses_only_itself_and_names_its_place()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events/batch",
            """{"events":[{"type":"a","data":1},{"type":"b"},{"type":"c","data":2,"more":3},7,{"type":"d","data":[4]}]}""")).Is(202);

        Assert.Equal(["accepted", "refused", "refused", "refused", "accepted"], Statuses(answer));
        Assert.Equal(2, answer.Json["accepted"]!.GetValue<int>());
        Assert.Equal(3, answer.Json["refused"]!.GetValue<int>());
        Assert.Equal("/events/1/data", Pointer(answer, 1));
        Assert.Equal("/events/2/more", Pointer(answer, 2));
        Assert.Equal("/events/3", Pointer(answer, 3));
        Assert.Equal("invalid_request", Item(answer, 1)["code"]!.GetValue<string>());
        foreach (var (index, type) in new[] { (0, "a"), (4, "d") })
            Assert.Equal(type, (await tenant.Client.GetAsync($"/events/{Item(answer, index)["id"]}")).Is(200)["type"]);
        Assert.Equal(2, (await tenant.Client.GetAsync("/events")).Ids.Length);
    }

    [Fact]
    public async Task A_batch_of_nothing_but_mistakes_is_refused_with_the_same_items()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events/batch", """{"events":[{"type":"b"},7]}""")).IsProblem(400, "batch_refused");

        Assert.Equal(["refused", "refused"], Statuses(answer));
        Assert.Equal("/events/0/data", Pointer(answer, 0));
        Assert.Empty((await tenant.Client.GetAsync("/events")).Ids);
    }

    [Fact]
    public async Task An_external_id_that_is_taken_refuses_its_event_alone()
    {
        var tenant = await api.NewTenantAsync();
        var holder = await tenant.Client.PublishAsync("a", "1", ",\"externalId\":\"x\"");

        var answer = (await tenant.Client.PostAsync("/events/batch",
            """{"events":[{"type":"a","data":2,"externalId":"x"},{"type":"a","data":1,"externalId":"x"},{"type":"a","data":3}]}"""))
                .Is(202);

        Assert.Equal(["refused", "accepted", "accepted"], Statuses(answer));
        Assert.Equal("external_id_conflict", Item(answer, 0)["code"]!.GetValue<string>());
        Assert.Equal("/events/0/externalId", Pointer(answer, 0));
        Assert.Equal(holder, Item(answer, 1)["id"]!.GetValue<string>());
        Assert.True(Item(answer, 1)["repeated"]!.GetValue<bool>());
        Assert.Null(Item(answer, 2)["repeated"]);
    }

    [Fact]
    public async Task The_same_external_id_twice_in_a_batch_is_one_event_or_a_conflict()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events/batch",
            """{"events":[{"type":"a","data":1,"externalId":"x"},{"type":"a","data":1,"externalId":"x"},{"type":"a","data":2,"externalId":"x"}]}""")).Is(202);

        Assert.Equal(["accepted", "accepted", "refused"], Statuses(answer));
        Assert.Equal(Item(answer, 0)["id"]!.ToString(), Item(answer, 1)["id"]!.ToString());
        Assert.Single((await tenant.Client.GetAsync("/events")).Ids);
    }

    [Theory]
    [InlineData("""{"events":[]}""", "/events")]
    [InlineData("""{}""", "/events")]
    [InlineData("""{"events":{}}""", "/events")]
    [InlineData("""{"events":[{"type":"a","data":1}],"events":[]}""", "/events")]
    [InlineData("""{"items":[]}""", "/items")]
    [InlineData("""[]""", "")]
    public async Task What_is_no_batch_is_refused_as_a_whole(string body, string place)
    {
        var tenant = await api.NewTenantAsync();

        Assert.Equal([place], (await tenant.Client.PostAsync("/events/batch", body)).IsProblem(400, "invalid_request").Pointers);
    }

    [Fact]
    public async Task An_event_nested_too_deeply_is_refused_alone()
    {
        var tenant = await api.NewTenantAsync();
        var deep = new string('[', 64) + new string(']', 64);
        var justRight = deep[1..^1];

        var answer = (await tenant.Client.PostAsync("/events/batch",
            $$"""{"events":[{"type":"a","data":{{deep}}},{"type":"a","data":{{justRight}}}]}""")).Is(202);

        Assert.Equal(["refused", "accepted"], Statuses(answer));
        Assert.Equal("/events/0/data", Pointer(answer, 0));
    }

    [Fact]
    public async Task A_thousand_events_are_taken_and_one_more_is_not()
    {
        var tenant = await api.NewTenantAsync();

        var answer = (await tenant.Client.PostAsync("/events/batch", Batch(1_000))).Is(202);
        (await tenant.Client.PostAsync("/events/batch", Batch(1_001))).IsProblem(400, "invalid_request");

        var ids = answer.Json["items"]!.AsArray().Select(item => item!["id"]!.GetValue<string>()).ToArray();
        Assert.Equal(1_000, ids.Distinct().Count());
        Assert.Equal(ids.Order(StringComparer.Ordinal), ids);
        Assert.Equal(
            1_000, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM events WHERE tenant_id = @tenant", ("tenant", tenant.Key)));
    }

    [Fact]
    public async Task A_batch_may_have_four_MiB()
    {
        var tenant = await api.NewTenantAsync();
        string OfBytes(int bytes) => $$"""{"events":[{"type":"a","data":"{{new string('x', bytes - 35)}}"}]}""";
        Assert.Equal(4 * 1024 * 1024, OfBytes(4 * 1024 * 1024).Length);

        (await tenant.Client.PostAsync("/events/batch", OfBytes(4 * 1024 * 1024))).Is(202);
        (await tenant.Client.PostAsync("/events/batch", OfBytes(4 * 1024 * 1024 + 1))).IsProblem(413, "payload_too_large");
    }

    private static string Batch(int events) =>
        $$"""{"events":[{{string.Join(",", Enumerable.Range(0, events).Select(i => $$"""{"type":"a","data":{{i}}}"""))}}]}""";

    private static JsonNode Item(Answer answer, int index) => answer.Json["items"]![index]!;

    private static string Pointer(Answer answer, int index) => Item(answer, index)["errors"]![0]!["pointer"]!.GetValue<string>();

    private static string[] Statuses(Answer answer) =>
        [.. answer.Json["items"]!.AsArray().Select(item => item!["status"]!.GetValue<string>())];
}
