using Npgsql;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>First attempts are made as events are read from the log, before anything of them is written.</summary>
public abstract class FirstAttemptsTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task It_is_sent_before_anything_is_written()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();
        await using var held = await HoldAsync("delivery_queue, deliveries");

        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("it is sent", () => Receiver.Received.Count == 1);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
        await held.RollbackAsync(Cancellation);

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Equal("delivered", await Engine.StatusAsync(id));
        Assert.Single(Receiver.Received);
    }

    [Fact]
    public async Task What_ends_at_once_was_never_in_the_queue()
    {
        await NoteQueuedAsync();
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();

        // On a busy machine some take longer.
        await Wait.UntilAsync("one has ended in time", async () =>
        {
            var id = (await Engine.AppendAsync("order.created"))[0];
            await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
            return await Engine.ScalarAsync<long>($"SELECT count(*) FROM queued WHERE event_id = '{id}'") == 0;
        });
    }

    [Fact]
    public async Task What_finds_its_lane_full_gets_the_next_free_place_and_was_never_in_the_queue()
    {
        await NoteQueuedAsync();
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "1"));

        await Wait.UntilAsync("three of one request have ended in time", async () =>
        {
            var ids = await Engine.AppendAsync("order.created", 3);
            foreach (var id in ids)
                await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
            return await Engine.ScalarAsync<long>(
                $"SELECT count(*) FROM queued WHERE event_id IN ({string.Join(", ", ids.Select(id => $"'{id}'"))})") == 0;
        });
        Assert.Equal(Receiver.Received.Count, Receiver.Received.Select(w => w.EventId).Distinct().Count());
    }

    [Fact]
    public async Task What_takes_longer_is_claimed_in_the_queue_until_it_ends()
    {
        var answer = new TaskCompletionSource();
        Receiver.Respond = (_, _) => answer.Task;
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("it is in the queue, claimed", async () => await Engine.ScalarAsync<long>(
            "SELECT count(*) FROM delivery_queue WHERE claimed_by IS NOT NULL AND next_attempt_at > now()") == 1);
        await Wait.UntilAsync("it is sent", () => Receiver.Received.Count == 1);
        answer.SetResult();

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Single(Receiver.Received);
    }

    [Fact]
    public async Task What_fails_is_put_off_and_the_attempt_recorded()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 500;
            return Task.CompletedTask;
        };
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:BaseDelay", "01:00:00"));

        await Engine.AppendAsync("order.created");

        await Wait.UntilAsync("it is put off", async () => await Engine.ScalarAsync<long>(
            """
            SELECT count(*) FROM delivery_queue WHERE claim = 1 AND claimed_by IS NULL AND retry_count = 1 AND last_status_code = 500
                AND next_attempt_at > now() + interval '59 minutes'
            """) == 1);
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT count(*) FROM attempts WHERE status_code = 500 AND number = 1"));
    }

    [Fact]
    public async Task What_is_given_up_is_a_dead_letter()
    {
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 500;
            return Task.CompletedTask;
        };
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "1"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal("dead_lettered", await Engine.StatusAsync(id));
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue"));
    }

    [Fact]
    public async Task What_others_are_about_to_get_is_in_no_inbox_though_one_is_gone()
    {
        await NoteQueuedAsync();
        var answer = new TaskCompletionSource();
        Receiver.Respond = async (webhook, context) =>
        {
            if (webhook.Path == "/gone")
                context.Response.StatusCode = 410;
            else
                await answer.Task;
        };
        await Engine.SubscribeAsync($"{Receiver.Url}/slow");
        await Engine.StartDeliveryAsync();

        var id = Guid.Empty;
        // On a busy machine some take longer; and one that is gone is asked once.
        await Wait.UntilAsync("one is gone in time", async () =>
        {
            await Engine.SubscribeAsync($"{Receiver.Url}/gone");
            id = (await Engine.AppendAsync("order.created"))[0];
            await Engine.WaitForStatusAsync(id, DeliveryStatus.Cancelled);
            return await Engine.ScalarAsync<long>($"SELECT count(*) FROM queued WHERE event_id = '{id}'") == 1;
        });
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM inbox"));

        answer.SetResult();
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task Only_dead_letters_wait_for_the_disk()
    {
        await Engine.ExecuteAsync(
            """
            CREATE TABLE noted (status text, setting text);
            CREATE FUNCTION note_setting() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO noted VALUES (NEW.status, current_setting('synchronous_commit'));
                RETURN NEW;
            END $$;
            CREATE TRIGGER note_setting BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION note_setting()
            """);
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "1"));
        await Engine.WaitForStatusAsync((await Engine.AppendAsync("order.created"))[0], DeliveryStatus.Succeeded);
        Receiver.Respond = (_, context) =>
        {
            context.Response.StatusCode = 500;
            return Task.CompletedTask;
        };
        await Engine.WaitForStatusAsync((await Engine.AppendAsync("order.created"))[0], DeliveryStatus.DeadLettered);

        Assert.Equal("dead_lettered on, succeeded off",
            await Engine.ScalarAsync<string>("SELECT string_agg(status || ' ' || setting, ', ' ORDER BY status) FROM noted"));
    }

    [Fact]
    public async Task What_was_sent_when_the_service_is_stopped_is_written_and_not_sent_again()
    {
        await Engine.SubscribeAsync(Receiver.Url);
        var first = await Engine.StartDeliveryAsync();
        await Engine.AppendAsync("order.created", 20);
        // Most of them are not written yet.
        await Wait.UntilAsync("all are sent", () => Receiver.Received.Count == 20);
        await first.DisposeAsync();

        await Engine.StartDeliveryAsync();
        await Engine.WaitUntilSettledAsync();
        Assert.Equal(20, Receiver.Received.Count);
    }

    /// <summary>Keeps in a table what is put into the queue.</summary>
    private Task<int> NoteQueuedAsync() => Engine.ExecuteAsync(
            """
            CREATE TABLE queued (event_id uuid);
            CREATE FUNCTION note_queued() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO queued VALUES (NEW.event_id);
                RETURN NEW;
            END $$;
            CREATE TRIGGER note_queued BEFORE INSERT ON delivery_queue FOR EACH ROW EXECUTE FUNCTION note_queued()
            """);

    /// <summary>Lets nobody write to tables until it is rolled back.</summary>
    private async Task<NpgsqlTransaction> HoldAsync(string tables)
    {
        var connection = await Engine.DataSource.OpenConnectionAsync(Cancellation);
        var transaction = await connection.BeginTransactionAsync(Cancellation);
        await using var command = new NpgsqlCommand($"LOCK TABLE {tables} IN SHARE MODE", connection, transaction);
        await command.ExecuteNonQueryAsync(Cancellation);
        return transaction;
    }
}

/// <summary>On the Postgres log.</summary>
public sealed class FirstAttemptsOnPostgresTests(PostgresServer postgres) : FirstAttemptsTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class FirstAttemptsOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : FirstAttemptsTests(postgres, kafka);
