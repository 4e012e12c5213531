using System.Text.Json.Nodes;
using Npgsql;
using Triggers.Api.Events;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Lists;

/// <summary>Lists of a tenant with 60,000 events, half of them pending, and what their filters cost.</summary>
public sealed class LongHistoryTests(ApiFixture api) : IClassFixture<ApiFixture>, IAsyncLifetime
{
    private const int Count = 60_000;

    private static readonly Guid s_frequent = TypeId.NewGuid(), s_seldom = TypeId.NewGuid();
    private TestTenant _tenant = null!;

    // Every 1,000th is of a rare type and source; those of subject 7 are every 100th. Deliveries: the newer half is in the queue, the
    // older in the history, where every 10,000th was cancelled; every 1,000th has a dead letter, of which every 10,000th is open.
    public async ValueTask InitializeAsync()
    {
        _tenant = await api.NewTenantAsync();
        await api.Rows.ExecuteAsync(
            $"""
            CREATE TEMPORARY TABLE made ON COMMIT DROP AS
            SELECT i, (lpad(to_hex(floor(extract(epoch FROM now() - interval '2 minutes') * 1000)::bigint + i), 12,
                '0') || '7000' || '8000' || lpad(to_hex(i), 12, '0'))::uuid AS id
            FROM generate_series(1, {Count}) i;
            INSERT INTO events (tenant_id, id, seq, type, source, subject, correlation_id, external_id, data)
            SELECT '{_tenant.Key}', id, nextval('events_seq'), CASE WHEN i % 1000 = 0 THEN 'rare.kind' ELSE 'order.created' END,
                CASE WHEN i % 1000 = 1 THEN 'rare' ELSE 'shop' END, 'subject-' || i % 100, CASE WHEN i % 2 = 0 THEN 'constant'
                    ELSE 'c' || i END, 'x' || i, '1'
            FROM made;
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, next_attempt_at)
            SELECT '{_tenant.Key}', id, id, CASE WHEN i % 1000 = 3 THEN '{s_seldom}'::uuid ELSE '{s_frequent}' END,
                now() + interval '1 hour'
            FROM made WHERE i > {Count / 2};
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, finalized_at)
            SELECT '{_tenant.Key}', id, id, CASE WHEN i % 1000 = 3 THEN '{s_seldom}'::uuid ELSE '{s_frequent}' END,
                CASE WHEN i % 10000 = 5 THEN 'cancelled' WHEN i % 1000 = 7 THEN 'dead_lettered' ELSE 'succeeded' END, now()
            FROM made WHERE i <= {Count / 2};
            INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, state, reason, attempts, closed_at)
            SELECT '{_tenant.Key}', id, id, '{s_frequent}', CASE WHEN i % 10000 = 7 THEN 'open' ELSE 'resolved' END, 'exhausted', 8,
                CASE WHEN i % 10000 = 7 THEN NULL ELSE now() END
            FROM made WHERE i <= {Count / 2} AND i % 1000 = 7;
            INSERT INTO request_keys (tenant_id, kind, key_hash, fingerprint, event_id, correlation_id, expires_at)
            SELECT '{_tenant.Key}', 1, sha256(convert_to('x' || i, 'UTF8')), sha256(''), id, 'c', 'infinity' FROM made;
            UPDATE log_positions SET next = (SELECT max(seq) + 1 FROM events) WHERE log = 'postgres';
            """);
        await api.Rows.ExecuteAsync("ANALYZE events, delivery_queue, deliveries, dead_letters, inbox");
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    [Fact]
    public async Task Every_filter_finds_what_there_is_page_by_page_and_nothing_else()
    {
        foreach (var order in new[] { "desc", "asc" })
        {
            foreach (var (list, expected) in new[]
                {
                    ("/events?type=rare.*", 60), ("/events?type=rare.kind", 60),
                    ("/events?source=rare", 60), ("/events?subject=subject-7", 600),
                    ("/events?correlationId=c7", 1), ("/events?externalId=x8", 1),
                    ("/events?source=rare&type=rare.*", 0), ("/events?status=dead_lettered", 3),
                    ("/events?status=pending&type=rare.*", 30), ("/events?status=delivered&type=rare.*", 30),
                    ("/events?subject=subject-7&status=dead_lettered", 3),
                    ("/deliveries?status=cancelled", 3), ("/deliveries?status=dead_lettered", 30),
                    ($"/deliveries?subscriptionId={Subscription(s_seldom)}", 60),
                    ($"/deliveries?subscriptionId={Subscription(s_seldom)}&status=pending", 30),
                    ($"/deliveries?subscriptionId={Subscription(s_seldom)}&status=succeeded", 30),
                    ($"/deliveries?subscriptionId={Subscription(s_frequent)}&status=cancelled", 3),
                    ("/dead-letters?state=open", 3), ("/dead-letters?state=resolved", 27), ("/dead-letters?state=discarded", 0),
                })
            {
                var ids = await WalkAsync($"{list}&order={order}&limit=50");
                Assert.True(ids.Count == expected, $"{list}&order={order}: {ids.Count} instead of {expected}");
                Assert.Equal(order == "asc" ? ids.Order(StringComparer.Ordinal) : ids.OrderDescending(StringComparer.Ordinal), ids);
            }
        }
        Assert.Equal(30, (await WalkAsync("/inbox?type=rare.*&limit=50")).Count);
    }

    [Theory]
    [InlineData("desc")]
    [InlineData("asc")]
    public async Task The_deliveries_of_a_subscription_are_in_one_order_wherever_they_lie_and_however_many_wait(string order)
    {
        // Around where the queue begins; of the frequent one more wait than are sorted.
        var middle = TypeId.CreatedAt(Rows.Uuid((await _tenant.Client.GetAsync("/deliveries?status=succeeded&limit=1")).Is(200).Ids[0]));
        var (after, before) = (middle.AddMilliseconds(-400).ToString("O"), middle.AddMilliseconds(400).ToString("O"));
        var range = $"createdAfter={Uri.EscapeDataString(after)}&createdBefore={Uri.EscapeDataString(before)}";

        var all = await WalkAsync($"/deliveries?{range}&order={order}&limit=200");
        var ofThe = await WalkAsync($"/deliveries?subscriptionId={Subscription(s_frequent)}&{range}&order={order}&limit=70");
        var first = (await _tenant.Client.GetAsync($"/deliveries?subscriptionId={Subscription(s_frequent)}&order={order}&limit=70"))
            .Is(200).Ids;
        var newest = (await _tenant.Client.GetAsync($"/deliveries?order={order}&limit=70")).Is(200).Ids;

        Assert.Equal(800, all.Count);
        Assert.Equal(799, ofThe.Count);
        Assert.Equal(all.Where(id => ofThe.Contains(id)), ofThe);
        Assert.Equal(70, first.Length);
        Assert.True(newest.Count(first.Contains) >= 69);
    }

    /// <summary>However large the history, a chunk costs what a chunk costs: an index is read in the order of the page.</summary>
    [Fact]
    public async Task No_filter_of_events_reads_more_than_a_chunk()
    {
        foreach (var newestFirst in new[] { true, false })
        {
            foreach (var filter in Filters(new EventFilter(_tenant.Key, 50) { NewestFirst = newestFirst }))
            {
                await using var command = api.DataSource.CreateCommand();
                new EventPageQuery(filter, null).WriteTo(command, null, 51, 8 << 20, 64);
                command.CommandText = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + command.CommandText;
                var plan =
                    JsonNode.Parse((string)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!)![0]!["Plan"]!;
                var blocks = plan["Shared Hit Blocks"]!.GetValue<long>() + plan["Shared Read Blocks"]!.GetValue<long>();
                // 64 events, and for each a few looks into small tables; the events alone are more than 1,000 blocks.
                Assert.True(blocks < 3_000, $"{filter} reads {blocks} blocks: {plan}");
                Assert.DoesNotContain("Seq Scan on events", plan.ToString(), StringComparison.Ordinal);
            }
        }
    }

    private static IEnumerable<EventFilter> Filters(EventFilter all) =>
    [
        all, all with { Status = EventStatus.Pending },
        all with { Status = EventStatus.Delivered }, all with { Status = EventStatus.DeadLettered },
        all with { InboxOnly = true }, all with { Type = "order.created" },
        all with { Type = "rare.*" }, all with { Source = "shop" }, all with { Source = "none" },
        all with { Subject = "subject-7" }, all with { CorrelationId = "constant" }, all with { CorrelationId = "none" },
        all with { Source = "rare", Type = "rare.*", Status = EventStatus.Delivered }, all with { InboxOnly = true, Type = "none.*" },
    ];

    private static string Subscription(Guid id) => TypeId.Format(TypeId.Subscription, id);

    private async Task<List<string>> WalkAsync(string path)
    {
        var ids = new List<string>();
        for (string? cursor = null; ;)
        {
            var page = (await _tenant.Client.GetAsync(cursor is null ? path : $"{path}&cursor={cursor}")).Is(200);
            ids.AddRange(page.Ids);
            cursor = page.NextCursor;
            if (cursor is null)
                return ids;
        }
    }
}
