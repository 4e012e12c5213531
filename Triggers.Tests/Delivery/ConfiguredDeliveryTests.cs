using System.Net.Http.Headers;
using System.Text;
using Triggers.Receiver;
using Triggers.Tests.Support;

namespace Triggers.Tests.Delivery;

/// <summary>From a document in YAML to the receiver.</summary>
public sealed class ConfiguredDeliveryTests(PostgresServer postgres) : EngineTests(postgres)
{
    [Fact]
    public async Task What_a_configuration_subscribes_is_sent_with_its_secrets()
    {
        const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
        await using var host = new ApiHost(Engine.ConnectionString, Engine.Settings);
        using var client = host.Client();
        await client.WaitUntilReadyAsync();
        await Engine.StartDeliveryAsync();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/configuration/apply")
        {
            Content = new StringContent(
                $$"""
                subscriptions:
                  warehouse:
                    url: {{Receiver.Url}}/orders
                    eventTypes: [order.*]
                    headers:
                      x-team: {secretRef: team}
                    secret: {secretRef: signing}
                secrets: {team: shipping, signing: "{{Secret}}"}
                """, Encoding.UTF8, new MediaTypeHeaderValue("application/yaml")),
        };

        (await client.SendAsync(request)).Is(200);
        var id = await client.PublishAsync();

        await Wait.UntilAsync("the webhook came", () => Receiver.At("/orders").Any());
        var webhook = Receiver.At("/orders").First();
        Assert.Equal(id, webhook.EventId);
        Assert.Equal("shipping", webhook.Headers["x-team"]);
        Assert.True(WebhookSignature.TryParseSecret(Secret, out var key));
        Assert.True(WebhookSignature.IsValid(
            key, webhook.EventId, webhook.Headers["webhook-timestamp"], webhook.Headers["webhook-signature"], webhook.Body,
            TimeProvider.System.GetUtcNow()));
    }
}
