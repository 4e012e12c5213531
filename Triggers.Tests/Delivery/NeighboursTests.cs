using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What subscribers and tenants notice of each other: nothing.</summary>
public sealed class NeighboursTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task A_fan_out_is_made_in_portions_and_everybody_gets_everything_once()
    {
        for (var i = 0; i < 30; i++)
            await Engine.SubscribeAsync($"{Receiver.Url}/{i}");
        var ids = await Engine.AppendAsync("order.created", 100);

        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("all are delivered", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == 3_000,
            TimeSpan.FromMinutes(1));
        Assert.Equal(3_000, Receiver.Received.Select(w => (w.Path, w.EventId)).Distinct().Count());
        Assert.Equal(3_000, Receiver.Received.Count);
        Assert.Equal(0, await Engine.UnsettledAsync());
        // Only so many were made with the log's position; the others came after it.
        Assert.True(await Engine.ScalarAsync<long>("SELECT last_value FROM pg_sequences WHERE sequencename LIKE 'fan_outs%'") > 50);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM fan_outs"));
    }

    [Fact]
    public async Task An_event_whose_deliveries_are_still_to_be_made_is_pending_and_on_its_way()
    {
        var subscription = await Engine.SubscribeAsync(Receiver.Url, "order.*");
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'");
        Assert.Equal("delivered", await Engine.StatusAsync(id));

        await Engine.ExecuteAsync([FanOuts.Defer([new FanOut(Engine.Tenant, id, 7, Guid.Empty)])]);

        Assert.Equal("pending", await Engine.StatusAsync(id));
        Assert.True(
            await Engine.ScalarAsync<bool>($"SELECT {EventState.IsOnItsWay($"'{Engine.Tenant}'", $"'{id}'", $"'{subscription}'")}"));
        await Engine.StartDeliveryAsync();
        await Wait.UntilAsync("it is delivered", async () => await Engine.StatusAsync(id) == "delivered");
        Assert.Single(Receiver.Received);
    }

    [Fact]
    public async Task What_nobody_wants_any_more_when_its_deliveries_are_made_goes_to_the_inbox()
    {
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'");
        await Engine.ExecuteAsync([FanOuts.Defer([new FanOut(Engine.Tenant, id, 7, Guid.Empty)])]);

        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync(
            "it is in the inbox", async () => await Engine.ScalarAsync<long>($"SELECT count(*) FROM inbox WHERE event_id = '{id}'") == 1);
    }

    [Fact]
    public async Task A_quiet_tenant_does_not_wait_behind_a_fan_out()
    {
        var quiet = TypeId.NewGuid();
        await Engine.ExecuteAsync($"INSERT INTO tenants (id, name) VALUES ('{quiet}', 'quiet')");
        for (var i = 0; i < 100; i++)
            await Engine.SubscribeAsync($"{Receiver.Url}/many");
        var own = await Engine.SubscribeAsync($"{Receiver.Url}/quiet");
        await Engine.ExecuteAsync($"UPDATE subscriptions SET tenant_id = '{quiet}' WHERE id = '{own}'");
        var arrived = new TaskCompletionSource();
        Receiver.Respond = (webhook, _) =>
        {
            if (webhook.Path == "/quiet")
                Volatile.Read(ref arrived).TrySetResult();
            return Task.CompletedTask;
        };
        await Engine.StartDeliveryAsync();

        await Engine.AppendAsync("order.created", 200);
        var (delays, clock) = (new List<TimeSpan>(), Stopwatch.StartNew());
        while (delays.Count < 10)
        {
            Volatile.Write(ref arrived, new TaskCompletionSource());
            clock.Restart();
            await Engine.AppendAsync("order.created", tenant: quiet);
            await arrived.Task.WaitAsync(TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken);
            delays.Add(clock.Elapsed);
        }

        // As long as there was something to wait behind.
        Assert.True(Receiver.At("/many").Count() < 20_000);
        Assert.InRange(delays.Order().ElementAt(delays.Count / 2), TimeSpan.Zero, TimeSpan.FromSeconds(1));
    }

    [Fact]
    public async Task A_fan_out_has_no_more_of_a_portion_than_those_of_other_tenants_leave()
    {
        var few = TypeId.NewGuid();
        await Engine.ExecuteAsync($"INSERT INTO tenants (id, name) VALUES ('{few}', 'few')");
        for (var i = 0; i < 300; i++)
            await Engine.SubscribeAsync($"{Receiver.Url}/many");
        for (var i = 0; i < 60; i++)
            await Engine.SubscribeAsync($"{Receiver.Url}/few");
        await Engine.ExecuteAsync($"UPDATE subscriptions SET tenant_id = '{few}' WHERE url LIKE '%/few'");
        await DeferAsync(
            [.. (await Engine.AppendAsync("order.created", 10)).Select(id => (Engine.Tenant, id)),
                (few, (await Engine.AppendAsync("order.created", tenant: few))[0])]);

        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("all are made", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM fan_outs") == 0);
        Assert.Equal(3_000, await MadeAsync(Engine.Tenant));
        Assert.Equal(60, await MadeAsync(few));
        // All that was deferred last is in the first portion.
        var before = await MadeAsync(
            Engine.Tenant, $" AND id < (SELECT id FROM all_deliveries WHERE tenant_id = '{few}' ORDER BY id DESC LIMIT 1)");
        Assert.InRange(before, 0, 1_000);

        Task<long> MadeAsync(Guid tenant, string more = "") =>
            Engine.ScalarAsync<long>($"SELECT count(*) FROM all_deliveries WHERE tenant_id = '{tenant}'{more}");
    }

    [Fact]
    public async Task Of_more_tenants_than_a_portion_has_nobody_comes_twice_before_all_others_did()
    {
        var events = new List<(Guid Tenant, Guid Event)>();
        for (var i = 0; i < 60; i++)
        {
            var tenant = TypeId.NewGuid();
            var subscription = await Engine.SubscribeAsync(Receiver.Url);
            await Engine.ExecuteAsync($"INSERT INTO tenants (id, name) VALUES ('{tenant}', 'tenant-{i}')");
            await Engine.ExecuteAsync($"UPDATE subscriptions SET tenant_id = '{tenant}' WHERE id = '{subscription}'");
            events.AddRange((await Engine.AppendAsync("order.created", 8, tenant: tenant)).Select(id => (tenant, id)));
        }
        await DeferAsync(events);

        await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("all are made", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM fan_outs") == 0);
        Assert.Equal(480, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
        // A portion has four events of a tenant.
        Assert.True(await Engine.ScalarAsync<bool>(
            """
            WITH made AS (SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY id) AS n FROM all_deliveries)
            SELECT (SELECT id FROM made WHERE n = 4 ORDER BY id DESC LIMIT 1) < (SELECT id FROM made WHERE n = 5 ORDER BY id LIMIT 1)
            """));
    }

    [Fact]
    public async Task A_receiver_that_does_not_read_has_no_more_than_a_lanes_share_in_memory()
    {
        using var deaf = new TcpListener(IPAddress.Loopback, 0);
        deaf.Start();
        await Engine.SubscribeAsync($"http://127.0.0.1:{((IPEndPoint)deaf.LocalEndpoint).Port}/", "large");
        await Engine.SubscribeAsync(Receiver.Url, "small");
        // More than the sockets' own buffers hold.
        for (var i = 0; i < 3; i++)
            await Engine.AppendAsync("large", data: $"\"{new string('x', 8_000_000)}\"");
        var host = await Engine.StartDeliveryAsync();

        await Wait.UntilAsync("the lane has begun", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE claimed_by IS NOT NULL") > 0);
        await Engine.AppendAsync("small", 50);

        await Wait.UntilAsync("the other subscriber has everything", () => Receiver.Received.Count == 50);
        Assert.Equal(1,
            await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue WHERE claimed_by IS NOT NULL AND data_bytes > 4000000"));
        Assert.Equal(1, host.Services.GetRequiredService<Payloads>().Count);
    }

    [Fact]
    public async Task A_receiver_that_reads_and_does_not_answer_has_nothing_in_memory()
    {
        using var release = new CancellationTokenSource();
        Receiver.Respond = (_, _) => Task.Delay(Timeout.Infinite, release.Token).ContinueWith(_ => { }, TaskScheduler.Default);
        await Engine.SubscribeAsync(Receiver.Url);
        var host = await Engine.StartDeliveryAsync(("Delivery:LaneConcurrency", "32"));

        await Engine.AppendAsync("large", 20, data: $"\"{new string('x', 1_000_000)}\"");

        await Wait.UntilAsync("all are in flight", () => Receiver.Received.Count == 20);
        await Wait.UntilAsync("nothing is kept", () => host.Services.GetRequiredService<Payloads>().Count == 0);
        Assert.Equal(20, host.Services.GetRequiredService<Lanes>().Busy);
        await release.CancelAsync();
        await Wait.UntilAsync("all are delivered", async () =>
            await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == 20);
        Assert.Equal(20, Receiver.Received.Count);
    }

    /// <summary>The log is read up to its end, and all deliveries of these are still to be made, in this order.</summary>
    private async Task DeferAsync(IEnumerable<(Guid Tenant, Guid Event)> events)
    {
        await Engine.ExecuteAsync("UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres'");
        await Engine.ExecuteAsync([FanOuts.Defer([.. events.Select(e => new FanOut(e.Tenant, e.Event, 7, Guid.Empty))])]);
    }
}
