using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Triggers.AppHost.Processes;
using Triggers.Bench;
using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>One after the other, and beside no other class: the machine is theirs.</summary>
[CollectionDefinition(nameof(CrashCollection), DisableParallelization = true)]
public sealed class CrashCollection;

/// <summary>
/// The whole system as processes, on a Postgres of its own, killed part by part under load. Every event that was answered 202 is
/// held against what arrived, by its id. A longer run is a command in docs/operations.md.
/// </summary>
[Collection(nameof(CrashCollection))]
public sealed class CrashTests : IAsyncLifetime
{
    private const string Key = "trg_crash-crash-crash-crash";
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(2);

    private readonly string _directory = TestDirectory.New();
    private readonly Ledger _ledger = new();
    private readonly HttpClient _client = new() { Timeout = TimeSpan.FromSeconds(5) };
    private GuardProcess _guard = null!;
    private WebhookReceiver _receiver = null!;

    private static int Rounds => int.TryParse(Environment.GetEnvironmentVariable("CRASH_ROUNDS"), out var rounds) ? rounds : 21;

    public async ValueTask InitializeAsync()
    {
        _guard = GuardProcess.Start(Programs.Copy(_directory),
        [
            $"--Data:Directory={_directory}", "--Data:Temporary=true", "--Dashboard:Enabled=false", "--Ports:Api=0", "--Ports:Receiver=0",
            $"--Auth:BootstrapAdminKey={Key}", "--Delivery:Retry:BaseDelay=00:00:00.2", "--Delivery:Retry:Factor=1", "--Delivery:Retry:MaxAttempts=50",
            // Ten minutes: what is taken over sooner than that was not saved by its lease.
            "--Delivery:Lease=00:10:00",
        ], captureOutput: true);
        await _guard.ExpectAsync("Ctrl-C stops everything.", s_patience);
        _client.BaseAddress = new Uri(RunRecord.Read(_directory)!.Addresses["api"]);
        _client.DefaultRequestHeaders.Add("X-API-Key", Key);
    }

    public async ValueTask DisposeAsync()
    {
        _guard.Tell("stop");
        await _guard.WaitAsync().WaitAsync(s_patience);
        _guard.Dispose();
        _client.Dispose();
        if (_receiver is not null)
            await _receiver.DisposeAsync();
    }

    [Fact]
    public async Task Nothing_accepted_is_lost_whatever_is_killed()
    {
        _receiver = await WebhookReceiver.StartAsync(_ledger);
        await SubscribeAsync("load.*");
        using var stop = new CancellationTokenSource();
        var load = Enumerable.Range(0, 4).Select(_ => PublishUntilAsync(stop.Token)).ToArray();
        var kills = new List<Kill>();

        for (var round = 0; round < Rounds; round++)
        {
            await AcceptedMoreAsync(50, $"load is accepted before round {round + 1}");
            var part = (round % 3) switch { 0 => "delivery", 1 => "api", _ => "postgres" };
            var killed = TimeProvider.System.GetUtcNow();
            await TellAsync($"kill {part}");
            await TellAsync($"start {part}");
            kills.Add(new Kill(part, killed));
            await AcceptedMoreAsync(20, $"load is accepted again after {part} was killed in round {round + 1}");
        }
        await stop.CancelAsync();
        await Task.WhenAll(load);

        await Wait.UntilAsync("everything accepted has arrived", () => _ledger.Missing().Count == 0, s_patience);
        TestContext.Current.SendDiagnosticMessage(
            $"{kills.Count} kills: {_ledger.AcceptedCount} accepted, {_ledger.Missing().Count} lost, {_ledger.Duplicates()} duplicates, {_ledger.Unconfirmed()} unconfirmed");
        Assert.Equal(Rounds, kills.Count);
        Assert.Empty(_ledger.Missing());
        Assert.All(_ledger.Repeated(), times => AssertExplained(times, kills));
    }

    [Fact]
    public async Task What_a_killed_delivery_service_had_in_flight_goes_out_again_within_five_seconds()
    {
        var hang = true;
        _receiver = await WebhookReceiver.StartAsync(_ledger, respond: c => hang ? Task.Delay(Timeout.Infinite, c.RequestAborted) : Task.CompletedTask);
        await SubscribeAsync("load.*");
        var ids = new List<string>();
        for (var i = 0; i < 10; i++)
            ids.Add(await PublishAsync() ?? throw new InvalidOperationException("An event was refused."));
        await Wait.UntilAsync("all ten are in flight", () => ids.TrueForAll(id => _ledger.FirstArrival(id) is not null));

        await TellAsync("kill delivery");
        hang = false;
        await TellAsync("start delivery");

        await Wait.UntilAsync("all ten came again", () => _ledger.Duplicates() == ids.Count, TimeSpan.FromSeconds(5));
    }

    /// <summary>
    /// A webhook comes twice when what was known of the first time died with a process: so the first of two must have come shortly
    /// before the delivery service or Postgres was killed, or while it was down.
    /// </summary>
    private static void AssertExplained(DateTimeOffset[] times, List<Kill> kills)
    {
        for (var i = 1; i < times.Length; i++)
        {
            Assert.Contains(kills, kill => kill.Part != "api"
                && times[i - 1] > kill.At.AddSeconds(-3) && times[i - 1] < kill.At.AddSeconds(5) && times[i] > kill.At);
        }
    }

    private async Task PublishUntilAsync(CancellationToken stop)
    {
        using var pace = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!stop.IsCancellationRequested)
        {
            await PublishAsync();
            await pace.WaitForNextTickAsync(CancellationToken.None);
        }
    }

    /// <returns>The id, or null when the event was not accepted.</returns>
    private async Task<string?> PublishAsync()
    {
        try
        {
            using var content = new StringContent("""{"type":"load.event","data":{"some":"thing"}}""", Encoding.UTF8, "application/json");
            using var response = await _client.PostAsync("/events", content);
            if (response.StatusCode != HttpStatusCode.Accepted)
                return null;
            using var json = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
            var id = json.RootElement.GetProperty("id").GetString()!;
            _ledger.Accepted(id);
            return id;
        }
        catch (Exception e) when (e is HttpRequestException or IOException or TaskCanceledException)
        {
            return null;
        }
    }

    private Task AcceptedMoreAsync(int count, string condition)
    {
        var enough = _ledger.AcceptedCount + count;
        return Wait.UntilAsync(condition, () => _ledger.AcceptedCount >= enough, s_patience);
    }

    private async Task SubscribeAsync(string eventTypes)
    {
        using var response = await _client.PostAsJsonAsync(
            "/subscriptions", new { url = $"{_receiver.Url}/hook", eventTypes = new[] { eventTypes } }, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Created, response.StatusCode);
    }

    private async Task TellAsync(string command)
    {
        _guard.Tell(command);
        await _guard.ExpectAsync("done", s_patience);
    }

    private sealed record Kill(string Part, DateTimeOffset At);
}
