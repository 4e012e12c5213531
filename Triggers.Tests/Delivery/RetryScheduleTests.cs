using CsCheck;
using Triggers.Core.Retries;
using Triggers.Core.Tables;

namespace Triggers.Tests.Delivery;

public class RetryScheduleTests
{
    private static readonly RetryOptions Defaults = new();

    private static readonly Gen<RetryOptions> AnyOptions =
        from maxAttempts in Gen.Int[1, 50]
        from maxRejected in Gen.Int[1, 50]
        from baseSeconds in Gen.Double[0.01, 86_400]
        from factor in Gen.Double[1, 100]
        from maxSeconds in Gen.Double[0.01, 604_800]
        from jitter in Gen.Double[0, 1]
        from retryAfter in Gen.Double[0, 604_800]
        select new RetryOptions
        {
            MaxAttempts = maxAttempts,
            MaxRejectedAttempts = maxRejected,
            BaseDelay = TimeSpan.FromSeconds(baseSeconds),
            Factor = factor,
            MaxDelay = TimeSpan.FromSeconds(maxSeconds),
            Jitter = jitter,
            MaxRetryAfter = TimeSpan.FromSeconds(retryAfter),
        };

    private static readonly Gen<AttemptOutcome> AnyFailure = Gen.Enum<AttemptOutcome>().Where(o => o != AttemptOutcome.Delivered);

    [Theory]
    [InlineData(FailingHead.Block, DeliveryStatus.Pending, true)]
    [InlineData(FailingHead.DeadLetterAfter, DeliveryStatus.DeadLettered, false)]
    [InlineData(FailingHead.ParkKey, DeliveryStatus.DeadLettered, true)]
    public void What_heads_a_key_is_given_up_at_the_end_of_its_retries_or_after_as_many_attempts_as_are_asked_for(
        FailingHead policy, DeliveryStatus status, bool holdsKey)
    {
        var again = Transition.RetryAfter(TimeSpan.FromSeconds(1));
        foreach (var (otherwise, attempt, most, reason) in new (Transition, int, int?, string)[]
        {
            (again, 3, 3, DeadLetterReasons.Exhausted), (again, 4, 3, DeadLetterReasons.Exhausted),
            (Transition.DeadLettered(DeadLetterReasons.TooOld), 1, 3, DeadLetterReasons.TooOld),
            (Transition.DeadLettered(DeadLetterReasons.Undeliverable), 1, null, DeadLetterReasons.Undeliverable),
        })
        {
            var then = RetrySchedule.OfHead(otherwise, attempt, policy, most);
            Assert.Equal((status, holdsKey, reason, true), (then.Status, then.HoldsKey, then.Reason, then.CountsAsFailure));
        }
        // What was given back, has got there, or may be tried again, stays as it is.
        foreach (var other in new[] { again, Transition.Released(), Transition.Succeeded(), Transition.Gone(), Transition.Cancelled() })
        {
            Assert.Same(other, RetrySchedule.OfHead(other, 2, policy, 3));
            Assert.Same(other, RetrySchedule.OfHead(other, 2, policy, null));
        }
    }

    [Fact]
    public void Default_schedule_is_eight_attempts_over_about_a_day()
    {
        var delays = Enumerable.Range(1, 8)
            .Select(attempt => RetrySchedule.After(Defaults, attempt, AttemptOutcome.Timeout, null, null, age: default, random: 0.5))
            .ToArray();

        Assert.Equal([10, 50, 250, 1250, 6250, 31250, 43200], delays[..7].Select(t => t.Delay.TotalSeconds));
        Assert.All(delays[..7], t => Assert.Equal(DeliveryStatus.Pending, t.Status));
        Assert.Equal(DeliveryStatus.DeadLettered, delays[7].Status);
        Assert.Equal(DeadLetterReasons.Exhausted, delays[7].Reason);
    }

    [Theory]
    [InlineData(408, 8, "exhausted")]
    [InlineData(425, 8, "exhausted")]
    [InlineData(429, 8, "exhausted")]
    [InlineData(500, 8, "exhausted")]
    [InlineData(503, 8, "exhausted")]
    [InlineData(599, 8, "exhausted")]
    [InlineData(301, 3, "rejected")]
    [InlineData(400, 3, "rejected")]
    [InlineData(404, 3, "rejected")]
    [InlineData(422, 3, "rejected")]
    public void Status_decides_how_many_attempts_there_are(int statusCode, int attempts, string reason)
    {
        for (var attempt = 1; attempt < attempts; attempt++)
            Assert.Equal(DeliveryStatus.Pending, After(attempt).Status);
        Assert.Equal(DeliveryStatus.DeadLettered, After(attempts).Status);
        Assert.Equal(reason, After(attempts).Reason);

        Transition After(int attempt) => RetrySchedule.After(Defaults, attempt, AttemptOutcome.HttpStatus, statusCode, null, default, 0.5);
    }

