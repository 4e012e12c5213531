namespace Triggers.Core.Tables;

/// <summary>Who wants which events pushed where.</summary>
public sealed class Subscription
{
    /// <summary>How long a lease is unless somebody says otherwise.</summary>
    public const int DefaultLeaseSeconds = 30;

    /// <summary>How often a delivery is given out unless somebody says otherwise.</summary>
    public const int DefaultMaxDeliveries = 10;

    /// <summary>UUIDv7, shown as <c>sub_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>What a configuration knows it by, unique in the tenant; null: nothing.</summary>
    public string? Name { get; set; }

    /// <summary>Absolute http or https address the webhooks go to; empty for an inbox.</summary>
    public required string Url { get; set; }

    /// <summary>Patterns of event types, see <see cref="Subscriptions.EventTypePattern"/>; any one matching is enough.</summary>
    public required string[] EventTypes { get; set; }

    /// <summary>Which of these events it wants, a <see cref="Subscriptions.SubscriptionFilter"/> as JSON; null: all.</summary>
    public string? Filter { get; set; }

    /// <summary>Free text for people.</summary>
    public string? Description { get; set; }

    /// <summary>Sent with every webhook, beside our own. The values are kept encrypted.</summary>
    public Dictionary<string, string> Headers { get; set; } = [];

    /// <summary>Signing secrets, newest first. All that are not expired sign.</summary>
    public required List<SigningSecret> Secrets { get; set; }

    /// <summary>A <see cref="ReceiverAuthentication"/> as JSON, encrypted; null without one.</summary>
    public string? Authentication { get; set; }

    /// <summary>A <see cref="Subscriptions.ClientCertificate"/> as it is kept, encrypted; null without one.</summary>
    public string? ClientCertificate { get; set; }

    /// <summary>As what it is sent events, unless by a <see cref="Transformation"/>.</summary>
    public WebhookFormat Format { get; set; }

    /// <summary>How its requests are made by a template of its own, as JSON, encrypted; null without one.</summary>
    public string? Transformation { get; set; }

    /// <summary>When to try again, as far as it is not as the service has it; null: as the service has it.</summary>
    public RetryPolicy? Retry { get; set; }

    /// <summary>In which order it gets its deliveries.</summary>
    public Ordering Ordering { get; set; }

    /// <summary>What becomes of a key whose first delivery fails for good.</summary>
    public FailingHead FailingHead { get; set; }

    /// <summary>After how many failed attempts that is; null: at the end of its retries.</summary>
    public int? FailingHeadAttempts { get; set; }

    /// <summary>How many requests it is sent at most in any <see cref="RateSeconds"/>; null: as many as there are.</summary>
    public int? RateRequests { get; set; }

    /// <summary>The time that <see cref="RateRequests"/> counts for.</summary>
    public int? RateSeconds { get; set; }

    /// <summary>How many requests it is sent at once at most, by all processes together; null: as many as it stands.</summary>
    public int? Concurrency { get; set; }

    /// <summary>How many events it gets in one request at most; null: it gets each alone.</summary>
    public int? BatchMax { get; set; }

    /// <summary>How long an event waits for others to go with at most; null where each goes alone.</summary>
    public TimeSpan? BatchWait { get; set; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>
    /// Why it is disabled: <c>requested</c>, <c>gone</c> when the receiver answered 410, or <c>failing</c> when every attempt failed for
    /// too long. Null while enabled.
    /// </summary>
    public string? DisabledReason { get; set; }

    /// <summary>Whether it is a REST hook: its address is its name, and a 410 deletes it.</summary>
    public bool IsHook { get; init; }

    /// <summary>When it ends by itself, by the database's clock; null for never.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>The name of an inbox, whose deliveries wait until somebody receives them; null where webhooks are sent.</summary>
    public string? Inbox { get; init; }

    /// <summary>Of an inbox: for how many seconds a delivery belongs to who received it, unless they say otherwise.</summary>
    public int LeaseSeconds { get; init; } = DefaultLeaseSeconds;

    /// <summary>Of an inbox: how often a delivery is given out; then it is a dead letter.</summary>
    public int MaxDeliveries { get; init; } = DefaultMaxDeliveries;

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset UpdatedAt { get; set; }

    /// <summary>Deleted subscriptions stay for the history that names them.</summary>
    public DateTimeOffset? DeletedAt { get; set; }

    /// <summary>Its circuit breaker, where that was read with it; null while it is closed.</summary>
    public Circuit? Circuit { get; set; }
}

/// <summary>What a request says of an event.</summary>
public enum WebhookFormat
{
    /// <summary>The event as JSON, with its data as <c>data</c>.</summary>
    Envelope,

    /// <summary>The event's data alone.</summary>
    Data,

    /// <summary>A CloudEvent in structured mode: one JSON object.</summary>
    Cloudevents,

    /// <summary>A CloudEvent in binary mode: the data as the body, all else in headers.</summary>
    CloudeventsBinary,
}

/// <summary>Which deliveries of a subscription go one after the other.</summary>
public enum Ordering
{
    /// <summary>None: many are under way at once.</summary>
    None,

    /// <summary>Those of events with the same subject. What has none is in no order.</summary>
    PerKey,

    /// <summary>All of them.</summary>
    Strict,
}

/// <summary>What becomes of a key whose first delivery fails for good.</summary>
public enum FailingHead
{
    /// <summary>It stays the first, and nothing of the key is sent until somebody lets it go, or gives it up.</summary>
    Block,

    /// <summary>It becomes a dead letter, and the next one goes on.</summary>
    DeadLetterAfter,

    /// <summary>It becomes a dead letter, and the rest of the key waits until somebody lets it go.</summary>
    ParkKey,
}

/// <summary>A Standard Webhooks secret, or private key.</summary>
public sealed class SigningSecret
{
    /// <summary>
    /// <c>whsec_</c> and the base64 of 24 to 64 bytes, or <c>whsk_</c> and that of an Ed25519 key; encrypted, but for those from before.
    /// </summary>
    public required string Secret { get; init; }

    /// <summary>Of a private key: <c>whpk_</c> and base64.</summary>
    public string? PublicKey { get; init; }

    /// <summary>No longer signs from then on; null for the current one.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }
}
