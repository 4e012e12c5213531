using Triggers.Api.Auth;

namespace Triggers.Api.RateLimiting;

/// <summary>A token bucket.</summary>
/// <param name="PerSecond">How fast it fills.</param>
/// <param name="Burst">What it holds.</param>
internal readonly record struct Rate(int PerSecond, int Burst)
{
    /// <summary>The most requests or events, in a second or at once.</summary>
    public const int Max = 1_000_000;

    /// <summary>The most bytes in a second, and the highest quota of a day.</summary>
    public const int MaxOfMany = 2_000_000_000;

    /// <summary>The fewest bytes in a second.</summary>
    public const int MinBytes = 1_024;

    /// <summary>One that holds what comes in a second; null without a limit.</summary>
    public static Rate? OfSecond(int? perSecond) => perSecond is > 0 and { } rate ? new Rate(rate, rate) : null;

    /// <summary>How many may come at once where only the rate is said: two seconds' worth.</summary>
    public static int? BurstOf(int? perSecond) => perSecond is { } rate ? (int)Math.Min(int.MaxValue, 2L * rate) : null;

    /// <summary>Seconds that an empty one takes to be full.</summary>
    public int SecondsToFill => SecondsTo(Burst);

    /// <summary>Seconds until so many tokens have come.</summary>
    public int SecondsTo(double tokens) => tokens <= 0 ? 0 : (int)Math.Min(int.MaxValue, Math.Ceiling(tokens / PerSecond - 0.000001));
}

/// <summary>What a usage plan says.</summary>
internal sealed record PlanLimits(int RequestsPerSecond, int Burst, int? EventsPerSecond, int? BytesPerSecond, int? EventsPerDay);

/// <summary>
/// What a key may use. Everything is counted for its tenant, whatever number of keys that has: rotating or making keys begins nothing
/// anew. A key's own limit comes on top, and is shared by the keys that were made from it.
/// </summary>
/// <param name="AccountId">What counts together: the tenant; of a key of the platform's admin the key, so that no plan locks it out.</param>
/// <param name="Requests">Requests of all its keys.</param>
/// <param name="Events">Events it may publish, and ask to be delivered again; null for any number.</param>
/// <param name="Bytes">Bytes of events it may publish; null for any number.</param>
/// <param name="EventsPerDay">Events in a day (UTC); null for any number.</param>
/// <param name="LimitId">The key, or the one it was made from.</param>
/// <param name="KeyRequests">Requests of that; null when it has no limit of its own.</param>
internal sealed record Limits(
    Guid AccountId, Rate Requests, Rate? Events, Rate? Bytes, int? EventsPerDay, Guid LimitId, Rate? KeyRequests)
{
    /// <summary>The limits of a tenant, whatever key asks.</summary>
    public static Limits OfTenant(Guid tenantId, PlanLimits? plan, RateLimitingOptions defaults) =>
        Of(tenantId, new HashSet<string>(), tenantId, null, null, plan, defaults);

    /// <summary>The limits of a key.</summary>
    /// <param name="tenantId">Its tenant.</param>
    /// <param name="scopes">What it may do.</param>
    /// <param name="limitId">The key, or the one it shares its limit with.</param>
    /// <param name="perSecond">Its own; null when it has none.</param>
    /// <param name="burst">Its own; null takes two seconds' worth.</param>
    /// <param name="plan">The tenant's; null takes the settings.</param>
    /// <param name="defaults">The settings.</param>
    public static Limits Of(
        Guid tenantId, IReadOnlySet<string> scopes, Guid limitId, int? perSecond, int? burst, PlanLimits? plan, RateLimitingOptions defaults)
    {
        if (scopes.Contains(Scopes.Admin))
            (tenantId, plan) = (limitId, null);
        plan ??= new PlanLimits(
            defaults.RequestsPerSecond, Math.Max(defaults.Burst, defaults.RequestsPerSecond), defaults.EventsPerSecond, defaults.BytesPerSecond, null);
        var rate = perSecond ?? plan.RequestsPerSecond;
        return new Limits(
            tenantId, new Rate(plan.RequestsPerSecond, plan.Burst), Rate.OfSecond(plan.EventsPerSecond), Rate.OfSecond(plan.BytesPerSecond),
            plan.EventsPerDay, limitId, (perSecond ?? burst) is null ? null : new Rate(rate, burst ?? Rate.BurstOf(rate)!.Value));
    }
}

/// <summary>
/// What is asked of limits, all or nothing. Nothing at all: only to see how they stand. More than a bucket holds is let in when that is
/// full, and leaves a debt, so that a large batch always gets through and the rate holds all the same.
/// </summary>
/// <param name="Requests">Requests.</param>
/// <param name="Events">Events, of their rate and of the day.</param>
/// <param name="Bytes">Bytes of events.</param>
/// <param name="EventsOfDay">Events of the day alone: of work that has a pace of its own.</param>
internal readonly record struct Cost(int Requests, int Events, long Bytes, int EventsOfDay = 0)
{
    /// <summary>All events of the day.</summary>
    public int AllEventsOfDay => Events + EventsOfDay;
}

/// <summary>Whether a request gets through.</summary>
internal enum Verdict
{
    Allowed,

    /// <summary>Too many requests; nothing was taken.</summary>
    Limited,

    /// <summary>The events of the day are used up; only the request was taken.</summary>
    QuotaExceeded,

    /// <summary>Too many events a second; only the request was taken.</summary>
    EventsLimited,

    /// <summary>Too many bytes a second; only the request was taken.</summary>
    BytesLimited,
}

/// <summary>How limits stand after a decision.</summary>
/// <param name="Verdict">What was decided.</param>
/// <param name="WaitSeconds">Until what was refused gets through, rounded up; of a quota nothing.</param>
/// <param name="Day">The day that is counted, in days since 1970-01-01 UTC.</param>
/// <param name="SecondsLeft">Until that day is over.</param>
/// <param name="RequestsLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="EventsLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="BytesLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="KeyRequestsLeft">Whole tokens in the key's own bucket.</param>
/// <param name="EventsToday">Taken from the account's quota.</param>
/// <param name="RequestsToday">Let through for the account.</param>
/// <param name="KeyEventsToday">Those of the key.</param>
/// <param name="KeyRequestsToday">Those of the key.</param>
internal readonly record struct Standing(
    Verdict Verdict, int WaitSeconds, long Day, int SecondsLeft, long RequestsLeft, long EventsLeft, long BytesLeft, long KeyRequestsLeft,
    long EventsToday, long RequestsToday, long KeyEventsToday, long KeyRequestsToday)
{
    /// <summary>When the quota is whole again.</summary>
    public DateTimeOffset ResetsAt => DateTimeOffset.UnixEpoch.AddDays(Day + 1);
}
