using System.Security.Cryptography;
using System.Text;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.EventLog;

/// <summary>What keys mean, whichever log the events are in.</summary>
public abstract class EventLogTests : IAsyncLifetime
{
    private protected Engine Engine { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Engine = await CreateAsync();

    public ValueTask DisposeAsync() => Engine.DisposeAsync();

    private protected abstract Task<Engine> CreateAsync();

    /// <summary>How many different events are in the log.</summary>
    private protected abstract Task<long> CountAsync();

    [Fact]
    public async Task Of_many_racing_requests_with_one_key_one_is_appended_and_all_get_its_answer()
    {
        var other = await Engine.AnotherLogAsync();
        var key = Key("key", "body");

        var results = await Task.WhenAll(Enumerable.Range(0, 500).Select(i =>
            AppendWhenFreeAsync(i % 2 == 0 ? Engine.Log : other, Request(key, 3))));

        var first = Assert.Single(results, r => r.Outcome == AppendOutcome.Appended);
        Assert.Equal(499, results.Count(r => r.Outcome == AppendOutcome.Repeated));
        Assert.All(results, r => Assert.Equal(first.Events.Select(e => e.Id), r.Events.Select(e => e.Id)));
        Assert.Equal(3, await CountAsync());
    }

    [Fact]
    public async Task A_tenant_that_floods_the_log_waits_for_itself_and_a_quiet_one_is_always_let_in()
    {
        var loud = Engine.Tenant;
        var quiet = TypeId.NewGuid();
        var data = Encoding.UTF8.GetBytes($"\"{new string('x', 900_000)}\"");
        var stop = false;
        const int Clients = 20;
        var (accepted, refused, waiting) = (0, 0, 0);
        var flood = Enumerable.Range(0, Clients).Select(_ => Task.Run(async () =>
        {
            while (!Volatile.Read(ref stop))
            {
                var before = Volatile.Read(ref accepted);
                try
                {
                    await Engine.Log.AppendAsync(Request(loud, 4, data), TestContext.Current.CancellationToken);
                    Interlocked.Increment(ref accepted);
                }
                catch (EventLogUnavailableException)
                {
                    Interlocked.Increment(ref refused);
                    Interlocked.Increment(ref waiting);
                    await Wait.UntilAsync("there may be room again", () =>
                        Volatile.Read(ref accepted) > before || Volatile.Read(ref waiting) == Clients || Volatile.Read(ref stop));
                    Interlocked.Decrement(ref waiting);
                }
            }
        })).ToList();
        await Wait.UntilAsync("the flood is on", () => Volatile.Read(ref accepted) >= 5);

        for (var i = 0; i < 100; i++)
            await Engine.Log.AppendAsync(Request(quiet, 1, "1"u8.ToArray()), TestContext.Current.CancellationToken);

        Volatile.Write(ref stop, true);
        await Task.WhenAll(flood);
        Assert.True(refused > 0, "20 clients hold more than one tenant may");
    }

    private static AppendRequest Request(Guid tenant, int count, byte[] data)
    {
        var first = TypeId.NewGuid();
        return new AppendRequest(tenant, first, "test", null, null,
            [.. Enumerable.Range(0, count)
                .Select(i => new NewEvent(TypeId.Add(first, i), "order.created", null, null, null, null, null, data))]);
    }

    /// <summary>What a process does before it says that it is ready.</summary>
    [Fact]
    public async Task An_append_of_nothing_is_answered_and_appends_nothing()
    {
        for (var i = 0; i < 2; i++)
        {
            var answer = await Engine.Log.AppendAsync(Request(null, 0), TestContext.Current.CancellationToken);
            Assert.Equal((AppendOutcome.Appended, 0), (answer.Outcome, answer.Events.Count));
        }
        await Engine.Log.AppendAsync(Request(null), TestContext.Current.CancellationToken);

        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task The_same_key_with_another_body_is_refused_and_appends_nothing()
    {
        await Engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);

        var result = await Engine.Log.AppendAsync(Request(Key("key", "other body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.KeyReused, result.Outcome);
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task A_key_is_free_again_after_its_day()
    {
        var before = await Engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);
        await Engine.ExecuteAsync("UPDATE request_keys SET expires_at = now() - interval '1 second'");

        var after = await Engine.Log.AppendAsync(Request(Key("key", "other body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.Appended, after.Outcome);
        Assert.NotEqual(before.Events[0].Id, after.Events[0].Id);
    }

    [Fact]
    public async Task An_external_id_answers_as_the_first_time_or_conflicts()
    {
        var first = await Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var same = await Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var other = await Engine.Log.AppendAsync(
            Request(null, 1, External("ext", "other content")), TestContext.Current.CancellationToken);

        Assert.Equal((first.Events[0].Id, AppendedEventOutcome.Repeated), (same.Events[0].Id, same.Events[0].Outcome));
        Assert.Equal((first.Events[0].Id, AppendedEventOutcome.ExternalIdConflict), (other.Events[0].Id, other.Events[0].Outcome));
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task Of_many_racing_events_with_one_external_id_one_is_appended()
    {
        var results = await Task.WhenAll(Enumerable.Range(0, 300).Select(_ =>
            AppendWhenFreeAsync(Engine.Log, Request(null, 1, External("ext", "content")))));

        Assert.Single(results, r => r.Events[0].Outcome == AppendedEventOutcome.Appended);
        Assert.Single(results.Select(r => r.Events[0].Id).Distinct());
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task A_request_that_loses_its_external_id_keeps_no_idempotency_key()
    {
        await Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);

        var lost = await Engine.Log.AppendAsync(
            Request(Key("key", "body"), 1, External("ext", "other")), TestContext.Current.CancellationToken);
        var again = await Engine.Log.AppendAsync(Request(Key("key", "corrected body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendedEventOutcome.ExternalIdConflict, lost.Events[0].Outcome);
        Assert.Equal(AppendOutcome.Appended, again.Outcome);
    }

    [Fact]
    public async Task A_request_that_loses_its_idempotency_key_reserves_no_external_id()
    {
        await Engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);

        var lost = await Engine.Log.AppendAsync(
            Request(Key("key", "other body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var later = await Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.KeyReused, lost.Outcome);
        Assert.Equal(AppendedEventOutcome.Appended, later.Events[0].Outcome);
    }

    [Fact]
    public async Task A_repeated_batch_gets_the_ids_of_the_first_time_item_by_item()
    {
        await Engine.Log.AppendAsync(Request(null, 1, External("ext-1", "content")), TestContext.Current.CancellationToken);
        var first = await Engine.Log.AppendAsync(
            Request(Key("key", "batch"), 3, External("ext-1", "content")), TestContext.Current.CancellationToken);

        var again = await Engine.Log.AppendAsync(
            Request(Key("key", "batch"), 3, External("ext-1", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendedEventOutcome.Repeated, first.Events[0].Outcome);
        Assert.Equal(AppendOutcome.Repeated, again.Outcome);
        Assert.Equal(first.Events.Select(e => e.Id), again.Events.Select(e => e.Id));
        Assert.Equal(3, await CountAsync());
    }

    [Fact]
    public async Task What_was_appended_is_found_by_its_keys_and_finding_appends_nothing()
    {
        var first = await Engine.Log.AppendAsync(
            Request(Key("key", "batch"), 3, External("ext", "content")), TestContext.Current.CancellationToken);

        AppendResult? again = null;
        await Wait.UntilAsync("its keys are settled", async () =>
            (again = await FindAsync(
                Request(Key("key", "batch"), 3, External("ext", "content")))) is { Outcome: not AppendOutcome.InProgress });
        Assert.Equal(AppendOutcome.Repeated, again!.Outcome);
        Assert.Equal(first.Events.Select(e => e.Id), again.Events.Select(e => e.Id));
        Assert.Equal(AppendOutcome.KeyReused, (await FindAsync(Request(Key("key", "other"))))!.Outcome);
        Assert.Null(await FindAsync(Request(Key("another", "batch"), 3)));
        Assert.Null(await FindAsync(Request(null, 2)));
        // A part of it is new.
        Assert.Null(await FindAsync(Request(null, 2, External("ext", "content"))));
        var known = (await FindAsync(Request(null, 1, External("ext", "content"))))!.Events.Single();
        Assert.Equal((first.Events[0].Id, AppendedEventOutcome.Repeated), (known.Id, known.Outcome));
        var mixed = Request(Key("key", "other"), 3, External("ext", "content"));
        var events = mixed.Events.ToArray();
        events[2] = events[2] with { ExternalKey = External("ext", "other content").Key };
        Assert.Equal([events[0].Id], await Engine.Log.FindAcceptedAsync(
            mixed with { Events = events }, TestContext.Current.CancellationToken));
        Assert.Equal(3, await CountAsync());

        Task<AppendResult?> FindAsync(AppendRequest request) =>
            Engine.Log.FindRepeatedAsync(request, TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task Tenants_have_keys_of_their_own()
    {
        var other = Request(Key("key", "other body"), 1, External("ext", "other")) with { TenantId = TypeId.NewGuid() };
        await Engine.Log.AppendAsync(Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        var result = await Engine.Log.AppendAsync(other, TestContext.Current.CancellationToken);

        Assert.Equal((AppendOutcome.Appended, AppendedEventOutcome.Appended), (result.Outcome, result.Events[0].Outcome));
    }

    [Fact]
    public async Task Keys_whose_owner_died_with_nothing_in_the_log_are_free_and_their_events_new()
    {
        // An old id would come into lists behind those who have passed it.
        var dead = Request(Key("key", "batch"), 3, External("ext", "content"));
        await ReserveAndDieAsync(dead);

        var retried = await Engine.Log.AppendAsync(
            Request(Key("key", "batch"), 3, External("ext", "content")), TestContext.Current.CancellationToken);
        var again = await AppendWhenFreeAsync(Engine.Log, Request(Key("key", "batch"), 3, External("ext", "content")));

        Assert.Equal(AppendOutcome.Appended, retried.Outcome);
        Assert.All(retried.Events, e => Assert.True(e.Id.CompareTo(dead.Events[^1].Id) > 0));
        Assert.Equal(AppendOutcome.Repeated, again.Outcome);
        Assert.Equal(retried.Events.Select(e => e.Id), again.Events.Select(e => e.Id));
        Assert.Equal(3, await CountAsync());
    }

    [Fact]
    public async Task Keys_whose_owner_died_with_nothing_in_the_log_are_free_for_other_content_too()
    {
        await Engine.StartDeliveryAsync();
        await ReserveAndDieAsync(Request(Key("key", "body"), 1, External("ext", "content")));

        var external = await Engine.Log.AppendAsync(
            Request(null, 1, External("ext", "corrected content")), TestContext.Current.CancellationToken);
        var key = await AppendWhenFreeAsync(Engine.Log, Request(Key("key", "corrected body")));

        Assert.Equal(AppendedEventOutcome.Appended, external.Events[0].Outcome);
        Assert.Equal(AppendOutcome.Appended, key.Outcome);
        Assert.Equal(2, await CountAsync());
    }

    [Fact]
    public async Task Keys_whose_owner_died_with_its_event_in_the_log_stand_for_it()
    {
        var dead = Request(Key("key", "body"), 1, External("ext", "content"));
        await ReserveAndDieAsync(dead);
        await Engine.ExecuteAsync(StoredEvents.Store(
            $"SELECT '{Engine.Tenant}'::uuid, '{dead.FirstId}'::uuid, NULL, 'order.created', NULL, NULL, NULL::timestamptz, 'dead', "
                + "NULL, '1'::bytea, NULL::timestamptz, NULL::timestamptz, NULL"));

        var other = await Engine.Log.AppendAsync(
            Request(null, 1, External("ext", "other content")), TestContext.Current.CancellationToken);
        var reused = await Engine.Log.AppendAsync(Request(Key("key", "other body")), TestContext.Current.CancellationToken);
        var same = await Engine.Log.AppendAsync(
            Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal((dead.FirstId, AppendedEventOutcome.ExternalIdConflict), (other.Events[0].Id, other.Events[0].Outcome));
        Assert.Equal(AppendOutcome.KeyReused, reused.Outcome);
        Assert.Equal(dead.FirstId, same.Events[0].Id);
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task Who_waits_for_a_running_request_can_give_up()
    {
        await ReserveAndDieAsync(Request(Key("key", "body")), "now() + interval '1 hour'");
        using var client = new CancellationTokenSource();

        var waiting = Engine.Log.AppendAsync(Request(Key("key", "body")), client.Token);
        await Wait.UntilAsync("the key was looked at", async () =>
            await Engine.ScalarAsync<long>(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%FROM request_keys k%WHERE "
                    + "(k.tenant_id%'") > 1);
        await client.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
    }

    [Fact]
    public async Task An_append_with_too_little_of_its_request_s_time_left_is_not_begun_and_keeps_no_key()
    {
        var late = new TimeLimit(TimeProvider.System, RequestBudget.LeastAppend);

        var refused = await Assert.ThrowsAsync<EventLogUnavailableException>(() =>
            Engine.Log.AppendAsync(Request(null), late, TestContext.Current.CancellationToken));
        await Assert.ThrowsAsync<EventLogUnavailableException>(() =>
            Engine.Log.AppendAsync(Request(Key("key", "body")), late, TestContext.Current.CancellationToken));

        Assert.True(refused.NothingWasKept);
        Assert.Equal(0, await CountAsync());
        AppendResult? other = null;
        await Wait.UntilAsync("the key is free for something else", async () =>
            (other = await Engine.Log.AppendAsync(
                Request(Key("key", "other body")), TestContext.Current.CancellationToken)).Outcome == AppendOutcome.Appended);
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task A_key_that_cannot_be_settled_does_not_take_the_answer_away()
    {
        await ReserveAndDieAsync(Request(Key("key", "body"), 1, External("ext", "content")));
        await Engine.ExecuteAsync(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'too_many_connections'; END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON request_keys FOR EACH ROW WHEN (NEW.busy_until IS NULL) EXECUTE FUNCTION refuse()
            """);

        var result = await Engine.Log.AppendAsync(
            Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.Appended, result.Outcome);
        await Engine.ExecuteAsync("DROP TRIGGER refuse ON request_keys");
        await Wait.UntilAsync("it is settled later", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM request_keys WHERE busy_until IS NULL") == 2);
    }

    [Fact]
    public async Task A_key_whose_owner_may_still_be_running_is_in_progress()
    {
        await ReserveAndDieAsync(Request(Key("key", "body"), 1, External("ext", "content")), "now() + interval '1 hour'");

        var same = await Engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);
        var external = await Engine.Log.AppendAsync(
            Request(Key("key 2", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var other = await Engine.Log.AppendAsync(Request(Key("key 2", "another body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.InProgress, same.Outcome);
        Assert.Equal(AppendOutcome.InProgress, external.Outcome);
        // What waits for another keeps nothing of its own meanwhile.
        Assert.Equal(AppendOutcome.Appended, other.Outcome);
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task An_external_id_that_comes_twice_in_one_request_is_one_event()
    {
        var request = Request(null, 3, External("ext", "content"));
        request = request with
        {
            Events = [request.Events[0], request.Events[1] with { ExternalId = "ext",
            ExternalKey = Key("ext", "content") }, request.Events[2] with { ExternalId = "ext", ExternalKey = Key("ext", "other") }]
        };

        var result = await Engine.Log.AppendAsync(request, TestContext.Current.CancellationToken);

        Assert.Equal([AppendedEventOutcome.Appended, AppendedEventOutcome.Repeated, AppendedEventOutcome.ExternalIdConflict],
            result.Events.Select(e => e.Outcome));
        Assert.Single(result.Events.Select(e => e.Id).Distinct());
        Assert.Equal(1, await CountAsync());
    }

    [Fact]
    public async Task A_request_that_is_refused_before_anything_was_appended_keeps_no_key()
    {
        await using (var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            // Somebody is about to take the external id, and does not get on with it.
            await using var command = connection.CreateCommand();
            command.CommandText =
                $"""
                INSERT INTO request_keys (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, expires_at)
                VALUES ('{Engine.Tenant}', 1, '\x{Convert.ToHexString(External("ext", "content").Key.KeyHash)}',
                    '\x{new string('0', 64)}', '{TypeId.NewGuid()}', 'c', 'infinity')
                """;
            await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            await Assert.ThrowsAsync<EventLogUnavailableException>(() =>
                Engine.Log.AppendAsync(Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken));
        }

        AppendResult? other = null;
        await Wait.UntilAsync("the key is free for something else", async () =>
            (other = await Engine.Log.AppendAsync(
                Request(Key("key", "other body")), TestContext.Current.CancellationToken)).Outcome != AppendOutcome.KeyReused);
        Assert.Equal(AppendOutcome.Appended, other!.Outcome);
        Assert.Equal(1, await CountAsync());
    }

    /// <summary>What a process leaves that dies between reserving the keys of a request and appending its events.</summary>
    /// <param name="request">With its keys.</param>
    /// <param name="busyUntil">SQL: when its time is over.</param>
    /// <param name="log">Which log it was to append to; null for the engine's.</param>
    private protected Task<int> ReserveAndDieAsync(
        AppendRequest request, string busyUntil = "now() - interval '1 second'", string? log = null)
    {
        log ??= Engine.Kafka is null ? "postgres" : "kafka";
        string Row(short kind, RequestKey key, Guid id) =>
            $"('{request.TenantId}', {kind}, '\\x{Convert.ToHexString(key.KeyHash)}', '\\x{Convert.ToHexString(key.Fingerprint)}', "
                + $"'{id}', 'dead', '{log}', {busyUntil}, 'infinity')";
        var rows = request.Events.Where(e => e.ExternalKey is not null).Select(e => Row(1, e.ExternalKey!, e.Id)).ToList();
        if (request.IdempotencyKey is { } key)
            rows.Add(Row(0, key, request.FirstId));
        return Engine.ExecuteAsync(
            "INSERT INTO request_keys "
                + "(tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, reserved_by, busy_until, expires_at) "
                + $"VALUES {string.Join(", ", rows)}");
    }

    /// <summary>As a client does: again, while the first request with these keys is running, or the log is busy.</summary>
    private static async Task<AppendResult> AppendWhenFreeAsync(IEventLog log, AppendRequest request)
    {
        AppendResult? result = null;
        await Wait.UntilAsync("the request has its answer", async () =>
        {
            try
            {
                result = await log.AppendAsync(request, TestContext.Current.CancellationToken);
                return result.Outcome != AppendOutcome.InProgress;
            }
            catch (EventLogUnavailableException)
            {
                return false;
            }
        });
        return result!;
    }

    private protected static RequestKey Key(string key, string content) =>
        new(SHA256.HashData(Encoding.UTF8.GetBytes(key)), SHA256.HashData(Encoding.UTF8.GetBytes(content)));

    private protected static (string Id, RequestKey Key) External(string id, string content) => (id, Key(id, content));

    private protected AppendRequest Request(RequestKey? key, int count = 1, (string Id, RequestKey Key)? external = null)
    {
        var first = TypeId.NewGuid();
        return new AppendRequest(Engine.Tenant, first, "test", null, key,
        [
            .. Enumerable.Range(0, count).Select(i => new NewEvent(
                TypeId.Add(first, i), "order.created", i == 0 ? external?.Id : null,
                i == 0 ? external?.Key : null, null, null, null, "1"u8.ToArray())),
        ]);
    }
}

public sealed class KeysOnThePostgresLogTests(PostgresServer postgres) : EventLogTests
{
    [Fact]
    public async Task A_request_without_keys_has_its_answer_when_the_keys_of_its_group_cannot_be_read_after_the_commit()
    {
        await Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        await Engine.ExecuteAsync(
            """
            CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER TABLE request_keys RENAME TO hidden; RETURN NULL;
                END $$;
            CREATE CONSTRAINT TRIGGER hide AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW WHEN (NEW.external_id = 'last') EXECUTE FUNCTION hide()
            """);
        List<Task<AppendResult>> durable;
        Task<AppendResult> repeated;
        await using (var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            // One append holds up the log, and the others share the next commit.
            await using var hold = connection.CreateCommand();
            hold.CommandText = $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Append})";
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            durable = [Engine.Log.AppendAsync(Request(null), TestContext.Current.CancellationToken)];
            await Wait.UntilAsync("an append waits", async () =>
                await Engine.ScalarAsync<long>(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM "
                        + "pg_database WHERE datname = current_database())") == 1);
            durable.Add(Engine.Log.AppendAsync(Request(null), TestContext.Current.CancellationToken));
            durable.Add(Engine.Log.AppendAsync(
                Request(Key("key", "body"), 1, External("last", "content")), TestContext.Current.CancellationToken));
            repeated = Engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        }

        Assert.All(await Task.WhenAll(durable), r => Assert.Equal(AppendOutcome.Appended, r.Outcome));
        await Assert.ThrowsAsync<EventLogUnavailableException>(() => repeated);
        Assert.Equal(4, await CountAsync());
    }

    [Fact]
    public async Task What_a_dead_owner_on_another_log_left_nobody_can_tell_so_only_the_same_request_goes_on_and_under_the_ids_of_then()
    {
        var dead = Request(Key("key", "body"), 1, External("ext", "content"));
        await ReserveAndDieAsync(dead, log: "kafka");

        var other = await Engine.Log.AppendAsync(
            Request(null, 1, External("ext", "other content")), TestContext.Current.CancellationToken);
        var same = await Engine.Log.AppendAsync(
            Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.InProgress, other.Outcome);
        Assert.Equal((AppendOutcome.Appended, dead.FirstId), (same.Outcome, same.Events[0].Id));
        Assert.Equal(1, await CountAsync());
    }

    private protected override Task<Engine> CreateAsync() => Engine.CreateAsync(postgres);

    private protected override Task<long> CountAsync() => Engine.ScalarAsync<long>("SELECT count(*) FROM events");
}

public sealed class KeysOnTheKafkaLogTests(PostgresServer postgres, KafkaServer kafka) : EventLogTests
{
    [Fact]
    public async Task While_nobody_can_tell_what_a_dead_owner_left_only_the_same_request_goes_on_and_under_the_ids_of_then()
    {
        await Engine.Log.AppendAsync(Request(null), TestContext.Current.CancellationToken);
        var dead = Request(Key("key", "body"), 1, External("ext", "content"));
        await ReserveAndDieAsync(dead);

        var other = await Engine.Log.AppendAsync(
            Request(null, 1, External("ext", "other content")), TestContext.Current.CancellationToken);
        var same = await Engine.Log.AppendAsync(
            Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.InProgress, other.Outcome);
        Assert.Equal((AppendOutcome.Appended, dead.FirstId), (same.Outcome, same.Events[0].Id));
        Assert.Equal(2, await CountAsync());
    }

    private protected override async Task<Engine> CreateAsync()
    {
        KafkaServer.SkipIfMissing();
        return await Engine.CreateAsync(postgres, await kafka.ConnectionStringAsync());
    }

    private protected override Task<long> CountAsync() =>
        Task.FromResult(Engine.Kafka!.Read(Engine.Kafka.Options.EventsTopic)
            .Select(r => Triggers.EventLog.Kafka.LogRecord.Decode(r.Message.Value).Id).Distinct().LongCount());
}
