using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Triggers.Core;

namespace Triggers.Bench;

/// <summary>
/// What a quiet tenant notices of a loud one: the same few events a second, first alone and then beside it. The loud one's clients and
/// receivers are a process of their own, so that the one that measures has nothing else to do.
/// </summary>
internal static class Neighbours
{
    public const string Help =
        """
        neighbours: starts a system and tells what a quiet tenant notices of a loud one. Exits 1 if one of its events is lost.
          --scenario NAME,.. hanging, deaf, bytes, fanout, large, flood,    hanging
                             answering, tenth or none, one after the other
          --log NAME         postgres or kafka, of KAFKA_HOME               postgres
          --rate N           the quiet tenant's events a second             20
          --alone N          seconds without a neighbour                    20
          --beside N         seconds beside it, at most                     40
          --limited          with the limits that tenants have by default
        hanging: 60 subscriptions, of which each has 40 events of 1 MB; their receivers read and never answer
        deaf:    the same, and they do not even read
        bytes:   what those 60 are sent at first, signed and sent without Triggers: what the machine itself makes of it
        fanout:  300 subscriptions and one batch of 200 events, 60,000 deliveries, while they are on their way
        large:   20 clients that post batches of 4 events of 900 kB as fast as they are answered
        flood:   32 clients that post small events as fast as they are answered, to one subscription
        answering, tenth: 200 subscriptions that get 2 events a second each; of the latter a tenth never answers
        """;

    private static readonly string[] s_scopes = ["events:write", "subscriptions:write"];
    private static readonly string[] s_everything = ["*"];
    private static readonly DateTimeOffset ClockAt = TimeProvider.System.GetUtcNow();
    private static readonly long Clock = Stopwatch.GetTimestamp();

    public static async Task<int> RunAsync(Options options)
    {
        var scenarios = options.Of("--scenario", "hanging").Split(',');
        var beside = TimeSpan.FromSeconds(options.NumberOf("--beside", 40));
        if (options.Of("--as-the-loud-one-of", "") is { Length: > 0 } api)
            return await Loud.RunAsync(scenarios[0], api, options.Of("--key", ""), beside);

        var kafkaHome = options.Of("--log", "postgres") == "kafka" ? Environment.GetEnvironmentVariable("KAFKA_HOME")
            ?? throw new InvalidOperationException("KAFKA_HOME names no Apache Kafka.") : null;
        await using var system = await SystemUnderTest.StartAsync(kafkaHome, options.Has("--limited"));
        using var admin = Client(system.Api, system.AdminKey);
        using var client = Client(system.Api, await TenantAsync(admin, "quiet"));
        await using var quiet = await Quiet.StartAsync(client, options.NumberOf("--rate", 20));
        // While code is being compiled nobody is measured.
        await quiet.SendAsync(TimeSpan.FromSeconds(10));
        quiet.Forget();

        quiet.Begin(system);
        await quiet.SendAsync(TimeSpan.FromSeconds(options.NumberOf("--alone", 20)));
        var lost = await quiet.ReportAsync("alone", system);
        foreach (var scenario in scenarios.Except(["none"]))
            lost += await BesideAsync(scenario, beside, quiet, system, await TenantAsync(admin, scenario));
        return lost == 0 ? 0 : 1;
    }

    private static async Task<int> BesideAsync(string scenario, TimeSpan beside, Quiet quiet, SystemUnderTest system, string loudKey)
    {
        quiet.Begin(system);
        string[] arguments =
        [
            .. Own(), "neighbours", "--scenario", scenario, "--beside", $"{beside.TotalSeconds}", "--as-the-loud-one-of", system.Api,
            "--key", loudKey,
        ];
        var start = new ProcessStartInfo(Environment.ProcessPath!, arguments) { RedirectStandardOutput = true };
        using var neighbour = Process.Start(start)!;
        // It has subscribed, and begins.
        await neighbour.StandardOutput.ReadLineAsync();
        using var over = new CancellationTokenSource();
        var told = ToldAsync();
        await quiet.SendAsync(beside, over.Token);
        var lost = await quiet.ReportAsync($"beside {scenario}", system);
        Console.Write(await told);
        await neighbour.WaitForExitAsync();
        return lost;

        async Task<string> ToldAsync()
        {
            var told = await neighbour.StandardOutput.ReadToEndAsync();
            await over.CancelAsync();
            return told;
        }
    }

