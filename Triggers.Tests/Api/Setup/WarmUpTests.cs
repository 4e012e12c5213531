using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

public sealed class WarmUpTests(ApiFixture api) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task A_process_that_says_it_is_ready_has_done_what_requests_do_and_written_nothing()
    {
        using var logs = new CapturedLogs();
        await using var host = new ApiHost($"{api.ConnectionString};Application Name=warm", logs);
        using var client = host.Client(null);

        await client.WaitUntilReadyAsync();

        Assert.DoesNotContain(logs.Lines, line => line.Message.Contains("The first requests may be slow", StringComparison.Ordinal));
        Assert.Equal(0L, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM events"));
        // What a connection did last: after the lists, an append of nothing.
        Assert.Equal(1L, await api.Rows.ScalarAsync<long>(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warm' AND query LIKE '%pg_notify(%'"));
    }
}
