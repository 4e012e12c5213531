using System.Net.Http.Headers;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>What a request says of an event, as a subscription's <see cref="MessageFormat"/> makes it.</summary>
/// <param name="Event">What is known of the event, without its data.</param>
/// <param name="Body">The exact bytes of the request, which are what is signed.</param>
internal sealed record WebhookMessage(StoredEvent Event, byte[] Body)
{
    private static readonly MediaTypeHeaderValue s_json = new("application/json");

    /// <summary>How the body is to be read; null for a body that nobody says anything about.</summary>
    public MediaTypeHeaderValue? ContentType { get; init; } = s_json;

    /// <summary>How it is sent.</summary>
    public HttpMethod Method { get; init; } = HttpMethod.Post;

    /// <summary>Sent beside those of every webhook, and in place of the subscription's own of the same name.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Headers { get; init; } = [];

    /// <summary>Why nothing can be sent, where it can't; then there is no body.</summary>
    public string? Problem { get; init; }
}
