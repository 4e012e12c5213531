using System.ComponentModel.DataAnnotations;
using Triggers.Core.Tables;

namespace Triggers.Core.Retries;

/// <summary>
/// Settings <c>Delivery:Retry:*</c>. The defaults make 8 attempts over about 23 hours: 10 s, 50 s, 4 min, 21 min, 1.7 h, 8.7 h, 12 h.
/// </summary>
public sealed class RetryOptions
{
    /// <summary>Attempts in all, the first included, for failures that may pass.</summary>
    [Range(1, 50, ErrorMessage = "Delivery:Retry:MaxAttempts must be between 1 and 50.")]
    public int MaxAttempts { get; set; } = 8;

    /// <summary>Attempts in all when the receiver rejects the request: 3xx, and 4xx that does not ask to come again.</summary>
    [Range(1, 50, ErrorMessage = "Delivery:Retry:MaxRejectedAttempts must be between 1 and 50.")]
    public int MaxRejectedAttempts { get; set; } = 3;

    /// <summary>The delay after the first failed attempt.</summary>
    [Range(typeof(TimeSpan), "00:00:00.01", "1.00:00:00",
        ErrorMessage = "Delivery:Retry:BaseDelay must be between 0.01 seconds and 1 day.")]
    public TimeSpan BaseDelay { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>What each delay is multiplied by to get the next.</summary>
    [Range(1.0, 100.0, ErrorMessage = "Delivery:Retry:Factor must be between 1 and 100.")]
    public double Factor { get; set; } = 5;

    /// <summary>The longest delay of the schedule, before jitter.</summary>
    [Range(typeof(TimeSpan), "00:00:00.01", "7.00:00:00",
        ErrorMessage = "Delivery:Retry:MaxDelay must be between 0.01 seconds and 7 days.")]
    public TimeSpan MaxDelay { get; set; } = TimeSpan.FromHours(12);

    /// <summary>How far a delay may be off the schedule, as a share of it, both ways: 0.2 is 80 % to 120 %.</summary>
    [Range(0.0, 1.0, ErrorMessage = "Delivery:Retry:Jitter must be between 0 and 1.")]
    public double Jitter { get; set; } = 0.2;

    /// <summary>The longest wait a receiver's <c>Retry-After</c> can ask for.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "7.00:00:00", ErrorMessage = "Delivery:Retry:MaxRetryAfter must be between 0 and 7 days.")]
    public TimeSpan MaxRetryAfter { get; set; } = TimeSpan.FromHours(1);

    /// <summary>
    /// The delays after each failed attempt, in their order; they take the place of <see cref="MaxAttempts"/>, <see cref="BaseDelay"/>,
    /// <see cref="Factor"/> and <see cref="MaxDelay"/>. Null: those.
    /// </summary>
    internal IReadOnlyList<TimeSpan>? Schedule { get; init; }

    /// <summary>How old a delivery may be when it is tried again; null: of any age.</summary>
    internal TimeSpan? MaxAge { get; init; }

    /// <summary>
    /// The statuses after which it is tried again, as in <c>503</c> and <c>5xx</c>; any other is final at once. Null: those of the table of
    /// <see cref="RetrySchedule"/>.
    /// </summary>
    internal IReadOnlyList<string>? Statuses { get; init; }

    /// <summary>These, but for what a subscription says itself.</summary>
    public RetryOptions With(RetryPolicy policy)
    {
        var most = policy.Schedule?.Count + 1 ?? policy.MaxAttempts;
        return new()
        {
            Schedule = policy.Schedule,
            MaxAttempts = most ?? MaxAttempts,
            // Those that are rejected are among the attempts in all.
            MaxRejectedAttempts = policy.Statuses is not null ? 1 : Math.Min(most ?? MaxRejectedAttempts, MaxRejectedAttempts),
            BaseDelay = policy.BaseDelay ?? BaseDelay,
            Factor = policy.Factor ?? Factor,
            MaxDelay = policy.MaxDelay ?? MaxDelay,
            Jitter = policy.Jitter ?? Jitter,
            MaxAge = policy.MaxAge,
            Statuses = policy.Statuses,
            MaxRetryAfter = policy.MaxRetryAfter ?? MaxRetryAfter,
        };
    }
}
