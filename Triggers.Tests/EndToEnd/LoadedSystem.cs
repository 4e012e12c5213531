using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using Triggers.Bench;
using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>One after the other, and beside no other class: the machine is theirs.</summary>
[CollectionDefinition(nameof(CrashCollection), DisableParallelization = true)]
public sealed class CrashCollection;

/// <summary>The whole system as processes, on stores of its own, for the tests of a class: each leaves everything running.</summary>
/// <param name="kafka">Whether events are logged in Kafka.</param>
/// <param name="settings">Of the AppHost and the services.</param>
public abstract class SystemFixture(bool kafka, params string[] settings) : IAsyncLifetime
{
    private RunningSystem? _system;

    public async ValueTask InitializeAsync()
    {
        if (!kafka || KafkaServer.Home is not null)
            _system = await LoadedSystem.StartSystemAsync(kafka, settings);
    }

    /// <param name="respond">How the receiver answers; null: at once.</param>
    internal Task<LoadedSystem> LoadAsync(Func<Microsoft.AspNetCore.Http.HttpContext, Task>? respond = null) =>
        LoadedSystem.OverAsync(_system!, owned: false, respond);

    public ValueTask DisposeAsync() => _system?.DisposeAsync() ?? default;
}

/// <summary>
/// A running system under load, with parts to kill and start. Every event that was answered 202 is held against what arrived, by its id.
/// </summary>
internal sealed class LoadedSystem : IAsyncDisposable
{
    private const string Key = "trg_crash-crash-crash-crash";
    private const int Partitions = 6;
    public static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    /// <summary>Of this load's events.</summary>
    private readonly string _type = $"load.{Guid.NewGuid():N}";

    private readonly ConcurrentQueue<DateTimeOffset> _accepts = new();
    private readonly ConcurrentBag<TimeSpan> _refusals = [];
    private readonly ConcurrentBag<HttpStatusCode> _wrongAnswers = [];
    private readonly List<Kill> _kills = [];
    private readonly List<DateTimeOffset> _returns = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly RunningSystem _system;
    private readonly bool _owned;
    private string _subscription = "";
    private WebhookReceiver _receiver = null!;
    private HttpClient[] _apis = [];
    private Task[] _load = [];
    private int _next;

    public Ledger Ledger { get; } = new();

    /// <summary>A client for each API process.</summary>
    public IReadOnlyList<HttpClient> Apis => _apis;

    /// <summary>How long it took to be told 503, or to give up waiting for an answer.</summary>
    public IReadOnlyCollection<TimeSpan> Refusals => _refusals;

    private LoadedSystem(RunningSystem system, bool owned) => (_system, _owned) = (system, owned);

    /// <summary>One with a system of its own.</summary>
    /// <param name="settings">Of the AppHost and the services.</param>
    public static async Task<LoadedSystem> StartOnKafkaAsync(params string[] settings) =>
        await OverAsync(await StartSystemAsync(kafka: true, settings), owned: true);

    public static async Task<RunningSystem> StartSystemAsync(bool kafka, params string[] settings)
    {
        var system = await RunningSystem.CreateAsync(onDemand: false,
        [
            $"--Kafka:Home={(kafka ? KafkaServer.Home : "")}", $"--Kafka:Partitions={Partitions}", "--Kafka:TopicPrefix=triggers.",
            $"--Auth:BootstrapAdminKey={Key}", "--Delivery:Retry:BaseDelay=00:00:00.2",
            "--Delivery:Retry:Factor=1", "--Delivery:Retry:MaxAttempts=50",
            // Ten minutes: what is taken over sooner than that was not saved by its lease.
            "--Delivery:Lease=00:10:00", .. settings,
        ]);
        foreach (var service in new[] { "api", "delivery" })
            await system.ReadyAsync(service);
        return system;
    }

