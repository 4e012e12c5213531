using System.ComponentModel.DataAnnotations;
using Triggers.Core.Tables;

namespace Triggers.Delivery.Retries;

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
}

/// <summary>What to do after an attempt: a pure function, and the one place that says what a failure means.</summary>
/// <remarks>
/// | outcome                                                        | then                                                  |
/// | 2xx                                                            | succeeded                                             |
/// | 410                                                            | cancelled, and the subscription is disabled           |
/// | 408, 425, 429, 5xx, no status code at all (< 200, > 599)       | retry, up to MaxAttempts: `exhausted`                 |
/// | timeout, refused or broken connection, DNS, TLS, not HTTP      | the same                                              |
/// | other 3xx, 4xx                                                 | retry, up to MaxRejectedAttempts: `rejected`          |
/// | refused by the guard, request can't be made                    | dead letter at once: `undeliverable`                  |
/// </remarks>
public static class RetrySchedule
{
    /// <summary>The transition that follows attempt number <paramref name="attempt"/>.</summary>
    /// <param name="options">The schedule.</param>
    /// <param name="attempt">1 for the first attempt; interruptions of ours don't count.</param>
    /// <param name="outcome">How it ended.</param>
    /// <param name="statusCode">The HTTP status, when there was an answer.</param>
    /// <param name="retryAfter">What the receiver asked for.</param>
    /// <param name="random">0 (inclusive) to 1 (exclusive): where in the jitter's range the delay falls.</param>
    public static Transition After(
        RetryOptions options, int attempt, AttemptOutcome outcome, int? statusCode, TimeSpan? retryAfter, double random)
    {
        var (maxAttempts, reason) = outcome switch
        {
            AttemptOutcome.Delivered => (0, ""),
            AttemptOutcome.RefusedByGuard or AttemptOutcome.InvalidRequest => (0, DeadLetterReasons.Undeliverable),
            // What is no status code at all counts as 5xx (RFC 9110, 15).
            AttemptOutcome.HttpStatus when statusCode is 408 or 425 or 429 or >= 500 or < 200 =>
                (options.MaxAttempts, DeadLetterReasons.Exhausted),
            AttemptOutcome.HttpStatus => (options.MaxRejectedAttempts, DeadLetterReasons.Rejected),
            _ => (options.MaxAttempts, DeadLetterReasons.Exhausted),
        };
        if (outcome == AttemptOutcome.Delivered)
            return Transition.Succeeded();
        if (statusCode == 410)
            return Transition.Gone();
        if (attempt >= maxAttempts)
            return Transition.DeadLettered(reason);

        var delay = Delay(options, attempt, random);
        if (retryAfter is { } asked)
            delay = Max(delay, Min(asked, options.MaxRetryAfter));
        return Transition.RetryAfter(delay);
    }

    /// <summary>The delay after attempt number <paramref name="attempt"/> failed: exponential, capped, jittered.</summary>
    public static TimeSpan Delay(RetryOptions options, int attempt, double random)
    {
        // In floating point: a large exponent gives infinity, which the cap then cuts.
        var seconds = Math.Min(options.BaseDelay.TotalSeconds * Math.Pow(options.Factor, attempt - 1), options.MaxDelay.TotalSeconds);
        return TimeSpan.FromSeconds(seconds * (1 + options.Jitter * (2 * random - 1)));
    }

    private static TimeSpan Max(TimeSpan a, TimeSpan b) => a > b ? a : b;

    private static TimeSpan Min(TimeSpan a, TimeSpan b) => a < b ? a : b;
}

/// <summary>Why a delivery became a dead letter.</summary>
public static class DeadLetterReasons
{
    /// <summary>Every attempt of the schedule failed.</summary>
    public const string Exhausted = "exhausted";

    /// <summary>The receiver kept answering that it does not want it.</summary>
    public const string Rejected = "rejected";

    /// <summary>No attempt could be made, and none ever can.</summary>
    public const string Undeliverable = "undeliverable";
}
