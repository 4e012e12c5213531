using System.Text.RegularExpressions;
using Aspire.Hosting;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Triggers.AppHost;
using Triggers.AppHost.Stores;
using Triggers.Delivery;
using Triggers.EventLog.Kafka;
using Triggers.ServiceDefaults;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

public sealed partial class SettingsTests
{
    [Fact]
    public void Every_mistake_is_named_at_once()
    {
        var e = Assert.Throws<DistributedApplicationException>(() =>
            Read("--Ports:Api=many", "--Dashboard:Enabled=perhaps", "--Resources=some",
                "--replicas=0", "--Stores=cloud", "--Prots:Api=1"));

        Assert.Contains("Ports:Api must be a port", e.Message);
        Assert.Contains("Dashboard:Enabled must be true or false", e.Message);
        Assert.Contains("Replicas must be a number from 1 to 9", e.Message);
        Assert.Contains("Resources must be 'all', 'stores' or some of postgres,redis,kafka", e.Message);
        Assert.Contains("Stores must be local or containers", e.Message);
        Assert.Contains("Prots:Api is not a setting", e.Message);
    }

    [Theory]
    [InlineData("--Prots:api=1")]
    [InlineData("--Ports:app=1")]
    [InlineData("--Deliver:LaneConcurrency=1")]
    [InlineData("--rest")]
    [InlineData("rest")]
    public void What_nobody_knows_is_not_ignored(string argument) =>
        Assert.Contains(
            argument.TrimStart('-').Split('=')[0], Assert.Throws<DistributedApplicationException>(() => Read(argument)).Message);

    [Theory]
    [InlineData("--replicas", "3")]
    [InlineData("--replicas=3")]
    [InlineData("--Replicas=3")]
    public void Replicas_may_be_one_word_or_two(params string[] arguments)
    {
        var settings = Read(["--Ports:Api=0", .. arguments]);

        Assert.Equal(3, settings.Replicas);
        Assert.Null(settings.PortOf("api"));
        Assert.Empty(settings.ForServices);
    }

    [Theory]
    [InlineData("--Dashboard:Enabled=false", false)]
    [InlineData("--dashboard:enabled=False", false)]
    [InlineData("--Dashboard:Enabled=true", true)]
    [InlineData("--Ports:Api=0", true)]
    public void There_is_a_dashboard_unless_somebody_says_no(string argument, bool expected) =>
        Assert.Equal(expected, Settings.HasDashboard(Settings.Parse([argument])));

    [Fact]
    public void Stores_can_be_started_one_by_one()
    {
        Assert.Equal(["redis", "kafka"], Read("--Resources=redis,kafka").Stores);
        Assert.Equal(["postgres", "redis", "kafka"], Read("--Resources=stores").Stores);
        Assert.False(Read().StoresOnly);
    }

    [Fact]
    public void Settings_that_are_not_the_AppHosts_go_to_the_services()
    {
        var settings = Read("--Delivery:Retry:MaxAttempts=3", "--Kafka:Partitions=6",
            "--Kafka:Home=/kafka", "--Ports:Api=0", "--OTEL_TRACES_SAMPLER=always_off");

        Assert.Equal(["Delivery__Retry__MaxAttempts", "Kafka__Partitions", "OTEL_TRACES_SAMPLER"], settings.ForServices.Keys.Order());
        Assert.Equal("/kafka", settings.KafkaHome);
    }

    [Fact]
    public void Every_documented_setting_is_known()
    {
        var documented = SettingInTable().Matches(File.ReadAllText(Repository.File("docs", "operations.md")))
            .Select(match => match.Groups[1].Value).ToList();

        Assert.InRange(documented.Count, 15, 200);
        Assert.All(documented, setting => Read(setting switch
        {
            "Dashboard:Enabled" => $"--{setting}=true",
            _ => $"--{setting}=1",
        }));
    }

    [Fact]
    public void Every_section_of_the_services_is_known()
    {
        var sources = Directory.GetDirectories(Repository.File(), "Triggers.*")
            .Where(directory => !directory.EndsWith("Tests", StringComparison.Ordinal))
            .SelectMany(directory => Directory.GetFiles(directory, "*.cs", SearchOption.AllDirectories));
        var sections = sources.SelectMany(file => BoundSection().Matches(File.ReadAllText(file))).Select(match => match.Groups[1].Value)
            .Distinct().ToList();

        Assert.Contains("Delivery", sections);
        Assert.All(sections, section => Assert.Single(Read($"--{section}:Something=1").ForServices));
    }

