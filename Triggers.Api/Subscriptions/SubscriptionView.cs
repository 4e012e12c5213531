using System.Text.Json.Serialization;
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
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt)
{
    public static SubscriptionView Of(Subscription s) => new(
        TypeId.Format(TypeId.Subscription, s.Id), s.Url, s.EventTypes, s.Description, s.Enabled, s.DisabledReason, s.Headers, s.CreatedAt, s.UpdatedAt);
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
