using System.Net.Http.Headers;
using System.Security.Cryptography;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>Deliveries to a subscription that go in one request.</summary>
/// <param name="Deliveries">In the order in which their events are sent.</param>
/// <param name="Messages">What each would be sent as if it went alone, in the same order.</param>
internal sealed record Batch(IReadOnlyList<DueDelivery> Deliveries, IReadOnlyList<WebhookMessage> Messages)
{
    private const string CloudEvents = "application/cloudevents+json";
    private static readonly MediaTypeHeaderValue s_json = new("application/json");
    private static readonly MediaTypeHeaderValue s_cloudEvents = new("application/cloudevents-batch+json");

    /// <summary>The same for the same events in the same order, so that a receiver knows a batch that it has had.</summary>
    public Guid Id { get; } = IdOf(Messages.Select(m => m.Event));

    /// <summary>The array of them.</summary>
    public WebhookMessage Message { get; } = Join(Messages);

    private static WebhookMessage Join(IReadOnlyList<WebhookMessage> messages)
    {
        // An event that can't be sent has its batches halved until it is alone, as if the receiver had refused it.
        var problem = messages.Select(m => m.Problem ?? (IsJson(m.ContentType?.MediaType) ? null : "What is not JSON can't go in a batch."))
            .FirstOrDefault(p => p is not null);
        using var body = new MemoryStream(messages.Sum(m => m.Body.Length + 1) + 1);
        foreach (var message in messages)
        {
            body.WriteByte((byte)(body.Length == 0 ? '[' : ','));
            body.Write(message.Body);
        }
        body.WriteByte((byte)']');
        return new WebhookMessage(messages[0].Event, body.ToArray())
        {
            ContentType = messages[0].ContentType?.MediaType == CloudEvents ? s_cloudEvents : s_json,
            Problem = problem,
        };
    }

    private static bool IsJson(string? mediaType) =>
        mediaType is "application/json" || mediaType?.EndsWith("+json", StringComparison.OrdinalIgnoreCase) is true;

    /// <summary>A UUIDv7 of the time of the first event, whose rest is a hash of all of them.</summary>
    private static Guid IdOf(IEnumerable<StoredEvent> events)
    {
        var ids = events.SelectMany(e => e.Id.ToByteArray(bigEndian: true)).ToArray();
        var id = SHA256.HashData(ids)[..16];
        ids.AsSpan(0, 6).CopyTo(id);
        id[6] = (byte)(id[6] & 0x0f | 0x70);
        id[8] = (byte)(id[8] & 0x3f | 0x80);
        return new Guid(id, bigEndian: true);
    }
}
