using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;

namespace Triggers.Bench;

/// <summary>What order costs: the same events delivered in none, by key, and a part of them one after the other.</summary>
internal static class Ordered
{
    public const string Help =
        """
        ordered: starts a system, and publishes the same events to a subscription without order, and to one with. Exits 1 if one is lost,
                 or comes before its time.
          --log NAME         postgres or kafka, of KAFKA_HOME               postgres
          --events N         how many, of each                              100000
          --keys N           subjects, a multiple of 100                    1000
          --strict N         how many are sent one after the other, at last 2000
          --kills N          kills one of two delivery processes so often    0
                             while they are sent by key
        """;

    private const int OfBatch = 100;
    private static readonly string s_padding = new('x', 600);
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(5);

    public static async Task<int> RunAsync(Options options)
    {
        var (events, keys) = (options.NumberOf("--events", 100_000), options.NumberOf("--keys", 1_000));
        var kafkaHome = options.Of("--log", "postgres") == "kafka" ? Environment.GetEnvironmentVariable("KAFKA_HOME")
            ?? throw new InvalidOperationException("KAFKA_HOME names no Apache Kafka.") : null;
        var kills = options.NumberOf("--kills", 0);
        await using var system = await SystemUnderTest.StartAsync(kafkaHome, replicas: kills > 0 ? 2 : 1);
        using var client = Publisher.Client(system.Api, system.AdminKey);
        await using var receiver = await Receiver.StartAsync();
        await MeasureAsync(client, receiver, system, "warmup", "per_key", 10 * keys, keys);
        var unordered = await MeasureAsync(client, receiver, system, "none", "none", events, keys);
        var ordered = await MeasureAsync(client, receiver, system, "per_key", "per_key", events, keys, kills);
        await MeasureAsync(client, receiver, system, "strict", "strict", options.NumberOf("--strict", 2_000), keys: 100);
        Console.WriteLine($"by key / in no order: {ordered / unordered:0.00}");
        Console.WriteLine($"before their time: {receiver.Wrong}");
        return receiver.Wrong == 0 ? 0 : 1;
    }

    /// <returns>Deliveries a second, from the first request to the last webhook.</returns>
    private static async Task<double> MeasureAsync(
        HttpClient client, Receiver receiver, SystemUnderTest system, string type, string ordering, int events, int keys,
        int kills = 0)
    {
        using var subscribed = await client.PostAsJsonAsync(
            "/subscriptions", new { url = $"{receiver.Url}/{type}/{ordering}", eventTypes = new[] { type }, ordering });
        subscribed.EnsureSuccessStatusCode();
        receiver.Expect(type);
        var cpu = system.Cpu();
        var watch = Stopwatch.StartNew();
        var killing = KillAsync();
        // A client has keys of its own, and begins the next batch when the one before is accepted.
        await Task.WhenAll(Enumerable.Range(0, keys / OfBatch).Select(async part =>
        {
            for (var number = 0; number < events / keys; number++)
                await PublishAsync(client, type, part * OfBatch, number);
        }));
        var accepted = watch.Elapsed;
        await killing;
        while (receiver.Count(type) < events)
        {
            if (watch.Elapsed > accepted + s_patience)
                throw new TimeoutException($"{events - receiver.Count(type)} of {events} have not come.");
            await Task.Delay(5);
        }
        watch.Stop();
        var used = system.Cpu().Select(c => $"{c.Key} {(c.Value - cpu[c.Key]) / events * 1_000:0.00}");
        var rate = events / watch.Elapsed.TotalSeconds;
        Console.WriteLine(
            $"{type,-8} {events,7} events of {keys} keys: {rate,6:0}/s in {watch.Elapsed.TotalSeconds:0.0} s, all accepted after "
            + $"{accepted.TotalSeconds:0.0} s; "
            + (kills > 0 ? $"{kills} kills" : $"CPU ms an event: {string.Join(", ", used)}"));
        return rate;

        async Task KillAsync()
        {
            for (var kill = 1; kill <= kills; kill++)
            {
                var after = (long)events * kill / (kills + 1);
                await Until.TrueAsync(() => Task.FromResult(receiver.Count(type) >= after), s_patience);
                await system.KillAsync("delivery", kill);
            }
        }
    }

    private static async Task PublishAsync(HttpClient client, string type, int firstKey, int number)
    {
        var body = new StringBuilder("{\"events\":[");
        for (var key = firstKey; key < firstKey + OfBatch; key++)
        {
            body.Append(key > firstKey ? "," : "")
                .Append($$"""{"type":"{{type}}","subject":"key-{{key}}","data":{"n":{{number}},"text":"{{s_padding}}"}""").Append('}');
        }
        var bytes = Encoding.UTF8.GetBytes(body.Append("]}").ToString());
        while (true)
        {
            using var content = new ByteArrayContent(bytes) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } };
            using var response = await client.PostAsync("/events/batch", content);
            if (response.IsSuccessStatusCode)
                return;
            // As many wait for the log as may.
            if ((int)response.StatusCode is not (429 or 503))
                throw new InvalidOperationException($"A batch was answered {(int)response.StatusCode}.");
            await Task.Delay(200);
        }
    }

    private sealed class Receiver : IAsyncDisposable
    {
        private readonly WebApplication _app;
        private readonly ConcurrentDictionary<string, int> _counts = new();
        private readonly ConcurrentDictionary<string, int> _next = new();
        private int _wrong;

        private Receiver(WebApplication app) => _app = app;

        public string Url => _app.Urls.First();

        public int Wrong => _wrong;

        public static async Task<Receiver> StartAsync()
        {
            var builder = WebApplication.CreateSlimBuilder();
            builder.Logging.ClearProviders();
            builder.WebHost.UseUrls("http://127.0.0.1:0");
            var receiver = new Receiver(builder.Build());
            receiver._app.MapPost("/{type}/{ordering}", receiver.ReceiveAsync);
            await receiver._app.StartAsync();
            return receiver;
        }

        public void Expect(string type) => _counts[type] = 0;

        public int Count(string type) => _counts[type];

        public ValueTask DisposeAsync() => _app.DisposeAsync();

        private async Task ReceiveAsync(HttpContext context, string type, string ordering)
        {
            using var body = await JsonDocument.ParseAsync(context.Request.Body);
            var number = body.RootElement.GetProperty("data").GetProperty("n").GetInt32();
            var key = $"{type}/{body.RootElement.GetProperty("subject").GetString()}";
            context.Response.StatusCode = StatusCodes.Status204NoContent;
            if (ordering != "none")
            {
                var next = _next.GetOrAdd(key, 0);
                // What comes again was counted.
                if (number < next)
                    return;
                if (number > next)
                    Interlocked.Increment(ref _wrong);
                _next[key] = number + 1;
            }
            _counts.AddOrUpdate(type, 1, (_, n) => n + 1);
        }
    }
}
