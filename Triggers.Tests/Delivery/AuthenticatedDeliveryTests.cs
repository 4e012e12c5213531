using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Tests.Delivery.Attempts;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>By what a receiver knows its caller, from the API over the log to the receiver.</summary>
public abstract class AuthenticatedDeliveryTests(PostgresServer postgres, KafkaServer? kafka = null)
    : ApiAndEngineTests(postgres, kafka)
{
    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        await Engine.StartDeliveryAsync(null, Certificates.Root);
    }

    [Fact]
    public async Task A_webhook_is_signed_in_both_ways_and_carries_credentials_and_headers()
    {
        var made = (await Client.PostAsync("/subscriptions",
            $$$"""{"url":"{{{Receiver.Url}}}","eventTypes":["*"],"signatures":["v1","v1a"],"headers":{"X-Key":"h"},"authentication":{"type":"bearer","token":"t0ken"}}"""))
            .Is(201);

        var id = await Client.PublishAsync(data: """{"n":1.50}""");
        await Wait.UntilAsync("the webhook came", () => Receiver.Received.Count > 0);

        var webhook = Receiver.Received.First();
        Assert.Equal(id, webhook.EventId);
        Assert.Equal(("h", "Bearer t0ken"), (webhook.Headers["X-Key"], webhook.Headers["Authorization"]));
        byte[] message = [.. Encoding.UTF8.GetBytes($"{webhook.EventId}.{webhook.Headers["webhook-timestamp"]}."), .. webhook.Body];
        var signatures = webhook.Headers["webhook-signature"].Split(' ').ToDictionary(s => s.Split(',')[0], s => s.Split(',')[1]);
        Assert.Equal(
            Convert.ToBase64String(HMACSHA256.HashData(Convert.FromBase64String(made["secret"]!["whsec_".Length..]), message)),
            signatures["v1"]);
        Assert.True(SigningKey.Verify(made["publicKey"]!, message, Convert.FromBase64String(signatures["v1a"])));
    }

    [Fact]
    public async Task A_client_certificate_is_presented_until_it_is_replaced_or_removed()
    {
        var (first, second) = (Certificates.Client("first"), Certificates.Client("second"));
        await using var receiver = await SecureReceiver.StartAsync(
            ClientCertificateMode.RequireCertificate, [first.Thumbprint, second.Thumbprint]);
        var made = (await Client.PostAsync("/subscriptions", JsonSerializer.Serialize(new
        {
            url = receiver.Url,
            eventTypes = new[] { "*" },
            clientCertificate = new { pem = first.Pem },
            retry = new { schedule = new[] { "00:00:00" } },
        }))).Is(201);

        await DeliverAsync(DeliveryStatus.Succeeded);
        (await Client.PatchAsync(
            $"/subscriptions/{made.Id}", JsonSerializer.Serialize(new { clientCertificate = new { pem = second.Pem } }))).Is(200);
        await DeliverAsync(DeliveryStatus.Succeeded);
        (await Client.PatchAsync($"/subscriptions/{made.Id}", """{"clientCertificate":null}""")).Is(200);
        await DeliverAsync(DeliveryStatus.DeadLettered);

        Assert.Equal([first.Thumbprint, second.Thumbprint], receiver.Requests.Select(r => r.Thumbprint));
    }

    private async Task DeliverAsync(DeliveryStatus status) =>
        await Engine.WaitForStatusAsync(Rows.Uuid(await Client.PublishAsync()), status);
}

/// <summary>On the Postgres log.</summary>
public sealed class PostgresAuthenticatedDeliveryTests(PostgresServer postgres) : AuthenticatedDeliveryTests(postgres);

/// <summary>On the Kafka log.</summary>
public sealed class KafkaAuthenticatedDeliveryTests(PostgresServer postgres, KafkaServer kafka)
    : AuthenticatedDeliveryTests(postgres, kafka);
