using System.Diagnostics;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Triggers.Tests.Support;
using YamlDotNet.Serialization;
using YamlDotNet.Serialization.NamingConventions;

namespace Triggers.Tests.Deploy;

/// <summary>The files of deploy/observability fit each other and the code.</summary>
public sealed partial class ObservabilityTests
{
    /// <summary>Metrics that are not ours, and the limiter's.</summary>
    private static readonly string[] Others = ["http_server_request_duration_seconds"];

    // As strict as Prometheus itself: a key it does not know, or one given twice, is a mistake.
    private static readonly IDeserializer Yaml = new DeserializerBuilder()
        .WithNamingConvention(UnderscoredNamingConvention.Instance).WithDuplicateKeyChecking().Build();

    [Fact]
    public void Dashboard_and_rules_name_only_metrics_that_the_code_emits()
    {
        var known = Instruments.All()
            .SelectMany(instrument => Series(Instruments.PrometheusNameOf(instrument), Instruments.KindOf(instrument)))
            .Concat(Others.SelectMany(name => Series(name, name.EndsWith("_seconds", StringComparison.Ordinal) ? "histogram" : "counter")))
            .ToHashSet();
        var expressions = Expressions();

        var named = expressions.SelectMany(MetricsIn).ToHashSet();

        Assert.Subset(known, named);
        // Each metric of ours is to be seen somewhere, or nobody needs it.
        Assert.All(Instruments.All().Select(Instruments.PrometheusNameOf), name =>
            Assert.Contains(named, series => series.StartsWith(name, StringComparison.Ordinal)));
    }

    [Fact]
    public void Alert_rules_are_well_formed_and_say_what_to_do()
    {
        var rules = Rules();

        Assert.Equal(rules.Length, rules.Select(rule => rule.Alert).Distinct().Count());
        Assert.All(rules, rule =>
        {
            Assert.Matches("^Triggers[A-Za-z]+$", rule.Alert);
            Assert.Matches("^([0-9]+[smh])?$", rule.For);
            Assert.Equal(rule.Expr.Count(c => c == '('), rule.Expr.Count(c => c == ')'));
            Assert.NotEmpty(MetricsIn(rule.Expr));
            Assert.Contains(rule.Labels["severity"], new[] { "warning", "critical" });
            Assert.Equal(["description", "summary"], rule.Annotations.Keys.Order());
        });
    }

