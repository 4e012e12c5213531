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

    private Publisher(HttpClient client, string data)
    {
        _client = client;
        var one = $$"""{"type":"{{Type}}","data":{{data}}}""";
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
        var publisher = new Publisher(client, Encoding.UTF8.GetString(DataOf(size)));
        publisher._receiver = await WebhookReceiver.StartAsync(publisher.Ledger);
        if (isSubscribed)
            await publisher.SubscribeAsync(publisher._receiver.Url);
        return publisher;
    }

    /// <summary>Of events with thirty properties that nobody has subscribed to.</summary>
    /// <param name="client">Of the API.</param>
    /// <param name="isChecked">Whether their type has a schema, and enforces it.</param>
    public static async Task<Publisher> OfThirtyPropertiesAsync(HttpClient client, bool isChecked)
    {
        var properties = Enumerable.Range(0, 30).Select(i => (Name: $"property{i}", Of: s_kinds[i % s_kinds.Length])).ToArray();
        var publisher = new Publisher(client, $"{{{string.Join(',', properties.Select(p => $"\"{p.Name}\":{p.Of.Value}"))}}}");
        publisher._receiver = await WebhookReceiver.StartAsync(publisher.Ledger);
        if (isChecked)
        {
            (await publisher.CreateAsync("/event-types",
                $$"""
                {"name":"{{publisher.Type}}","mode":"enforce","schema":{
                    "type":"object","additionalProperties":false,
                    "required":[{{string.Join(',', properties.Select(p => $"\"{p.Name}\""))}}],
                    "properties":{ {{string.Join(',', properties.Select(p => $"\"{p.Name}\":{p.Of.Schema}"))}} }
                } }
                """)).Dispose();
        }
        return publisher;
    }

    private static readonly (string Value, string Schema)[] s_kinds =
    [
        ("\"customer-00417\"", """{"type":"string","minLength":1,"maxLength":64}"""),
        ("\"2026-11-30T11:24:00Z\"", """{"type":"string","pattern":"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$"}"""),
        ("1042", """{"type":"integer","minimum":0,"maximum":1000000}"""),
        ("19.95", """{"type":"number","exclusiveMinimum":0}"""),
        ("true", """{"type":"boolean"}"""),
        ("\"shipped\"", """{"enum":["placed","paid","shipped","delivered","returned"]}"""),
    ];

    public async Task<string> SubscribeAsync(string url)
    {
        using var created = await CreateAsync("/subscriptions", $$"""{"url":"{{url}}/hook","eventTypes":["{{Type}}"]}""");
        _subscriptions.Add(created.RootElement.GetProperty("id").GetString()!);
        return _subscriptions[^1];
    }

    private async Task<JsonDocument> CreateAsync(string path, string body)
    {
        using var content = new StringContent(body, Encoding.UTF8, "application/json");
        using var response = await _client.PostAsync(path, content);
        var text = await response.Content.ReadAsStringAsync();
        if (!response.IsSuccessStatusCode)
            throw new InvalidOperationException($"POST {path} answered {(int)response.StatusCode}: {text}");
        return JsonDocument.Parse(text);
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
}