    [Fact]
    public void Gone_cancels_at_once_and_disables_the_subscription()
    {
        var transition = RetrySchedule.After(Defaults, 1, AttemptOutcome.HttpStatus, 410, TimeSpan.FromSeconds(5), default, 0.5);

        Assert.Equal(DeliveryStatus.Cancelled, transition.Status);
        Assert.True(transition.SubscriptionIsGone);
    }

    [Theory]
    [InlineData(AttemptOutcome.RefusedByGuard)]
    [InlineData(AttemptOutcome.InvalidRequest)]
    public void What_can_never_be_sent_is_a_dead_letter_at_once(AttemptOutcome outcome)
    {
        var transition = RetrySchedule.After(Defaults, 1, outcome, null, null, default, 0.5);

        Assert.Equal(DeliveryStatus.DeadLettered, transition.Status);
        Assert.Equal(DeadLetterReasons.Undeliverable, transition.Reason);
    }

    [Fact]
    public void Retry_after_is_honoured_between_the_schedule_and_its_bound()
    {
        Assert.Equal(TimeSpan.FromSeconds(10), Asked(TimeSpan.FromSeconds(3)));
        Assert.Equal(TimeSpan.FromSeconds(42), Asked(TimeSpan.FromSeconds(42)));
        Assert.Equal(TimeSpan.FromHours(1), Asked(TimeSpan.FromDays(365)));

        static TimeSpan Asked(TimeSpan retryAfter) =>
            RetrySchedule.After(Defaults, 1, AttemptOutcome.HttpStatus, 503, retryAfter, default, 0.5).Delay;
    }

    [Fact]
    public void Delays_stay_within_the_jitter_of_the_schedule_whatever_the_settings() =>
        Gen.Select(AnyOptions, Gen.Int[1, 50], Gen.Double[0, 0.999999]).Sample((options, attempt, random) =>
        {
            var exact = Math.Min(options.BaseDelay.TotalSeconds * Math.Pow(options.Factor, attempt - 1), options.MaxDelay.TotalSeconds);
            var delay = RetrySchedule.Delay(options, attempt, random).TotalSeconds;
            Assert.InRange(delay, exact * (1 - options.Jitter) - 1e-6, exact * (1 + options.Jitter) + 1e-6);
        });

    [Fact]
    public void Delays_without_jitter_never_shrink() =>
        Gen.Select(AnyOptions, Gen.Int[1, 49]).Sample((options, attempt) =>
            Assert.True(
                RetrySchedule.Delay(options, attempt, 0.5) <= RetrySchedule.Delay(options, attempt + 1, 0.5) + TimeSpan.FromTicks(1)));

    [Fact]
    public void Every_failure_ends_in_a_final_state_within_the_attempts_allowed() =>
        Gen.Select(AnyOptions, AnyFailure, Gen.Int[300, 599]).Sample((options, outcome, statusCode) =>
        {
            var most = Math.Max(options.MaxAttempts, options.MaxRejectedAttempts);
            var last = RetrySchedule.After(
                options, most, outcome, outcome == AttemptOutcome.HttpStatus ? statusCode : null, null, default, 0.5);
            Assert.NotEqual(DeliveryStatus.Pending, last.Status);
        });

    [Fact]
    public void A_dead_letter_always_has_a_reason_and_a_retry_never_a_negative_delay() =>
        Gen.Select(AnyOptions, AnyFailure, Gen.Int[1, 60], Gen.Int[300, 599]).Sample((options, outcome, attempt, statusCode) =>
        {
            var transition = RetrySchedule.After(
                options, attempt, outcome, outcome == AttemptOutcome.HttpStatus ? statusCode : null, null, default, 0.1);
            Assert.Equal(transition.Status == DeliveryStatus.DeadLettered, transition.Reason is not null);
            Assert.True(transition.Delay >= TimeSpan.Zero);
            Assert.True(transition.CountsAsFailure);
        });

    [Theory]
    [InlineData(9.9, DeliveryStatus.Expired)]
    [InlineData(10.1, DeliveryStatus.Pending)]
    public void What_expires_before_it_would_be_tried_again_ends_now(double seconds, DeliveryStatus status)
    {
        var transition = RetrySchedule.After(
            Defaults, 1, AttemptOutcome.Timeout, null, null, default, random: 0.5, left: TimeSpan.FromSeconds(seconds));

        Assert.Equal((status, true), (transition.Status, transition.CountsAsFailure));
    }

