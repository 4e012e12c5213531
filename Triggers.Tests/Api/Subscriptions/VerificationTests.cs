using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Triggers.Tests.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Api.Subscriptions;

/// <summary>What verifying says of real receivers, by the API and a delivery service.</summary>
public abstract class VerificationTests(ApiFixture api)
{
    private const string Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    [Fact]
    public async Task A_receiver_that_verifies_passes()
    {
        var (answer, received) = await VerifyAsync((webhook, context) =>
        {
            context.Response.StatusCode = IsGenuine(webhook) && IsFresh(webhook) ? 204 : 401;
            return Task.CompletedTask;
        });

        Assert.True(answer.Json["passed"]!.GetValue<bool>(), answer.Text);
        Assert.Equal(
            ["reachable: passed", "tls: warned", "accepts: passed", "refuses_forged: passed", "refuses_old: passed", "latency: passed"],
            Checks(answer));
        Assert.Equal(["triggers.test", "triggers.test.forged", "triggers.test.old"],
            received.Select(w => JsonNode.Parse(w.Body)!["type"]!.GetValue<string>()));
        Assert.Equal(3, answer.Json["attempts"]!.AsArray().Count);
    }

    [Fact]
    public async Task A_receiver_that_accepts_everything_fails_by_its_name()
    {
        var (answer, _) = await VerifyAsync((_, _) => Task.CompletedTask);

        Assert.False(answer.Json["passed"]!.GetValue<bool>());
        Assert.Equal(
            ["reachable: passed", "tls: warned", "accepts: passed", "refuses_forged: failed", "refuses_old: failed", "latency: passed"],
            Checks(answer));
    }

    [Fact]
    public async Task A_receiver_that_looks_at_the_signature_and_not_at_its_time_fails_by_that()
    {
        var (answer, _) = await VerifyAsync((webhook, context) =>
        {
            context.Response.StatusCode = IsGenuine(webhook) ? 200 : 400;
            return Task.CompletedTask;
        });

        Assert.Equal(
            ["reachable: passed", "tls: warned", "accepts: passed", "refuses_forged: passed", "refuses_old: failed", "latency: passed"],
            Checks(answer));
    }

    [Fact]
    public async Task A_receiver_that_refuses_everything_fails_once()
    {
        var (answer, _) = await VerifyAsync((_, context) =>
        {
            context.Response.StatusCode = 404;
            return Task.CompletedTask;
        });

        Assert.Equal(
            ["reachable: passed", "tls: warned", "accepts: failed", "refuses_forged: skipped", "refuses_old: skipped", "latency: passed"],
            Checks(answer));
    }

    [Fact]
    public async Task Without_an_answer_nothing_else_is_asked()
    {
        var (answer, received) = await VerifyAsync((_, _) => Task.CompletedTask, url => url.Replace("http:", "https:"));

        Assert.Equal(
            ["reachable: failed", "tls: failed", "accepts: skipped", "refuses_forged: skipped", "refuses_old: skipped",
                "latency: skipped"],
            Checks(answer));
        Assert.Empty(received);
    }

