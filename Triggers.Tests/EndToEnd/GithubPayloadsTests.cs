using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Mvc.Testing;
using Triggers.Api;
using Triggers.Api.Operations;
using Triggers.Tests.Support;

namespace Triggers.Tests.EndToEnd;

/// <summary>
/// GitHub's own example payloads go in over HTTP and come out as webhooks: every one, byte for byte, with signatures that the
/// reference library of Standard Webhooks accepts.
/// </summary>
public abstract class GithubPayloadsTests(PostgresServer postgres, KafkaServer? kafka) : IAsyncLifetime
{
    private const string Key = "trg_end-to-end-end-to-end";
    private readonly string _directory = Directory.CreateTempSubdirectory("triggers-e2e-").FullName;
    private Engine _engine = null!;
    private TestReceiver _receiver = null!;

    public async ValueTask InitializeAsync()
    {
        _engine = await Engine.CreateAsync(postgres, kafka is null ? null : await kafka.ConnectionStringAsync());
        _receiver = await TestReceiver.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _engine.DisposeAsync();
        await _receiver.DisposeAsync();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public async Task Every_payload_arrives_byte_for_byte_and_its_signature_holds()
    {
        await RunAsync("npm", "install", "--silent", "--no-audit", "--no-fund",
            "--ignore-scripts", "@octokit/webhooks-examples@7.6.1", "standardwebhooks@1.1.1");
        await _engine.StartDeliveryAsync();
        await using var api = new KestrelApi(_engine.Settings);
        using var client = api.Client();
        var secret = await SubscribeAsync(client);

        var sent = new Dictionary<string, byte[]>();
        foreach (var (type, payload) in ReadPayloads())
        {
            byte[] body = [.. Encoding.UTF8.GetBytes($$"""{"type":"{{type}}","data":"""), .. payload, (byte)'}'];
            using var content = new ByteArrayContent(body) { Headers = { ContentType = new("application/json") } };
            using var response = await client.PostAsync("/events", content, TestContext.Current.CancellationToken);
            Assert.Equal(HttpStatusCode.Accepted, response.StatusCode);
            sent.Add((await ReadAsync(response)).GetProperty("id").GetString()!, payload);
        }

        await Wait.UntilAsync("every event has arrived", () =>
            _receiver.Received.Select(w => w.EventId).Distinct().Count() == sent.Count, TimeSpan.FromMinutes(1));
        Assert.True(sent.Count > 300, $"only {sent.Count} payloads were found");
        Assert.Equal(sent.Keys.Order(), _receiver.Received.Select(w => w.EventId).Order());
        foreach (var webhook in _receiver.Received)
            Assert.True(webhook.Body.AsSpan()
                .EndsWith((byte[])[.. "\"data\":"u8, .. sent[webhook.EventId], (byte)'}']), $"{webhook.EventId} is not as it was sent");
        Assert.Equal($"{sent.Count} verified", await VerifyAsync(secret));
    }

    private async Task<string> SubscribeAsync(HttpClient client)
    {
        // Until it is, a busy machine may have it answer 503.
        await Wait.UntilAsync("the API is ready", async () =>
        {
            using var ready = await client.GetAsync("/health/ready", TestContext.Current.CancellationToken);
            return ready.IsSuccessStatusCode;
        });
        using var response = await client.PostAsJsonAsync(
            "/subscriptions", new { url = $"{_receiver.Url}/github", eventTypes = new[] { "github.*" } },
            TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Created, response.StatusCode);
        return (await ReadAsync(response)).GetProperty("secret").GetString()!;
    }

    private IEnumerable<(string Type, byte[] Payload)> ReadPayloads()
    {
        var file = Path.Combine(_directory, "node_modules", "@octokit", "webhooks-examples", "api.github.com", "index.json");
        using var json = JsonDocument.Parse(File.ReadAllBytes(file));
        foreach (var webhook in json.RootElement.EnumerateArray())
        {
            foreach (var example in webhook.GetProperty("examples").EnumerateArray())
                yield return ($"github.{webhook.GetProperty("name").GetString()}", Encoding.UTF8.GetBytes(example.GetRawText()));
        }
    }

    /// <summary>Hands everything that came to the npm library, and has one signature broken to see that it would notice.</summary>
    private async Task<string> VerifyAsync(string secret)
    {
        var lines = _receiver.Received.Select(
            w => JsonSerializer.Serialize(new { headers = w.Headers, body = Convert.ToBase64String(w.Body) }));
        await File.WriteAllLinesAsync(Path.Combine(_directory, "received.jsonl"), lines);
        await File.WriteAllTextAsync(
            Path.Combine(_directory, "verify.js"),
            """
            const { Webhook } = require("standardwebhooks");
            const lines = require("fs").readFileSync("received.jsonl", "utf8").trim().split("\n").map(line => JSON.parse(line));
            const verifier = new Webhook(process.argv[2]);
            const lower = headers => Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
            for (const { headers, body } of lines) verifier.verify(Buffer.from(body, "base64").toString("utf8"), lower(headers));
            let noticed = false;
            try { verifier.verify(Buffer.from(lines[0].body, "base64").toString("utf8") + " ", lower(lines[0].headers)); } catch { noticed = true; }
            console.log(noticed ? `${lines.length} verified` : "a changed body was accepted");
            """);
        return await RunAsync("node", "verify.js", secret);
    }

    private async Task<string> RunAsync(string command, params string[] arguments)
    {
        var windows = OperatingSystem.IsWindows() && command == "npm";
        var info = new ProcessStartInfo(windows ? "npm.cmd" : command, arguments)
        {
            WorkingDirectory = _directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(info)!;
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, $"{command} ended with {process.ExitCode}: {await errors}");
        return output.Trim();
    }

    private static async Task<JsonElement> ReadAsync(HttpResponseMessage response)
    {
        using var json = JsonDocument.Parse(await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
        return json.RootElement.Clone();
    }

    /// <summary>Triggers.Api inside this process, on a real socket.</summary>
    private sealed class KestrelApi : WebApplicationFactory<ApiMarker>
    {
        private readonly (string Key, string Value)[] _settings;

        public KestrelApi((string Key, string Value)[] settings)
        {
            _settings = settings;
            UseKestrel(0);
            StartServer();
        }

        public HttpClient Client()
        {
            var client = CreateClient();
            client.DefaultRequestHeaders.Add("X-API-Key", Key);
            return client;
        }

        protected override void ConfigureWebHost(IWebHostBuilder builder)
        {
            foreach (var (key, value) in _settings)
                builder.UseSetting(key, value);
            builder.UseSetting("Auth:BootstrapAdminKey", Key);
            builder.UseSetting("Shutdown:Delay", "00:00:00");
        }
    }
}

public sealed class GithubPayloadsOnPostgresTests(PostgresServer postgres) : GithubPayloadsTests(postgres, null);

public sealed class GithubPayloadsOnKafkaTests : GithubPayloadsTests
{
    public GithubPayloadsOnKafkaTests(PostgresServer postgres, KafkaServer kafka) : base(postgres, kafka) => KafkaServer.SkipIfMissing();
}