    /// <summary>The arguments that come before the program's own when it is started by <c>dotnet</c>.</summary>
    private static string[] Own() =>
        Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet" ? [typeof(Neighbours).Assembly.Location] : [];

    private static HttpClient Client(string api, string key) => new(new SocketsHttpHandler { UseProxy = false })
    {
        BaseAddress = new Uri(api),
        Timeout = TimeSpan.FromSeconds(30),
        DefaultRequestHeaders = { { "X-API-Key", key } },
    };

    private static async Task<string> TenantAsync(HttpClient admin, string name)
    {
        var tenant = await PostAsync(admin, "/tenants", new { name = $"{name}-{Guid.CreateVersion7()}" });
        var key = await PostAsync(
            admin, "/api-keys",
            new { name, tenantId = tenant.GetProperty("id").GetString(), scopes = s_scopes });
        return key.GetProperty("secret").GetString()!;
    }

    private static Task<JsonElement> SubscribeAsync(HttpClient client, string url) =>
        PostAsync(client, "/subscriptions", new { url, eventTypes = s_everything });

    private static async Task<JsonElement> PostAsync(HttpClient client, string path, object body)
    {
        using var response = await client.PostAsJsonAsync(path, body);
        var answer = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? JsonSerializer.Deserialize<JsonElement>(answer)
            : throw new InvalidOperationException($"POST {path} answered {(int)response.StatusCode}: {answer}");
    }

    /// <summary>By the clock that doesn't jump.</summary>
    private static DateTimeOffset At(long timestamp) => ClockAt + Stopwatch.GetElapsedTime(Clock, timestamp);

    /// <summary>The tenant that is measured, with its one receiver.</summary>
    private sealed class Quiet : IAsyncDisposable
    {
        private readonly ConcurrentDictionary<string, Sent> _sent = new();
        private readonly ConcurrentDictionary<string, (string Delivery, DateTimeOffset At)> _arrived = new();
        private readonly ConcurrentDictionary<string, int> _refused = new();
        private readonly HttpClient _client;
        private readonly double _rate;
        private WebhookReceiver? _receiver;
        private int _duplicates;
        private long _began;
        private Dictionary<string, double> _cpu = [];

        private Quiet(HttpClient client, double rate) => (_client, _rate) = (client, rate);

        private readonly record struct Sent(DateTimeOffset Due, DateTimeOffset Answered);

