using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>Several delivery services on one database, and what becomes of the work of one that dies.</summary>
public sealed class WorkersTests(PostgresServer postgres) : EngineTests(postgres)
{
    /// <summary>An attempt that is given up while the test still sets the scene would be another story.</summary>
    private static readonly (string, string)[] s_patient = [("Delivery:AttemptTimeout", "00:05:00"), ("Delivery:Lease", "00:10:00")];

    [Fact]
    public async Task Two_share_the_work_and_do_none_of_it_twice()
    {
        for (var i = 0; i < 4; i++)
            await Engine.SubscribeAsync($"{Receiver.Url}/{i}");
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "4"));
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "4"));

        var ids = new List<Guid>();
        for (var i = 0; i < 20; i++)
            ids.AddRange(await Engine.AppendAsync("order.created", 25));

        await Wait.UntilAsync("all are delivered", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == 2_000);
        Assert.Equal(2_000, Receiver.Received.Count);
        Assert.Equal(500, Receiver.At("/0").Select(w => w.EventId).Distinct().Count());
    }

    [Fact]
    public async Task What_a_dead_worker_had_claimed_is_taken_over_long_before_its_lease_ends()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Lease", "00:10:00"));
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);

        // A worker that died: its row is there, and nobody holds its lock.
        var dead = await Engine.ScalarAsync<int>("INSERT INTO workers (host) VALUES ('dead') RETURNING number");
        var subscription = await Engine.ScalarAsync<Guid>("SELECT id FROM subscriptions");
        await Engine.ExecuteAsync([DeliveryQueue.Enqueue(
            [new NewDelivery(Engine.Tenant, TypeId.NewGuid(), id, subscription) { Claimed = true }], dead, TimeSpan.FromMinutes(9))]);

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded, 2);
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM workers WHERE number = {dead}"));
    }

    [Fact]
    public async Task What_was_claimed_for_a_worker_that_was_never_told_is_sent_once_Postgres_answers_again()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Lease", "00:10:00"));
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);

        var worker = await Engine.ScalarAsync<int>("SELECT number FROM workers");
        await Engine.ExecuteAsync([DeliveryQueue.Enqueue(
            [new NewDelivery(Engine.Tenant, TypeId.NewGuid(), id, subscription) { Claimed = true }], worker, TimeSpan.FromMinutes(9))]);
        await using (var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken))
        await using (await connection.BeginTransactionAsync(TestContext.Current.CancellationToken))
        {
            await using var hold = new NpgsqlCommand("LOCK TABLE delivery_queue IN ACCESS EXCLUSIVE MODE", connection);
            await hold.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
            // The dispatcher looks every few seconds, and gets no answer.
            await Wait.UntilAsync("a look at the queue is broken off", async () => await Engine.ScalarAsync<long>(
                """
                SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM delivery_queue WHERE NOT test%'
                """) > 0);
        }

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded, 2);
    }

    [Fact]
    public async Task An_event_that_a_broken_connection_could_not_read_is_sent_long_before_the_lease_ends()
    {
        // Too large to be carried from the log: it is read when it is claimed.
        var large = $"\"{new string('x', 100_000)}\"";
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Lease", "00:10:00"));
        await Engine.WaitForStatusAsync((await Engine.AppendAsync("order.created", data: large))[0], DeliveryStatus.Succeeded);

        // All of its connections that nobody waits on: it finds out when it uses them.
        await Engine.ScalarAsync<long>(
            """
            SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'tests'
                AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')
            """);
        var ids = new List<Guid>();
        for (var i = 0; i < 3; i++)
            ids.AddRange(await Engine.AppendAsync("order.created", data: large));

        foreach (var id in ids)
            await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task What_a_living_worker_has_claimed_is_left_to_it()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Lease", "00:10:00"));
        await using var living = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var register = living.CreateCommand();
        register.CommandText =
            "WITH w AS (INSERT INTO workers (host) VALUES ('living') RETURNING number) SELECT number, "
                + $"pg_advisory_lock({AdvisoryLocks.WorkerClass}, number) FROM w";
        var number = (int)(await register.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
        var id = (await Engine.AppendAsync("never.matched"))[0];
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        var held = TypeId.NewGuid();
        await Engine.ExecuteAsync([DeliveryQueue.Enqueue(
            [new NewDelivery(Engine.Tenant, held, id, subscription) { Claimed = true }], number, TimeSpan.FromMinutes(9))]);

        // A dead one beside it shows that the look was taken.
        var dead = await Engine.ScalarAsync<int>("INSERT INTO workers (host) VALUES ('dead') RETURNING number");
        await Engine.AppendAsync("order.created");
        await Wait.UntilAsync("the dead worker is gone", async () =>
            await Engine.ScalarAsync<long>($"SELECT count(*) FROM workers WHERE number = {dead}") == 0);

        Assert.Equal(number, await Engine.ScalarAsync<int>($"SELECT claimed_by FROM delivery_queue WHERE id = '{held}'"));
    }

    [Fact]
    public async Task A_stopping_service_lets_its_attempts_finish_and_leaves_nothing_claimed()
    {
        var finish = new TaskCompletionSource();
        Receiver.Respond = (_, _) => finish.Task;
        await Engine.SubscribeAsync(Receiver.Url);
        var host = await Engine.StartDeliveryAsync();
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("the attempt is in flight", () => Receiver.Received.Count == 1);

        var stopping = host.DisposeAsync().AsTask();
        finish.SetResult();
        await stopping;

        Assert.Equal("succeeded", await Engine.ScalarAsync<string>($"SELECT status FROM deliveries WHERE event_id = '{id}'"));
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM workers"));
    }

    [Fact]
    public async Task A_result_under_an_old_claim_changes_nothing_unless_it_is_a_success()
    {
        var answer = new TaskCompletionSource<int>();
        Receiver.Respond = async (_, context) => context.Response.StatusCode = await answer.Task;
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(s_patient);
        var id = (await Engine.AppendAsync("order.created"))[0];
        await InFlightAsync();

        // Somebody else claimed it meanwhile, for a long time.
        await Engine.ExecuteAsync(
            $"UPDATE delivery_queue SET claim = claim + 1, next_attempt_at = now() + interval '1 hour' WHERE event_id = '{id}'");
        answer.SetResult(500);

        await Wait.UntilAsync("the attempt is recorded", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM attempts") == 1);
        Assert.Equal(0, await Engine.ScalarAsync<int>("SELECT retry_count FROM delivery_queue"));
        Assert.True(await Engine.ScalarAsync<bool>("SELECT next_attempt_at > now() + interval '59 minutes' FROM delivery_queue"));
    }

    [Fact]
    public async Task A_success_counts_whatever_claim_it_was_made_under()
    {
        var answer = new TaskCompletionSource();
        Receiver.Respond = (_, _) => answer.Task;
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(s_patient);
        var id = (await Engine.AppendAsync("order.created"))[0];
        await InFlightAsync();

        await Engine.ExecuteAsync(
            $"UPDATE delivery_queue SET claim = claim + 1, next_attempt_at = now() + interval '1 hour' WHERE event_id = '{id}'");
        answer.SetResult();

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
    }

    /// <summary>Longer than the projection waits for its result.</summary>
    private Task InFlightAsync() => Wait.UntilAsync("the attempt is in flight, and in the queue", async () =>
        Receiver.Received.Count > 0
            && await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE claimed_by IS NOT NULL") == 1);
}
