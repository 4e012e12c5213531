using System.Diagnostics;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.Schema;

/// <summary>
/// What 0010_queue_and_history.sql makes of a database of the version before, which had pending and final deliveries in one table and
/// counted in <c>open_events</c> what was not settled.
/// </summary>
public sealed class QueueMigrationTests(PostgresServer postgres) : IAsyncLifetime
{
    private const string Before = "0009_list_indexes";

    private readonly Dictionary<string, Guid> _events = [];
    private Engine _engine = null!;
    private TestReceiver _receiver = null!;

    public async ValueTask InitializeAsync()
    {
        _engine = await Engine.CreateAsync(postgres, schema: Before);
        _receiver = await TestReceiver.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _engine.DisposeAsync();
        await _receiver.DisposeAsync();
    }

    [Fact]
    public async Task Everything_there_is_goes_on_where_it_was()
    {
        var subscription = await _engine.SubscribeAsync(_receiver.Url, "*");
        var other = await _engine.SubscribeAsync(_receiver.Url + "/other", "other");
        var pending = await AddEventAsync("pending", open: 1);
        var first = await AddDeliveryAsync(pending, subscription, "pending");
        var leased = await AddDeliveryAsync(
            await AddEventAsync("leased", open: 1), subscription, "pending", claim: 1, claimedBy: 99, due: "-1 second");
        var failed = await AddDeliveryAsync(
            await AddEventAsync("failed", open: 1), subscription, "pending", claim: 3, retries: 2, due: "1 hour", outcome: "http_status");
        await AddAttemptAsync(failed, 1, body: null);
        await AddAttemptAsync(failed, 2, body: new string('b', 4096));
        var dead = await AddDeliveryAsync(
            await AddEventAsync("dead", dead: 1), subscription, "dead_lettered", claim: 2, retries: 2, outcome: "http_status");
        await AddAttemptAsync(dead, 1, body: "no");
        await AddDeadLetterAsync(dead, "dead", subscription, "open");
        var repeated = await AddDeliveryAsync(await AddEventAsync("replaying", open: 1, dead: 1), subscription, "dead_lettered");
        var replay = await AddDeliveryAsync(_events["replaying"], subscription, "pending", replayOf: repeated, due: "1 hour");
        await AddDeadLetterAsync(repeated, "replaying", subscription, "replaying", replay);
        // Replays of what is settled: again, and to somebody new, who has nothing that it would repeat.
        var delivered = await AddDeliveryAsync(await AddEventAsync("settled"), subscription, "succeeded");
        await AddDeliveryAsync(_events["settled"], subscription, "pending", replayOf: delivered, due: "1 hour");
        await AddDeliveryAsync(_events["settled"], other, "pending", due: "1 hour");
        await AddDeliveryAsync(await AddEventAsync("settled and gone to nobody"), subscription, "cancelled");
        await AddEventAsync("unmatched", open: 0);
        await AddEventAsync("unmatched and acknowledged");
        await AddDeliveryAsync(await AddEventAsync("cancelled", open: 0), subscription, "cancelled");
        await AddDeliveryAsync(await AddEventAsync("cancelled, and again", open: 1), subscription, "cancelled");
        await AddDeliveryAsync(_events["cancelled, and again"], other, "pending", replayOf: TypeId.NewGuid(), due: "1 hour");
        await AddDeliveryAsync(await AddEventAsync("acknowledged", open: 1, acknowledged: true), subscription, "pending", due: "1 hour");
        await AddDeliveryAsync(await AddEventAsync("half", open: 1, done: 1), subscription, "succeeded");
        await AddDeliveryAsync(_events["half"], other, "pending", due: "1 hour");
        await AddDeliveryAsync(
            await AddEventAsync("test", open: 1, acknowledged: true), subscription, "pending", test: true, due: "1 hour");
        var orphan = await AddDeliveryAsync(TypeId.NewGuid(), subscription, "pending", due: "1 hour");
        var old = await AddDeliveryAsync(await AddEventAsync("old", open: 1, days: 60), subscription, "pending", days: 59, due: "1 hour");
        await AddDeliveryAsync(await AddEventAsync("old and delivered", days: 60), subscription, "succeeded", days: 60);
        await _engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'");
        await AddEventAsync("unprojected", projected: false);
        var statuses = await StatusesAsync(
            """
            CASE WHEN o.dead > 0 THEN 'dead_lettered'
                WHEN o.event_id IS NOT NULL OR e.seq >= (SELECT next FROM log_positions WHERE log = 'postgres') THEN 'pending'
                    ELSE 'delivered' END
            """);
        var inbox = await ListAsync("SELECT event_id FROM open_events WHERE acknowledged_at IS NULL AND dead = 0");
        const string Deliveries =
            """
            SELECT concat_ws(',', id, event_id, subscription_id, status, claim, claimed_by, retry_count, next_attempt_at, last_outcome,
                replay_of, test, finalized_at)
            """;
        var deliveries = await ListAsync($"{Deliveries} FROM deliveries");
        var attempts = await ListAsync(
            "SELECT concat_ws(',', delivery_id, claim, id, number, started_at, outcome, status_code, md5(response_body)) FROM attempts");

        await _engine.MigrateAsync();

        Assert.Equal(statuses, await StatusesAsync(EventState.Status));
        Assert.Equal(inbox, await ListAsync(
            $"""
            SELECT e.id FROM events e
            WHERE e.id IN ({EventState.OpenEvents(_ => "", "ASC", 1000).Replace("@tenant", $"'{_engine.Tenant}'")}) AND {EventState.IsInInbox}
            """));
        Assert.Equal(deliveries, await ListAsync($"{Deliveries} FROM all_deliveries"));
        Assert.Equal(attempts, await ListAsync(
            "SELECT concat_ws(',', delivery_id, claim, id, number, started_at, outcome, status_code, md5(response_body)) FROM "
                + "all_attempts"));
        Assert.Equal(0, await _engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'pending'"));
        Assert.Equal(0, await _engine.ScalarAsync<int>($"SELECT data_bytes FROM delivery_queue WHERE id = '{orphan}'"));
        Assert.Equal("old", await _engine.ScalarAsync<string>(
            $"SELECT e.type FROM delivery_queue q JOIN events e ON e.id = q.event_id WHERE q.id = '{old}' AND q.data_bytes = 2"));

        // What was due goes out, and with it what a worker had that is no more.
        await _engine.StartDeliveryAsync();
        foreach (var id in new[] { first, leased })
            await Wait.UntilAsync("it is delivered", async () =>
                await _engine.ScalarAsync<long>($"SELECT count(*) FROM deliveries WHERE id = '{id}' AND status = 'succeeded'") == 1);
        Assert.Equal("delivered", await _engine.StatusAsync(pending));
        await _engine.WaitForStatusAsync(_events["unprojected"], DeliveryStatus.Succeeded);
    }

    /// <summary>The statement of an append is the same in the version before: what it writes to is what it was.</summary>
    [Fact]
    public async Task Events_are_accepted_while_it_runs()
    {
        var subscription = await _engine.SubscribeAsync(_receiver.Url, "*");
        await _engine.ExecuteAsync(
            $"""
            INSERT INTO events (tenant_id, id, seq, type, correlation_id, data)
            SELECT '{_engine.Tenant}', uuidv7(), nextval('events_seq'), 'many', 'c', convert_to(repeat('x', 800), 'UTF8')
                FROM generate_series(1, 60000);
            INSERT INTO open_events (tenant_id, event_id, open) SELECT tenant_id, id, 1 FROM events;
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at)
            SELECT tenant_id, uuidv7(), id, '{subscription}', now() + interval '1 day' FROM events;
            UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'
            """);

        var migrating = _engine.MigrateAsync();
        var (appended, longest) = (0, TimeSpan.Zero);
        while (!migrating.IsCompleted)
        {
            var started = Stopwatch.GetTimestamp();
            // As the version before appends.
            await _engine.ExecuteAsync(
                $"""
                SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Append});
                INSERT INTO events (seq, tenant_id, id, type, correlation_id, data)
                VALUES (nextval('events_seq'), '{_engine.Tenant}', uuidv7(), 'meanwhile', 'c', '{appended}')
                """);
            longest = new[] { longest, Stopwatch.GetElapsedTime(started) }.Max();
            appended++;
        }
        await migrating;

        Assert.InRange(longest, TimeSpan.Zero, TimeSpan.FromSeconds(1));
        Assert.True(appended > 10, $"only {appended} appends");
        Assert.Equal(appended, await _engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE type = 'meanwhile'"));
        Assert.Equal(60_000, await _engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE data_bytes = 800"));
        await _engine.StartDeliveryAsync();
        await Wait.UntilAsync("what came meanwhile is delivered", () => _receiver.Received.Count == appended);
    }

    private async Task<Guid> AddEventAsync(
        string name, int? open = null, int done = 0, int dead = 0, bool acknowledged = false, int days = 0, bool projected = true)
    {
        var id = TypeId.Add(TypeId.At(DateTimeOffset.UtcNow.AddDays(-days)), Random.Shared.Next());
        await _engine.ExecuteAsync(
            $"""
            SELECT ensure_partitions_between((now() - interval '{days} days')::date, (now() - interval '{days} days')::date);
            INSERT INTO events (tenant_id, id, seq, type, correlation_id, data) VALUES ('{_engine.Tenant}', '{id}',
                nextval('events_seq'), '{name}', 'c', '12')
            """);
        if (projected && (open is not null || done + dead > 0 || acknowledged))
        {
            await _engine.ExecuteAsync(
                $"""
                INSERT INTO open_events (tenant_id, event_id, open, done, dead, acknowledged_at)
                VALUES ('{_engine.Tenant}', '{id}', {open ?? 0}, {done}, {dead}, {(acknowledged ? "now()" : "NULL")})
                """);
        }
        return _events[name] = id;
    }

    private async Task<Guid> AddDeliveryAsync(
        Guid e, Guid subscription, string status, int claim = 0, int? claimedBy = null,
        int retries = 0, string due = "0 seconds", string? outcome = null,
        Guid? replayOf = null, bool test = false, int days = 0)
    {
        var id = TypeId.Add(TypeId.At(DateTimeOffset.UtcNow.AddDays(-days)), Random.Shared.Next());
        static string Or(object? value) => value is null ? "NULL" : $"'{value}'";
        await _engine.ExecuteAsync(
            $"""
            SELECT ensure_partitions_between((now() - interval '{days} days')::date, (now() - interval '{days} days')::date);
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, claim, claimed_by, retry_count, next_attempt_at,
                last_outcome, replay_of, test, finalized_at)
            VALUES ('{_engine.Tenant}', '{id}', '{e}', '{subscription}', '{status}', {claim}, {Or(claimedBy)}, {retries},
                {(status == "pending" ? $"now() + interval '{due}'" : "NULL")}, {Or(outcome)}, {Or(replayOf)}, {test},
                    {(status == "pending" ? "NULL" : "now()")})
            """);
        return id;
    }

    private Task<int> AddAttemptAsync(Guid delivery, int claim, string? body) => _engine.ExecuteAsync(
        $"""
        INSERT INTO attempts (delivery_id, claim, tenant_id, id, number, started_at, duration_ms, outcome, status_code, response_body)
        VALUES ('{delivery}', {claim}, '{_engine.Tenant}', uuidv7(), {claim}, now(), 1, 'http_status', 500,
            {(body is null ? "NULL" : $"'{body}'")})
        """);

    private Task<int> AddDeadLetterAsync(Guid delivery, string name, Guid subscription, string state, Guid? replay = null) =>
        _engine.ExecuteAsync(
        $"""
        INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, state, reason, attempts, replay_delivery_id)
        VALUES ('{_engine.Tenant}', '{delivery}', '{_events[name]}', '{subscription}', '{state}', 'exhausted', 2,
            {(replay is null ? "NULL" : $"'{replay}'")})
        """);

    /// <summary>Types and statuses of all events. The old form asks <c>o</c>, a row of <c>open_events</c>.</summary>
    private Task<string[]> StatusesAsync(string status) => ListAsync(
        $"SELECT e.type || ': ' || {status} FROM events e "
            + $"{(status.Contains("o.dead") ? "LEFT JOIN open_events o ON o.tenant_id = e.tenant_id AND o.event_id = e.id" : "")}");

    private async Task<string[]> ListAsync(string sql) =>
        await _engine.ScalarAsync<string[]>($"SELECT coalesce(array_agg(x::text ORDER BY x::text), '{{}}') FROM ({sql}) AS t (x)");
}
