using Triggers.Core;
using Triggers.EventLog;
using Triggers.EventLog.Postgres;
using Triggers.Tests.Support;

namespace Triggers.Tests.EventLog;

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

        var other = await _engine.AnotherLogAsync();
        await Task.WhenAll(
            Enumerable.Range(0, 400).Select(i => i % 2 == 0 ? _engine.AppendAsync("a.b", 3) : _engine.AppendAsync("a.b", 3, log: other)));
        await Wait.UntilAsync("the reader has seen everything", () => seen.Count == 1_200);
        await stop.CancelAsync();
        await reading;

        Assert.Equal(1_200, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task What_Postgres_refuses_fails_alone()
    {
        // Postgres keeps no NUL in a text. The others share its commit.
        var bad = Request(TypeId.NewGuid(), "a\0b");

        var good = Enumerable.Range(0, 20).Select(_ => _engine.AppendAsync("order.created")).ToList();
        var refused = _engine.Log.AppendAsync(bad, TestContext.Current.CancellationToken);
        good.AddRange(Enumerable.Range(0, 20).Select(_ => _engine.AppendAsync("order.created")));

        await Task.WhenAll(good);
        await Assert.ThrowsAsync<EventLogUnavailableException>(() => refused);
        Assert.Equal(40, await _engine.ScalarAsync<long>("SELECT count(*) FROM events"));
    }

    [Fact]
    public async Task An_event_has_an_id_of_the_moment_it_is_appended_however_long_it_waited_for_that()
    {
        // A list in the order of ids would have been read past it otherwise.
        var first = TypeId.At(DateTimeOffset.UtcNow.AddSeconds(-5));
        var before = TypeId.NewGuid();

        var result = await _engine.Log.AppendAsync(Request(first, "a.b", "a.b"), TestContext.Current.CancellationToken);

        Assert.All(result.Events, e => Assert.True(e.Id.CompareTo(before) > 0));
        Assert.Equal(1, TypeId.Difference(result.Events[1].Id, result.Events[0].Id));
        Assert.Equal(2, await _engine.ScalarAsync<long>(
            $"SELECT count(*) FROM events WHERE id IN ('{result.Events[0].Id}', '{result.Events[1].Id}')"));
    }

    private AppendRequest Request(Guid first, params string[] types) => new(_engine.Tenant, first, "test", null, null,
        [.. types.Select((type, i) => new NewEvent(TypeId.Add(first, i), type, null, null, null, null, null, "1"u8.ToArray()))]);

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
}
