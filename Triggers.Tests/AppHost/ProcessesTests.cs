using System.Collections;
using System.Diagnostics;
using Triggers.AppHost;
using Triggers.AppHost.Processes;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

public sealed class ProcessesTests
{
    [Fact]
    public void Children_inherit_everything_but_where_to_listen()
    {
        var environment = ChildEnvironment.From(new Hashtable
        {
            ["PATH"] = "/bin",
            ["Auth__BootstrapAdminKey"] = "key",
            ["ASPNETCORE_URLS"] = "http://localhost:1",
            ["URLS"] = "http://localhost:1",
            ["DOTNET_HTTP_PORTS"] = "1",
            ["ASPNETCORE_HTTPS_PORTS"] = "1",
            ["DOTNET_LAUNCH_PROFILE"] = "x",
            ["CURLS"] = "kept",
        });

        Assert.Equal(["Auth__BootstrapAdminKey", "CURLS", "PATH"], environment.Keys.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Generated_keys_are_long_plain_and_never_the_same()
    {
        var keys = Enumerable.Range(0, 100).Select(_ => AdminKey.Generate()).ToList();

        Assert.All(keys, key => Assert.Matches("^trg_[0-9A-Za-z]{43}$", key));
        Assert.Equal(100, keys.Distinct().Count());
    }

    [Fact]
    public void A_number_that_went_to_another_process_is_not_the_process()
    {
        Assert.True(ProcessIdentity.Self.IsAlive);
        Assert.False((ProcessIdentity.Self with { Started = ProcessIdentity.Self.Started - 100 }).IsAlive);
    }

    [Fact]
    public async Task A_process_that_ended_is_not_alive()
    {
        using var process = Process.Start(new ProcessStartInfo(Clone.Dotnet, ["--version"]) { RedirectStandardOutput = true })!;
        var identity = ProcessIdentity.Of(process.Id);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);

        Assert.False(identity?.IsAlive);
    }

    [Fact]
    public void Every_mistake_in_the_settings_is_named_at_once()
    {
        var e = Assert.Throws<AppHostException>(() => Settings.Read(["--Ports:Api=many", "--Dashboard:Enabled=perhaps", "--Resources=some", "--replicas=0"]));

        Assert.Contains("Ports:Api must be a port", e.Message);
        Assert.Contains("Dashboard:Enabled must be true or false", e.Message);
        Assert.Contains("Replicas must be a number from 1 to 9", e.Message);
        Assert.Contains("Resources must be 'all', 'stores' or some of postgres,redis,kafka", e.Message);
    }

    [Theory]
    [InlineData("--replicas", "3")]
    [InlineData("--replicas=3")]
    [InlineData("--Replicas=3")]
    public void Replicas_may_be_one_word_or_two(params string[] arguments)
    {
        var settings = Settings.Read(["--Ports:Api=0", .. arguments]);

        Assert.Equal(3, settings.Replicas);
        Assert.Empty(settings.ForServices);
    }

    [Fact]
    public void Stores_can_be_started_one_by_one()
    {
        Assert.Equal(["redis", "kafka"], Settings.Read(["--Resources=redis,kafka"]).Stores);
        Assert.Equal(Topology.Stores, Settings.Read(["--Resources=stores"]).Stores);
        Assert.False(Settings.Read([]).StoresOnly);
    }

    [Fact]
    public void What_is_not_understood_is_not_ignored() =>
        Assert.Contains("--rest", Assert.Throws<AppHostException>(() => Settings.Read(["--rest"])).Message);

    [Fact]
    public void Settings_that_are_not_the_AppHosts_go_to_the_services()
    {
        var settings = Settings.Read(["--Delivery:Retry:MaxAttempts=3", "--Kafka:Partitions=6", "--Kafka:Home=/kafka", "--Ports:Api=0"]);

        Assert.Equal(["Delivery__Retry__MaxAttempts", "Kafka__Partitions"], settings.ForServices.Keys.Order());
        Assert.Equal("/kafka", settings.KafkaHome);
    }

    [Theory]
    [InlineData("12:00:00.123 warn: Some.Category[1] text", true)]
    [InlineData("12:00:00.123 fail: Some.Category[1] text", true)]
    [InlineData("12:00:00.123 info: Some.Category[1] warn: text", false)]
    [InlineData("", false)]
    public void Only_warnings_and_worse_are_shown(string line, bool shown) => Assert.Equal(shown, ServiceLaunch.IsWarningOrWorse(line));

    [Fact]
    public void Services_wait_only_for_what_comes_before_them()
    {
        var before = new HashSet<string>(Topology.Stores);
        foreach (var service in Topology.Services)
        {
            Assert.Subset(before, service.WaitsFor.ToHashSet());
            Assert.True(before.Add(service.Name));
        }
    }

    [Fact]
    public void A_log_is_bounded()
    {
        var directory = Directory.CreateDirectory(TestDirectory.New()).FullName;
        using (var log = new ChildLog(directory, "chatty"))
            for (var i = 0; i < 25; i++)
                log.Write(new string('x', 1024 * 1024));

        Assert.Equal(["chatty.1.log", "chatty.log"], Directory.GetFiles(directory).Select(Path.GetFileName).Order());
        Assert.True(Directory.GetFiles(directory).Sum(file => new FileInfo(file).Length) < 23 * 1024 * 1024);
        Directory.Delete(directory, recursive: true);
    }
}
