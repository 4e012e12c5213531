using System.Text.Json.Serialization;
using Triggers.Api.Auth;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>A subscription as clients see it: without its secrets.</summary>
internal record SubscriptionView(
    string Id,
    string Url,
    IReadOnlyList<string> EventTypes,
    string? Description,
    bool Enabled,
    string? DisabledReason,
    IReadOnlyDictionary<string, string> Headers,
    RetryPolicy? Retry,
    DateTimeOffset? ExpiresAt,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt)
{
    /// <summary>What readers see in place of a header's value.</summary>
    public const string Masked = "***";

    /// <summary>
    /// A subscription as the caller may see it. The values of headers, which may be credentials of the receiver, are for those who could
    /// have them sent to an address of theirs anyway.
    /// </summary>
    public static SubscriptionView Of(Subscription s, Caller caller) => new(
        TypeId.Format(TypeId.Subscription, s.Id), s.Url, s.EventTypes, s.Description, s.Enabled, s.DisabledReason,
        caller.May(Scopes.SubscriptionsWrite) ? s.Headers : s.Headers.ToDictionary(h => h.Key, _ => Masked),
        s.Retry, s.ExpiresAt, s.CreatedAt, s.UpdatedAt);
}

/// <summary>A subscription with its signing secret, which is shown when it is made and never again.</summary>
internal sealed record SubscriptionWithSecret : SubscriptionView
{
    public SubscriptionWithSecret(SubscriptionView s, string secret) : base(s) => Secret = secret;

    [JsonPropertyOrder(1)]
    public string Secret { get; }
}

/// <summary>A new signing secret; the one before signs beside it until then. Null: no other signs.</summary>
internal sealed record RotatedSecret(string Secret, DateTimeOffset? PreviousExpiresAt);
