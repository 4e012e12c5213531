using System.Diagnostics.Metrics;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Triggers.Api.Telemetry;
using Triggers.Core.Transformations;
using Triggers.Delivery;
using Triggers.Delivery.Subscriptions;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Tests.Support;

/// <summary>Every instrument of both services: they are made in the constructors, before anything is counted.</summary>
internal static class Instruments
{
    /// <summary>In the order in which the code makes them.</summary>
    public static IReadOnlyList<Instrument> All()
    {
        using var services = new ServiceCollection().AddMetrics().BuildServiceProvider();
        var meters = services.GetRequiredService<IMeterFactory>();
        var all = new List<Instrument>();
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (instrument.Meter.Scope == meters)
                    all.Add(instrument);
            },
        };
        listener.Start();
        _ = new ApiMetrics(meters);
        var subscribers = new Subscribers(
            new SecretProtector(new EphemeralDataProtectionProvider()), Options.Create(new TransformationOptions()), TimeProvider.System,
            NullLogger<Subscribers>.Instance);
        _ = new DeliveryMetrics(meters, new Lanes(1, TimeProvider.System), subscribers, new LogLags());
        return all;
    }

    /// <summary>As in <c>histogram</c>.</summary>
    public static string KindOf(Instrument instrument) => instrument.GetType().Name.Split('`')[0] switch
    {
        "Counter" => "counter",
        "UpDownCounter" => "up-down counter",
        "Histogram" => "histogram",
        "ObservableGauge" => "gauge",
        var other =>
            throw new NotSupportedException($"{instrument.Name} is a {other}: say what that is called, and what Prometheus makes of it."),
    };

    /// <summary>
    /// The name in Prometheus, by OpenTelemetry's rules: units in words, annotations in braces left out, counters with <c>_total</c>.
    /// </summary>
    public static string PrometheusNameOf(Instrument instrument)
    {
        var unit = instrument.Unit switch
        {
            "s" => "_seconds",
            "By" => "_bytes",
            ['{', .., '}'] => "",
            var other => throw new NotSupportedException($"{instrument.Name} is in {other}: say what Prometheus makes of that."),
        };
        return instrument.Name.Replace('.', '_') + unit + (KindOf(instrument) == "counter" ? "_total" : "");
    }
}
