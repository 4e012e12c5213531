using Triggers.Core.Tables;

namespace Triggers.Core.Retries;

/// <summary>What to do after an attempt: a pure function, and the one place that says what a failure means.</summary>
/// <remarks>
/// | outcome                                                        | then                                                  |
/// | 2xx                                                            | succeeded                                             |
/// | 410                                                            | cancelled, and the subscription is disabled           |
/// | 408, 425, 429, 5xx, no status code at all (< 200, > 599)       | retry, up to MaxAttempts: `exhausted`                 |
/// | timeout, refused or broken connection, DNS, TLS, not HTTP      | the same                                              |
/// | other 3xx, 4xx                                                 | retry, up to MaxRejectedAttempts: `rejected`          |
/// | a status, where a subscription names those that are retried    | retry, up to MaxAttempts, or at once: `rejected`      |
/// | any of these that would be retried beyond MaxAge               | dead letter now: `too_old`                            |
/// | any of these that would be retried when the event has expired  | expired now                                           |
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
    /// <param name="age">How old the delivery is.</param>
    /// <param name="random">0 (inclusive) to 1 (exclusive): where in the jitter's range the delay falls.</param>
    /// <param name="left">How long until its event expires; null: it does not.</param>
    public static Transition After(
        RetryOptions options, int attempt, AttemptOutcome outcome, int? statusCode, TimeSpan? retryAfter, TimeSpan age, double random,
        TimeSpan? left = null)
    {
        var (maxAttempts, reason) = outcome switch
        {
            AttemptOutcome.Delivered => (0, ""),
            AttemptOutcome.RefusedByGuard or AttemptOutcome.InvalidRequest => (0, DeadLetterReasons.Undeliverable),
            AttemptOutcome.HttpStatus when Retries(options.Statuses, statusCode) => (options.MaxAttempts, DeadLetterReasons.Exhausted),
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
        if (delay >= left)
            return Transition.Expired(failed: true);
        return age + delay > options.MaxAge ? Transition.DeadLettered(DeadLetterReasons.TooOld) : Transition.RetryAfter(delay);
    }

    /// <summary>What becomes of a delivery that others of its key wait for.</summary>
    /// <param name="otherwise">What would become of it if none did.</param>
    /// <param name="attempt">The number of the attempt that was made.</param>
    /// <param name="policy">What the subscription wants.</param>
    /// <param name="mostAttempts">After how many failed ones it is given up; null: at the end of its retries.</param>
    public static Transition OfHead(Transition otherwise, int attempt, FailingHead policy, int? mostAttempts)
    {
        var reason = otherwise.Status switch
        {
            DeliveryStatus.DeadLettered => otherwise.Reason,
            DeliveryStatus.Pending when otherwise.CountsAsFailure && attempt >= mostAttempts => DeadLetterReasons.Exhausted,
            _ => null,
        };
        return reason is null ? otherwise : policy switch
        {
            FailingHead.DeadLetterAfter => Transition.DeadLettered(reason),
            FailingHead.ParkKey => Transition.Parked(reason),
            _ => Transition.Blocked(reason),
        };
    }

    /// <summary>
    /// What becomes of a delivery after a failed request with several. None fails for good by the fault of others: where one would, or
    /// where the receiver refuses what is in the request, it is sent again at once, with half as many. Any failure that the events may be
    /// to blame for halves what they go with next. Of a key only the first counts the attempt: the others had no turn yet.
    /// </summary>
    /// <param name="otherwise">What would become of it if it had been alone.</param>
    /// <param name="size">How many there were.</param>
    /// <param name="isBehind">Whether another of its key was before it.</param>
    /// <param name="outcome">How the request ended.</param>
    /// <param name="statusCode">The HTTP status, when there was an answer.</param>
    /// <returns>The transition, and how many it goes with at most from now on; null: as before.</returns>
    public static (Transition Transition, int? Limit) OfBatch(
        Transition otherwise, int size, bool isBehind, AttemptOutcome outcome, int? statusCode)
    {
        if (otherwise.Status is DeliveryStatus.Succeeded or DeliveryStatus.Cancelled)
            return (otherwise, null);
        var isFinal = otherwise.Status is DeliveryStatus.DeadLettered or DeliveryStatus.Expired || otherwise.HoldsKey;
        var isToBlame = outcome switch
        {
            AttemptOutcome.HttpStatus => statusCode is not (429 or 503),
            AttemptOutcome.Timeout or AttemptOutcome.ConnectionFailed or AttemptOutcome.InvalidResponse => true,
            _ => isFinal,
        };
        return (isFinal || isBehind || outcome == AttemptOutcome.HttpStatus && statusCode is 400 or 413 or 422
            ? Transition.Released() : otherwise, isToBlame || isFinal ? (size + 1) / 2 : null);
    }

    /// <summary>The delay after attempt number <paramref name="attempt"/> failed: exponential and capped or listed, and jittered.</summary>
    public static TimeSpan Delay(RetryOptions options, int attempt, double random)
    {
        // In floating point: a large exponent gives infinity, which the cap then cuts.
        var seconds = options.Schedule is { } schedule
            ? schedule[Math.Min(attempt, schedule.Count) - 1].TotalSeconds
            : Math.Min(options.BaseDelay.TotalSeconds * Math.Pow(options.Factor, attempt - 1), options.MaxDelay.TotalSeconds);
        return TimeSpan.FromSeconds(seconds * (1 + options.Jitter * (2 * random - 1)));
    }

    // What is no status code at all counts as 5xx (RFC 9110, 15).
    private static bool Retries(IReadOnlyList<string>? statuses, int? statusCode)
    {
        if (statuses is null)
            return statusCode is 408 or 425 or 429 or >= 500 or < 200;
        var ofClass = statusCode is < 200 or > 599 ? "5xx" : $"{statusCode / 100}xx";
        return statuses.Any(s => s == ofClass || s == statusCode.ToString());
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

    /// <summary>The next attempt would have come after the longest that the subscription wants to be tried for.</summary>
    public const string TooOld = "too_old";

    /// <summary>Others of its key waited for it, and somebody gave it up.</summary>
    public const string Skipped = "skipped";

    /// <summary>No attempt could be made, and none ever can.</summary>
    public const string Undeliverable = "undeliverable";
}
