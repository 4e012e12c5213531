using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;

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

    public static async Task<int> RunAsync(Options options)
    {
        var scenarios = options.Of("--scenario", "hanging").Split(',');
        var beside = TimeSpan.FromSeconds(options.NumberOf("--beside", 40));
        if (options.Of("--as-the-loud-one-of", "") is { Length: > 0 } api)
            return await LoudTenant.RunAsync(scenarios[0], api, options.Of("--key", ""), beside);

        var kafkaHome = options.Of("--log", "postgres") == "kafka" ? Environment.GetEnvironmentVariable("KAFKA_HOME")
            ?? throw new InvalidOperationException("KAFKA_HOME names no Apache Kafka.") : null;
        await using var system = await SystemUnderTest.StartAsync(kafkaHome, options.Has("--limited"));
        using var admin = Client(system.Api, system.AdminKey);
        using var client = Client(system.Api, await TenantAsync(admin, "quiet"));
        await using var quiet = await QuietTenant.StartAsync(client, options.NumberOf("--rate", 20));
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

    private static async Task<int> BesideAsync(string scenario, TimeSpan beside, QuietTenant quiet, SystemUnderTest system, string loudKey)
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

    public static HttpClient Client(string api, string key) => new(new SocketsHttpHandler { UseProxy = false })
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

    public static Task<JsonElement> SubscribeAsync(HttpClient client, string url) =>
        PostAsync(client, "/subscriptions", new { url, eventTypes = s_everything });

    private static async Task<JsonElement> PostAsync(HttpClient client, string path, object body)
    {
        using var response = await client.PostAsJsonAsync(path, body);
        var answer = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? JsonSerializer.Deserialize<JsonElement>(answer)
            : throw new InvalidOperationException($"POST {path} answered {(int)response.StatusCode}: {answer}");
    }

}
