using Microsoft.AspNetCore.Http;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>What a subscription says of its retries is what is done, to real receivers.</summary>
public abstract class RetryPoliciesTests(PostgresServer postgres, KafkaServer? kafka = null) : EngineTests(postgres, kafka)
{
    [Fact]
    public async Task A_schedule_says_how_often_and_when()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        await SubscribeAsync("""{"Schedule":["00:00:00.05","00:00:00.05","00:00:00.05","00:00:00.05"],"Jitter":0}""");
        await Engine.StartDeliveryAsync(("Delivery:Retry:MaxAttempts", "2"), ("Delivery:Retry:BaseDelay", "01:00:00"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal([1, 2, 3, 4, 5], Receiver.Received.Select(w => w.Attempt));
        Assert.Equal("exhausted", await Engine.ScalarAsync<string>("SELECT reason FROM dead_letters"));
    }

    [Fact]
    public async Task Only_the_statuses_that_are_named_are_tried_again()
    {
        Receiver.Respond = (webhook, context) => Answer(context, webhook.Attempt == 1 ? 404 : 500);
        await SubscribeAsync("""{"Statuses":["404"],"Schedule":["00:00:00.05","00:00:00.05"]}""");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal([1, 2], Receiver.Received.Select(w => w.Attempt));
        Assert.Equal("rejected", await Engine.ScalarAsync<string>("SELECT reason FROM dead_letters"));
    }

    [Fact]
    public async Task What_would_come_due_too_late_is_given_up_now()
    {
        Receiver.Respond = (_, context) => Answer(context, 500);
        await SubscribeAsync("""{"Schedule":["00:00:00.05","3.00:00:00"],"MaxAge":"1.00:00:00"}""");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal(2, Receiver.Received.Count);
        Assert.Equal("too_old", await Engine.ScalarAsync<string>("SELECT reason FROM dead_letters"));
    }

    [Fact]
    public async Task Retry_after_is_honoured_up_to_the_subscriptions_bound()
    {
        Receiver.Respond = (webhook, context) =>
        {
            context.Response.Headers.RetryAfter = webhook.Path == "/bounded" ? "864000" : "7200";
            return Answer(context, 503);
        };
        await SubscribeAsync("""{"MaxRetryAfter":"00:00:00.05","Schedule":["00:00:00.05"]}""", "/bounded");
        await SubscribeAsync("""{"MaxRetryAfter":"1.00:00:00","Schedule":["00:00:00.05"]}""", "/patient");
        await Engine.StartDeliveryAsync();

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal(2, Receiver.At("/bounded").Count());
        await Wait.UntilAsync("the other waits for two hours", async () => await Engine.ScalarAsync<long>(
            "SELECT count(*) FROM delivery_queue WHERE retry_count = 1 AND next_attempt_at > now() + interval '119 minutes'") == 1);
    }

    [Fact]
    public async Task A_timeout_of_its_own_ends_the_attempts_of_one_subscription_and_not_of_another()
    {
        var patient = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Receiver.Respond = (webhook, context) => webhook.Path == "/hasty"
            ? Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default)
            : patient.Task;
        await SubscribeAsync("""{"Timeout":"00:00:01","MaxAttempts":1}""", "/hasty");
        await SubscribeAsync("""{"Timeout":"00:00:30","MaxAttempts":1}""", "/patient");
        // Shorter than the second wants, and far longer than the first.
        await Engine.StartDeliveryAsync(("Delivery:AttemptTimeout", "00:00:10"));

        var id = (await Engine.AppendAsync("order.created"))[0];

        await Engine.WaitForStatusAsync(id, DeliveryStatus.DeadLettered);
        Assert.Equal(("timeout", true), await TimeoutAsync());
        patient.SetResult();
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
    }

    [Fact]
    public async Task A_failure_under_another_policy_is_no_failure_under_this_one()
    {
        var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Receiver.Respond = async (_, context) =>
        {
            if (Receiver.Received.Count == 1)
            {
                await answer.Task;
                await Answer(context, 500);
            }
        };
        await SubscribeAsync("""{"MaxAttempts":1}""");
        await Engine.StartDeliveryAsync();
        var id = (await Engine.AppendAsync("order.created"))[0];
        await Wait.UntilAsync("the first attempt is under way", () => Receiver.Received.Count == 1);

        await Engine.ExecuteAsync("""UPDATE subscriptions SET retry = '{"MaxAttempts":3}'""");
        answer.SetResult();

        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        Assert.Equal(0, await Engine.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
    }

    // Well before the service's own ten seconds, by what was recorded.
    private async Task<(string Outcome, bool Early)> TimeoutAsync() => (
        await Engine.ScalarAsync<string>("SELECT outcome FROM all_attempts WHERE outcome <> 'delivered'"),
        await Engine.ScalarAsync<string>("SELECT error FROM all_attempts WHERE outcome <> 'delivered'") is var error
            && !error.Contains("within 10", StringComparison.Ordinal));

    private async Task SubscribeAsync(string policy, string path = "/")
    {
        var id = await Engine.SubscribeAsync(Receiver.Url + path);
        await Engine.ExecuteAsync($"UPDATE subscriptions SET retry = '{policy}' WHERE id = '{id}'");
    }

    private static Task Answer(HttpContext context, int status)
    {
        context.Response.StatusCode = status;
        return Task.CompletedTask;
    }
}

/// <summary>On the Postgres log.</summary>
public sealed class RetryPoliciesOnPostgresTests(PostgresServer postgres) : RetryPoliciesTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class RetryPoliciesOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : RetryPoliciesTests(postgres, kafka);
