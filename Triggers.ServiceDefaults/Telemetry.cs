using System.ComponentModel.DataAnnotations;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using OpenTelemetry;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Triggers.ServiceDefaults;

/// <summary>Settings <c>Telemetry:*</c>.</summary>
public sealed class TelemetryOptions
{
    /// <summary>
    /// The share of traces that are kept, 0 to 1, where no caller decided already: a request whose <c>traceparent</c> says sampled, or
    /// not, is taken at its word. <c>OTEL_TRACES_SAMPLER</c>, when set, decides instead.
    /// </summary>
    [Range(0.0, 1.0, ErrorMessage = "Telemetry:SampleRatio must be between 0 and 1.")]
    public double SampleRatio { get; set; } = 1;

    /// <summary>Whether <c>GET /metrics</c> answers Prometheus, open to everybody who can reach the port.</summary>
    public bool Prometheus { get; set; }
}

/// <summary>Traces, metrics and logs, by OpenTelemetry.</summary>
public static class Telemetry
{
    /// <summary>Where Prometheus asks.</summary>
    public const string MetricsPath = "/metrics";

    /// <summary>
    /// Exports by OTLP when <c>OTEL_EXPORTER_OTLP_ENDPOINT</c> is set, and offers metrics to Prometheus when the setting says so. What
    /// nobody takes is not measured; what a caller's <c>traceparent</c> says is handed on all the same.
    /// </summary>
    internal static void AddTelemetry(this WebApplicationBuilder builder)
    {
        var configuration = builder.Configuration;
        builder.Services.AddSettings<TelemetryOptions>("Telemetry").ValidateDataAnnotations();
        var exports = !string.IsNullOrEmpty(configuration["OTEL_EXPORTER_OTLP_ENDPOINT"]);
        if (!exports && !IsPrometheusOn(configuration))
            return;
        var telemetry = builder.Services.AddOpenTelemetry()
            // What the environment says comes last, and wins.
            .ConfigureResource(resource =>
                resource.Clear().AddService(builder.Environment.ApplicationName).AddTelemetrySdk().AddEnvironmentVariableDetector())
            .WithMetrics(metrics =>
            {
                metrics.AddMeter("Triggers.*").AddAspNetCoreInstrumentation().AddRuntimeInstrumentation();
                if (IsPrometheusOn(configuration))
                    metrics.AddPrometheusExporter();
            });
        if (!exports)
            return;
        telemetry.WithTracing(tracing =>
        {
            tracing.AddSource("Triggers.*")
                .AddAspNetCoreInstrumentation(o => o.Filter = context => !IsOfOperations(context.Request.Path));
            // A sampler set here would silence the environment's.
            if (string.IsNullOrEmpty(configuration["OTEL_TRACES_SAMPLER"]))
            {
                tracing.SetSampler(provider => new ParentBasedSampler(
                    new TraceIdRatioBasedSampler(provider.GetRequiredService<IOptions<TelemetryOptions>>().Value.SampleRatio)));
            }
        });
        telemetry.UseOtlpExporter();
        builder.Logging.AddOpenTelemetry(logging =>
        {
            logging.IncludeFormattedMessage = true;
            logging.IncludeScopes = true;
        });
    }

    /// <summary><c>/metrics</c>, when <see cref="TelemetryOptions.Prometheus"/> is on.</summary>
    internal static void MapMetrics(this WebApplication app)
    {
        if (IsPrometheusOn(app.Configuration))
            app.MapPrometheusScrapingEndpoint(MetricsPath).ExcludeFromDescription().AllowAnonymous().DisableHttpMetrics();
    }

    // Read before the settings are validated: what is neither true nor false is named there, with every other mistake.
    private static bool IsPrometheusOn(IConfiguration configuration) =>
        bool.TryParse(configuration["Telemetry:Prometheus"], out var on) && on;

    private static bool IsOfOperations(PathString path) => path.StartsWithSegments("/health") || path.StartsWithSegments(MetricsPath);
}