    public static async Task<LoadedSystem> OverAsync(
        RunningSystem running, bool owned, Func<Microsoft.AspNetCore.Http.HttpContext, Task>? respond = null)
    {
        var system = new LoadedSystem(running, owned);
        system._apis = [.. running.NamesOf("api").Select(system.ClientOf)];
        system._receiver = await WebhookReceiver.StartAsync(system.Ledger, respond: respond);
        // A cold process on a busy machine may ask to come again.
        await Wait.UntilAsync("the receiver is subscribed", async () =>
        {
            using var subscribed = await system._apis[0].PostAsJsonAsync(
                "/subscriptions", new { url = $"{system._receiver.Url}/hook", eventTypes = new[] { system._type } },
                TestContext.Current.CancellationToken);
            if (subscribed.StatusCode != HttpStatusCode.Created)
                return false;
            using var created = JsonDocument.Parse(await subscribed.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
            system._subscription = created.RootElement.GetProperty("id").GetString()!;
            return true;
        }, Patience);
        return system;
    }

    public Task<string> ConnectionStringAsync(string store) => _system.ConnectionStringAsync(store);

    /// <summary>The id of a running process.</summary>
    public int ProcessOf(string name) => _system.ProcessOf(name);

    /// <summary>Publishes from now on, about 200 events a second, each to the next API process.</summary>
    public void StartLoad() => _load = [.. Enumerable.Range(0, 4).Select(_ => PublishUntilStoppedAsync())];

    public async Task KillAsync(string name)
    {
        _kills.Add(new Kill(name, TimeProvider.System.GetUtcNow()));
        await _system.KillAsync(name);
    }

    public async Task StartAsync(string name)
    {
        await _system.StartAsync(name);
        if (name.StartsWith("api-", StringComparison.Ordinal))
        {
            // One of several comes back on another port, and what is ready so far may be the other one.
            var client = ClientOf(name);
            await Wait.UntilAsync($"{name} is ready", async () =>
            {
                try
                {
                    using var answer = await client.GetAsync("/health/ready", TestContext.Current.CancellationToken);
                    return answer.IsSuccessStatusCode;
                }
                catch (HttpRequestException)
                {
                    return false;
                }
            }, Patience);
            _apis[int.Parse(name["api-".Length..]) - 1] = client;
        }
        _returns.Add(TimeProvider.System.GetUtcNow());
    }

    /// <summary>Waits until so many more are accepted.</summary>
    public Task AcceptedMoreAsync(int count, string condition)
    {
        var enough = Ledger.AcceptedCount + count;
        return Wait.UntilAsync(condition, () => Ledger.AcceptedCount >= enough, Patience);
    }

    /// <summary>Waits until Postgres knows all that is in Kafka, and says how many of these events it then has.</summary>
    public async Task<long> StoredAsync()
    {
        await using var database = Triggers.Core.Storage.Builder(await ConnectionStringAsync("triggersdb"), "tests").Build();
        using var consumer = new ConsumerBuilder<byte[],
        byte[]>(new ConsumerConfig { BootstrapServers = await ConnectionStringAsync("kafka"), GroupId = "tests" }).Build();
        await Wait.UntilAsync("the log is read to its end", async () =>
        {
            var end = Enumerable.Range(0, Partitions)
                .Sum(p => consumer.QueryWatermarkOffsets(new("triggers.events", p), TimeSpan.FromSeconds(10)).High.Value);
            await using var read = database.CreateCommand(
                "SELECT coalesce(sum(next), 0)::bigint FROM log_positions WHERE log LIKE 'kafka:%'");
            return (long)(await read.ExecuteScalarAsync())! == end;
        }, Patience);
        await using var count = database.CreateCommand($"SELECT count(*) FROM events WHERE type = '{_type}'");
        return (long)(await count.ExecuteScalarAsync())!;
    }

    /// <summary>Waits until everything accepted so far has arrived.</summary>
    public async Task ArrivedAsync()
    {
        try
        {
            await Wait.UntilAsync("everything accepted has arrived", () => Ledger.Missing().Count == 0, Patience);
        }
        catch (TimeoutException e) when (Ledger.Missing() is { Count: > 0 } missing)
        {
            Triggers.Core.TypeId.TryParse(Triggers.Core.TypeId.Event, missing[0], out var id);
            await using var database = Triggers.Core.Storage.Builder(await ConnectionStringAsync("triggersdb"), "tests").Build();
            await using var read = database.CreateCommand(
                """
                SELECT row_to_json(x)::text FROM (SELECT
                    (SELECT count(*) FROM events WHERE id = $1) AS events,
                    (SELECT json_agg(q) FROM delivery_queue q WHERE event_id = $1) AS queue,
                    (SELECT json_agg(d) FROM deliveries d WHERE event_id = $1) AS deliveries,
                    (SELECT json_agg(w) FROM workers w) AS workers, (SELECT json_agg(p) FROM log_positions p) AS positions) x
                """);
            read.Parameters.Add(new() { Value = id });
            throw new TimeoutException($"{missing.Count} have not arrived; the first: {await read.ExecuteScalarAsync()}", e);
        }
    }

    /// <summary>Ends the load, waits for the last webhook, and reconciles: nothing is lost, and what came twice has a reason.</summary>
    public async Task ReconcileAsync(string name)
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_load);
        await ArrivedAsync();
        // Pauses are of the whole flow: of several processes one may stand still meanwhile, which the slowest webhook tells.
        TestContext.Current.SendDiagnosticMessage(
            $"{name}: {_kills.Count} kills, {Ledger.AcceptedCount} accepted, {Ledger.Missing().Count} lost, {Ledger.Duplicates()} "
                + $"duplicates, {Ledger.Unconfirmed()} unconfirmed; "
            + $"longest pause: accepts {LongestPause(_accepts):0.0} s, webhooks {LongestPause(Ledger.Arrivals()):0.0} s; "
            + $"flow resumed after a return: accepts {Resumed(_accepts):0.0} s, webhooks {Resumed(Ledger.Arrivals()):0.0} s; "
            + $"slowest from accept to webhook {Ledger.AcceptToWebhook().DefaultIfEmpty().Max() / 1000:0.0} s; "
            + $"{_refusals.Count} refused, the slowest after {_refusals.DefaultIfEmpty().Max().TotalSeconds:0.0} s");
        Assert.Empty(Ledger.Missing());
        Assert.Empty(_wrongAnswers);
        Assert.All(Ledger.Repeated(), AssertExplained);
    }

    /// <summary>Publishes one event.</summary>
    /// <returns>Its id, or null when it was not accepted.</returns>
    public async Task<string?> PublishAsync(HttpClient? api = null, string? idempotencyKey = null)
    {
        var started = TimeProvider.System.GetTimestamp();
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/events")
            {
                Content = new StringContent($$"""{"type":"{{_type}}","data":{"some":"thing"} }""", Encoding.UTF8, "application/json"),
            };
            if (idempotencyKey is not null)
                request.Headers.Add("Idempotency-Key", idempotencyKey);
            using var response = await (api ?? _apis[Interlocked.Increment(ref _next) % _apis.Length]).SendAsync(request);
            if (response.StatusCode == HttpStatusCode.ServiceUnavailable)
                _refusals.Add(TimeProvider.System.GetElapsedTime(started));
            // What is away, or running elsewhere, asks a client to come again. Nothing else does.
            else if (response.StatusCode is not (HttpStatusCode.Accepted or HttpStatusCode.Conflict))
                _wrongAnswers.Add(response.StatusCode);
            if (response.StatusCode != HttpStatusCode.Accepted)
                return null;
            using var json = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
            var id = json.RootElement.GetProperty("id").GetString()!;
            Ledger.Accepted(id);
            _accepts.Enqueue(TimeProvider.System.GetUtcNow());
            return id;
        }
        catch (TaskCanceledException)
        {
            _refusals.Add(TimeProvider.System.GetElapsedTime(started));
            return null;
        }
        catch (Exception e) when (e is HttpRequestException or IOException)
        {
            return null;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_load);
        if (_owned)
            await _system.DisposeAsync();
        else if (_apis.Length > 0)
            (await _apis[0].DeleteAsync($"/subscriptions/{_subscription}")).Dispose();
        foreach (var api in _apis)
            api.Dispose();
        if (_receiver is not null)
            await _receiver.DisposeAsync();
    }

    private HttpClient ClientOf(string api)
    {
        var client = new HttpClient { BaseAddress = _system.UrlOf(api), Timeout = TimeSpan.FromSeconds(5) };
        client.DefaultRequestHeaders.Add("X-API-Key", Key);
        return client;
    }

    private async Task PublishUntilStoppedAsync()
    {
        using var pace = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!_stop.IsCancellationRequested)
        {
            await PublishAsync();
            await pace.WaitForNextTickAsync(CancellationToken.None);
        }
    }

    /// <summary>
    /// A webhook comes twice when what was known of the first time died with a process: so the first of two must have come shortly
    /// before the delivery service or Postgres was killed, or while it was down.
    /// </summary>
    private void AssertExplained(DateTimeOffset[] times)
    {
        for (var i = 1; i < times.Length; i++)
        {
            Assert.Contains(_kills, kill => (kill.Part.StartsWith("delivery", StringComparison.Ordinal) || kill.Part == "postgres")
                && times[i - 1] > kill.At.AddSeconds(-3) && times[i - 1] < kill.At.AddSeconds(5) && times[i] > kill.At);
        }
    }

    private static double LongestPause(IEnumerable<DateTimeOffset> moments)
    {
        var ordered = moments.Order().ToArray();
        return ordered.Zip(ordered.Skip(1), (a, b) => (b - a).TotalSeconds).DefaultIfEmpty().Max();
    }

    /// <summary>Seconds from the return of a part to what came next; the longest of all returns.</summary>
    private double Resumed(IEnumerable<DateTimeOffset> moments)
    {
        var ordered = moments.Order().ToArray();
        return _returns.Select(at => (ordered.FirstOrDefault(moment => moment >= at, at) - at).TotalSeconds).DefaultIfEmpty().Max();
    }

    private sealed record Kill(string Part, DateTimeOffset At);
}
