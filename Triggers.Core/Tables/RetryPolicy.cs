namespace Triggers.Core.Tables;

/// <summary>What a subscription says about its retries; what it does not say is as in the settings <c>Delivery:Retry:*</c>.</summary>
public sealed record RetryPolicy
{
    /// <summary>How long an attempt may take where neither subscription nor settings say.</summary>
    public static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(15);

    /// <summary>The delays after each failed attempt; instead of a number of attempts, and delays that grow.</summary>
    public IReadOnlyList<TimeSpan>? Schedule { get; init; }

    /// <summary>Attempts in all, the first included.</summary>
    public int? MaxAttempts { get; init; }

    /// <summary>The delay after the first failed attempt.</summary>
    public TimeSpan? BaseDelay { get; init; }

    /// <summary>What each delay is multiplied by to get the next.</summary>
    public double? Factor { get; init; }

    /// <summary>The longest of these delays.</summary>
    public TimeSpan? MaxDelay { get; init; }

    /// <summary>How far a delay may be off, as a share of it.</summary>
    public double? Jitter { get; init; }

    /// <summary>How old a delivery may be when it is tried again.</summary>
    public TimeSpan? MaxAge { get; init; }

    /// <summary>Statuses after which it is tried again, as in <c>503</c> and <c>5xx</c>; any other is final at once.</summary>
    public IReadOnlyList<string>? Statuses { get; init; }

    /// <summary>The longest wait that a <c>Retry-After</c> can ask for.</summary>
    public TimeSpan? MaxRetryAfter { get; init; }

    /// <summary>How long an attempt may take, from its first step to the last byte that is read.</summary>
    public TimeSpan? Timeout { get; init; }
}
