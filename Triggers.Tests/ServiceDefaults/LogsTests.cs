using Microsoft.AspNetCore.Http;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.Tests.Support;

namespace Triggers.Tests.ServiceDefaults;

/// <summary>What both services write to their logs while an event goes through them, at the lowest level there is.</summary>
public sealed class LogsTests(PostgresServer postgres) : EngineTests(postgres)
{
    private const string AdminKey = "key-marker-of-an-administrator";
    private const string Trace = "4bf92f3577b34da6a3ce929d0e0e4736";

    private static readonly (string, string)[] Everything =
    [
        ("Logging:LogLevel:Default", "Trace"), ("Logging:LogLevel:Microsoft.AspNetCore", "Trace"),
        ("Logging:LogLevel:Microsoft.Hosting.Lifetime", "Trace"),
        ("Logging:LogLevel:Microsoft.EntityFrameworkCore.Database", "Trace"), ("Logging:LogLevel:Npgsql", "Trace"),
    ];

    private readonly CapturedLogs _api = new(), _delivery = new();
    [Fact]
    public async Task Each_line_can_be_found_by_correlation_and_trace_and_none_holds_a_secret_or_a_payload()
    {
        Receiver.Respond = async (webhook, context) =>
        {
            context.Response.StatusCode = webhook.Attempt == 1 ? 500 : 200;
            await context.Response.WriteAsync("answer-marker");
        };
        await using var host = new ApiHost(Engine.ConnectionString, _api, [("Auth:BootstrapAdminKey", AdminKey), .. Everything]);
        await Engine.StartDeliveryAsync(_delivery, Everything);
        using var client = host.Client(AdminKey);
        await client.WaitUntilReadyAsync();
        using var stranger = host.Client("key-marker-of-a-stranger");
        var subscription = (await client.PostAsync("/subscriptions",
            $$$"""{"url":"{{{Receiver.Url}}}/hook?token=url-marker","eventTypes":["*"],"headers":{"X-Token":"header-marker"}}""")).Is(201);
        var secret = subscription.Json["secret"]?.GetValue<string>() ?? subscription.Json["secrets"]![0]!["secret"]!.GetValue<string>();
        Assert.StartsWith("whsec_", secret);

        var answer = (await client.PostAsync("/events", """{"type":"order.created","data":{"card":"payload-marker"}}""",
            ("X-Correlation-ID", "correlation-1"), ("traceparent", $"00-{Trace}-00f067aa0ba902b7-01"),
            ("Idempotency-Key", "idempotency-marker"))).Is(202);
        (await client.PostAsync("/events", """{"type":"no good type","data":{"card":"payload-marker"}}"""))
            .IsProblem(400, "invalid_request");
        (await stranger.PostAsync("/events", """{"type":"a","data":"payload-marker"}""")).IsProblem(401, "unauthenticated");
        Assert.True(TypeId.TryParse(TypeId.Event, answer.Id, out var id));
        await Engine.WaitForStatusAsync(id, DeliveryStatus.Succeeded);

        // Any line at all that was written on the way of the request will do: the framework's are.
        Assert.Contains(_api.Lines, line => line["CorrelationId"] == "correlation-1" && line["TraceId"] == Trace);
        var attempted = Assert.Single(_delivery.Lines, line => line.Message.StartsWith("delivery.attempted", StringComparison.Ordinal));
        Assert.Equal("correlation-1", attempted["CorrelationId"]);
        Assert.Equal(Trace, attempted["TraceId"]);
        string[] markers = ["key-marker", "payload-marker", "url-marker", "header-marker",
            "answer-marker", "idempotency-marker", secret, secret["whsec_".Length..]];
        foreach (var line in _api.Lines.Concat(_delivery.Lines).Select(line => line.ToString()))
            Assert.All(markers, marker => Assert.DoesNotContain(marker, line, StringComparison.OrdinalIgnoreCase));
    }
}
