using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.RateLimiting;

/// <summary>Two API processes on one database and one Redis, as far as the product can tell.</summary>
internal sealed class RedisHosts(ApiHost first, ApiHost second) : IAsyncDisposable
{
    public ApiHost First { get; } = first;

    public ApiHost Second { get; } = second;

    /// <summary>
    /// Starts both, and waits until they have found Redis and are ready: who loses it before that isn't degraded, but starting still.
    /// </summary>
    public static async Task<RedisHosts> StartAsync(ApiFixture api, string redis, params (string Key, string Value)[] settings)
    {
        (string, string)[] all = [("ConnectionStrings:redis", redis), .. settings];
        var hosts = new RedisHosts(new ApiHost(api.ConnectionString, all), new ApiHost(api.ConnectionString, all));
        foreach (var host in (ApiHost[])[hosts.First, hosts.Second])
        {
            await host.RedisIsAsync("healthy");
            using var client = host.Client();
            await client.WaitUntilReadyAsync();
        }
        return hosts;
    }

    public async ValueTask DisposeAsync()
    {
        await First.DisposeAsync();
        await Second.DisposeAsync();
    }
}

/// <summary>What the tests of limits ask for.</summary>
internal static class RedisHostExtensions
{
    /// <summary>Waits for what the health of a host says of Redis.</summary>
    public static Task RedisIsAsync(this ApiHost host, string status) => Wait.UntilAsync($"Redis is {status}", async () =>
    {
        using var admin = host.Client();
        var health = await admin.GetAsync("/health");
        return health.Status == 200 && health.Json["parts"]!.AsArray().Any(part =>
            part!["name"]!.GetValue<string>() == "redis" && part["status"]!.GetValue<string>() == status);
    });

    /// <summary>A usage plan, and the secret and id of a key of the tenant <c>default</c> that has it.</summary>
    public static async Task<PlannedKey> NewKeyAsync(this ApiHost host, int perSecond, int burst, int? eventsPerDay = null)
    {
        using var admin = host.Client();
        var quota = eventsPerDay is { } events ? $",\"eventsPerDay\":{events}" : "";
        var plan = (await admin.PostAsync("/usage-plans",
            $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":{{perSecond}},"burst":{{burst}}{{quota}}}""")).Is(201);
        var key = (await admin.PostAsync("/api-keys",
            $$"""{"name":"limited","scopes":["events:write","events:read"],"usagePlanId":"{{plan.Id}}"}""")).Is(201);
        return new PlannedKey(plan.Id, key.Id, key["secret"]!);
    }

    /// <summary>Publishes an event, whatever the answer.</summary>
    public static Task<Answer> TryPublishAsync(this ApiClient client, string more = "") => client.PostAsync("/events", $$"""{"type":"a","data":1{{more}}}""");

    /// <summary>Publishes a batch, whatever the answer.</summary>
    public static Task<Answer> TryPublishAsync(this ApiClient client, int events) => client.PostAsync(
        "/events/batch", $$"""{"events":[{{string.Join(",", Enumerable.Repeat("""{"type":"a","data":1}""", events))}}]}""");
}

/// <summary>A key with a plan.</summary>
internal sealed record PlannedKey(string PlanId, string Id, string Secret);

/// <summary>What the limiter of one host says it decided.</summary>
internal sealed class Decisions : IDisposable
{
    private readonly MeterListener _listener = new();
    private readonly ConcurrentDictionary<(string Result, string Source), long> _counts = new();

    public Decisions(ApiHost host)
    {
        var meters = host.Services.GetRequiredService<IMeterFactory>();
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Name == "triggers.rate_limit.decisions" && instrument.Meter.Scope == meters)
                listener.EnableMeasurementEvents(instrument);
        };
        _listener.SetMeasurementEventCallback<long>((_, value, tags, _) =>
        {
            string result = "", source = "";
            foreach (var (name, tag) in tags)
                _ = name == "result" ? result = (string)tag! : source = (string)tag!;
            _counts.AddOrUpdate((result, source), value, (_, sum) => sum + value);
        });
        _listener.Start();
    }

    public long this[string result, string source] => _counts.GetValueOrDefault((result, source));

    public void Dispose() => _listener.Dispose();
}
