using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using CsCheck;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Attempts;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Tests.Delivery;

public class WebhookRequestTests
{
    private const string Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    private static readonly DateTimeOffset Now = DateTimeOffset.FromUnixTimeSeconds(1_800_000_000);

    [Fact]
    public void Signature_is_that_of_the_specification() =>
        Gen.Select(Gen.Byte.Array[24, 64], Gen.Byte.Array[0, 300], Gen.Long[0, 4_000_000_000]).Sample((key, body, timestamp) =>
        {
            var signature = WebhookSignature.Sign(["whsec_" + Convert.ToBase64String(key)], "evt_1", timestamp, body);

            var expected = HMACSHA256.HashData(key, (byte[])[.. Encoding.UTF8.GetBytes($"evt_1.{timestamp}."), .. body]);
            Assert.Equal("v1," + Convert.ToBase64String(expected), signature);
        });

    [Fact]
    public void Every_secret_that_has_not_expired_signs()
    {
        var subscriber = SubscriberWith(
            new SigningSecret { Secret = Secret },
            new SigningSecret { Secret = Secret, ExpiresAt = Now.AddSeconds(1) },
            new SigningSecret { Secret = Secret, ExpiresAt = Now });

        using var request = Create(DeliveryOf("{}"), subscriber);

        Assert.Equal(2, Header(request, "webhook-signature").Split(' ').Length);
    }

    [Fact]
    public async Task Request_carries_what_a_receiver_needs()
    {
        var (delivery, e) = DeliveryOf("""{"a":1}""");
        delivery = delivery with { ReplayOf = TypeId.NewGuid() };
        var subscriber = SubscriberWith(new SigningSecret { Secret = Secret }) with { Headers = new() { ["X-Tenant"] = "acme" } };

        using var request = Create((delivery, e), subscriber, 3);

        Assert.Equal(HttpMethod.Post, request.Method);
        Assert.Equal("https://example.com/hook", request.RequestUri!.AbsoluteUri);
        Assert.Equal(TypeId.Format(TypeId.Event, e.Id), Header(request, "webhook-id"));
        Assert.Equal("1800000000", Header(request, "webhook-timestamp"));
        Assert.Equal(TypeId.Format(TypeId.Delivery, delivery.Id), Header(request, "triggers-delivery-id"));
        Assert.Equal("3", Header(request, "triggers-attempt"));
        Assert.Equal("true", Header(request, "webhook-replay"));
        Assert.Equal("corr-1", Header(request, "X-Correlation-ID"));
        Assert.Equal("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Header(request, "traceparent"));
        Assert.Equal("acme", Header(request, "X-Tenant"));
        Assert.StartsWith("Triggers/", Header(request, "User-Agent"), StringComparison.Ordinal);
        Assert.Equal("application/json", request.Content!.Headers.ContentType!.ToString());
        var body = await request.Content.ReadAsByteArrayAsync(TestContext.Current.CancellationToken);
        Assert.Equal(
            WebhookSignature.Sign([Secret], Header(request, "webhook-id"), 1_800_000_000, body), Header(request, "webhook-signature"));
    }

    [Fact]
    public void First_delivery_does_not_say_that_it_is_a_replay()
    {
        using var request = Create(DeliveryOf("{}"), SubscriberWith(new SigningSecret { Secret = Secret }));

        Assert.False(request.Headers.Contains("webhook-replay"));
    }

    [Theory]
    [InlineData("ftp://example.com")]
    [InlineData("not a url")]
    public void Address_that_is_not_http_can_not_be_sent_to(string url) =>
        Assert.Throws<FormatException>(() =>
            Create(DeliveryOf("{}"), SubscriberWith(new SigningSecret { Secret = Secret }) with { Url = url }));

    [Theory]
    [InlineData("""{ "a" : 1.0 , "b":[ ] }""")]
    [InlineData("""1e400""")]
    [InlineData("\"\\u0000 \\ud83d\\ude00 é\"")]
    [InlineData("null")]
    [InlineData("""{"a":1,"a":2}""")]
    public void Data_goes_out_byte_for_byte(string data)
    {
        var envelope = Encoding.UTF8.GetString(WebhookBody.Of(DeliveryOf(data).Event));

        Assert.EndsWith($"\"data\":{data}}}", envelope, StringComparison.Ordinal);
    }

    [Fact]
    public void Envelope_is_valid_json_whatever_the_producer_called_things() =>
        Gen.Select(Gen.String, Gen.String, Gen.String).Sample((source, subject, externalId) =>
        {
            var e = DeliveryOf("true").Event with { Source = source, Subject = subject, ExternalId = externalId };

            using var json = JsonDocument.Parse(WebhookBody.Of(e));

            Assert.True(json.RootElement.GetProperty("data").GetBoolean());
            // Lone surrogates can't be written in UTF-8; everything else comes back as it went in.
            if (IsText(source))
                Assert.Equal(source, json.RootElement.GetProperty("source").GetString());
        });

    private static bool IsText(string text) => text.EnumerateRunes().All(rune => rune != System.Text.Rune.ReplacementChar);

    private static string Header(HttpRequestMessage request, string name) => Assert.Single(request.Headers.GetValues(name));

    private static Subscriber SubscriberWith(params SigningSecret[] secrets) =>
        new(TypeId.NewGuid(), TypeId.NewGuid(), 1, "https://example.com/hook", ["*"], [], secrets, Enabled: true);

    private static HttpRequestMessage Create((DueDelivery Delivery, StoredEvent Event) of, Subscriber subscriber, int number = 1)
    {
        var message = MessageFormat.Envelope.Make(of.Delivery.TenantId, of.Event);
        var share = new Payloads((_, _) => throw new InvalidOperationException())
            .Hold(of.Delivery.TenantId, of.Event, MessageFormat.Envelope);
        return WebhookRequest.Create(
            of.Delivery, message, new WebhookContent(share, message, () => { }), subscriber, number, Now, null);
    }

    private static (DueDelivery Delivery, StoredEvent Event) DeliveryOf(string data)
    {
        var e = new StoredEvent(TypeId.NewGuid(), "order.created", null, null, null, null, "corr-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Encoding.UTF8.GetBytes(data));
        return (new DueDelivery(TypeId.NewGuid(), TypeId.NewGuid(), e.Id, TypeId.NewGuid(), 1, 0, null, false, 0, data.Length), e);
    }
}
