using System.Diagnostics;
using System.Diagnostics.Metrics;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Idempotency;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.Delivery.Maintenance;
using Triggers.Tests.Support;

namespace Triggers.Tests.Core.State;

public sealed class RetentionTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task Days_that_are_old_enough_are_dropped_with_all_that_hangs_on_them_but_none_that_is_not_over()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "nothing");
        // The first two have partitions, the others are in the default one.
        var (over, queued) = (await AddAsync(40, subscription, partition: true), await AddAsync(41, subscription, partition: true));
        var (dead, unprojected, late, young) = (await AddAsync(42, subscription), await AddAsync(
            43, subscription, logged: true), await AddAsync(44, subscription), await AddAsync(29, subscription));
        await Engine.Rows.ExecuteAsync(DeliveryQueue.Enqueue([new NewDelivery(Engine.Tenant, TypeId.NewGuid(), queued, subscription)]));
        var letter = await DieAsync(dead, subscription);
        await Engine.ExecuteAsync([DeadLetterChanges.Discard(Engine.Tenant, [await DieAsync(over, subscription)])]);
        await using var api = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = api.Client();
        await client.WaitUntilReadyAsync();
        (await client.PostAsync("/events", $$"""{"type":"a.b","externalId":"of {{over}}","data":1}"""))
            .IsProblem(409, "external_id_conflict");

        var dropped = await DropAsync();

        string[] expected =
            ["acknowledgements 40", "attempts 40", "attempts 44", "deliveries 40", "deliveries 44", "events 40", "events 44"];
        Assert.Equal(expected, dropped.Select(d => $"{d.Table} {Day(0).DayNumber - d.Day.DayNumber}").Order(StringComparer.Ordinal));
        Assert.All(dropped, d => Assert.Equal(1, d.Rows));
        foreach (var gone in new[] { over, late })
            (await client.GetAsync($"/events/{TypeId.Format(TypeId.Event, gone)}")).IsProblem(404, "not_found");
        foreach (var kept in new[] { queued, dead, unprojected, young })
            (await client.GetAsync($"/events/{TypeId.Format(TypeId.Event, kept)}")).Is(200);
        (await client.PostAsync("/events", $$"""{"type":"a.b","externalId":"of {{over}}","data":1}""")).Is(202);
        (await client.PostAsync("/events", $$"""{"type":"a.b","externalId":"of {{young}}","data":1}"""))
            .IsProblem(409, "external_id_conflict");
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM inbox WHERE event_id = '{late}'"));
        Assert.Empty(await DropAsync());

        await Engine.ExecuteAsync([DeadLetterChanges.Discard(Engine.Tenant, [letter])]);
        Assert.Equal([Day(42)], (await DropAsync()).Select(d => d.Day).Distinct());
    }

    [Fact]
    public async Task What_was_dropped_is_not_replayed_and_comes_into_no_inbox()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "nothing");
        var id = await AddAsync(40, subscription);
        var younger = await DieAsync(id, subscription);
        await Engine.ExecuteAsync([DeadLetterChanges.Discard(Engine.Tenant, [younger])]);
        Assert.Contains(new DroppedDay("events", Day(40), 1), await DropAsync());
        await using var api = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = api.Client();
        await client.WaitUntilReadyAsync();

        (await client.PostAsync($"/deliveries/{TypeId.Format(TypeId.Delivery, younger)}/replay")).IsProblem(404, "not_found");
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue"));

        await Engine.ExecuteAsync([EventState.Settle([(Engine.Tenant, id)])]);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM inbox"));
    }

    [Theory]
    [InlineData(30, 30, null)]
    [InlineData(30, 31, null)]
    [InlineData(31, 30, "Retention:Deliveries (30.00:00:00) must not be less than Retention:Events (31.00:00:00).")]
    public void Deliveries_are_kept_as_long_as_events(int events, int deliveries, string? mistake)
    {
        var options = new RetentionOptions { Events = TimeSpan.FromDays(events), Deliveries = TimeSpan.FromDays(deliveries) };

        var result = new DataAnnotationValidateOptions<RetentionOptions>(null).Validate(null, options);

        Assert.Equal(mistake is not null, result.Failed);
        if (mistake is not null)
            Assert.EndsWith($"'{mistake}'.", Assert.Single(result.Failures!), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_was_interrupted_goes_on()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "nothing");
        var id = await AddAsync(40, subscription, partition: true);
        // A CloudEvent, whose key is of its source too.
        var key = Convert.ToHexString(Fingerprints.HashOf(Fingerprints.CloudEventKey("/shop", $"of {id}")));
        await Engine.ExecuteAsync($"UPDATE events SET source = '/shop' WHERE id = '{id}'");
        await Engine.ExecuteAsync($"UPDATE request_keys SET key_hash = '\\x{key}' WHERE event_id = '{id}'");
        await Engine.ExecuteAsync($"ALTER TABLE events DETACH PARTITION events_{Day(40):yyyyMMdd}");
        Assert.Equal(0, await Engine.ScalarAsync<long>($"SELECT count(*) FROM events WHERE id = '{id}'"));

        Assert.Contains(new DroppedDay("events", Day(40), 1), await DropAsync());

        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM request_keys"));
    }

    [Fact]
    public async Task Nobody_waits_long_for_a_day_that_somebody_reads()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "nothing");
        var id = await AddAsync(40, subscription, partition: true);
        await using var reader = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        await using var reading = await reader.BeginTransactionAsync(TestContext.Current.CancellationToken);
        await using (var read = new NpgsqlCommand($"SELECT count(*) FROM events WHERE id = '{id}'", reader))
            Assert.Equal(1L, await read.ExecuteScalarAsync(TestContext.Current.CancellationToken));

        var dropping = DropAsync();
        var longest = TimeSpan.Zero;
        do
        {
            var started = Stopwatch.GetTimestamp();
            await Engine.AppendAsync("meanwhile");
            longest = new[] { longest, Stopwatch.GetElapsedTime(started) }.Max();
        }
        while (!dropping.IsCompleted);

        Assert.DoesNotContain(await dropping, d => d.Table == "events");
        Assert.InRange(longest, TimeSpan.Zero, TimeSpan.FromSeconds(1));
        await reading.CommitAsync(TestContext.Current.CancellationToken);
        Assert.Contains(await DropAsync(), d => d.Table == "events");
    }

    [Fact]
    public async Task A_delivery_service_drops_and_counts()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "nothing");
        await AddAsync(11, subscription);
        var dropped = 0L;
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, l) =>
            {
                if (instrument.Name == "triggers.retention.dropped")
                    l.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<long>(
            (_, rows, tags, _) => Interlocked.Add(ref dropped, Equals(tags[0].Value, "events") ? rows : 100));
        listener.Start();

        await Engine.StartDeliveryAsync(("Retention:Events", "10.00:00:00"), ("Retention:Deliveries", "20.00:00:00"));

        await Wait.UntilAsync("it is counted", () => Interlocked.Read(ref dropped) == 1);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.Equal(1, await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries"));
    }

    /// <summary>Today's delivery of an event fails for good.</summary>
    private async Task<Guid> DieAsync(Guid id, Guid subscription)
    {
        var delivery = new NewDelivery(Engine.Tenant, TypeId.NewGuid(), id, subscription);
        await Engine.ExecuteAsync(
        [
            DeliveryQueue.Enqueue([delivery]),
            .. DeliveryResults.Apply(
            [
                new DeliveryResult(Engine.Tenant, delivery.Id, id, subscription, 0, DeliveryStatus.DeadLettered, Rows.Attempt(
                    AttemptOutcome.Timeout, 200))
                {
                    Reason = "exhausted",
                },
            ]),
        ]);
        return delivery.Id;
    }

    private static DateOnly Day(int ago) => DateOnly.FromDateTime(DateTimeOffset.UtcNow.UtcDateTime).AddDays(-ago);

    private async Task<List<DroppedDay>> DropAsync()
    {
        await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
        return await Retention.DropAsync(connection, _ => 30, TestContext.Current.CancellationToken);
    }

    /// <summary>
    /// An event of so many days ago with an external id, delivered at the second attempt; acknowledged, or else in the inbox.
    /// </summary>
    private async Task<Guid> AddAsync(int days, Guid subscription, bool partition = false, bool logged = false)
    {
        if (partition)
        {
            await using var connection = await Engine.DataSource.OpenConnectionAsync(TestContext.Current.CancellationToken);
            await Partitions.MakeAsync(connection, Day(days), Day(days), TestContext.Current.CancellationToken);
        }
        var id = TypeId.Add(TypeId.At(DateTimeOffset.UtcNow.AddDays(-days)), Random.Shared.Next());
        var delivery = TypeId.Add(id, 1);
        await Engine.Rows.ExecuteAsync(
        [
            new((logged ? StoredEvents.Append : (Func<string, string>)StoredEvents.Store)(
                $"SELECT '{Engine.Tenant}'::uuid, '{id}'::uuid, 'of {id}', 'a.b', NULL, NULL, NULL::timestamptz, 'c', NULL, '1'::bytea, "
                + "NULL::timestamptz, NULL::timestamptz, NULL")),
            new(
                $"""
                INSERT INTO request_keys (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, expires_at)
                VALUES ('{Engine.Tenant}', 1, sha256('of {id}'), sha256(''), '{id}', 'c', 'infinity')
                """),
            DeliveryQueue.Enqueue([new NewDelivery(Engine.Tenant, delivery, id, subscription)]),
            .. DeliveryResults.Apply([Result(DeliveryStatus.Pending, AttemptOutcome.Timeout)]),
            .. DeliveryResults.Apply([Result(DeliveryStatus.Succeeded, AttemptOutcome.Delivered)]),
            partition ? EventState.Acknowledge(Engine.Tenant, [id]) : EventState.Receive([new(Engine.Tenant, id)]),
        ]);
        return id;

        DeliveryResult Result(DeliveryStatus status, AttemptOutcome outcome) =>
            new(Engine.Tenant, delivery, id, subscription, 0, status, Rows.Attempt(outcome, 200));
    }
}
