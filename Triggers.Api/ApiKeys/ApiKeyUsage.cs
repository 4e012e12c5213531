using Triggers.Api.Auth;
using Triggers.Api.RateLimiting;
using Triggers.Api.Tenants;
using Triggers.Core;

namespace Triggers.Api.ApiKeys;

/// <summary>
/// What a key, with the keys that share its limit, has used today. What its tenant has left is in <see cref="TenantUsage"/>.
/// </summary>
internal sealed record ApiKeyUsage
{
    /// <summary>The key.</summary>
    public required string Id { get; init; }

    /// <summary>Sustained requests a second of its own limit; null without one.</summary>
    public required int? RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once; null without a limit of its own.</summary>
    public required int? Burst { get; init; }

    /// <summary>Whose counts the following are; with <c>unavailable</c> they are null.</summary>
    public required UsageSource Source { get; init; }

    /// <summary>Requests that were let through today; a batch is one.</summary>
    public required long? RequestsToday { get; init; }

    /// <summary>Events that were accepted today, or asked to be delivered again.</summary>
    public required long? EventsToday { get; init; }

    /// <summary>When the counts begin anew: midnight UTC.</summary>
    public required DateTimeOffset? ResetsAt { get; init; }

    public static ApiKeyUsage Of(Guid keyId, Limits limits, Standing? standing, bool shared) => new()
    {
        Id = TypeId.Format(TypeId.ApiKey, keyId),
        RequestsPerSecond = limits.KeyRequests?.PerSecond,
        Burst = limits.KeyRequests?.Burst,
        Source = UsageSources.Of(standing, shared),
        RequestsToday = standing?.KeyRequestsToday,
        EventsToday = standing?.KeyEventsToday,
        ResetsAt = standing?.ResetsAt,
    };
}
