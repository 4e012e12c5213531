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

    /// <summary>A usage plan, a tenant that has it, and a key of that tenant.</summary>
    public static async Task<PlannedKey> NewKeyAsync(
        this ApiHost host, int perSecond, int burst, int? eventsPerDay = null, string more = "")
    {
        using var admin = host.Client();
        if (eventsPerDay is { } events)
            more += $",\"eventsPerDay\":{events}";
        var plan = (await admin.PostAsync("/usage-plans",
            $$"""{"name":"{{Guid.NewGuid()}}","requestsPerSecond":{{perSecond}},"burst":{{burst}}{{more}}}""")).Is(201);
        var tenant = (await admin.PostAsync("/tenants", $$"""{"name":"{{Guid.NewGuid()}}","usagePlanId":"{{plan.Id}}"}""")).Is(201);
        return await host.NewKeyAsync(plan.Id, tenant.Id);
    }

    /// <summary>Another key of the tenant.</summary>
    public static Task<PlannedKey> NewSiblingAsync(this ApiHost host, PlannedKey key) => host.NewKeyAsync(key.PlanId, key.TenantId);

    private static async Task<PlannedKey> NewKeyAsync(this ApiHost host, string planId, string tenantId)
    {
        using var admin = host.Client();
        var key = (await admin.PostAsync("/api-keys",
            $$"""{"name":"limited","scopes":["events:write","events:read","keys:write"],"tenantId":"{{tenantId}}"}""")).Is(201);
        return new PlannedKey(planId, tenantId, key.Id, key["secret"]!);
    }

    /// <summary>What the key's tenant has used.</summary>
    public static async Task<Answer> UsageAsync(this ApiClient admin, PlannedKey key) =>
        (await admin.GetAsync($"/tenants/{key.TenantId}/usage")).Is(200);

    /// <summary>Publishes an event, whatever the answer.</summary>
    public static Task<Answer> TryPublishAsync(this ApiClient client, string more = "") =>
        client.PostAsync("/events", $$"""{"type":"a","data":1{{more}}}""");

    /// <summary>Publishes a batch, whatever the answer.</summary>
    public static Task<Answer> TryPublishAsync(this ApiClient client, int events) => client.PostAsync(
        "/events/batch", $$"""{"events":[{{string.Join(",", Enumerable.Repeat("""{"type":"a","data":1}""", events))}}]}""");
}

/// <summary>A key of a tenant with a plan.</summary>
internal sealed record PlannedKey(string PlanId, string TenantId, string Id, string Secret)
{
    /// <summary>Where an admin finds it.</summary>
    public string Path => $"/api-keys/{Id}?tenantId={TenantId}";
}

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
