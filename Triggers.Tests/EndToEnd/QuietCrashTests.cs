using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>Postgres is killed while nothing happens, so that everybody finds out about it by an idle connection.</summary>
[Collection(nameof(CrashCollection))]
public sealed class QuietCrashTests
{
    [Fact]
    public async Task Both_services_outlive_Postgres_dying_while_the_log_is_quiet()
    {
        await using var postgres = await PostgresServer.StartOwnAsync();
        await using var engine = await Engine.CreateAsync(postgres, connectionSettings: ";Keepalive=1");
        await using var receiver = await TestReceiver.StartAsync();
        using var logs = new CapturedLogs();
        await engine.SubscribeAsync($"{receiver.Url}/hook");
        await engine.StartDeliveryAsync(logs);
        await using var api = new ApiHost(engine.ConnectionString, logs);
        using var client = api.Client();

        for (var round = 1; round <= 4; round++)
        {
            await PublishAsync();
            await Wait.UntilAsync($"the worker is there in round {round}", () => logs.Lines.Count(WorkerWorks) == round - 1);
            var heard = logs.Lines.Count(WorkerWaits);
            await postgres.StopImmediateAsync();
            await Wait.UntilAsync($"the worker has noticed in round {round}", () => logs.Lines.Count(WorkerWaits) > heard);
            await postgres.StartAsync();
        }
        await PublishAsync();
        Assert.DoesNotContain(logs.Lines, line => line.Message.Contains("BackgroundService", StringComparison.Ordinal));

        async Task PublishAsync()
        {
            var before = receiver.Received.Count;
            await Wait.UntilAsync("an event is accepted", async () =>
                (await client.PostAsync("/events", """{"type":"order.created","data":1}""")).Status == 202);
            await Wait.UntilAsync("it is delivered", () => receiver.Received.Count > before);
        }
        static bool WorkerWaits(LogLine line) => WorkerSays(line, "Waits");
        static bool WorkerWorks(LogLine line) => WorkerSays(line, "Works again");
        static bool WorkerSays(LogLine line, string text) => line.Category.EndsWith("WorkerRegistration", StringComparison.Ordinal)
            && line.Message.StartsWith(text, StringComparison.Ordinal);
    }
}