    /// <summary>Where promtool is installed; what it would find in the rules' form the test above finds too.</summary>
    [Fact]
    public async Task Promtool_finds_no_mistake_where_it_is_installed()
    {
        if (!(Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
            .Any(folder => File.Exists(Path.Combine(folder, "promtool"))))
            return;
        foreach (string[] arguments in new[] { new[] { "check", "rules", "alerts.yaml" }, ["test", "rules", "alerts.test.yaml"] })
        {
            var start = new ProcessStartInfo("promtool", arguments)
            {
                WorkingDirectory = Path.GetDirectoryName(Repository.File("deploy", "observability", "alerts.yaml")),
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            };
            using var promtool = Process.Start(start)!;
            var said = await Task.WhenAll(
                promtool.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken),
                promtool.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken));
            await promtool.WaitForExitAsync(TestContext.Current.CancellationToken);
            Assert.True(promtool.ExitCode == 0, string.Concat(said));
        }
    }

    [Fact]
    public void The_tests_of_the_rules_name_rules_that_exist()
    {
        var tested = AlertName().Matches(Read("alerts.test.yaml")).Select(name => name.Groups[1].Value).Distinct().ToArray();

        Assert.NotEmpty(tested);
        Assert.Subset(Rules().Select(rule => rule.Alert).ToHashSet(), tested.ToHashSet());
    }

    [Fact]
    public void Every_part_of_the_collectors_pipelines_is_configured_and_none_lies_idle()
    {
        var collector = Yaml.Deserialize<Collector>(Read("otel-collector.yaml"));

        Assert.Equal(["logs", "metrics", "traces"], collector.Service.Pipelines.Keys.Order());
        Assert.Equal(collector.Extensions.Keys.Order(), collector.Service.Extensions.Order());
        Assert.Equal(collector.Receivers.Keys.Order(), Used(pipeline => pipeline.Receivers));
        Assert.Equal(collector.Processors.Keys.Order(), Used(pipeline => pipeline.Processors));
        Assert.Equal(collector.Exporters.Keys.Order(), Used(pipeline => pipeline.Exporters));

        IEnumerable<string> Used(Func<Pipeline, string[]> part) => collector.Service.Pipelines.Values.SelectMany(part).Distinct().Order();
    }

    [Theory]
    [InlineData("sum by (le, http_route) (rate(a_bucket{route!=\"b\",c=~\"d(e)\"}[5m])) / 2e3 > 0.01", "a_bucket")]
    [InlineData("max(a) > 0 unless sum(increase(b_total{s=\"ok\"}[$__rate_interval])) > 0 or vector(0)", "a b_total")]
    public void Names_of_metrics_are_found_in_an_expression(string expression, string names) =>
        Assert.Equal(names.Split(' '), MetricsIn(expression));

    private static string Read(string name) => File.ReadAllText(Repository.File("deploy", "observability", name));

    private static AlertRule[] Rules() => [.. Yaml.Deserialize<RuleFile>(Read("alerts.yaml")).Groups.SelectMany(group => group.Rules)];

    private static string[] Expressions()
    {
        var panels = JsonNode.Parse(Read("dashboard.json"))!["panels"]!.AsArray();
        var ofDashboard = panels.SelectMany(panel => panel!["targets"]?.AsArray() ?? [])
            .Select(target => target!["expr"]!.GetValue<string>()).ToArray();
        Assert.NotEmpty(ofDashboard);
        return [.. ofDashboard, .. Rules().Select(rule => rule.Expr)];
    }

    private static IEnumerable<string> Series(string name, string kind) =>
        kind == "histogram" ? [name + "_bucket", name + "_sum", name + "_count"] : [name];

    /// <summary>What is left of an expression without labels, ranges, groupings, functions, operators and numbers.</summary>
    private static IEnumerable<string> MetricsIn(string expression) => Word()
        .Matches(NotMetrics().Replace(expression, " "))
        .Select(word => word.Value)
        .Where(word => word is not ("by" or "without" or "on" or "unless" or "and" or "or" or "offset"));

    [GeneratedRegex(@"\{[^}]*\}|\[[^\]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)")]
    private static partial Regex NotMetrics();

    [GeneratedRegex(@"(?<![\w.])[a-zA-Z_:][\w:]*(?!\w|\s*\()")]
    private static partial Regex Word();

    [GeneratedRegex(@"alertname: (\w+)")]
    private static partial Regex AlertName();

    private sealed class RuleFile
    {
        public RuleGroup[] Groups { get; set; } = [];
    }

    private sealed class RuleGroup
    {
        public string Name { get; set; } = "";

        public AlertRule[] Rules { get; set; } = [];
    }

    private sealed class AlertRule
    {
        public string Alert { get; set; } = "";

        public string Expr { get; set; } = "";

        public string For { get; set; } = "";

        public Dictionary<string, string> Labels { get; set; } = [];

        public Dictionary<string, string> Annotations { get; set; } = [];
    }

    private sealed class Collector
    {
        public Dictionary<string, object?> Extensions { get; set; } = [];

        public Dictionary<string, object?> Receivers { get; set; } = [];

        public Dictionary<string, object?> Processors { get; set; } = [];

        public Dictionary<string, object?> Exporters { get; set; } = [];

        public CollectorService Service { get; set; } = new();
    }

    private sealed class CollectorService
    {
        public string[] Extensions { get; set; } = [];

        public Dictionary<string, Pipeline> Pipelines { get; set; } = [];
    }

    private sealed class Pipeline
    {
        public string[] Receivers { get; set; } = [];

        public string[] Processors { get; set; } = [];

        public string[] Exporters { get; set; } = [];
    }
}
