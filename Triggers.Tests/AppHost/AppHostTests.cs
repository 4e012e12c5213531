using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using Triggers.AppHost.Processes;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>One after the other, and beside no other class: each of them runs a whole system.</summary>
[CollectionDefinition(nameof(AppHostCollection), DisableParallelization = true)]
public sealed class AppHostCollection;

[Collection(nameof(AppHostCollection))]
public sealed class AppHostTests : IDisposable
{
    private static readonly TimeSpan s_fiveSeconds = TimeSpan.FromSeconds(5);

    private readonly string _directory = TestDirectory.New();
    private readonly HttpClient _client = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task It_starts_everything_restarts_what_crashes_and_leaves_nothing_after_SIGTERM()
    {
        const string Key = "trg_0123456789012345678901234567890123456789012";
        await using var host = await RunningAppHost.StartAndWaitAsync(_directory, "--Auth:BootstrapAdminKey=" + Key);
        var record = host.Record;
        Assert.Equal(["api", "delivery", "postgres", "receiver", "redis"], record.Processes.Keys.Order());
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(record, Key));
        Assert.Contains(Key, host.Said);
        Assert.Equal(HttpStatusCode.OK, (await _client.GetAsync(record.Addresses["receiver"], Cancellation)).StatusCode);

        await using (var second = RunningAppHost.Start(_directory))
        {
            Assert.Equal(1, await second.ExitCodeAsync());
            Assert.Contains($"already runs on {_directory} (process {host.Id})", second.Said);
        }