    [Theory]
    [InlineData(503, 3, "exhausted")]
    [InlineData(418, 3, "exhausted")]
    [InlineData(500, 1, "rejected")]
    [InlineData(404, 1, "rejected")]
    public void Statuses_that_are_named_are_the_only_ones(int statusCode, int attempts, string reason)
    {
        var options = Defaults.With(new RetryPolicy { Schedule = [TimeSpan.Zero, TimeSpan.FromDays(1)], Statuses = ["503", "418"] });
        Transition After(int attempt) =>
            RetrySchedule.After(options, attempt, AttemptOutcome.HttpStatus, statusCode, null, default, random: 0.5);

        for (var attempt = 1; attempt < attempts; attempt++)
            Assert.Equal(DeliveryStatus.Pending, After(attempt).Status);
        Assert.Equal(reason, After(attempts).Reason);
    }

    [Theory]
    [InlineData(1, null, 1)]
    [InlineData(2, null, 2)]
    [InlineData(20, null, 3)]
    [InlineData(null, 1, 2)]
    [InlineData(null, 5, 3)]
    public void What_is_rejected_is_tried_no_more_often_than_a_policy_says(int? maxAttempts, int? delays, int attempts)
    {
        var options = Defaults.With(new RetryPolicy
        {
            MaxAttempts = maxAttempts,
            Schedule = delays is { } count ? [.. Enumerable.Repeat(TimeSpan.FromSeconds(1), count)] : null,
        });
        Transition After(int attempt) => RetrySchedule.After(options, attempt, AttemptOutcome.HttpStatus, 404, null, default, random: 0.5);

        for (var attempt = 1; attempt < attempts; attempt++)
            Assert.Equal(DeliveryStatus.Pending, After(attempt).Status);
        Assert.Equal(DeadLetterReasons.Rejected, After(attempts).Reason);
    }

    [Theory]
    [InlineData("5xx", 599, true)]
    [InlineData("5xx", 999, true)]
    [InlineData("5xx", 100, true)]
    [InlineData("5xx", 499, false)]
    [InlineData("4xx", 404, true)]
    [InlineData("4xx", 503, false)]
    public void AClass_of_statuses_is_all_of_them_and_what_is_none_is_a_5xx(string status, int statusCode, bool again)
    {
        var options = Defaults.With(new RetryPolicy { Statuses = [status] });

        Assert.Equal(again, RetrySchedule.After(
            options, 1, AttemptOutcome.HttpStatus, statusCode, null, default, 0.5).Status == DeliveryStatus.Pending);
    }

    [Fact]
    public void No_attempt_follows_that_would_be_too_late_whatever_the_policy() =>
        Gen.Select(AnyOptions, Gen.Double[0, 1_000_000], Gen.Double[0, 1_000_000], Gen.Int[1, 10], Gen.Double[0, 0.999999]).Sample(
            (options, age, maxAge, attempt, random) =>
            {
                var bounded = options.With(new RetryPolicy { MaxAge = TimeSpan.FromSeconds(maxAge), MaxAttempts = 50 });
                var then = RetrySchedule.After(
                    bounded, attempt, AttemptOutcome.Timeout, null, null, TimeSpan.FromSeconds(age), random);
                Assert.Equal(then.Status != DeliveryStatus.Pending, then.Reason == DeadLetterReasons.TooOld);
                if (then.Status == DeliveryStatus.Pending)
                    Assert.True(TimeSpan.FromSeconds(age) + then.Delay <= TimeSpan.FromSeconds(maxAge));
            });

    [Fact]
    public void A_policy_that_says_nothing_changes_nothing() =>
        Gen.Select(AnyOptions, AnyFailure, Gen.Int[1, 60], Gen.Int[300, 599]).Sample((options, outcome, attempt, statusCode) =>
            Assert.Equal(
                RetrySchedule.After(options, attempt, outcome, statusCode, null, default, 0.3),
                RetrySchedule.After(options.With(new RetryPolicy()), attempt, outcome, statusCode, null, default, 0.3)));

    /// <summary>So halving ends, and what is sent at once is never sent again as it was.</summary>
    [Fact]
    public void Nothing_fails_for_good_with_others_and_what_goes_again_at_once_goes_with_half_as_many() =>
        Gen.Select(AnyOptions, AnyFailure, Gen.Int[1, 60], Gen.Int[300, 599], Gen.Int[2, 1_000]).Sample(
            (options, outcome, attempt, statusCode, size) =>
            {
                var alone = RetrySchedule.After(options, attempt, outcome, statusCode, null, default, 0.5);
                var (then, limit) = RetrySchedule.OfBatch(alone, size, isBehind: false, outcome, statusCode);

                Assert.NotEqual(DeliveryStatus.DeadLettered, then.Status);
                Assert.True(limit is null || limit < size);
                if (then.Status == DeliveryStatus.Pending && !then.CountsAsFailure)
                    Assert.Equal((size + 1) / 2, limit);
                if (outcome == AttemptOutcome.HttpStatus && statusCode is 429 or 503 && alone.Status == DeliveryStatus.Pending)
                    Assert.Null(limit);
            });
}
