using System.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Api.Auth;
using Triggers.Api.RateLimiting;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.RateLimiting;

/// <summary>Two processes, one Redis: a key's limit is its limit, wherever its requests arrive.</summary>
public sealed class SharedLimitsTests(ApiFixture api, RedisServer redis) : IClassFixture<ApiFixture>, IAsyncLifetime
{
    private RedisHosts _hosts = null!;

    public async ValueTask InitializeAsync() => _hosts = await RedisHosts.StartAsync(api, await redis.ConnectionStringAsync());

    /// <summary><c>RATE_SECONDS=60</c> makes it last as long as the promise is worded.</summary>
    [Fact]
    public async Task Two_processes_together_let_through_what_the_plan_allows_and_not_less()
    {
        const int perSecond = 100, burst = 50;
        var key = await _hosts.First.NewKeyAsync(perSecond, burst);
        var seconds = int.Parse(Environment.GetEnvironmentVariable("RATE_SECONDS") ?? "10");
        var watch = Stopwatch.StartNew();

        var statuses = (await Task.WhenAll(Enumerable.Range(0, 8).Select(i => HammerAsync(i % 2 == 0 ? _hosts.First : _hosts.Second))))
            .SelectMany(s => s).ToList();

        var allowed = burst + perSecond * watch.Elapsed.TotalSeconds;
        var admitted = statuses.Count(s => s == 200);
        TestContext.Current.SendDiagnosticMessage(
            $"{watch.Elapsed.TotalSeconds:0.0} s: {statuses.Count} requests, {admitted} admitted, {allowed:0} allowed "
                + $"({admitted / allowed:0.000})");
        Assert.Equal(statuses.Count, admitted + statuses.Count(s => s == 429));
        Assert.True(statuses.Count > 1.5 * admitted, $"{statuses.Count} requests are too few to find out");
        Assert.InRange(admitted, 0.9 * allowed, 1.05 * allowed);

        async Task<List<int>> HammerAsync(ApiHost host)
        {
            using var client = host.Client(key.Secret);
            var answers = new List<int>();
            while (watch.Elapsed < TimeSpan.FromSeconds(seconds))
                answers.Add((await client.GetAsync("/events?limit=1")).Status);
            return answers;
        }
    }

    /// <summary>
    /// A store that runs two scripts on one key at once (Garnet without --lua-transaction-mode) lets through more than there is.
    /// </summary>
    [Fact]
    public async Task Near_its_limits_a_tenant_is_never_let_through_twice_for_what_is_left_once()
    {
        const int left = 15;
        var limits = Enumerable.Range(0, 100).Select(_ => TypeId.NewGuid())
            .Select(id => new Limits(id, new Rate(1_000, 1_000), null, null, left, id, null)).ToArray();

        var allowed = await AllAtOnceAsync(4, async redisLimits =>
        {
            var count = 0;
            for (var n = 0; n < 4; n++)
            {
                foreach (var each in limits)
                    count += (await redisLimits.TakeAsync(each, new Cost(1, 1, 0)))!.Value.Verdict == Verdict.Allowed ? 1 : 0;
            }
            return count;
        });

        Assert.Equal(limits.Length * left, allowed);
    }

    /// <summary>Far from it, each lets in a sixteenth of what was left without asking.</summary>
    [Fact]
    public async Task Two_processes_together_let_in_a_sixteenth_too_much_at_most_and_no_request_goes_uncounted()
    {
        var id = TypeId.NewGuid();
        var limits = new Limits(id, new Rate(1_000_000, 1_000_000), null, null, 2_000, id, null);

        var allowed = await AllAtOnceAsync(250, async redisLimits =>
            (await redisLimits.TakeAsync(limits, new Cost(1, 1, 0)))!.Value.Verdict == Verdict.Allowed ? 1 : 0);

        Assert.InRange(allowed, 2_000, 2_000 + 2_000 / 16);
        // Each tells what it has let in.
        await Wait.UntilAsync("both have told all", async () =>
            (await _hosts.First.Services.GetRequiredService<RedisLimits>().LookAsync(limits))!.Value is var standing
                && standing.EventsToday == allowed && standing.RequestsToday == 4_000);
    }

