using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Triggers.ServiceDefaults;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Setup;

public sealed class StartTests(ApiFixture api, PostgresServer postgres) : IClassFixture<ApiFixture>
{
    [Fact]
    public async Task Any_number_of_processes_start_at_once_and_the_first_tenant_and_key_are_there_once()
    {
        var hosts = await Task.WhenAll(Enumerable.Range(0, 4)
            .Select(_ => Task.Run(() => new ApiHost(api.ConnectionString, ("Auth:BootstrapAdminKey", "a-second-admin-key")))));
        foreach (var host in hosts)
        {
            using var client = host.Client("a-second-admin-key");
            await client.WaitUntilReadyAsync();
            (await client.GetAsync("/tenants")).Is(200);
        }

        Assert.Equal(1L, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM tenants WHERE name = 'default'"));
        Assert.Equal(2L, await api.Rows.ScalarAsync<long>("SELECT count(*) FROM api_keys WHERE name = 'bootstrap'"));
        foreach (var host in hosts)
            await host.DisposeAsync();
    }

    [Fact]
    public async Task A_bootstrap_key_that_was_revoked_stays_so_at_the_next_start()
    {
        await using var fresh = await FreshAsync();
        using var admin = fresh.Host.Client();
        (await admin.PostAsync("/api-keys", """{"name":"other","scopes":["admin"]}""")).Is(201);
        var id = (await admin.GetAsync("/api-keys?order=asc&limit=1")).Ids.Single();
        (await admin.DeleteAsync($"/api-keys/{id}")).Is(204);
        var logs = new CapturedLogs();

        await using var next = new ApiHost(fresh.ConnectionString, logs);
        using var client = next.Client();
        await client.WaitUntilReadyAsync();

        (await client.GetAsync("/tenants")).IsProblem(401, "unauthenticated");
        Assert.Contains(logs.Lines, line =>
            line.Level == LogLevel.Warning && line.Message.StartsWith("Auth:BootstrapAdminKey was revoked", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_bootstrap_key_that_another_replaces_goes_on_for_a_day_and_is_not_the_last_admin_key()
    {
        await using var fresh = await FreshAsync();
        const string replacement = "the-bootstrap-key-after-it";
        await using var next = new ApiHost(fresh.ConnectionString, ("Auth:BootstrapAdminKey", replacement));
        using var client = next.Client(replacement);
        await client.WaitUntilReadyAsync();
        using var old = next.Client();
        (await old.GetAsync("/tenants")).Is(200);

        var ids = (await client.GetAsync("/api-keys?order=asc")).Is(200).Ids;
        var expires = DateTimeOffset.Parse((await client.GetAsync($"/api-keys/{ids[0]}"))["expiresAt"]!);

        Assert.InRange(expires - TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(23.9), TimeSpan.FromHours(24));
        Assert.Null((await client.GetAsync($"/api-keys/{ids[1]}"))["expiresAt"]);
        (await client.DeleteAsync($"/api-keys/{ids[1]}")).IsProblem(409, "last_admin_key");

        // Going back to it makes it the one that stays.
        await using var back = new ApiHost(fresh.ConnectionString);
        using var admin = back.Client();
        await admin.WaitUntilReadyAsync();
        Assert.Null((await admin.GetAsync($"/api-keys/{ids[0]}"))["expiresAt"]);
        Assert.NotNull((await admin.GetAsync($"/api-keys/{ids[1]}"))["expiresAt"]);
        (await admin.DeleteAsync($"/api-keys/{ids[1]}")).Is(204);
    }

    private async Task<ApiFixture> FreshAsync()
    {
        var fixture = new ApiFixture(postgres);
        await fixture.InitializeAsync();
        return fixture;
    }

    [Fact]
    public async Task Before_the_schema_is_there_it_is_not_ready_and_answers_503()
    {
        var database = await postgres.CreateDatabaseAsync();
        await using var host = new ApiHost(database);
        using var client = host.Client();

        // A busy machine may take longer for it than a request has.
        await Wait.UntilAsync("it says that it starts", async () =>
            (await client.GetAsync("/health/ready")).Is(503)["status"] == "starting");
        (await client.GetAsync("/health/live")).Is(200);
        (await client.PostAsync("/events", """{"type":"a","data":1}""")).IsProblem(503, "storage_unavailable");
    }

    [Fact]
    public async Task What_has_not_started_yet_is_waited_for_without_a_warning()
    {
        using var free = new TcpListener(IPAddress.Loopback, 0);
        free.Start();
        var redis = free.LocalEndpoint.ToString();
        free.Stop();
        var logs = new CapturedLogs();
        await using var host = new ApiHost(
            await postgres.CreateDatabaseAsync(), logs, ("ConnectionStrings:redis", $"{redis},connectTimeout=500"));

        await Wait.UntilAsync("both are waited for", () =>
            logs.Lines.Any(line => line.Message.StartsWith("The database does not have", StringComparison.Ordinal))
            && logs.Lines.Any(line => line.Message.StartsWith("Waits, and is tried again", StringComparison.Ordinal)));

        Assert.DoesNotContain(logs.Lines, line => line.Level > LogLevel.Information);
        Assert.Equal([LogLevel.Information, LogLevel.Warning], new[] { 14, 15 }.Select(
            seconds => Readiness.LevelOfWaiting(TimeSpan.FromSeconds(seconds))));
    }

    [Fact]
    public async Task Every_mistake_in_the_settings_is_named_at_once_with_its_key()
    {
        var (exitCode, said) = await ApiProcess.RunAsync([],
            ("ConnectionStrings__triggersdb", "Host="), ("Auth__BootstrapAdminKey", "short"),
            ("RateLimiting__Burst", "0"), ("Shutdown__GracePeriod", "00:00:00"),
            ("ConnectionStrings__redis", "password=short"), ("Auth__KeepKeys", "00:00:00"), ("Telemetry__SampleRatio", "1.5"),
            ("Auth__TrustedProxies", "10.0.0.0/8,nowhere"), ("Limits__KeysPerTenant", "0"), ("Requests__BodyTimeOt", "00:00:01"),
            ("Transformations__Time", "00:01:00"));

        Assert.Equal(1, exitCode);
        foreach (var key in new[]
            {
                "ConnectionStrings:triggersdb", "Auth:BootstrapAdminKey", "RateLimiting:Burst",
                "Shutdown:GracePeriod", "ConnectionStrings:redis", "Auth:KeepKeys",
                "Telemetry:SampleRatio", "Auth:TrustedProxies", "Limits:KeysPerTenant", "Requests:BodyTimeOt is not a setting",
                "Transformations:Time",
            })
            Assert.Contains(key, said);
        Assert.DoesNotContain("short", said);
        Assert.DoesNotContain("   at ", said);
    }

    [Fact]
    public async Task Migrating_makes_database_and_schema_however_many_do_it_at_once()
    {
        var database = await postgres.ReserveDatabaseAsync();

        var ended = await Task.WhenAll(
            Enumerable.Range(0, 3).Select(_ => ApiProcess.RunAsync(["--migrate"], ("ConnectionStrings__triggersdb", database))));

        Assert.All(ended, e => Assert.True(e.ExitCode == 0, e.Said));
        await using var host = new ApiHost(database);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        await client.PublishAsync();
        Assert.Equal(0, (await ApiProcess.RunAsync(["--migrate"], ("ConnectionStrings__triggersdb", database))).ExitCode);
        Assert.Single((await client.GetAsync("/events")).Is(200).Ids);
    }
}