        foreach (var crashed in new[] { "api", "postgres" })
        {
            Unix.Signal(record.Processes[crashed].Id, Unix.SIGKILL);
            await host.WaitForAsync($"{crashed} | ended by signal 9");
            await host.WaitForAsync($"{crashed} | is back");
        }
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(record, Key));

        var processes = host.Record.Processes;
        // Twice, as with `dotnet run`, where the whole process group gets the signal and it is passed on too.
        host.Terminate();
        host.Terminate();
        Assert.Equal(0, await host.ExitCodeAsync());
        Assert.Empty(await processes.LeftAfterAsync(TimeSpan.Zero));
        Assert.DoesNotContain("dashboard", processes.Keys);
    }

    [Fact]
    public async Task After_SIGKILL_nothing_is_left_within_five_seconds_and_the_data_lasts_until_it_is_dropped()
    {
        string key;
        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory))
        {
            key = AdminKey();
            Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host.Record, key));
            var processes = new Dictionary<string, ProcessIdentity>(host.Record.Processes) { ["guard"] = host.Record.Guard! };
            host.Kill();
            Assert.Empty(await processes.LeftAfterAsync(s_fiveSeconds));
        }

        Dictionary<string, ProcessIdentity> leftovers;
        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory))
        {
            Assert.Equal(key, AdminKey());
            Assert.Equal(1, await CountEventsAsync(host.Record, key));
            leftovers = host.Record.Processes;
            var guard = host.Record.Guard!;
            // At once, so that neither can tidy up after the other.
            Unix.Signal(guard.Id, Unix.SIGKILL);
            host.Kill();
        }
        Assert.Contains(leftovers.Values, p => p.IsAlive);

        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory, "--reset"))
        {
            Assert.Empty(await leftovers.LeftAfterAsync(TimeSpan.Zero));
            Assert.Contains("left over from a run that was killed", host.Said);
            Assert.NotEqual(key, AdminKey());
            Assert.Equal(0, await CountEventsAsync(host.Record, AdminKey()));
        }
    }

    [Fact]
    public async Task A_killed_guard_ends_the_AppHost_which_ends_the_rest()
    {
        await using var host = await RunningAppHost.StartAndWaitAsync(_directory);
        var record = host.Record;

        Unix.Signal(record.Guard!.Id, Unix.SIGKILL);

        Assert.NotEqual(0, await host.ExitCodeAsync());
        Assert.Empty(await record.Processes.LeftAfterAsync(TimeSpan.Zero));
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
        Assert.Contains("--Ports:Receiver=", host.Said);
    }

    [Fact]
    public async Task A_Postgres_that_was_named_is_used_and_left_running()
    {
        await using var server = await PostgresServer.StartOwnAsync();
        var database = await server.ReserveDatabaseAsync();

        await using (var host = await RunningAppHost.StartAndWaitAsync(_directory, $"--ConnectionStrings:triggersdb={database}"))
        {
            Assert.DoesNotContain("postgres", host.Record.Processes.Keys);
            Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(host.Record, AdminKey()));
        }
        Assert.True(await Postgres.AnswersAsync(database, Cancellation));

        await server.StopImmediateAsync();
        await using var without = RunningAppHost.Start(_directory, $"--ConnectionStrings:triggersdb={database}");
        Assert.Equal(1, await without.ExitCodeAsync());
        Assert.Contains("ConnectionStrings:triggersdb was given and can't be used", without.Said);
    }

    [Fact]
    public async Task Of_two_started_at_once_one_runs_and_the_other_says_so_and_harms_nothing()
    {
        RunningAppHost[] hosts = [RunningAppHost.Start(_directory, "--Resources=redis"), RunningAppHost.Start(_directory, "--Resources=redis")];
        await using var first = hosts[0];
        await using var second = hosts[1];

        var ready = await Task.WhenAll(hosts.Select(host => host.SaysAsync(line => line == "ready")));

        var running = Assert.Single(hosts, host => ready[Array.IndexOf(hosts, host)]);
        var refused = Assert.Single(hosts, host => host != running);
        Assert.Equal(1, await refused.ExitCodeAsync());
        Assert.Contains($"already runs on {_directory} (process {running.Id})", refused.Said);
        Assert.Equal(running.Id, running.Record.AppHost!.Id);
        Assert.True(running.Record.Guard!.IsAlive);
        Assert.True(Assert.Single(running.Record.Processes).Value.IsAlive);
    }

    [Fact]
    public async Task With_two_replicas_each_has_its_address_and_what_one_API_takes_is_delivered()
    {
        await using var receiver = await TestReceiver.StartAsync();
        await using var host = await RunningAppHost.StartAndWaitAsync(_directory, "--replicas=2", $"--Kafka:Home={KafkaServer.Home}");
        var record = host.Record;
        Assert.Equal(KafkaServer.Home is not null, record.Addresses.ContainsKey("kafka"));
        foreach (var name in new[] { "api-1", "api-2", "delivery-1", "delivery-2" })
        {
            Assert.Matches($"{name} +{record.Addresses[name]}", host.Said);
            await Wait.UntilAsync($"{name} is ready", () => HealthProbe.IsOkAsync(record.Addresses[name] + "/health/ready", Cancellation));
        }

        var subscription = new { url = receiver.Url + "/hook", eventTypes = new[] { "test.*" } };
        Assert.Equal(HttpStatusCode.Created, await PostAsync(record.Addresses["api-1"] + "/subscriptions", subscription, AdminKey()));
        Assert.Equal(HttpStatusCode.Accepted, await PublishAsync(record, AdminKey(), "api-2"));

        await Wait.UntilAsync("the webhook came", () => receiver.Received.Count == 1);
    }

    private string AdminKey() => File.ReadAllText(Path.Combine(_directory, "admin-key"));

    private Task<HttpStatusCode> PublishAsync(RunRecord.Content record, string key, string api = "api") =>
        PostAsync(record.Addresses[api] + "/events", new { type = "test.started", data = new { } }, key);

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
            using var response = await _client.SendAsync(request, Cancellation);
            status = response.StatusCode;
            return status != HttpStatusCode.ServiceUnavailable;
        });
        return status;
    }

    private async Task<int> CountEventsAsync(RunRecord.Content record, string key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, record.Addresses["api"] + "/events") { Headers = { { "X-API-Key", key } } };
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
