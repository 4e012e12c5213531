using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Triggers.Core;

namespace Triggers.Bench;

/// <summary>The tenant that is measured, with its one receiver.</summary>
internal sealed class QuietTenant : IAsyncDisposable
{
    private static readonly DateTimeOffset s_clockAt = TimeProvider.System.GetUtcNow();
    private static readonly long s_clock = Stopwatch.GetTimestamp();
    private readonly ConcurrentDictionary<string, Sent> _sent = new();
    private readonly ConcurrentDictionary<string, (string Delivery, DateTimeOffset At)> _arrived = new();
    private readonly ConcurrentDictionary<string, int> _refused = new();
    private readonly HttpClient _client;
    private readonly double _rate;
    private WebhookReceiver? _receiver;
    private int _duplicates;
    private long _began;
    private Dictionary<string, double> _cpu = [];

    private QuietTenant(HttpClient client, double rate) => (_client, _rate) = (client, rate);

    private readonly record struct Sent(DateTimeOffset Due, DateTimeOffset Answered);

    public static async Task<QuietTenant> StartAsync(HttpClient client, double rate)
    {
        var quiet = new QuietTenant(client, rate);
        quiet._receiver = await WebhookReceiver.StartAsync(new Ledger(), respond: context =>
        {
            var headers = context.Request.Headers;
            if (!quiet._arrived.TryAdd(
                headers["webhook-id"].ToString(), (headers["triggers-delivery-id"].ToString(), At(Stopwatch.GetTimestamp()))))
                Interlocked.Increment(ref quiet._duplicates);
            return Task.CompletedTask;
        });
        await Neighbours.SubscribeAsync(client, $"{quiet._receiver.Url}/hook");
        return quiet;
    }

    /// <summary>Open loop: an event's times count from when it was due.</summary>
    public async Task SendAsync(TimeSpan duration, CancellationToken enough = default)
    {
        var start = Stopwatch.GetTimestamp();
        var sending = new List<Task>();
        for (var i = 0; i < _rate * duration.TotalSeconds && !enough.IsCancellationRequested; i++)
        {
            var due = start + (long)(i / _rate * Stopwatch.Frequency);
            while (Stopwatch.GetTimestamp() < due)
                await Task.Delay(1, CancellationToken.None);
            sending.Add(SendAsync(due));
        }
        await Task.WhenAll(sending);
    }

    public void Begin(SystemUnderTest system)
    {
        system.ForgetPeaks();
        (_began, _cpu) = (Stopwatch.GetTimestamp(), system.Cpu());
    }

    public void Forget()
    {
        _sent.Clear();
        _arrived.Clear();
        _refused.Clear();
    }

    /// <summary>Waits for what is still on its way, and tells.</summary>
    /// <returns>How many events were accepted and have not come.</returns>
    public async Task<int> ReportAsync(string name, SystemUnderTest system)
    {
        var waited = Stopwatch.StartNew();
        while (_sent.Keys.Any(id => !_arrived.ContainsKey(id)) && waited.Elapsed < TimeSpan.FromSeconds(30))
            await Task.Delay(50);
        var lost = _sent.Keys.Count(id => !_arrived.ContainsKey(id));
        var stages = _sent.Where(s => _arrived.ContainsKey(s.Key)).Select(s => Stages.Of(s.Key, s.Value, _arrived[s.Key])).ToList();
        var refused = string.Join(' ', _refused.Select(r => $"{r.Key}:{r.Value}"));
        Console.WriteLine($"{name}: {_sent.Count} accepted, {stages.Count} delivered, {lost} lost, {_duplicates} duplicates, "
            + $"{_refused.Values.Sum()} refused {refused}; peak memory Delivery {Peak("delivery")} MB, API {Peak("api")} MB");
        var seconds = Stopwatch.GetElapsedTime(_began).TotalSeconds;
        Console.WriteLine("  processors used: "
            + string.Join(", ", system.Cpu().Select(c => $"{c.Key} {(c.Value - _cpu[c.Key]) / seconds:0.00}")));
        Tell("accept", stages.Select(s => s.Accept));
        Tell("accept to webhook", stages.Select(s => s.Whole));
        Tell("  to projected", stages.Select(s => s.ToProjected));
        Tell("  to arrived", stages.Select(s => s.ToArrived));
        foreach (var (accept, whole, projected, arrived, due) in stages.OrderByDescending(s => s.Whole).Take(3))
            Console.WriteLine($"    {due:HH:mm:ss.fff}: accept {accept:0} ms, then projected {projected:0}, arrived {arrived:0}");
        Forget();
        return lost;

        long Peak(string part) => system.Memory(part).Peak >> 20;

        static void Tell(string what, IEnumerable<double> values)
        {
            var p = Percentiles.Of(values);
            Console.WriteLine($"  {what,-20} ms  p50 {p.P50,9:0.0}  p95 {p.P95,9:0.0}  p99 {p.P99,9:0.0}  max {p.Max,9:0.0}");
        }
    }

    public ValueTask DisposeAsync() => _receiver!.DisposeAsync();

    private async Task SendAsync(long due)
    {
        try
        {
            using var response = await _client.PostAsJsonAsync("/events", new { type = "quiet", data = new { text = "hello" } });
            var answered = At(Stopwatch.GetTimestamp());
            if (response.StatusCode != HttpStatusCode.Accepted)
            {
                _refused.AddOrUpdate(((int)response.StatusCode).ToString(), 1, (_, n) => n + 1);
                return;
            }
            var id = (await response.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("id").GetString()!;
            _sent[id] = new Sent(At(due), answered);
        }
        catch (Exception e) when (e is HttpRequestException or TaskCanceledException)
        {
            _refused.AddOrUpdate(e.GetType().Name, 1, (_, n) => n + 1);
        }
    }

    /// <summary>By the clock that doesn't jump.</summary>
    private static DateTimeOffset At(long timestamp) => s_clockAt + Stopwatch.GetElapsedTime(s_clock, timestamp);

    /// <summary>
    /// Where the time went. The id of an event is made when it is appended, that of its delivery when it is projected.
    /// </summary>
    private sealed record Stages(double Accept, double Whole, double ToProjected, double ToArrived, DateTimeOffset Due)
    {
        public static Stages Of(string id, Sent sent, (string Delivery, DateTimeOffset At) arrived)
        {
            var appended = TypeId.TryParse(TypeId.Event, id, out var e) ? TypeId.CreatedAt(e) : sent.Due;
            var projected = TypeId.TryParse(TypeId.Delivery, arrived.Delivery, out var d) ? TypeId.CreatedAt(d) : appended;
            return new(
                (sent.Answered - sent.Due).TotalMilliseconds, (arrived.At - appended).TotalMilliseconds,
                (projected - appended).TotalMilliseconds, (arrived.At - projected).TotalMilliseconds, sent.Due);
        }
    }
}
