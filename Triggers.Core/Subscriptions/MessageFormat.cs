using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// How a subscription has messages made of events: one of the formats that all have, or a transformation of its own. What the same instance
/// makes of an event is the same for everybody, and is shared.
/// </summary>
internal abstract class MessageFormat
{
    /// <summary><see cref="WebhookFormat.Envelope"/>, which a subscription has unless it asks for another.</summary>
    public static MessageFormat Envelope { get; } = new BuiltIn((_, e) => new(WithoutData(e), WebhookBody.Of(e)));

    private static MessageFormat Data { get; } = new BuiltIn((_, e) => DataContent.MessageOf(e) with
    {
        Headers = DataContent.UrlOf(e) is { } url ? [new("triggers-event-type", e.Type), new("triggers-data-url", url)]
            : [new("triggers-event-type", e.Type)],
    });

    private static MessageFormat Cloudevents { get; } = new BuiltIn(CloudEvent.Structured);

    private static MessageFormat CloudeventsBinary { get; } = new BuiltIn(CloudEvent.Binary);

    /// <summary>Whether making a message may take long, so that it is not to be done where others wait.</summary>
    public virtual bool IsSlow => false;

    /// <summary>The instance of a format.</summary>
    public static MessageFormat Of(WebhookFormat format) => format switch
    {
        WebhookFormat.Data => Data,
        WebhookFormat.Cloudevents => Cloudevents,
        WebhookFormat.CloudeventsBinary => CloudeventsBinary,
        _ => Envelope,
    };

    /// <summary>Makes the message of an event. Never throws: what can't be made says why.</summary>
    /// <param name="tenantId">Whose event it is.</param>
    /// <param name="e">The event, with its data.</param>
    public abstract WebhookMessage Make(Guid tenantId, StoredEvent e);

    /// <summary>The event as messages keep it; its data is in their bodies.</summary>
    protected internal static StoredEvent WithoutData(StoredEvent e) => e with { Data = [] };

    private sealed class BuiltIn(Func<Guid, StoredEvent, WebhookMessage> make) : MessageFormat
    {
        public override WebhookMessage Make(Guid tenantId, StoredEvent e) => make(tenantId, e);
    }
}