    [Fact]
    public void Names_that_a_service_does_not_know_are_named_all_and_its_others_are_not()
    {
        var services = new ServiceCollection()
            .AddSingleton<IConfiguration>(new ConfigurationBuilder().AddInMemoryCollection(new Dictionary<string, string?>
            {
                ["Delivery:LaneConcurency"] = "1",
                ["Delivery:Retry:MaxAtempts"] = "3",
                ["Delivery:Retry:MaxAttempts"] = "3",
                ["Kafka:Client:linger.ms"] = "2",
                ["Kafka:Home"] = "/kafka",
                ["Kafka:Partitons"] = "3",
            }).Build());
        services.AddSettings<DeliveryOptions>("Delivery");
        services.AddSettings<KafkaOptions>("Kafka", "Home");

        var e = Assert.Throws<AggregateException>(
            () => services.BuildServiceProvider().GetRequiredService<IStartupValidator>().Validate());

        Assert.Equal(
            ["Delivery:LaneConcurency is not a setting.",
                "Delivery:Retry:MaxAtempts is not a setting.", "Kafka:Partitons is not a setting."],
            e.InnerExceptions.Cast<OptionsValidationException>().SelectMany(mistakes => mistakes.Failures).Order());
    }

    [Fact]
    public void A_run_gets_what_launch_settings_would_hold_and_publishing_does_not()
    {
        var run = Settings.Complete(Settings.Parse(["--Ports:Dashboard=18890"]));

        Assert.Contains("--ASPIRE_ALLOW_UNSECURED_TRANSPORT=true", run);
        Assert.Contains("--ASPNETCORE_URLS=http://localhost:18890", run);
        Assert.Equal(
            ["--publisher=manifest", "--with-kafka=true"], Settings.Complete(Settings.Parse(["--publisher", "manifest", "--with-kafka"])));
    }

    [Fact]
    public void Admin_keys_are_long_plain_kept_private_and_never_the_same()
    {
        var directories = Enumerable.Range(0, 20).Select(_ => Directory.CreateDirectory(TestDirectory.New()).FullName).ToList();
        var keys = directories.Select(directory => Read($"--Data:Directory={directory}").AdminKey()).ToList();

        Assert.All(keys, key => Assert.Matches("^trg_[0-9A-Za-z]{43}$", key));
        Assert.Equal(20, keys.Distinct().Count());
        Assert.Equal(keys, directories.Select(directory => Read($"--Data:Directory={directory}").AdminKey()));
        Assert.All(directories, directory =>
        {
            if (!OperatingSystem.IsWindows())
                Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(Path.Combine(directory, "admin-key")));
            Directory.Delete(directory, recursive: true);
        });
    }

    [Fact]
    public async Task What_is_generated_once_is_the_same_for_all_who_ask_at_the_same_time()
    {
        var directory = TestDirectory.New();
        PackageCache.CreateReadable(directory);
        var settings = Read($"--Data:Directory={directory}");
        using var together = new Barrier(8);

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Factory.StartNew(() =>
        {
            together.SignalAndWait(TestContext.Current.CancellationToken);
            return settings.Kept("generated", () => Guid.NewGuid().ToString());
        }, TestContext.Current.CancellationToken, TaskCreationOptions.LongRunning, TaskScheduler.Default)));

        Assert.Single(answers.Distinct());
    }

    private static Settings Read(params string[] arguments)
    {
        var parsed = Settings.Parse(arguments);
        return new Settings(
            new ConfigurationBuilder().AddCommandLine(Settings.Complete(parsed)).Build(), parsed, Repository.File("Triggers.AppHost"));
    }

    /// <summary>As in <c>| `Delivery:Lease` | 30 s |</c>.</summary>
    [GeneratedRegex(@"^\| `([A-Z]\w+:\w+)`", RegexOptions.Multiline)]
    private static partial Regex SettingInTable();

    [GeneratedRegex(@"AddSettings<\w+>\(""(\w+)")]
    private static partial Regex BoundSection();
}