    [Fact]
    public async Task It_says_until_when_the_certificate_is_valid_and_whose_it_is()
    {
        var answer = await VerifySecureAsync(Certificates.Good);

        Assert.Contains("tls: passed", Checks(answer));
        var certificate = answer.Json["certificate"]!;
        Assert.Equal(
            ("CN=receiver", "CN=Root", Certificates.Sha256(Certificates.Good), Certificates.Good.NotAfter.ToUniversalTime()),
            (certificate["subject"]!.ToString(), certificate["issuer"]!.ToString(), certificate["thumbprint"]!.ToString(),
                certificate["expiresAt"]!.GetValue<DateTimeOffset>().UtcDateTime));
        Assert.Contains(
            $"until {Certificates.Good.NotAfter.ToUniversalTime():yyyy-MM-dd}.", Detail(answer, "tls"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_certificate_that_should_have_been_renewed_is_warned_of()
    {
        var now = TimeProvider.System.GetUtcNow();
        var answer = await VerifySecureAsync(Certificates.Receiver(now.AddDays(-60), now.AddDays(2)));

        Assert.Contains("tls: warned", Checks(answer));
        Assert.Contains("expires in ", Detail(answer, "tls"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_certificate_that_has_expired_fails_and_a_receiver_that_wants_one_gets_ours()
    {
        var expired = await VerifySecureAsync(Certificates.Expired);
        Assert.Contains("tls: failed", Checks(expired));
        Assert.Contains("NotTimeValid", Detail(expired, "tls"), StringComparison.Ordinal);
        Assert.Null(expired.Json["certificate"]);

        Assert.Contains("reachable: passed", Checks(await VerifySecureAsync(Certificates.Good, Certificates.Client("mine"))));
    }

    private async Task<Answer> VerifySecureAsync(X509Certificate2 certificate, (string Pem, string Thumbprint)? client = null)
    {
        await using var receiver = await SecureReceiver.StartAsync(
            client is null ? ClientCertificateMode.NoCertificate : ClientCertificateMode.RequireCertificate, [client?.Thumbprint ?? ""],
            certificate);
        await using var delivery = await StartDeliveryAsync();
        var tenant = await api.NewTenantAsync();
        var made = (await tenant.Client.PostAsync("/subscriptions", JsonSerializer.Serialize(new Dictionary<string, object>
        {
            ["url"] = receiver.Url,
            ["eventTypes"] = new[] { "never" },
            ["retry"] = new { timeout = "00:00:30" },
            [client is null ? "description" : "clientCertificate"] = client is { } own ? new { pem = own.Pem } : "none",
        }))).Is(201);
        return (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/verify")).Is(200);
    }

    private protected virtual (string Key, string Value)[] Log => [];

    private protected virtual Task StopOthersAsync() => Task.CompletedTask;

    private async Task<DeliveryHost> StartDeliveryAsync()
    {
        await StopOthersAsync();
        return new DeliveryHost(
        [
            ("ConnectionStrings:triggersdb", api.ConnectionString), ("Delivery:AllowedNetworks", "127.0.0.0/8"),
            ("Shutdown:Delay", "00:00:00"), .. Log,
        ], null, Certificates.Root);
    }

    private async Task<(Answer Answer, IReadOnlyCollection<ReceivedWebhook> Received)> VerifyAsync(
        Func<ReceivedWebhook, HttpContext, Task> respond, Func<string, string>? url = null)
    {
        await using var receiver = await TestReceiver.StartAsync();
        receiver.Respond = respond;
        await using var delivery = await StartDeliveryAsync();
        var tenant = await api.NewTenantAsync();
        var address = url is null ? receiver.Url : url(receiver.Url);
        var made = (await tenant.Client.PostAsync(
            "/subscriptions", $$$"""{"url":"{{{address}}}","eventTypes":["never"],"secret":"{{{Secret}}}","retry":{"timeout":"00:00:30"}}""")).Is(201);

        var answer = (await tenant.Client.PostAsync($"/subscriptions/{made.Id}/verify")).Is(200);

        return (answer, receiver.Received);
    }

    private static string[] Checks(Answer answer) =>
        [.. answer.Json["checks"]!.AsArray().Select(check => $"{check!["name"]}: {check["result"]}")];

    private static string Detail(Answer answer, string check) =>
        answer.Json["checks"]!.AsArray().Single(c => c!["name"]!.ToString() == check)!["detail"]!.ToString();

    private static bool IsGenuine(ReceivedWebhook webhook)
    {
        byte[] message = [.. Encoding.UTF8.GetBytes($"{webhook.EventId}.{webhook.Headers["webhook-timestamp"]}."), .. webhook.Body];
        return webhook.Headers["webhook-signature"]
            == "v1," + Convert.ToBase64String(HMACSHA256.HashData(Convert.FromBase64String(Secret["whsec_".Length..]), message));
    }

    private static bool IsFresh(ReceivedWebhook webhook) => Math.Abs(
        TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() - long.Parse(webhook.Headers["webhook-timestamp"])) < 300;
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresVerificationTests(ApiFixture api) : VerificationTests(api), IClassFixture<ApiFixture>;

/// <summary>On the Kafka log.</summary>
public sealed class KafkaVerificationTests : VerificationTests, IClassFixture<KafkaApiFixture>
{
    private readonly KafkaApiFixture _api;

    public KafkaVerificationTests(KafkaApiFixture api) : base(api)
    {
        KafkaServer.SkipIfMissing();
        _api = api;
    }

    private protected override (string Key, string Value)[] Log => _api.Log;

    private protected override Task StopOthersAsync() => _api.StopDeliveryAsync();
}
