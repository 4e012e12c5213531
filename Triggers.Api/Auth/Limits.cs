using System.ComponentModel.DataAnnotations;

namespace Triggers.Api.Auth;

/// <summary>
/// Settings <c>RateLimiting:*</c>: what a tenant may use that has no usage plan, and what each key of the platform's admin may.
/// </summary>
internal sealed class RateLimitingOptions
{
    /// <summary>Sustained requests a second.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:RequestsPerSecond must be between 1 and 1000000.")]
    public int RequestsPerSecond { get; set; } = 1_000;

    /// <summary>How many requests may come at once.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:Burst must be between 1 and 1000000.")]
    public int Burst { get; set; } = 2_000;

    /// <summary>Sustained events a second; 0 for any number.</summary>
    [Range(0, 1_000_000, ErrorMessage = "RateLimiting:EventsPerSecond must be between 0 and 1000000.")]
    public int EventsPerSecond { get; set; } = 10_000;

    /// <summary>Sustained bytes of events a second; 0 for any number.</summary>
    [Range(0, 2_000_000_000, ErrorMessage = "RateLimiting:BytesPerSecond must be between 0 and 2000000000.")]
    public int BytesPerSecond { get; set; } = 32 * 1024 * 1024;
}

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
/// <param name="AccountId">What counts together: the tenant; of a key of the platform's admin the key, so that no plan locks it
/// out.</param>
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
        Guid tenantId, IReadOnlySet<string> scopes, Guid limitId, int? perSecond,
        int? burst, PlanLimits? plan, RateLimitingOptions defaults)
    {
        if (scopes.Contains(Scopes.Admin))
            (tenantId, plan) = (limitId, null);
        plan ??= new PlanLimits(
            defaults.RequestsPerSecond, Math.Max(defaults.Burst, defaults.RequestsPerSecond),
            defaults.EventsPerSecond, defaults.BytesPerSecond, null);
        var rate = perSecond ?? plan.RequestsPerSecond;
        return new Limits(
            tenantId, new Rate(plan.RequestsPerSecond, plan.Burst),
            Rate.OfSecond(plan.EventsPerSecond), Rate.OfSecond(plan.BytesPerSecond),
            plan.EventsPerDay, limitId, (perSecond ?? burst) is null ? null : new Rate(rate, burst ?? Rate.BurstOf(rate)!.Value));
    }
}
