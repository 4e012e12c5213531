using System.Diagnostics.Metrics;
using System.Text;
using System.Text.RegularExpressions;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.ServiceDefaults;

public sealed partial class MetricsTests(PostgresServer postgres)
{
    /// <summary>The page says what the code says. <c>UPDATE_DOCS=1 dotnet test</c> writes its tables anew.</summary>
    [Fact]
    public async Task Every_metric_is_documented_as_it_is()
    {
        var path = Repository.File("docs", "metrics.md");
        var committed = await File.ReadAllTextAsync(path, TestContext.Current.CancellationToken);
        var tables = Instruments.All().GroupBy(instrument => instrument.Meter.Name).ToDictionary(meter => meter.Key, Table);
        Assert.Equal(tables.Keys.Order(), Section().Matches(committed).Select(section => section.Groups["meter"].Value).Order());

        var right = Section()
            .Replace(committed, section => $"## {section.Groups["meter"].Value}\n\n{tables[section.Groups["meter"].Value]}\n");
        if (Environment.GetEnvironmentVariable("UPDATE_DOCS") == "1")
            await File.WriteAllTextAsync(path, right, TestContext.Current.CancellationToken);
        else
            Assert.True(right == committed,
                "docs/metrics.md is not what the code says: look at the difference, and run the tests with UPDATE_DOCS=1.");
    }

    [Fact]
    public void Every_metric_has_a_unit_a_description_and_where_it_measures_time_its_own_buckets()
    {
        Assert.All(Instruments.All(), instrument =>
        {
            Assert.False(string.IsNullOrEmpty(instrument.Unit), instrument.Name);
            Assert.EndsWith(".", instrument.Description, StringComparison.Ordinal);
            if (instrument is Histogram<double> { Advice: var advice })
                Assert.NotEmpty(advice?.HistogramBucketBoundaries ?? []);
        });
    }

    [Fact]
    public async Task Prometheus_gets_the_metrics_under_the_documented_names_when_the_switch_is_on()
    {
        await using var engine = await Engine.CreateAsync(postgres);
        await using var receiver = await TestReceiver.StartAsync();
        await using var api = new ApiHost(engine.ConnectionString, ("Telemetry:Prometheus", "true"));
        var delivery = await engine.StartDeliveryAsync(("Telemetry:Prometheus", "true"));
        using var client = api.Client();
        using var scraper = delivery.CreateClient();
        using var anybody = api.Client(null);
        await client.WaitUntilReadyAsync();
        (await client.PostAsync("/subscriptions", $$"""{"url":"{{receiver.Url}}","eventTypes":["*"]}""")).Is(201);
        await client.PublishAsync();
        (await client.PostAsync("/events", "{}")).IsProblem(400, "invalid_request");
        await Wait.UntilAsync("the event is delivered", async () =>
            await engine.ScalarAsync<long>("SELECT count(*) FROM deliveries WHERE status = 'succeeded'") == 1);

        var ofApi = (await anybody.GetAsync("/metrics")).Is(200).Text;
        var ofDelivery = await scraper.GetStringAsync("/metrics", TestContext.Current.CancellationToken);

        Assert.Matches("triggers_events_refused_total{[^}]*reason=\"invalid_request\"", ofApi);
        Assert.Matches("triggers_delivery_finished_total{[^}]*status=\"succeeded\"", ofDelivery);
        Assert.Matches("triggers_delivery_lanes{[^}]*state=\"full\"", ofDelivery);
        var documented = Instruments.All().Select(Instruments.PrometheusNameOf).ToHashSet();
        var served = Family().Matches(ofApi + ofDelivery).Select(family => family.Groups[1].Value)
            .Where(name => name.StartsWith("triggers_", StringComparison.Ordinal)).ToHashSet();
        Assert.Superset(served, documented);
        // All but those for which there was no occasion: nobody died, nothing came due again, no record was strange, nothing was
        // old, nobody gets batches, and no receiver failed, unless in a test that runs beside this one in the same process.
        string[] withoutOccasion =
        [
            "triggers_dead_letters_written_total", "triggers_delivery_batch_size", "triggers_delivery_circuits_opened_total",
            "triggers_delivery_connections_stale_total", "triggers_delivery_leases_expired_total", "triggers_delivery_limits_reached_total",
            "triggers_events_schema_violations_total", "triggers_inbox_expired_total",
            "triggers_projection_set_aside_total", "triggers_retention_dropped_total",
        ];
        Assert.Empty(documented.Except(served).Except(withoutOccasion));
    }

    [Fact]
    public async Task Nobody_gets_metrics_while_the_switch_is_off()
    {
        await using var engine = await Engine.CreateAsync(postgres);
        await using var api = new ApiHost(engine.ConnectionString);
        using var client = api.Client();

        (await client.GetAsync("/metrics")).IsProblem(404, "not_found");
    }

    private static string Table(IEnumerable<Instrument> instruments)
    {
        var table = new StringBuilder("| metric | kind | unit | Prometheus | what it says |\n| --- | --- | --- | --- | --- |\n");
        foreach (var instrument in instruments)
            table.Append(
                $"| `{instrument.Name}` | {Instruments.KindOf(instrument)} | `{instrument.Unit}` | "
                    + $"`{Instruments.PrometheusNameOf(instrument)}` | {instrument.Description} |\n");
        return table.ToString();
    }

    [GeneratedRegex(@"^## (?<meter>Triggers\.\w+)\n\n(\|.*\n)*\n?", RegexOptions.Multiline)]
    private static partial Regex Section();

    [GeneratedRegex(@"^# TYPE (\w+) ", RegexOptions.Multiline)]
    private static partial Regex Family();
}
