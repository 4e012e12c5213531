using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;

namespace Triggers.Bench;

/// <summary>What came of the requests.</summary>
public sealed class LoadResult
{
    private readonly List<double> _latencies = [];
    private readonly Dictionary<string, int> _refused = [];

    /// <summary>Requests answered 202.</summary>
    public int Accepted { get; private set; }

    /// <summary>Requests answered otherwise, or not at all, by status or exception.</summary>
    public IReadOnlyDictionary<string, int> Refused => _refused;

    /// <summary>The same to be read, as in <c>3 (429: 1, 503: 2)</c>.</summary>
    public string RefusedText => Refused.Count == 0 ? "0"
        : $"{Refused.Values.Sum()} ({string.Join(", ", Refused.Select(r => $"{r.Key}: {r.Value}"))})";

    /// <summary>Milliseconds from when each accepted request was due to its answer.</summary>
    public IReadOnlyList<double> Latencies => _latencies;

    /// <summary>From the first request to the last answer.</summary>
    public TimeSpan Elapsed { get; set; }

    internal void Add(string? refusal, double milliseconds)
    {
        lock (_latencies)
        {
            if (refusal is null)
            {
                Accepted++;
                _latencies.Add(milliseconds);
            }
            else
            {
                _refused[refusal] = _refused.GetValueOrDefault(refusal) + 1;
            }
        }
    }
}

/// <summary>Publishes events over HTTP, at a fixed rate or as fast as the answers come.</summary>
/// <param name="client">With its base address and credentials.</param>
/// <param name="body">The body of each request, by its number.</param>
/// <param name="accepted">Called with the id of each accepted event.</param>
public sealed class Load(HttpClient client, Func<int, byte[]> body, Action<string> accepted)
{
    private static readonly MediaTypeHeaderValue Json = new("application/json");

    /// <summary>
    /// Open loop: request <c>i</c> is due at start + i / rate and its latency counts from then, so a stall is charged to every
    /// request that it held up, whether or not that one could be sent.
    /// </summary>
    public async Task<LoadResult> AtRateAsync(double perSecond, TimeSpan duration, CancellationToken cancellationToken)
    {
        var result = new LoadResult();
        var running = new List<Task>();
        var total = (int)(perSecond * duration.TotalSeconds);
        var start = Stopwatch.GetTimestamp();
        for (var i = 0; i < total; i++)
        {
            var due = start + (long)(i / perSecond * Stopwatch.Frequency);
            while (Stopwatch.GetTimestamp() < due)
                await Task.Delay(1, cancellationToken);
            running.Add(SendAsync("/events", i, due, result, cancellationToken));
            if (running.Count >= 1024)
                running.RemoveAll(t => t.IsCompleted);
        }
        await Task.WhenAll(running);
        result.Elapsed = Stopwatch.GetElapsedTime(start);
        return result;
    }

    /// <summary>Closed loop: so many clients, each sending its next request when its last is answered.</summary>
    public async Task<LoadResult> FlatOutAsync(string path, int clients, TimeSpan duration, CancellationToken cancellationToken)
    {
        var result = new LoadResult();
        var next = -1;
        var start = Stopwatch.GetTimestamp();
        await Task.WhenAll(Enumerable.Range(0, clients).Select(_ => Task.Run(async () =>
        {
            while (Stopwatch.GetElapsedTime(start) < duration && !cancellationToken.IsCancellationRequested)
                await SendAsync(path, Interlocked.Increment(ref next), Stopwatch.GetTimestamp(), result, cancellationToken);
        }, cancellationToken)));
        result.Elapsed = Stopwatch.GetElapsedTime(start);
        return result;
    }

    private async Task SendAsync(string path, int number, long due, LoadResult result, CancellationToken cancellationToken)
    {
        string? refusal = null;
        try
        {
            using var content = new ByteArrayContent(body(number)) { Headers = { ContentType = Json } };
            using var response = await client.PostAsync(path, content, cancellationToken);
            var answer = await response.Content.ReadAsByteArrayAsync(cancellationToken);
            if (response.StatusCode == HttpStatusCode.Accepted)
                ReadIds(answer);
            else
                refusal = ((int)response.StatusCode).ToString();
        }
        catch (Exception e) when (
            e is HttpRequestException or IOException or TaskCanceledException && !cancellationToken.IsCancellationRequested)
        {
            refusal = e.GetType().Name;
        }
        result.Add(refusal, Stopwatch.GetElapsedTime(due).TotalMilliseconds);
    }

    /// <summary>Of one event, or of each of a batch; the bare endpoint that is measured against answers nothing.</summary>
    private void ReadIds(byte[] answer)
    {
        if (answer.Length == 0)
            return;
        using var json = JsonDocument.Parse(answer);
        if (!json.RootElement.TryGetProperty("items", out var items))
        {
            accepted(json.RootElement.GetProperty("id").GetString()!);
            return;
        }
        foreach (var item in items.EnumerateArray())
            accepted(item.GetProperty("id").GetString()!);
    }
}
