using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

public sealed class WarmUpTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task A_process_that_says_it_is_ready_has_sent_to_itself_and_written_nothing()
    {
        using var logs = new CapturedLogs();
        await using var host = new DeliveryHost(
            [.. Engine.Settings, ("Logging:LogLevel:Microsoft.AspNetCore.Hosting.Diagnostics", "Information")], logs, listens: true);
        using var client = host.CreateClient();

        await Wait.UntilAsync("it is ready", async () =>
            (await client.GetAsync("/health/ready", TestContext.Current.CancellationToken)).IsSuccessStatusCode);

        Assert.DoesNotContain(logs.Lines, line => line.Message.Contains("The first deliveries may be slow", StringComparison.Ordinal));
        Assert.True(logs.Lines.Count(line => line["Method"] == "POST" && line["StatusCode"] == "405") >= 30);
        Assert.Equal(0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM all_deliveries"));
        Assert.Equal(0L, await Engine.ScalarAsync<long>("SELECT count(*) FROM attempts"));
    }
}
