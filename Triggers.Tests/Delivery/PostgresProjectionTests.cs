using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>The projection of the Postgres log, held up where it is most delicate.</summary>
public sealed class PostgresProjectionTests(PostgresServer postgres) : EngineTests(postgres)
{
    private const string Reading = "wait_event_type = 'Lock' AND query LIKE '%ORDER BY e.seq LIMIT%'";

    [Fact]
    public async Task An_event_accepted_after_the_answer_to_a_subscription_reaches_it_however_the_projection_is_held_up()
    {
        await Engine.StartDeliveryAsync();
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await ExecuteAsync(connection, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE");
        await Engine.ExecuteAsync($"NOTIFY {Notifications.Events}");
        await Wait.UntilAsync("the projection is about to read events", async () =>
            await Engine.ScalarAsync<long>(
                $"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {Reading}") == 1);

        await Engine.SubscribeAsync(Receiver.Url);
        var id = TypeId.NewGuid();
        await ExecuteAsync(connection,
            StoredEvents.Append(
                $"SELECT '{Engine.Tenant}'::uuid, '{id}'::uuid, NULL, 'a.b', NULL, NULL, NULL::timestamptz, 'c', NULL, '1'::bytea, "
                    + "NULL::timestamptz, NULL::timestamptz"));
        await transaction.CommitAsync(TestContext.Current.CancellationToken);

        await Wait.UntilAsync("the event is projected", async () =>
            await Engine.ScalarAsync<long>("SELECT next FROM log_positions WHERE log = 'postgres'") > 1);
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task An_event_whose_deliveries_Postgres_refuses_is_set_aside_and_all_others_go_on()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await RefuseDeliveriesOfAsync("a.bad");
        var good = (await Engine.AppendAsync("a.good", 100)).ToList();
        var bad = (await Engine.AppendAsync("a.bad"))[0];
        good.AddRange(await Engine.AppendAsync("a.good", 60));

        await Engine.StartDeliveryAsync();

        // The other one may have been sent before it was to be written.
        HashSet<string> Others() => [.. Receiver.Received.Select(w => w.EventId).Where(id => id != TypeId.Format(TypeId.Event, bad))];
        await Wait.UntilAsync("all others are delivered", () => Others().Count >= good.Count);
        await Wait.UntilAsync("the log is read", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM inbox") == 1);
        Assert.Equal(good.Select(id => TypeId.Format(TypeId.Event, id)).ToHashSet(), Others());
        Assert.Equal(bad, await Engine.ScalarAsync<Guid>("SELECT event_id FROM inbox"));
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM all_deliveries WHERE event_id = '{bad}'"));
    }

    [Fact]
    public async Task While_another_process_has_the_position_no_events_are_read()
    {
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using (var transaction = await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            await ExecuteAsync(connection, "SELECT FROM log_positions WHERE log = 'postgres' FOR UPDATE");
            await Engine.AppendAsync("a.b", 400);
            await Engine.StartDeliveryAsync();
            var looks = new HashSet<DateTime>();
            // Long enough for Postgres to publish what was read meanwhile, which it does once a second.
            await Wait.UntilAsync("the projection has looked a hundred times", async () =>
            {
                await Engine.ExecuteAsync($"NOTIFY {Notifications.Events}");
                looks.Add(await Engine.ScalarAsync<DateTime>(
                    "SELECT coalesce(max(query_start), '-infinity') FROM pg_stat_activity WHERE datname = current_database() AND query "
                        + "ILIKE 'ROLLBACK%'"));
                return looks.Count > 100;
            });

            Assert.InRange(await Engine.ScalarAsync<long>(
                "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables WHERE relname "
                    + "LIKE 'events_2%'"), 0, 399);
        }
        await Wait.UntilAsync("the events are projected", async () =>
            await Engine.ScalarAsync<long>("SELECT next FROM log_positions WHERE log = 'postgres'") > 400);
    }

    /// <summary>Only the newest partitions are read, unless a number is missing there.</summary>
    [Fact]
    public async Task An_event_whose_id_is_old_is_projected_in_its_turn()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.AppendAsync("new.first");
        var old = TypeId.At(DateTimeOffset.UtcNow.AddDays(-10));
        await Engine.Rows.ExecuteAsync(StoredEvents.Append(
            $"SELECT '{Engine.Tenant}'::uuid, '{old}'::uuid, NULL, 'old', NULL, NULL, NULL::timestamptz, 'c', NULL, '1'::bytea, "
                + "NULL::timestamptz, NULL::timestamptz"));
        await Engine.AppendAsync("new.last");

        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("all three are delivered", () => Receiver.Received.Count == 3);
        await Wait.UntilAsync("they are settled", async () => await Engine.UnsettledAsync() == 0);
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }
}