        public static async Task<Quiet> StartAsync(HttpClient client, double rate)
        {
            var quiet = new Quiet(client, rate);
            quiet._receiver = await WebhookReceiver.StartAsync(new Ledger(), respond: context =>
            {
                var headers = context.Request.Headers;
                if (!quiet._arrived.TryAdd(
                    headers["webhook-id"].ToString(), (headers["triggers-delivery-id"].ToString(), At(Stopwatch.GetTimestamp()))))
                    Interlocked.Increment(ref quiet._duplicates);
                return Task.CompletedTask;
            });
            await SubscribeAsync(client, $"{quiet._receiver.Url}/hook");
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

    /// <summary>The neighbour: says <c>ready</c>, begins, and ends when it has no more to do.</summary>
    private static class Loud
    {
        public static async Task<int> RunAsync(string scenario, string api, string key, TimeSpan atMost)
        {
            using var client = Client(api, key);
            await (scenario switch
            {
                "hanging" => HangAsync(client, reads: true, atMost),
                "deaf" => HangAsync(client, reads: false, atMost),
                "bytes" => BytesAsync(atMost),
                "fanout" => FanOutAsync(client, atMost),
                "large" => LargeAsync(client, atMost),
                "flood" => FloodAsync(client, atMost),
                "answering" => ManyAsync(client, hanging: 0, atMost),
                "tenth" => ManyAsync(client, hanging: 20, atMost),
                _ => throw new ArgumentException($"There is no scenario {scenario}."),
            });
            return 0;
        }

        private static async Task HangAsync(HttpClient client, bool reads, TimeSpan atMost)
        {
            using var receiver = new HangingReceiver(reads);
            for (var i = 0; i < 60; i++)
                await SubscribeAsync(client, $"{receiver.Url}/{i}");
            var began = Begin();
            for (var i = 0; i < 40; i++)
                await SendAsync(client, "/events", EventOf(1_000_000));
            var posted = began.Elapsed;
            await Task.Delay(atMost > began.Elapsed ? atMost - began.Elapsed : TimeSpan.Zero);
            Console.WriteLine($"the neighbour: 40 events posted in {posted.TotalSeconds:0.0} s, {receiver.Counts}");
        }

        /// <summary>As many requests as 60 lanes have under way, in the 2 s that the engine takes for them.</summary>
        private static async Task BytesAsync(TimeSpan atMost)
        {
            using var receiver = new HangingReceiver(reads: true);
            using var client = new HttpClient(new SocketsHttpHandler { UseProxy = false });
            using var over = new CancellationTokenSource(atMost);
            var (body, secret) = (EventOf(1_000_000), RandomNumberGenerator.GetBytes(32));
            var began = Begin();
            await Task.WhenAll(Enumerable.Range(0, 60 * 32).Select(async i =>
            {
                await Task.Delay(i, CancellationToken.None);
                using var content = new ByteArrayContent(body);
                content.Headers.Add("webhook-signature", Convert.ToBase64String(HMACSHA256.HashData(secret, body)));
                await client.PostAsync(receiver.Url, content, over.Token).ContinueWith(_ => { }, TaskScheduler.Default);
            }));
            Console.WriteLine($"the neighbour: {receiver.Counts}");
        }

        private static async Task FanOutAsync(HttpClient client, TimeSpan atMost)
        {
            const int Subscriptions = 300;
            const int Events = 200;
            var arrived = 0;
            var all = new TaskCompletionSource();
            await using var receiver = await WebhookReceiver.StartAsync(new Ledger(), respond: _ =>
            {
                if (Interlocked.Increment(ref arrived) == Subscriptions * Events)
                    all.TrySetResult();
                return Task.CompletedTask;
            });
            for (var i = 0; i < Subscriptions; i++)
                await SubscribeAsync(client, $"{receiver.Url}/hook/{i}");
            var began = Begin();
            await SendAsync(client, "/events/batch", Batch(Events, 20));
            await Task.WhenAny(all.Task, Task.Delay(atMost));
            Console.WriteLine($"the neighbour: {arrived} of {Subscriptions * Events} deliveries in {began.Elapsed.TotalSeconds:0.0} s");
        }

        private static async Task LargeAsync(HttpClient client, TimeSpan atMost)
        {
            await using var receiver = await WebhookReceiver.StartAsync(new Ledger());
            await SubscribeAsync(client, $"{receiver.Url}/hook");
            var body = Batch(4, 900_000);
            var answers = new ConcurrentDictionary<int, int>();
            var began = Begin();
            await Task.WhenAll(Enumerable.Range(0, 20).Select(async _ =>
            {
                while (began.Elapsed < atMost)
                    answers.AddOrUpdate(await SendAsync(client, "/events/batch", body), 1, (_, n) => n + 1);
            }));
            Console.WriteLine($"the neighbour: batches of 3.6 MB answered {string.Join(", ", answers.Select(a => $"{a.Key}: {a.Value}"))}");
        }

        private static async Task FloodAsync(HttpClient client, TimeSpan atMost)
        {
            await using var receiver = await WebhookReceiver.StartAsync(new Ledger());
            await SubscribeAsync(client, $"{receiver.Url}/hook");
            var body = EventOf(800);
            var accepted = 0;
            var began = Begin();
            await Task.WhenAll(Enumerable.Range(0, 32).Select(async _ =>
            {
                while (began.Elapsed < atMost)
                {
                    if (await SendAsync(client, "/events", body) == 202)
                        Interlocked.Increment(ref accepted);
                }
            }));
            Console.WriteLine($"the neighbour: {accepted / began.Elapsed.TotalSeconds:n0} events/s accepted");
        }

        private static async Task ManyAsync(HttpClient client, int hanging, TimeSpan atMost)
        {
            const int Subscriptions = 200;
            var arrived = 0;
            using var deaf = new HangingReceiver(reads: true);
            await using var receiver = await WebhookReceiver.StartAsync(new Ledger(), respond: _ =>
            {
                Interlocked.Increment(ref arrived);
                return Task.CompletedTask;
            });
            for (var i = 0; i < Subscriptions; i++)
                await SubscribeAsync(client, $"{(i < hanging ? deaf.Url : receiver.Url)}/hook/{i}");
            var (began, posted) = (Begin(), 0);
            for (; began.Elapsed < atMost; posted++)
            {
                await SendAsync(client, "/events", EventOf(100));
                await Task.Delay(TimeSpan.FromMilliseconds(500) * (posted + 1) - began.Elapsed is var wait && wait > TimeSpan.Zero
                    ? wait : TimeSpan.Zero);
            }
            Console.WriteLine($"the neighbour: {posted} events posted, {arrived} deliveries, {deaf.Counts}");
        }

        private static Stopwatch Begin()
        {
            Console.WriteLine("ready");
            return Stopwatch.StartNew();
        }

        private static async Task<int> SendAsync(HttpClient client, string path, byte[] body)
        {
            try
            {
                using var content = new ByteArrayContent(body) { Headers = { ContentType = new("application/json") } };
                using var response = await client.PostAsync(path, content);
                return (int)response.StatusCode;
            }
            catch (Exception e) when (e is HttpRequestException or TaskCanceledException)
            {
                return 0;
            }
        }

        // Random, so that nothing in between makes it smaller.
        private static byte[] EventOf(int bytes) => Encoding.UTF8.GetBytes(
            $$"""{"type":"loud","data":{"x":"{{Convert.ToBase64String(RandomNumberGenerator.GetBytes(bytes * 3 / 4))}}"} }""");

        private static byte[] Batch(int events, int bytes) =>
            [.. "{\"events\":["u8, .. EventOf(bytes),
                .. Enumerable.Range(1, events - 1).SelectMany(_ => (byte[])[(byte)',', .. EventOf(bytes)]), .. "]}"u8];
    }

    /// <summary>Takes connections, and never answers.</summary>
    private sealed class HangingReceiver : IDisposable
    {
        private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
        private readonly bool _reads;
        private int _connections;
        private long _read;

        public HangingReceiver(bool reads)
        {
            _reads = reads;
            _listener.Start(512);
            _ = AcceptAsync();
        }

        public string Url => $"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

        public string Counts => $"{_connections} connections, {Interlocked.Read(ref _read) / 1_000_000} MB read";

        public void Dispose() => _listener.Dispose();

        private async Task AcceptAsync()
        {
            while (true)
            {
                var socket = await _listener.AcceptSocketAsync();
                Interlocked.Increment(ref _connections);
                _ = KeepAsync(socket);
            }
        }

        private async Task KeepAsync(Socket socket)
        {
            var buffer = new byte[65_536];
            try
            {
                if (!_reads)
                    await Task.Delay(Timeout.Infinite);
                for (int bytes; (bytes = await socket.ReceiveAsync(buffer)) > 0;)
                    Interlocked.Add(ref _read, bytes);
            }
            catch (SocketException)
            {
            }
            socket.Dispose();
        }
    }
}
