using Triggers.Api.RateLimiting;
using Triggers.Core;

namespace Triggers.Api.ApiKeys;

/// <summary>What a key has used today, and what it may use.</summary>
internal sealed record ApiKeyUsage
{
    /// <summary>The key.</summary>
    public required string Id { get; init; }

    /// <summary>Its usage plan.</summary>
    public required string? UsagePlanId { get; init; }

    /// <summary>Sustained requests a second that hold for it.</summary>
    public required int RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once.</summary>
    public required int Burst { get; init; }

    /// <summary>Events it may publish in a day (UTC); null for any number.</summary>
    public required int? EventsPerDay { get; init; }

    /// <summary>Whose counts the following are; with <c>unavailable</c> they are null.</summary>
    public required UsageSource Source { get; init; }

    /// <summary>Requests that were let through today; a batch is one.</summary>
    public required long? RequestsToday { get; init; }

    /// <summary>Events that were accepted today.</summary>
    public required long? EventsToday { get; init; }

    /// <summary>Events it may still publish today; null without a quota.</summary>
    public required long? EventsLeft { get; init; }

    /// <summary>When the counts begin anew: midnight UTC.</summary>
    public required DateTimeOffset? ResetsAt { get; init; }

    public static ApiKeyUsage Of(Guid? planId, Limit limit, Standing? standing, bool shared) => new()
    {
        Id = TypeId.Format(TypeId.ApiKey, limit.KeyId),
        UsagePlanId = planId is { } id ? TypeId.Format(TypeId.UsagePlan, id) : null,
        RequestsPerSecond = limit.PerSecond,
        Burst = limit.Burst,
        EventsPerDay = limit.EventsPerDay,
        Source = standing is null ? UsageSource.Unavailable : shared ? UsageSource.AllProcesses : UsageSource.ThisProcess,
        RequestsToday = standing?.RequestsToday,
        EventsToday = standing?.EventsToday,
        EventsLeft = standing is { } s && limit.EventsPerDay is { } quota ? Math.Max(0, quota - s.EventsToday) : null,
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
