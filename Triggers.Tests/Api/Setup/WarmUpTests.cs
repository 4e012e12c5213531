using Npgsql;
using Triggers.Core;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

public sealed class WarmUpTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_process_that_says_it_is_ready_has_done_what_requests_do_and_written_nothing()
    {
        await using var listener = new NpgsqlConnection(api.ConnectionString);
        await listener.OpenAsync(TestContext.Current.CancellationToken);
        await using (var listen = new NpgsqlCommand($"LISTEN {Notifications.Events}", listener))
            await listen.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        using var logs = new CapturedLogs();
        await using var host = new ApiHost(api.ConnectionString, logs);
        using var client = host.Client(null);

        await client.WaitUntilReadyAsync();

        Assert.DoesNotContain(logs.Lines, line => line.Message.Contains("The first requests may be slow", StringComparison.Ordinal));
        Assert.Equal(0L, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM events"));
        // After the lists, an append of nothing.
        Assert.True(await listener.WaitAsync(TimeSpan.FromSeconds(5), TestContext.Current.CancellationToken));
    }
}
