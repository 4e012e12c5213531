using System.Collections.Concurrent;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;

namespace Triggers.Bench;

/// <summary>The neighbour: says <c>ready</c>, begins, and ends when it has no more to do.</summary>
internal static class LoudTenant
{
    public static async Task<int> RunAsync(string scenario, string api, string key, TimeSpan atMost)
    {
        using var client = Neighbours.Client(api, key);
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
            await Neighbours.SubscribeAsync(client, $"{receiver.Url}/{i}");
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
            await Neighbours.SubscribeAsync(client, $"{receiver.Url}/hook/{i}");
        var began = Begin();
        await SendAsync(client, "/events/batch", Batch(Events, 20));
        await Task.WhenAny(all.Task, Task.Delay(atMost));
        Console.WriteLine($"the neighbour: {arrived} of {Subscriptions * Events} deliveries in {began.Elapsed.TotalSeconds:0.0} s");
    }

    private static async Task LargeAsync(HttpClient client, TimeSpan atMost)
    {
        await using var receiver = await WebhookReceiver.StartAsync(new Ledger());
        await Neighbours.SubscribeAsync(client, $"{receiver.Url}/hook");
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
        await Neighbours.SubscribeAsync(client, $"{receiver.Url}/hook");
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
            await Neighbours.SubscribeAsync(client, $"{(i < hanging ? deaf.Url : receiver.Url)}/hook/{i}");
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
