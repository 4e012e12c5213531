using System.Collections.Concurrent;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What is sent in order, by two delivery services on one database, to a receiver that refuses now and then.</summary>
public abstract class OrderingTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private const int Keys = 20;
    private const int OfEach = 20;

    private readonly ConcurrentDictionary<string, byte> _arrived = new();

    /// <summary>The event that came last of a key.</summary>
    private readonly ConcurrentDictionary<string, string> _newest = new();

    private readonly ConcurrentQueue<(string Subject, int Number)> _numbers = new();

    private readonly ConcurrentQueue<string> _wrong = new();
    private int _attempts;

    [Theory]
    [InlineData("per_key")]
    [InlineData("strict")]
    public async Task What_comes_next_is_sent_when_what_was_before_has_ended(string ordering)
    {
        Receiver.Respond = (webhook, context) => RespondAsync(webhook, context, ordering);
        var subscription = await Engine.SubscribeAsync(Receiver.Url);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET ordering = '{ordering}'");
        (string, string)[] settings = [("Delivery:Retry:BaseDelay", "00:00:00.02"), ("Delivery:Retry:MaxAttempts", "50")];
        await Engine.StartDeliveryAsync(settings);
        await Engine.StartDeliveryAsync(settings);

        // Some before the others are sent, and some meanwhile; each subject's in the order of their numbers.
        for (var number = 0; number < OfEach; number++)
            await AppendAsync(number);

        await Wait.UntilAsync(
            "all have arrived", () => _arrived.Count == Keys * OfEach || !_wrong.IsEmpty, TimeSpan.FromMinutes(2));
        Assert.Empty(_wrong);
        await Wait.UntilAsync("nothing is left", async () => await Engine.ScalarAsync<long>(
            $"SELECT count(*) FROM delivery_queue WHERE subscription_id = '{subscription}'") == 0);
        Assert.Equal(Keys * OfEach, await Engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'"));
    }

    private async Task AppendAsync(int number)
    {
        var first = TypeId.NewGuid();
        var events = Enumerable.Range(0, Keys).Select(key => new NewEvent(
            TypeId.Add(first, key), "order.created", null, null, null, $"key-{key}", null, Encoding.UTF8.GetBytes($"{number}"))).ToArray();
        await Engine.Log.AppendAsync(
            new AppendRequest(Engine.Tenant, first, "test", null, null, events), TestContext.Current.CancellationToken);
    }

    private async Task RespondAsync(ReceivedWebhook webhook, HttpContext context, string ordering)
    {
        var body = JsonNode.Parse(webhook.Body)!;
        var (subject, number) = (body["subject"]!.ToString(), (int)body["data"]!);
        if (_arrived.TryAdd(webhook.EventId, 0))
        {
            if (number > 0 && !_numbers.Contains((subject, number - 1)))
                _wrong.Enqueue($"{subject} {number} came before {number - 1}");
            _numbers.Enqueue((subject, number));
            var key = ordering == "strict" ? "" : subject;
            if (_newest.TryGetValue(key, out var before))
            {
                // It is written down as delivered by now, for everybody to see.
                TypeId.TryParse(TypeId.Event, before, out var id);
                if (!await Engine.ScalarAsync<bool>(
                    $"SELECT EXISTS (SELECT FROM deliveries WHERE event_id = '{id}' AND status = 'succeeded')"))
                    _wrong.Enqueue($"{subject} {number} was sent before {before} had ended");
            }
            _newest[key] = webhook.EventId;
        }
        // Every seventh is refused: it is the only one of its key until it has got there.
        if (Interlocked.Increment(ref _attempts) % 7 == 0)
            context.Response.StatusCode = 503;
    }
}

public sealed class OrderingOnPostgresTests(PostgresServer postgres) : OrderingTests(postgres);

public sealed class OrderingOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : OrderingTests(postgres, kafka);
