using System.Diagnostics;
using System.Net.Http.Headers;
using System.Reflection;
using System.Text.Json;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>Writes the HTTP request of an attempt.</summary>
internal static class WebhookRequest
{
    private static readonly ProductInfoHeaderValue UserAgent = new(
        "Triggers",
        typeof(WebhookRequest).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0]);

    /// <summary>The request of attempt number <paramref name="number"/>, signed for this moment.</summary>
    /// <exception cref="FormatException">Address or headers can't be sent.</exception>
    public static HttpRequestMessage Create(
        DueDelivery delivery, Payload payload, HttpContent content,
        Subscriber subscriber, int number, DateTimeOffset now, Activity? activity)
    {
        var e = payload.Event;
        var id = TypeId.Format(TypeId.Event, e.Id);
        var timestamp = now.ToUnixTimeSeconds();

        var request = new HttpRequestMessage(HttpMethod.Post, WebhookAddress.Parse(subscriber.Url)) { Content = content };
        foreach (var (name, value) in subscriber.Headers)
        {
            if (WebhookHeaders.Add(request.Headers, name, value) is { } problem)
                throw new FormatException($"The subscription's header {name} can't be sent: {problem}");
        }
        request.Headers.UserAgent.Add(UserAgent);
        Add("webhook-id", id);
        Add("webhook-timestamp", timestamp.ToString());
        Add("webhook-signature", WebhookSignature.Sign(subscriber.SecretsAt(now), id, timestamp, payload.Body));
        Add("triggers-delivery-id", TypeId.Format(TypeId.Delivery, delivery.Id));
        Add("triggers-attempt", number.ToString());
        if (delivery.ReplayOf is not null)
            Add("webhook-replay", "true");
        Add("X-Correlation-ID", e.CorrelationId);
        if ((activity?.Id ?? e.TraceParent) is { } traceParent)
            Add("traceparent", traceParent);
        return request;

        void Add(string name, string value)
        {
            // Some of it comes from the log, which others may write to.
            if (!WebhookHeaders.IsValue(value) || !request.Headers.TryAddWithoutValidation(name, value))
                throw new FormatException($"The event's {name} can't be sent in a header.");
        }
    }

    /// <summary>
    /// <c>{"id","type","timestamp","source"?,"subject"?,"externalId"?,"data"}</c>, with <c>data</c> byte for byte as it was received.
    /// </summary>
    public static byte[] Envelope(StoredEvent e)
    {
        // The head alone is written as JSON, and the data copied behind it once.
        var buffer = new System.Buffers.ArrayBufferWriter<byte>(512);
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { SkipValidation = true }))
        {
            json.WriteStartObject();
            json.WriteString("id", TypeId.Format(TypeId.Event, e.Id));
            json.WriteString("type", e.Type);
            json.WriteString("timestamp", (e.Time ?? TypeId.CreatedAt(e.Id)).UtcDateTime);
            if (e.Source is not null)
                json.WriteString("source", e.Source);
            if (e.Subject is not null)
                json.WriteString("subject", e.Subject);
            if (e.ExternalId is not null)
                json.WriteString("externalId", e.ExternalId);
            json.WritePropertyName("data");
        }
        return [.. buffer.WrittenSpan, .. e.Data, (byte)'}'];
    }
}
