using System.Net.Http.Json;
using System.Text;
using System.Text.Json;

namespace Triggers.Bench;

/// <summary>
/// Events of a type of their own, a subscription to them, its receiver, and the ledger of both. The subscription ends with it.
/// </summary>
internal sealed class Publisher : IAsyncDisposable
{
    public const int DefaultSize = 800;
    public const int DefaultClients = 32;
    private const int BatchSize = 100;

    private readonly HttpClient _client;
    private readonly List<string> _subscriptions = [];
    private readonly byte[] _event;
    private readonly byte[] _batch;
    private WebhookReceiver _receiver = null!;

    private Publisher(HttpClient client, int size)
    {
        _client = client;
        var one = EventOf(Type, size);
        _event = Encoding.UTF8.GetBytes(one);
        _batch = Encoding.UTF8.GetBytes($$"""{"events":[{{string.Join(',', Enumerable.Repeat(one, BatchSize))}}]}""");
    }

    public string Type { get; } = $"bench.{Guid.CreateVersion7():N}";

    public Ledger Ledger { get; } = new();

    /// <summary>The first one's id.</summary>
    public string Subscription => _subscriptions[0];

    public static HttpClient Client(string url, string key)
    {
        var handler = new SocketsHttpHandler { UseProxy = false, UseCookies = false, AllowAutoRedirect = false };
        var client = new HttpClient(handler) { BaseAddress = new Uri(url), Timeout = TimeSpan.FromSeconds(30) };
        client.DefaultRequestHeaders.Add("X-API-Key", key);
        return client;
    }

    public static byte[] DataOf(int size) => Encoding.UTF8.GetBytes($$"""{"x":"{{new string('x', Math.Max(0, size - 8))}}"}""");

    /// <param name="client">Of the API.</param>
    /// <param name="size">Bytes of data in each event.</param>
    /// <param name="isSubscribed">Whether the events are to be sent to anybody.</param>
    public static async Task<Publisher> StartAsync(HttpClient client, int size = DefaultSize, bool isSubscribed = true)
    {
        var publisher = new Publisher(client, size);
        publisher._receiver = await WebhookReceiver.StartAsync(publisher.Ledger);
        if (isSubscribed)
            await publisher.SubscribeAsync(publisher._receiver.Url);
        return publisher;
    }

    public async Task<string> SubscribeAsync(string url)
    {
        using var response = await _client.PostAsJsonAsync("/subscriptions", new { url = $"{url}/hook", eventTypes = new[] { Type } });
        if (!response.IsSuccessStatusCode)
        {
            throw new InvalidOperationException(
                $"POST /subscriptions answered {(int)response.StatusCode}: {await response.Content.ReadAsStringAsync()}");
        }
        using var created = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
        _subscriptions.Add(created.RootElement.GetProperty("id").GetString()!);
        return _subscriptions[^1];
    }

    public Task<LoadResult> AtRateAsync(double perSecond, TimeSpan duration) =>
        new Load(_client, _ => _event, Ledger.Accepted).AtRateAsync(perSecond, duration, default);

    public Task<LoadResult> FlatOutAsync(TimeSpan duration, int clients = DefaultClients) =>
        new Load(_client, _ => _event, Ledger.Accepted).FlatOutAsync("/events", clients, duration, default);

    /// <summary>The same in batches of a hundred.</summary>
    public Task<LoadResult> BatchesAsync(TimeSpan duration, int clients) =>
        new Load(_client, _ => _batch, Ledger.Accepted).FlatOutAsync("/events/batch", clients, duration, default);

    /// <summary>Waits, so long at most, until everything accepted has arrived.</summary>
    public Task<bool> ArrivedAsync(TimeSpan limit) => Until.TrueAsync(() => Task.FromResult(Ledger.Missing().Count == 0), limit);

    public async ValueTask DisposeAsync()
    {
        foreach (var id in _subscriptions)
            (await _client.DeleteAsync($"/subscriptions/{id}")).Dispose();
        await _receiver.DisposeAsync();
    }

    private static string EventOf(string type, int size) => $$"""{"type":"{{type}}","data":{{Encoding.UTF8.GetString(DataOf(size))}}}""";
}
