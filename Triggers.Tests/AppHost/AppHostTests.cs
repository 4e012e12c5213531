using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using Npgsql;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>One after the other, and beside no other class: each of them runs a whole system.</summary>
[CollectionDefinition(nameof(AppHostCollection), DisableParallelization = true)]
public sealed class AppHostCollection;

[Collection(nameof(AppHostCollection))]
public sealed class AppHostTests : IDisposable
{
    /// <summary>What the orchestrator takes to end everything after its AppHost was killed: told to at once, killed after 6 s.</summary>
    private static readonly TimeSpan s_orchestratorsEnd = TimeSpan.FromSeconds(15);

    private readonly string _directory = TestDirectory.New();
    private readonly HttpClient _client = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task It_starts_everything_restarts_what_crashes_and_leaves_nothing_after_SIGTERM()
    {
        const string Key = "trg_0123456789012345678901234567890123456789012";
        await using var host = await RunningAppHost.StartAndWaitAsync(_directory, "--Auth:BootstrapAdminKey=" + Key);
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host, Key));
        Assert.Contains(Key, host.Said);
        Assert.Equal(HttpStatusCode.OK, (await _client.GetAsync(host.UrlOf("receiver"), Cancellation)).StatusCode);

        await using (var second = RunningAppHost.Start(_directory))
        {
            Assert.Equal(1, await second.ExitCodeAsync());
            Assert.Contains($"already runs on {_directory} (process {host.Id})", second.Said);
        }

        foreach (var (crashed, program) in new[] { ("api", "Triggers.Api.dll"), ("postgres", "/postgres"), ("redis", "GarnetServer.dll") })
        {
            await RunningAppHost.SignalAsync(
                "KILL", program == "/postgres" ? Triggers.AppHost.Stores.Postgres.RunningOn(_directory)!.Value : host.ProcessOf(program));
            await host.WaitForAsync($"{crashed} | was killed");
            await host.WaitForAsync($"{crashed} | starting again in 0.5 s");
            await host.WaitForAsync($"{crashed} | runs again");
        }
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host, Key));

        // A session that somebody left open does not keep Postgres from an orderly end.
        var connectionString = System.Text.RegularExpressions.Regex.Match(host.Said, "postgres +(Host=.*)").Groups[1].Value;
        await using var session = new NpgsqlConnection(connectionString + ";Pooling=false");
        await session.OpenAsync(Cancellation);

        // Twice, as with `dotnet run`, where the whole process group gets the signal and it is passed on too.
        await host.TerminateAsync();
        await host.TerminateAsync();
        Assert.Equal(0, await host.ExitCodeAsync());
        await LeavesNothingAsync(host);
        // Only an orderly end takes the file away.
        Assert.False(File.Exists(Path.Combine(_directory, "postgres", "postmaster.pid")));
    }

    [Fact]
    public async Task After_SIGKILL_nothing_is_left_and_the_data_lasts_until_it_is_dropped()
    {
        string key;
        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory))
        {
            key = AdminKey();
            Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host, key));
            await host.KillAsync();
            // While the orchestrator is still ending what the killed one has started.
            await using var next = await RunningAppHost.StartAndWaitAsync(_directory);
            Assert.Contains("Waiting for what is left of the previous run to end", next.Said);
            Assert.Equal(key, AdminKey());
            Assert.Equal(1, await CountEventsAsync(next, key));
            await LeavesNothingAsync(host);
        }

        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory, "--reset"))
        {
            Assert.NotEqual(key, AdminKey());
            Assert.Equal(0, await CountEventsAsync(host, AdminKey()));
        }
    }

    [Fact]
    public async Task A_busy_port_is_named_with_its_resource_and_setting()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var port = ((IPEndPoint)listener.LocalEndpoint).Port;

        await using var host = RunningAppHost.Start(_directory, $"--Ports:Receiver={port}");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains($"Port {port}, which receiver wants, is in use", host.Said);
        Assert.Contains("--Ports:receiver=", host.Said);
    }

    [Fact]
    public async Task A_wrong_setting_of_a_service_ends_the_start_with_what_is_wrong()
    {
        await using var host = RunningAppHost.Start(_directory, "--Delivery:LaneConcurrency=0", "--Delivery:Retry:MaxAtempts=3");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains("delivery | ended with exit code 1", host.Said);
        Assert.Contains("LaneConcurrency", host.Said);
        Assert.Contains("Delivery:Retry:MaxAtempts is not a setting", host.Said);
        Assert.DoesNotContain("Ctrl-C stops everything", host.Said);
        await LeavesNothingAsync(host);
    }

    [Fact]
    public async Task A_setting_that_nobody_knows_ends_the_start_before_anything_is_started()
    {
        await using var host = RunningAppHost.Start(_directory, "--Prots:api=1");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains("Prots:api is not a setting", host.Said);
        Assert.False(Directory.Exists(_directory));
    }

    [Fact]
    public async Task Containers_without_a_runtime_end_the_start_before_anything_is_started()
    {
        var nobodyAnswers = new Dictionary<string, string>
        {
            ["ASPIRE_CONTAINER_RUNTIME"] = "docker",
            ["DOCKER_HOST"] = "tcp://127.0.0.1:1",
        };
        await using var host = RunningAppHost.Start(_directory, nobodyAnswers, "--Stores=containers");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains("--Stores=containers needs Docker or Podman: docker ", host.Said);
        Assert.False(Directory.Exists(_directory));
    }

    [Fact]
    public async Task A_Postgres_that_was_named_is_used_and_left_running()
    {
        await using var server = await PostgresServer.StartOwnAsync();
        var database = await server.ReserveDatabaseAsync();

        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory, $"--ConnectionStrings:triggersdb={database}"))
        {
            Assert.DoesNotContain(host.Processes(), process => process.Command.Contains("bin/postgres", StringComparison.Ordinal));
            Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host, AdminKey()));
        }
        await using (var connection = new NpgsqlConnection(database))
            await connection.OpenAsync(Cancellation);

        await using var stranger = RunningAppHost.Start(_directory, $"--ConnectionStrings:triggersdb={database};Password=wrong");
        Assert.Equal(1, await stranger.ExitCodeAsync());
        Assert.Contains("migrations | ended with exit code 1", stranger.Said);
        Assert.Contains("password authentication failed", stranger.Said);
    }

    [Fact]
    public async Task A_program_that_is_not_there_ends_the_start_and_is_named()
    {
        // All that is left of the path is what finds nothing.
        await using var host = RunningAppHost.Start(_directory, new Dictionary<string,
            string>
        { ["PATH"] = "/nowhere" }, "--Resources=redis", $"--Cache:Directory={CacheWithoutGarnet()}");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains("redis | could not be started", host.Said);
        Assert.Contains("\"dotnet\": executable file not found", host.Said);
        await LeavesNothingAsync(host);
    }

    [Fact]
    public async Task A_file_that_is_missing_in_the_cache_ends_the_start_and_is_named()
    {
        await using var host = RunningAppHost.Start(_directory, "--Resources=redis", $"--Cache:Directory={CacheWithoutGarnet()}");

        Assert.Equal(1, await host.ExitCodeAsync());
        Assert.Contains("redis | ended with exit code", host.Said);
        Assert.Contains("GarnetServer.dll", host.Said);
        Assert.DoesNotContain("starting again", host.Said);
    }

    private string CacheWithoutGarnet() => Directory.CreateDirectory(
        Path.Combine(_directory, "cache", "garnet-server@" + Triggers.AppHost.Stores.Redis.Version)).Parent!.FullName;

    [Fact]
    public async Task Of_two_started_at_once_one_runs_and_the_other_says_so_and_harms_nothing()
    {
        RunningAppHost[] hosts = [RunningAppHost.Start(_directory), RunningAppHost.Start(_directory)];
        await using var first = hosts[0];
        await using var second = hosts[1];

        var ready = await Task.WhenAll(hosts.Select(host => host.SaysAsync("Ctrl-C stops everything.")));

        var running = Assert.Single(hosts, host => ready[Array.IndexOf(hosts, host)]);
        var refused = Assert.Single(hosts, host => host != running);
        Assert.Equal(1, await refused.ExitCodeAsync());
        Assert.Contains($"already runs on {_directory}", refused.Said);
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(running, AdminKey()));
    }

    private static async Task LeavesNothingAsync(RunningAppHost host) =>
        await Wait.UntilAsync($"nothing of the run is left", () => host.Processes().Count == 0, s_orchestratorsEnd);

    private string AdminKey() => File.ReadAllText(Path.Combine(_directory, "admin-key"));

    private Task<HttpStatusCode> PublishAsync(RunningAppHost host, string key) =>
        PostAsync(host.UrlOf("api") + "/events", new { type = "test.started", data = new { } }, key);

    private async Task<HttpStatusCode> PostAsync(string url, object body, string key)
    {
        // After a crash the API says 503 until Postgres has recovered: asking again is what it tells its callers to do.
        var status = HttpStatusCode.ServiceUnavailable;
        await Wait.UntilAsync($"{url} answers", async () =>
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, url)
            {
                Content = JsonContent.Create(body),
                Headers = { { "X-API-Key", key } },
            };
            try
            {
                using var response = await _client.SendAsync(request, Cancellation);
                status = response.StatusCode;
            }
            catch (HttpRequestException)
            {
                // It is being started again.
            }
            return status != HttpStatusCode.ServiceUnavailable;
        });
        return status;
    }

    private async Task<int> CountEventsAsync(RunningAppHost host, string key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, host.UrlOf("api") + "/events") { Headers = { { "X-API-Key", key } } };
        using var response = (await _client.SendAsync(request, Cancellation)).EnsureSuccessStatusCode();
        return (await response.Content.ReadFromJsonAsync<JsonElement>(Cancellation)).GetProperty("items").GetArrayLength();
    }

    public void Dispose()
    {
        _client.Dispose();
        if (Directory.Exists(_directory))
            Directory.Delete(_directory, recursive: true);
    }
}
