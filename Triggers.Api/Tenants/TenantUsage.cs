using Triggers.Api.Auth;
using Triggers.Api.RateLimiting;
using Triggers.Core;

namespace Triggers.Api.Tenants;

/// <summary>What the keys of a tenant together have used today, and what they may use.</summary>
internal sealed record TenantUsage
{
    /// <summary>The tenant.</summary>
    public required string Id { get; init; }

    /// <summary>Its usage plan; null when the service's defaults hold.</summary>
    public required string? UsagePlanId { get; init; }

    /// <summary>Sustained requests a second.</summary>
    public required int RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once.</summary>
    public required int Burst { get; init; }

    /// <summary>Sustained events a second; null for any number.</summary>
    public required int? EventsPerSecond { get; init; }

    /// <summary>Sustained bytes of events a second; null for any number.</summary>
    public required int? BytesPerSecond { get; init; }

    /// <summary>Events in a day (UTC); null for any number.</summary>
    public required int? EventsPerDay { get; init; }

    /// <summary>Whose counts the following are; with <c>unavailable</c> they are null.</summary>
    public required UsageSource Source { get; init; }

    /// <summary>Requests that were let through today; a batch is one.</summary>
    public required long? RequestsToday { get; init; }

    /// <summary>Events that were accepted today, or asked to be delivered again.</summary>
    public required long? EventsToday { get; init; }

    /// <summary>Events that are left today; null without a quota.</summary>
    public required long? EventsLeft { get; init; }

    /// <summary>When the counts begin anew: midnight UTC.</summary>
    public required DateTimeOffset? ResetsAt { get; init; }

    public static TenantUsage Of(Guid tenantId, Guid? planId, Limits limits, Standing? standing, bool shared) => new()
    {
        Id = TypeId.Format(TypeId.Tenant, tenantId),
        UsagePlanId = planId is { } id ? TypeId.Format(TypeId.UsagePlan, id) : null,
        RequestsPerSecond = limits.Requests.PerSecond,
        Burst = limits.Requests.Burst,
        EventsPerSecond = limits.Events?.PerSecond,
        BytesPerSecond = limits.Bytes?.PerSecond,
        EventsPerDay = limits.EventsPerDay,
        Source = UsageSources.Of(standing, shared),
        RequestsToday = standing?.RequestsToday,
        EventsToday = standing?.EventsToday,
        EventsLeft = standing is { } s && limits.EventsPerDay is { } quota ? Math.Max(0, quota - s.EventsToday) : null,
        ResetsAt = standing?.ResetsAt,
    };
}

/// <summary>What was counted.</summary>
internal enum UsageSource
{
    /// <summary>Every API process, in Redis.</summary>
    AllProcesses,

    /// <summary>The process that answers, since it started: there is no Redis.</summary>
    ThisProcess,

    /// <summary>Nothing: Redis is away.</summary>
    Unavailable,
}

/// <summary>Where counts come from.</summary>
internal static class UsageSources
{
    public static UsageSource Of(Standing? standing, bool shared) =>
        standing is null ? UsageSource.Unavailable : shared ? UsageSource.AllProcesses : UsageSource.ThisProcess;
}