    private async Task<int> AllAtOnceAsync(int times, Func<RedisLimits, Task<int>> take) =>
        (await Task.WhenAll(Enumerable.Range(0, 16).Select(i => Task.Run(async () =>
        {
            var limits = (i % 2 == 0 ? _hosts.First : _hosts.Second).Services.GetRequiredService<RedisLimits>();
            var count = 0;
            for (var n = 0; n < times; n++)
                count += await take(limits);
            return count;
        })))).Sum();

    [Fact]
    public async Task The_headers_say_what_both_processes_left()
    {
        var key = await _hosts.First.NewKeyAsync(1, 3, eventsPerDay: 100);
        using var here = _hosts.First.Client(key.Secret);
        using var there = _hosts.Second.Client(key.Secret);
        using var decisions = new Decisions(_hosts.Second);

        var first = (await here.TryPublishAsync()).Is(202);
        var second = (await there.TryPublishAsync()).Is(202);

        Assert.Equal("\"default\";q=3;w=3, \"events-per-day\";q=100;w=86400", first.Headers["RateLimit-Policy"]);
        Assert.Matches("^\"default\";r=2;t=1, \"events-per-day\";r=99;t=[0-9]+$", first.Headers["RateLimit"]);
        Assert.Matches("^\"default\";r=[12];t=[12], \"events-per-day\";r=98;t=[0-9]+$", second.Headers["RateLimit"]);
        Answer answer;
        do
            answer = await there.TryPublishAsync();
        while (answer.Status == 202);
        answer.IsProblem(429, "rate_limited");
        Assert.Equal("1", answer.Headers["Retry-After"]);
        Assert.Equal(1, decisions["limited", "redis"]);
        Assert.InRange(decisions["allowed", "redis"], 1, 10);
        Assert.Equal(0, decisions["allowed", "local"]);
    }

