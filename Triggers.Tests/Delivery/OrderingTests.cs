using System.Text;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What is sent in order, by two delivery services on one database, to a receiver that refuses now and then.</summary>
public abstract class OrderingTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    private const int Keys = 20;
    private const int OfEach = 20;

    [Theory]
    [InlineData("per_key", false)]
    [InlineData("strict", false)]
    [InlineData("per_key", true)]
    [InlineData("strict", true)]
    public async Task What_comes_next_is_sent_when_what_was_before_has_ended(string ordering, bool inBatches)
    {
        var receiver = new OrderedReceiver(Engine.DataSource, strict: ordering == "strict");
        Receiver.Respond = receiver.RespondAsync;
        await Engine.SubscribeAsync(Receiver.Url);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET ordering = '{ordering}'");
        if (inBatches)
            await Engine.ExecuteAsync("UPDATE subscriptions SET batch_max = 15, batch_wait = interval '0.05 seconds'");
        (string, string)[] settings = [("Delivery:Retry:BaseDelay", "00:00:00.02"), ("Delivery:Retry:MaxAttempts", "50")];
        await Engine.StartDeliveryAsync(settings);
        await Engine.StartDeliveryAsync(settings);

        // Some before the others are sent, and some meanwhile; each subject's in the order of their numbers.
        for (var number = 0; number < OfEach; number++)
            await AppendAsync(number);

        await Wait.UntilAsync(
            "all have arrived", () => receiver.Count == Keys * OfEach || receiver.Wrong.Count > 0, TimeSpan.FromMinutes(2));
        Assert.Empty(receiver.Wrong);
        await Wait.UntilAsync("nothing is left", async () => await Engine.ScalarAsync<long>("SELECT count(*) FROM delivery_queue") == 0);
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
}

public sealed class OrderingOnPostgresTests(PostgresServer postgres) : OrderingTests(postgres);

public sealed class OrderingOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : OrderingTests(postgres, kafka);
