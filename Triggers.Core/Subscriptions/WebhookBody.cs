using System.Buffers;
using System.Text.Json;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>What a webhook says of an event.</summary>
internal static class WebhookBody
{
    /// <summary>
    /// <c>{"id","type","timestamp","source"?,"subject"?,"externalId"?,"expiresAt"?,"data"}</c>, with <c>data</c> byte for byte as it
    /// was received.
    /// </summary>
    public static byte[] Of(StoredEvent e)
    {
        // The head alone is written as JSON, and the data copied behind it once.
        var buffer = new ArrayBufferWriter<byte>(512);
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
            if (e.ExpiresAt is { } expiresAt)
                json.WriteString("expiresAt", expiresAt.UtcDateTime);
            json.WritePropertyName("data");
        }
        return [.. buffer.WrittenSpan, .. e.Data, (byte)'}'];
    }
}