    [Fact]
    public async Task The_quota_of_a_day_is_counted_over_both_processes()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, eventsPerDay: 10);
        using var here = _hosts.First.Client(key.Secret);
        using var there = _hosts.Second.Client(key.Secret);

        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => (i % 2 == 0 ? here : there).TryPublishAsync()));

        Assert.Equal(10, answers.Count(a => a.Status == 202));
        var refused = answers.First(a => a.Status != 202).IsProblem(429, "quota_exceeded");
        Assert.InRange(int.Parse(refused.Headers["Retry-After"]), 1, 86_400);
        Assert.Contains("\"events-per-day\";r=0;", refused.Headers["RateLimit"]);
        // Only publishing has a quota.
        (await here.GetAsync("/events")).Is(200);
        using var admin = _hosts.Second.Client();
        var usage = await admin.UsageAsync(key);
        Assert.Equal(
            ("all_processes", "10", "0", "10"), (usage["source"], usage["eventsToday"], usage["eventsLeft"], usage["eventsPerDay"]));
        await Wait.UntilAsync("the other process has told of its requests", async () =>
            (await admin.UsageAsync(key))["requestsToday"] == "21");
        Assert.Equal(DateTimeOffset.Parse(usage["resetsAt"]!).TimeOfDay, TimeSpan.Zero);
        Assert.Equal((key.PlanId, "1000"), (usage["usagePlanId"], usage["burst"]));
    }

    [Fact]
    public async Task Only_what_is_accepted_for_the_first_time_counts()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, eventsPerDay: 3);
        using var client = _hosts.First.Client(key.Secret);
        using var admin = _hosts.First.Client();

        (await client.TryPublishAsync(",\"externalId\":\"quota-1\"")).Is(202);
        await ExpectUsedAsync(1);
        (await client.TryPublishAsync(",\"externalId\":\"quota-1\"")).Is(202);
        await ExpectUsedAsync(1);
        (await client.TryPublishAsync(",\"nonsense\":1")).IsProblem(400, "invalid_request");
        await ExpectUsedAsync(1);
        (await client.PostAsync("/events/batch",
            """{"events":[{"type":"a","data":1},{"type":"not a type","data":1},{"type":"a","data":1,"externalId":"quota-1"}]}""")).Is(202);
        await ExpectUsedAsync(2);
        (await client.TryPublishAsync()).Is(202);
        (await client.TryPublishAsync()).IsProblem(429, "quota_exceeded");

        Task ExpectUsedAsync(int events) => Wait.UntilAsync($"{events} events are counted", async () =>
            (await admin.UsageAsync(key))["eventsToday"] == events.ToString());
    }

    [Fact]
    public async Task A_batch_costs_its_events_and_a_larger_one_is_paid_for_afterwards()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, more: ",\"eventsPerSecond\":10");
        using var here = _hosts.First.Client(key.Secret);
        using var there = _hosts.Second.Client(key.Secret);

        var answer = (await here.TryPublishAsync(25)).Is(202);
        var refused = (await there.TryPublishAsync(1)).IsProblem(429, "rate_limited");

        Assert.Equal("25", answer["accepted"]);
        Assert.Contains("\"events\";r=0;t=1", answer.Headers["RateLimit"]);
        Assert.Contains("10 events a second", refused["detail"]);
        Assert.InRange(int.Parse(refused.Headers["Retry-After"]), 1, 2);
        // What is refused for its events has cost a request: 2 of them.
        Assert.Equal("2", (await AdminUsageAsync(key))["requestsToday"]);
        await Wait.UntilAsync("the debt is paid", async () => (await there.TryPublishAsync(1)).Status == 202, TimeSpan.FromSeconds(5));
    }

    [Fact]
    public async Task A_body_costs_its_bytes()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, more: ",\"bytesPerSecond\":1024");
        using var client = _hosts.First.Client(key.Secret);

        (await client.TryPublishAsync($",\"subject\":\"{new string('x', 200)}\"")).Is(202);
        (await client.PostAsync("/events", $$"""{"type":"a","data":"{{new string('x', 3_000)}}"}""")).IsProblem(429, "rate_limited");
        await Wait.UntilAsync("the bucket is full", async () =>
            (await client.PostAsync("/events", $$"""{"type":"a","data":"{{new string('x', 3_000)}}"}""")).Status == 202,
            TimeSpan.FromSeconds(5));
        var refused = (await client.TryPublishAsync()).IsProblem(429, "rate_limited");

        Assert.Contains("1024 bytes a second", refused["detail"]);
        Assert.InRange(int.Parse(refused.Headers["Retry-After"]), 1, 3);
    }

    /// <summary>The two say the same to the same requests; what comes back in the meantime is too little to matter.</summary>
    [Fact]
    public async Task The_limits_in_Redis_and_those_of_a_process_decide_the_same()
    {
        var id = TypeId.NewGuid();
        var limits = new Limits(id, new Rate(1, 1_000), new Rate(1, 1_000), new Rate(1, 1_000), 2_500, TypeId.NewGuid(), new Rate(1, 500));
        var redisLimits = _hosts.First.Services.GetRequiredService<RedisLimits>();
        var local = new LocalLimits(TimeProvider.System);
        Cost[] costs =
        [
            new(1, 400, 300), new(1, 2, 3), new(1, 2, 3), default, new(1, 400, 0), new(1, 400, 0), new(0, 200, 400), new(400, 0, 0),
            new(1, 0, 400), new(1, 0, 5_000), new(200, 0, 0), new(1, 2_000, 0), default,
        ];

        foreach (var cost in costs)
        {
            var there = (await redisLimits.TakeAsync(limits, cost))!.Value;
            var here = local.Take(limits, cost);
            Assert.Equal(Counts(here), Counts(there));
            Assert.InRange(there.RequestsLeft - here.RequestsLeft, -20, 20);
            Assert.InRange(there.EventsLeft - here.EventsLeft, -20, 20);
            Assert.InRange(there.BytesLeft - here.BytesLeft, -20, 20);
            Assert.InRange(there.KeyRequestsLeft - here.KeyRequestsLeft, -20, 20);
            if (cost is { Requests: 0, Events: 200 })
            {
                redisLimits.GiveBack(limits, there.Day, 100);
                local.GiveBack(limits, here.Day, 100);
            }
        }

        static (Verdict, long, long, long, long) Counts(Standing s) =>
            (s.Verdict, s.EventsToday, s.RequestsToday, s.KeyEventsToday, s.KeyRequestsToday);
    }

    [Fact]
    public async Task What_was_accepted_is_answered_again_when_the_quota_is_used_up_and_costs_nothing()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, eventsPerDay: 3);
        using var client = _hosts.First.Client(key.Secret);
        const string one = """{"type":"a","data":1}""",
        many = """{"events":[{"type":"a","data":1},{"type":"a","data":2,"externalId":"twice"}]}""";
        var single = (await client.PostAsync("/events", one, ("Idempotency-Key", "single"))).Is(202);
        var batch = (await client.PostAsync("/events/batch", many, ("Idempotency-Key", "batch"))).Is(202);
        (await client.PostAsync("/events", one)).IsProblem(429, "quota_exceeded");

        var again = (await client.PostAsync("/events", one, ("Idempotency-Key", "single"))).Is(202);
        var batchAgain = (await client.PostAsync("/events/batch", many, ("Idempotency-Key", "batch"))).Is(202);
        var external = (await client.PostAsync("/events", """{"type":"a","data":2,"externalId":"twice"}""")).Is(202);

        Assert.Equal((single.Text, "true"), (again.Text, again.Headers["Idempotency-Replayed"]));
        Assert.Equal((batch.Text, "true"), (batchAgain.Text, batchAgain.Headers["Idempotency-Replayed"]));
        Assert.Equal(batch.Json["items"]![1]!["id"]!.ToString(), external.Id);
        (await client.PostAsync("/events", """{"type":"a","data":3,"externalId":"twice"}""")).IsProblem(409, "external_id_conflict");
        (await client.PostAsync("/events", """{"type":"b","data":1}""", ("Idempotency-Key", "single")))
            .IsProblem(422, "idempotency_key_reused");
        (await client.PostAsync("/events", one, ("Idempotency-Key", "new"))).IsProblem(429, "quota_exceeded");
        // One of which a part is new is not a repetition.
        (await client.PostAsync("/events/batch", """{"events":[{"type":"a","data":2,"externalId":"twice"},{"type":"a","data":9}]}"""))
            .IsProblem(429, "quota_exceeded");
        Assert.Equal("3", (await AdminUsageAsync(key))["eventsToday"]);
    }

    [Fact]
    public async Task Neither_a_rotated_nor_a_new_key_has_a_quota_of_its_own()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, eventsPerDay: 5);
        var sibling = await _hosts.First.NewSiblingAsync(key);
        using var client = _hosts.First.Client(key.Secret);
        (await client.TryPublishAsync(5)).Is(202);

        var rotated = (await client.PostAsync($"/api-keys/{key.Id}/rotate")).Is(201);
        var made = (await client.PostAsync("/api-keys", """{"name":"k","scopes":["events:write"]}""")).Is(201);

        foreach (var secret in new[] { key.Secret, sibling.Secret, rotated["secret"], made["secret"] })
        {
            using var each = _hosts.Second.Client(secret);
            (await each.TryPublishAsync()).IsProblem(429, "quota_exceeded");
        }
        using var admin = _hosts.First.Client();
        // The key's own count goes on too.
        Assert.Equal("5", (await admin.GetAsync($"/api-keys/{rotated.Id}/usage?tenantId={key.TenantId}")).Is(200)["eventsToday"]);
        Assert.Equal("0", (await admin.GetAsync($"/api-keys/{made.Id}/usage?tenantId={key.TenantId}")).Is(200)["eventsToday"]);
    }

    [Fact]
    public async Task A_batch_that_the_quota_has_no_room_for_is_refused_whole()
    {
        var key = await _hosts.First.NewKeyAsync(1_000, 1_000, eventsPerDay: 10);
        using var client = _hosts.Second.Client(key.Secret);

        (await client.TryPublishAsync(6)).Is(202);
        var refused = (await client.TryPublishAsync(6)).IsProblem(429, "quota_exceeded");

        Assert.Contains("4 of 10", refused["detail"]);
        (await client.TryPublishAsync(4)).Is(202);
    }

    private async Task<Answer> AdminUsageAsync(PlannedKey key)
    {
        using var admin = _hosts.First.Client();
        return await admin.UsageAsync(key);
    }

    public ValueTask DisposeAsync() => _hosts.DisposeAsync();
}
