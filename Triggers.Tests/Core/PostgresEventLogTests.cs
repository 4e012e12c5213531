using System.Security.Cryptography;
using System.Text;
using Triggers.Core;
using Triggers.Core.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core;

public sealed class PostgresEventLogTests(PostgresServer postgres) : IAsyncLifetime
{
    private Engine _engine = null!;

    public async ValueTask InitializeAsync() => _engine = await Engine.CreateAsync(postgres);

    public ValueTask DisposeAsync() => _engine.DisposeAsync();

    [Fact]
    public async Task What_was_appended_is_there_in_the_order_of_the_request()
    {
        var ids = await _engine.AppendAsync("order.created", 100);

        var stored = new List<Guid>();
        await using var command = _engine.DataSource.CreateCommand("SELECT id FROM events ORDER BY seq");
        await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
            stored.Add(reader.GetGuid(0));
        Assert.Equal(ids, stored);
    }

    [Fact]
    public async Task Numbers_are_given_in_the_order_of_commits_however_many_append()
    {
        // A reader that goes on from the largest number it has seen must never find a smaller one later.
        using var stop = new CancellationTokenSource();
        var seen = new List<long>();
        var reading = Task.Run(
            async () =>
            {
                long next = 1;
                while (!stop.IsCancellationRequested)
                {
                    await using var command = _engine.DataSource.CreateCommand($"SELECT seq FROM events WHERE seq >= {next} ORDER BY seq");
                    await using var reader = await command.ExecuteReaderAsync();
                    while (await reader.ReadAsync())
                    {
                        seen.Add(reader.GetInt64(0));
                        next = seen[^1] + 1;
                    }
                }
            },
            TestContext.Current.CancellationToken);

        await using var other = new Appender(_engine);
        await Task.WhenAll(Enumerable.Range(0, 400).Select(i => i % 2 == 0 ? _engine.AppendAsync("a.b", 3) : (Task)other.AppendAsync(3)));
        await Wait.UntilAsync("the reader has seen everything", () => seen.Count == 1_200);
        await stop.CancelAsync();
        await reading;

        Assert.Equal(1_200, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task Of_many_racing_requests_with_one_key_one_is_appended_and_all_get_its_answer()
    {
        await using var other = new Appender(_engine);
        var key = Key("key", "body");

        var results = await Task.WhenAll(Enumerable.Range(0, 500).Select(i =>
            (i % 2 == 0 ? _engine.Log : other.Log).AppendAsync(Request(key, 3), TestContext.Current.CancellationToken)));

        var first = Assert.Single(results, r => r.Outcome == AppendOutcome.Appended);
        Assert.Equal(499, results.Count(r => r.Outcome == AppendOutcome.Repeated));
        Assert.All(results, r => Assert.Equal(first.Events.Select(e => e.Id), r.Events.Select(e => e.Id)));
        Assert.Equal(3, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task The_same_key_with_another_body_is_refused_and_appends_nothing()
    {
        await _engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);

        var result = await _engine.Log.AppendAsync(Request(Key("key", "other body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.KeyReused, result.Outcome);
        Assert.Equal(1, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task A_key_is_free_again_after_its_day()
    {
        var before = await _engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);
        await _engine.ExecuteAsync("UPDATE request_keys SET expires_at = now() - interval '1 second'");

        var after = await _engine.Log.AppendAsync(Request(Key("key", "other body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.Appended, after.Outcome);
        Assert.NotEqual(before.Events[0].Id, after.Events[0].Id);
    }

    [Fact]
    public async Task An_external_id_answers_as_the_first_time_or_conflicts()
    {
        var first = await _engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var same = await _engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var other = await _engine.Log.AppendAsync(Request(null, 1, External("ext", "other content")), TestContext.Current.CancellationToken);

        Assert.Equal((first.Events[0].Id, AppendedEventOutcome.Repeated), (same.Events[0].Id, same.Events[0].Outcome));
        Assert.Equal((first.Events[0].Id, AppendedEventOutcome.ExternalIdConflict), (other.Events[0].Id, other.Events[0].Outcome));
        Assert.Equal(1, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task Of_many_racing_events_with_one_external_id_one_is_appended()
    {
        var results = await Task.WhenAll(Enumerable.Range(0, 300).Select(_ =>
            _engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken)));

        Assert.Single(results, r => r.Events[0].Outcome == AppendedEventOutcome.Appended);
        Assert.Single(results.Select(r => r.Events[0].Id).Distinct());
        Assert.Equal(1, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task A_request_that_loses_its_external_id_keeps_no_idempotency_key()
    {
        await _engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);

        var lost = await _engine.Log.AppendAsync(Request(Key("key", "body"), 1, External("ext", "other")), TestContext.Current.CancellationToken);
        var again = await _engine.Log.AppendAsync(Request(Key("key", "corrected body")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendedEventOutcome.ExternalIdConflict, lost.Events[0].Outcome);
        Assert.Equal(AppendOutcome.Appended, again.Outcome);
    }

    [Fact]
    public async Task A_request_that_loses_its_idempotency_key_reserves_no_external_id()
    {
        await _engine.Log.AppendAsync(Request(Key("key", "body")), TestContext.Current.CancellationToken);

        var lost = await _engine.Log.AppendAsync(Request(Key("key", "other body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);
        var later = await _engine.Log.AppendAsync(Request(null, 1, External("ext", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendOutcome.KeyReused, lost.Outcome);
        Assert.Equal(AppendedEventOutcome.Appended, later.Events[0].Outcome);
    }

    [Fact]
    public async Task A_repeated_batch_gets_the_ids_of_the_first_time_item_by_item()
    {
        await _engine.Log.AppendAsync(Request(null, 1, External("ext-1", "content")), TestContext.Current.CancellationToken);
        var first = await _engine.Log.AppendAsync(Request(Key("key", "batch"), 3, External("ext-1", "content")), TestContext.Current.CancellationToken);

        var again = await _engine.Log.AppendAsync(Request(Key("key", "batch"), 3, External("ext-1", "content")), TestContext.Current.CancellationToken);

        Assert.Equal(AppendedEventOutcome.Repeated, first.Events[0].Outcome);
        Assert.Equal(AppendOutcome.Repeated, again.Outcome);
        Assert.Equal(first.Events.Select(e => e.Id), again.Events.Select(e => e.Id));
        Assert.Equal(3, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task Tenants_have_keys_of_their_own()
    {
        var other = Request(Key("key", "other body"), 1, External("ext", "other")) with { TenantId = TypeId.NewGuid() };
        await _engine.Log.AppendAsync(Request(Key("key", "body"), 1, External("ext", "content")), TestContext.Current.CancellationToken);

        var result = await _engine.Log.AppendAsync(other, TestContext.Current.CancellationToken);

        Assert.Equal((AppendOutcome.Appended, AppendedEventOutcome.Appended), (result.Outcome, result.Events[0].Outcome));
    }

    [Fact]
    public async Task What_Postgres_refuses_fails_alone()
    {
        // Older than any partition: it has nowhere to go. The others share its commit.
        var bad = Request(null) with { FirstId = TypeId.At(DateTimeOffset.UnixEpoch) };
        bad = bad with { Events = [bad.Events[0] with { Id = bad.FirstId }] };

        var good = Enumerable.Range(0, 20).Select(_ => _engine.AppendAsync("order.created")).ToList();
        var refused = _engine.Log.AppendAsync(bad, TestContext.Current.CancellationToken);
        good.AddRange(Enumerable.Range(0, 20).Select(_ => _engine.AppendAsync("order.created")));

        await Task.WhenAll(good);
        await Assert.ThrowsAsync<EventLogUnavailableException>(() => refused);
        Assert.Equal(40, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task A_log_that_is_held_up_answers_that_it_is_unavailable_and_appends_nothing_it_gave_up()
    {
        await using (var holder = await _engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        {
            await using var hold = holder.CreateCommand();
            hold.CommandText = $"SELECT pg_advisory_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Append})";
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);

            await Assert.ThrowsAsync<EventLogUnavailableException>(() => _engine.AppendAsync("order.created"));

            hold.CommandText = $"SELECT pg_advisory_unlock({AdvisoryLocks.Class}, {AdvisoryLocks.Append})";
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }

        await Wait.UntilAsync("the log takes events again", async () =>
        {
            try
            {
                await _engine.AppendAsync("order.later");
                return true;
            }
            catch (EventLogUnavailableException)
            {
                return false;
            }
        });
        Assert.Equal(0, await _engine.ScalarAsync<long>("SELECT count(*) FROM events WHERE type = 'order.created'"));
    }

    [Theory]
    [InlineData("succeeded", "pending")]
    [InlineData("dead_lettered", "succeeded")]
    [InlineData("cancelled", "pending")]
    [InlineData("succeeded", "succeeded")]
    public async Task Postgres_itself_refuses_to_leave_a_final_state(string from, string to)
    {
        var id = TypeId.NewGuid();
        await _engine.ExecuteAsync(
            $"""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at)
            VALUES ('{_engine.Tenant}', '{id}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', now());
            UPDATE deliveries SET status = '{from}', next_attempt_at = NULL, finalized_at = now() WHERE id = '{id}'
            """);

        var refused = await Assert.ThrowsAsync<Npgsql.PostgresException>(() => _engine.ExecuteAsync(
            $"""
            UPDATE deliveries SET status = '{to}', next_attempt_at = CASE WHEN '{to}' = 'pending' THEN now() END,
                finalized_at = CASE WHEN '{to}' <> 'pending' THEN now() END WHERE id = '{id}'
            """));
        Assert.Contains("a final state is never left", refused.MessageText, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("status = 'succeeded'")]
    [InlineData("status = 'lost', next_attempt_at = NULL, finalized_at = now()")]
    [InlineData("next_attempt_at = NULL")]
    [InlineData("status = 'succeeded', next_attempt_at = NULL")]
    [InlineData("finalized_at = now()")]
    [InlineData("status = 'cancelled', next_attempt_at = NULL, finalized_at = now(), claimed_by = 1")]
    public async Task Postgres_itself_refuses_rows_whose_fields_do_not_fit(string change)
    {
        await _engine.ExecuteAsync(
            $"""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at)
            VALUES ('{_engine.Tenant}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', '{TypeId.NewGuid()}', now())
            """);

        var refused = await Assert.ThrowsAsync<Npgsql.PostgresException>(() => _engine.ExecuteAsync($"UPDATE deliveries SET {change}"));
        Assert.Equal(Npgsql.PostgresErrorCodes.CheckViolation, refused.SqlState);
    }

    private static RequestKey Key(string key, string content) =>
        new(SHA256.HashData(Encoding.UTF8.GetBytes(key)), SHA256.HashData(Encoding.UTF8.GetBytes(content)));

    private static (string Id, RequestKey Key) External(string id, string content) => (id, Key(id, content));

    private AppendRequest Request(RequestKey? key, int count = 1, (string Id, RequestKey Key)? external = null)
    {
        var first = TypeId.NewGuid();
        return new AppendRequest(_engine.Tenant, first, "test", null, key,
        [
            .. Enumerable.Range(0, count).Select(i => new NewEvent(
                TypeId.Add(first, i), "order.created", i == 0 ? external?.Id : null, i == 0 ? external?.Key : null, null, null, null, "1"u8.ToArray())),
        ]);
    }

    /// <summary>A second writer to the same log, as another API process is.</summary>
    private sealed class Appender : IAsyncDisposable
    {
        private readonly PostgresEventLog _log;
        private readonly Guid _tenant;

        public Appender(Engine engine)
        {
            _tenant = engine.Tenant;
            _log = new PostgresEventLog(engine.DataSource, TimeProvider.System, Microsoft.Extensions.Logging.Abstractions.NullLogger<PostgresEventLog>.Instance);
            _ = _log.StartAsync(CancellationToken.None);
        }

        public IEventLog Log => _log;

        public Task<AppendResult> AppendAsync(int count)
        {
            var first = TypeId.NewGuid();
            return _log.AppendAsync(new AppendRequest(_tenant, first, "test", null, null,
                [.. Enumerable.Range(0, count).Select(i => new NewEvent(TypeId.Add(first, i), "a.b", null, null, null, null, null, "1"u8.ToArray()))]), CancellationToken.None);
        }

        public async ValueTask DisposeAsync()
        {
            await _log.StopAsync(CancellationToken.None);
            _log.Dispose();
        }
    }
}
