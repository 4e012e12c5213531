using System.Diagnostics;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Triggers.Bench;

if (args is ["neighbours", .. var rest])
    return await Neighbours.RunAsync(rest);

if (args.Contains("--help") || args.Length == 0)
{
    Console.WriteLine(
        """
        dotnet run -c Release --project bench -- --key KEY [options]
          --api URL          the API                                        http://localhost:8080
          --key KEY          an API key with events:write and subscriptions:write
          --rate N           events a second, open loop; or `max`           max
          --clients N        connections when flat out                      32
          --seconds N        how long to publish                            10
          --size N           bytes of data in each event                    256
          --drain N          seconds to wait for what is still on its way   120
          --ceiling          first measure the same load against an endpoint that only answers 202
          --hanging          a second subscription whose receiver never answers in time
        Publishes to the API, is itself the receiver, and reconciles every event by its id. Exits 1 if one is lost.
        """);
    return 0;
}

var api = Option("--api", "http://localhost:8080");
var seconds = TimeSpan.FromSeconds(double.Parse(Option("--seconds", "10")));
var rate = Option("--rate", "max");
var clients = int.Parse(Option("--clients", "32"));
var filler = new string('x', Math.Max(0, int.Parse(Option("--size", "256")) - 20));
var run = Guid.CreateVersion7().ToString("N")[..12];

var ledger = new Ledger();
await using var receiver = await WebhookReceiver.StartAsync(ledger);
await using var hanging = await WebhookReceiver.StartAsync(new Ledger(), respond: c => Task.Delay(Timeout.Infinite, c.RequestAborted));
using var client = new HttpClient { BaseAddress = new Uri(api), Timeout = TimeSpan.FromSeconds(10) };
client.DefaultRequestHeaders.Add("X-API-Key", Option("--key", ""));

var subscriptions = new List<string> { await SubscribeAsync(receiver.Url) };
if (args.Contains("--hanging"))
    subscriptions.Add(await SubscribeAsync(hanging.Url));

double? ceiling = null;
if (args.Contains("--ceiling"))
{
    using var bare = new HttpClient { BaseAddress = new Uri(receiver.Url) };
    var load = await new Load(bare, Body, _ => { }).FlatOutAsync("/accept", clients, TimeSpan.FromSeconds(5), default);
    ceiling = load.Accepted / load.Elapsed.TotalSeconds;
}

var publisher = new Load(client, Body, ledger.Accepted);
var result = rate == "max"
    ? await publisher.FlatOutAsync("/events", clients, seconds, default)
    : await publisher.AtRateAsync(double.Parse(rate), seconds, default);

var drain = Stopwatch.StartNew();
var drainLimit = TimeSpan.FromSeconds(double.Parse(Option("--drain", "120")));
while (ledger.Missing().Count > 0 && drain.Elapsed < drainLimit)
    await Task.Delay(50);
drain.Stop();

foreach (var id in subscriptions)
    (await client.DeleteAsync($"/subscriptions/{id}")).Dispose();

var accept = Percentiles.Of(result.Latencies);
var webhook = Percentiles.Of(ledger.AcceptToWebhook());
var lost = ledger.Missing().Count;
var acceptedPerSecond = result.Accepted / result.Elapsed.TotalSeconds;
var deliveredPerSecond = ledger.Delivered() / (result.Elapsed + drain.Elapsed).TotalSeconds;
Console.WriteLine(JsonSerializer.Serialize(
    new
    {
        rate,
        seconds = result.Elapsed.TotalSeconds,
        accepted = result.Accepted,
        refused = result.Refused,
        delivered = ledger.Delivered(),
        lost,
        duplicates = ledger.Duplicates(),
        unconfirmed = ledger.Unconfirmed(),
        acceptedPerSecond,
        deliveredPerSecond,
        drainSeconds = drain.Elapsed.TotalSeconds,
        ceilingPerSecond = ceiling,
        ratioToCeiling = acceptedPerSecond / ceiling,
        acceptMs = accept,
        acceptToWebhookMs = webhook,
    },
    JsonSerializerOptions.Web));
Console.WriteLine(
    $"""

    accepted    {result.Accepted,9}   {acceptedPerSecond,9:0.0}/s   refused {result.Refused.Values.Sum()} {string.Join(' ', result.Refused.Select(r => $"{r.Key}:{r.Value}"))}
    delivered   {ledger.Delivered(),9}   {deliveredPerSecond,9:0.0}/s   drained in {drain.Elapsed.TotalSeconds:0.00} s
    lost        {lost,9}   duplicates {ledger.Duplicates()}   unconfirmed {ledger.Unconfirmed()}
    accept ms            p50 {accept.P50,8}   p95 {accept.P95,8}   p99 {accept.P99,8}   max {accept.Max,8}
    accept to webhook ms p50 {webhook.P50,8}   p95 {webhook.P95,8}   p99 {webhook.P99,8}   max {webhook.Max,8}
    """);
if (ceiling is not null)
    Console.WriteLine($"ceiling     {ceiling,20:0.0}/s   accepted is {acceptedPerSecond / ceiling:P1} of it");
return lost == 0 ? 0 : 1;

string Option(string name, string otherwise) =>
    Array.IndexOf(args, name) is >= 0 and var at && at + 1 < args.Length ? args[at + 1] : otherwise;

byte[] Body(int number) => Encoding.UTF8.GetBytes($$"""{"type":"bench.{{run}}.event","data":{"n":{{number}},"x":"{{filler}}"} }""");

async Task<string> SubscribeAsync(string url)
{
    using var response = await client.PostAsJsonAsync(
        "/subscriptions", new { url = $"{url}/hook", eventTypes = new[] { $"bench.{run}.*" } });
    if (!response.IsSuccessStatusCode)
        throw new InvalidOperationException(
            $"POST /subscriptions answered {(int)response.StatusCode}: {await response.Content.ReadAsStringAsync()}");
    using var created = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
    return created.RootElement.GetProperty("id").GetString()!;
}
