using System.Diagnostics;

namespace Triggers.Bench;

/// <summary>Publishes to a system that runs already, and reconciles.</summary>
internal static class LoadCommand
{
    public const string Help =
        """
        load: publishes to a running API, is itself the receiver, and reconciles every event by its id. Exits 1 if one is lost.
          --api URL          the API                                        http://localhost:8080
          --key KEY          an API key with events:write and subscriptions:write
          --rate N           events a second, open loop; or `max`           max
          --clients N        connections when flat out                      32
          --seconds N        how long to publish                            10
          --size N           bytes of data in each event                    800
          --drain N          seconds to wait for what is still on its way   120
          --hanging          a second subscription whose receiver never answers in time
        """;

    public static async Task<int> RunAsync(Options options)
    {
        var seconds = TimeSpan.FromSeconds(double.Parse(options.Of("--seconds", "10")));
        var rate = options.Of("--rate", "max");
        using var client = Publisher.Client(options.Of("--api", "http://localhost:8080"), options.Of("--key", ""));
        await using var publisher = await Publisher.StartAsync(client, options.NumberOf("--size", Publisher.DefaultSize));
        await using var hanging = await WebhookReceiver.StartAsync(
            new Ledger(), respond: context => Task.Delay(Timeout.Infinite, context.RequestAborted));
        var other = options.Has("--hanging") ? await publisher.SubscribeAsync(hanging.Url) : null;

        var result = rate == "max"
            ? await publisher.FlatOutAsync(seconds, options.NumberOf("--clients", Publisher.DefaultClients))
            : await publisher.AtRateAsync(double.Parse(rate), seconds);
        var drain = Stopwatch.StartNew();
        await publisher.ArrivedAsync(TimeSpan.FromSeconds(options.NumberOf("--drain", 120)));
        drain.Stop();
        if (other is not null)
            (await client.DeleteAsync($"/subscriptions/{other}")).Dispose();

        var ledger = publisher.Ledger;
        var accept = Percentiles.Of(result.Latencies);
        var webhook = Percentiles.Of(ledger.AcceptToWebhook());
        var lost = ledger.Missing().Count;
        var acceptedPerSecond = result.Accepted / result.Elapsed.TotalSeconds;
        var deliveredPerSecond = ledger.Delivered() / (result.Elapsed + drain.Elapsed).TotalSeconds;
        Console.WriteLine(
            $"""
            accepted    {result.Accepted,9}   {acceptedPerSecond,9:0.0}/s   refused {result.RefusedText}
            delivered   {ledger.Delivered(),9}   {deliveredPerSecond,9:0.0}/s   drained in {drain.Elapsed.TotalSeconds:0.00} s
            lost        {lost,9}   duplicates {ledger.Duplicates()}   unconfirmed {ledger.Unconfirmed()}
            accept ms            p50 {accept.P50,8}   p95 {accept.P95,8}   p99 {accept.P99,8}   max {accept.Max,8}
            accept to webhook ms p50 {webhook.P50,8}   p95 {webhook.P95,8}   p99 {webhook.P99,8}   max {webhook.Max,8}
            """);
        return lost == 0 ? 0 : 1;
    }
}
