using Triggers.Core.State;

namespace Triggers.Core.Tables;

/// <summary>Who wants which events pushed where.</summary>
public sealed class Subscription
{
    /// <summary>UUIDv7, shown as <c>sub_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>Absolute http or https address the webhooks go to; empty for an inbox.</summary>
    public required string Url { get; set; }

    /// <summary>Patterns of event types, see <see cref="Subscriptions.EventTypePattern"/>; any one matching is enough.</summary>
    public required string[] EventTypes { get; set; }

    /// <summary>Free text for people.</summary>
    public string? Description { get; set; }

    /// <summary>Sent with every webhook, beside our own.</summary>
    public Dictionary<string, string> Headers { get; set; } = [];

    /// <summary>Signing secrets, newest first. All that are not expired sign.</summary>
    public required List<SigningSecret> Secrets { get; set; }

    /// <summary>When to try again, as far as it is not as the service has it; null: as the service has it.</summary>
    public RetryPolicy? Retry { get; set; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait.</summary>
    public bool Enabled { get; set; } = true;

    /// <summary>Why it is disabled: <c>requested</c>, or <c>gone</c> when the receiver answered 410. Null while enabled.</summary>
    public string? DisabledReason { get; set; }

    /// <summary>Whether it is a REST hook: its address is its name, and a 410 removes it.</summary>
    public bool IsHook { get; init; }

    /// <summary>When it ends by itself, by the database's clock; null for never.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }

    /// <summary>The name of an inbox, whose deliveries wait until somebody receives them; null where webhooks are sent.</summary>
    public string? Inbox { get; init; }

    /// <summary>Of an inbox: for how many seconds a delivery belongs to who received it, unless they say otherwise.</summary>
    public int LeaseSeconds { get; init; } = Inboxes.DefaultLeaseSeconds;

    /// <summary>Of an inbox: how often a delivery is given out; then it is a dead letter.</summary>
    public int MaxDeliveries { get; init; } = Inboxes.DefaultMaxDeliveries;

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset UpdatedAt { get; set; }

    /// <summary>Deleted subscriptions stay for the history that names them.</summary>
    public DateTimeOffset? DeletedAt { get; set; }
}

/// <summary>A Standard Webhooks secret.</summary>
public sealed class SigningSecret
{
    /// <summary><c>whsec_</c> and the base64 of 24 to 64 bytes.</summary>
    public required string Secret { get; init; }

    /// <summary>No longer signs from then on; null for the current one.</summary>
    public DateTimeOffset? ExpiresAt { get; set; }
}
