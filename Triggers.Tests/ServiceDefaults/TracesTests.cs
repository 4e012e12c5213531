using System.Collections.Concurrent;
using System.Diagnostics;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Delivery;
using Triggers.Tests.Support;

namespace Triggers.Tests.ServiceDefaults;

/// <summary>The trace of an event, through both services.</summary>
public sealed class TracesTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task One_trace_leads_from_the_producer_through_log_and_projection_to_each_attempt_and_the_webhook()
    {
        const string trace = "a5b7c9d1e3f5071829304a5b6c7d8e9f", producer = "00f067aa0ba902b7";
        using var spans = new Spans(trace);
        Receiver.Respond = (webhook, context) =>
        {
            context.Response.StatusCode = webhook.Attempt == 1 ? 503 : 200;
            return Task.CompletedTask;
        };
        // Nobody is there; but where nobody is named, spans of requests are not described.
        await using var host = new ApiHost(Engine.ConnectionString, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"));
        await Engine.SubscribeAsync($"{Receiver.Url}/hook?token=secret");
        await Engine.StartDeliveryAsync();
        using var client = host.Client();
        await client.WaitUntilReadyAsync();

        var answer = (await client.PostAsync("/events", """{"type":"order.created","data":1}""",
            ("traceparent", $"00-{trace}-{producer}-01"), ("tracestate", "vendor=1"), ("X-Correlation-ID", "correlation-2"))).Is(202);
        Assert.True(TypeId.TryParse(TypeId.Event, answer.Id, out var id));
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);
        await Wait.UntilAsync("all five spans have ended", () => spans.Ended.Count == 5);

        var request = Assert.Single(spans.Ended, span => span.Kind == ActivityKind.Server);
        Assert.Equal(producer, request.ParentSpanId.ToHexString());
        var append = Assert.Single(spans.Ended, span => span.OperationName == "append triggers.events");
        Assert.Equal((ActivityKind.Producer, request.SpanId), (append.Kind, append.ParentSpanId));
        Assert.Equal(answer.Id, append.GetTagItem("messaging.message.id"));
        var projection = Assert.Single(spans.Ended, span => span.OperationName == "project triggers.events");
        Assert.Equal((ActivityKind.Consumer, append.SpanId), (projection.Kind, projection.ParentSpanId));
        Assert.Equal(answer.Id, projection.GetTagItem("messaging.message.id"));

        var attempts = spans.Ended.Where(span => span.OperationName == "POST webhook").OrderBy(span => span.GetTagItem("triggers.attempt"))
            .ToArray();
        Assert.Equal(2, attempts.Length);
        Assert.All(attempts, attempt =>
        {
            Assert.Equal((ActivityKind.Client, append.SpanId), (attempt.Kind, attempt.ParentSpanId));
            Assert.Equal($"{Receiver.Url}/hook?*", attempt.GetTagItem("url.full"));
            Assert.Equal("127.0.0.1", attempt.GetTagItem("server.address"));
            Assert.Equal(new Uri(Receiver.Url).Port, attempt.GetTagItem("server.port"));
            Assert.Equal(answer.Id, attempt.GetTagItem("triggers.event_id"));
            Assert.Equal("correlation-2", attempt.GetTagItem("triggers.correlation_id"));
        });
        var (first, second) = (attempts[0], attempts[1]);
        Assert.Equal((503, "503", ActivityStatusCode.Error), (
            first.GetTagItem("http.response.status_code"), first.GetTagItem("error.type"), first.Status));
        Assert.Empty(first.Links);
        Assert.Equal((200, null, ActivityStatusCode.Unset), (
            second.GetTagItem("http.response.status_code"), second.GetTagItem("error.type"), second.Status));
        Assert.Equal(1, second.GetTagItem("http.request.resend_count"));
        Assert.Equal(first.SpanId, Assert.Single(second.Links).Context.SpanId);
        Assert.Equal(attempts.Select(attempt => attempt.Id), Receiver.Received.OrderBy(webhook => webhook.Attempt)
            .Select(webhook => webhook.Headers["traceparent"]));
        Assert.All(Receiver.Received, webhook => Assert.Equal("vendor=1", webhook.Headers["tracestate"]));
    }

    [Theory]
    [InlineData("https://user:password@hooks.example:8443/a/b?token=secret#part", "https://hooks.example:8443/a/b?*")]
    [InlineData("http://hooks.example", "http://hooks.example/")]
    public void An_address_is_shown_without_its_secrets(string url, string shown) =>
        Assert.Equal(shown, DeliveryTraces.WithoutSecrets(new Uri(url)));

    /// <summary>Every span of one trace, once it has ended.</summary>
    private sealed class Spans : IDisposable
    {
        private readonly ActivityListener _listener;

        public Spans(string trace)
        {
            _listener = new ActivityListener
            {
                ShouldListenTo = source => source.Name is "Microsoft.AspNetCore" or "Triggers.Api" or "Triggers.Delivery",
                Sample = (ref ActivityCreationOptions<ActivityContext> options) =>
                    options.TraceId.ToHexString() == trace ? ActivitySamplingResult.AllDataAndRecorded : ActivitySamplingResult.None,
                ActivityStopped = span =>
                {
                    // The receiver is a web server too, and not part of it.
                    if (span.TraceId.ToHexString() == trace
                        && !(span.Kind == ActivityKind.Server && span.GetTagItem("url.path") as string == "/hook"))
                        Ended.Enqueue(span);
                },
            };
            ActivitySource.AddActivityListener(_listener);
        }

        public ConcurrentQueue<Activity> Ended { get; } = new();

        public void Dispose() => _listener.Dispose();
    }
}

/// <summary>Which traces are kept. Alone: with two services in this process, what either samples is sampled.</summary>
[Collection(nameof(SamplingTests))]
[CollectionDefinition(nameof(SamplingTests), DisableParallelization = true)]
public sealed class SamplingTests(PostgresServer postgres)
{
    [Theory]
    [InlineData("1", null, null, "01")]
    [InlineData("0", null, null, "00")]
    [InlineData("0", "01", null, "01")]
    [InlineData("1", "00", null, "00")]
    [InlineData("0", null, "always_on", "01")]
    [InlineData("1", null, "always_off", "00")]
    public async Task The_caller_decides_then_the_environment_then_the_ratio(
        string ratio, string? caller, string? environment, string kept)
    {
        await using var engine = await Engine.CreateAsync(postgres);
        await using var host = new ApiHost(
            engine.ConnectionString, ("Telemetry:SampleRatio", ratio), ("OTEL_TRACES_SAMPLER", environment ?? ""),
            // Nobody is there; but where nobody is named, nothing is kept.
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"));
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        (string, string)[] headers = caller is null ? []
            : [("traceparent", $"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{caller}")];

        (await client.PostAsync("/events", """{"type":"a","data":1}""", headers)).Is(202);

        Assert.EndsWith($"-{kept}", await engine.ScalarAsync<string>("SELECT trace_parent FROM events"), StringComparison.Ordinal);
    }
}
