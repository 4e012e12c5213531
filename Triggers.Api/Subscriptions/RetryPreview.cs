using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Retries;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>Those settings of the delivery service that say what a subscription gets which says nothing.</summary>
internal sealed class DeliveryDefaults
{
    public TimeSpan AttemptTimeout { get; set; } = RetryPolicy.DefaultTimeout;

    public RetryOptions Retry { get; set; } = new();
}

/// <summary>An attempt that would be made, were all before it to fail.</summary>
/// <param name="Number">1 for the first.</param>
/// <param name="Delay">How long after the one before, without jitter.</param>
/// <param name="Earliest">How long after the first, at least, were attempts to take no time.</param>
/// <param name="Latest">The same, at most.</param>
internal sealed record PreviewedAttempt(int Number, TimeSpan Delay, TimeSpan Earliest, TimeSpan Latest);

/// <summary>What would become of a delivery all of whose attempts fail.</summary>
/// <param name="Timeout">How long each attempt may take.</param>
/// <param name="MaxAge">How old a delivery may be when it is tried again.</param>
/// <param name="MaxRetryAfter">The longest wait that a <c>Retry-After</c> can ask for.</param>
/// <param name="Attempts">In their order.</param>
/// <param name="Then">What the delivery is after the last one: <c>pending</c> where it blocks its key.</param>
/// <param name="Reason">Why it failed for good, as dead letters have it; null where it did not.</param>
/// <param name="FailingHead">What the subscription wants of a key whose first delivery fails for good; null where it has no order.</param>
/// <param name="Key">Whether the rest of the key goes on then, or is held until somebody lets it go; null where there is no order.</param>
internal sealed record RetryPreviewView(
    TimeSpan Timeout, TimeSpan? MaxAge, TimeSpan MaxRetryAfter, IReadOnlyList<PreviewedAttempt> Attempts, DeliveryStatus Then,
    string? Reason, FailingHead? FailingHead, KeyState? Key);

/// <summary>
/// <c>GET /subscriptions/{id}/retry-preview</c>: asks the same function that decides after every attempt, so that it can say nothing else.
/// </summary>
internal static class RetryPreview
{
    public static readonly Parameter Status = Parameter.Number(
        "status", "What the receiver answers each time; 0 stands for no answer.", 0, 599, ifLeftOut: 0);

    private const double Middle = 0.5;
    private const double Most = 1;

    public static async Task<Ok<RetryPreviewView>> GetAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, IOptions<DeliveryDefaults> defaults,
        CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        var query = ListRequest.Of(context);
        var status = query.Number(Status.Name);
        query.EnsureValid();
        var subscription = await SubscriptionsApi.Living(db, caller).FirstOrDefaultAsync(s => s.Id == key, cancellationToken)
            ?? throw ApiException.NotFound("subscription");
        return TypedResults.Ok(Of(subscription, defaults.Value, status));
    }

    private static RetryPreviewView Of(Subscription subscription, DeliveryDefaults defaults, int status)
    {
        var policy = subscription.Retry ?? new RetryPolicy();
        var isOrdered = subscription.Ordering != Ordering.None;
        var options = defaults.Retry.With(policy);
        var outcome = status switch
        {
            0 => AttemptOutcome.Timeout,
            >= 200 and < 300 => AttemptOutcome.Delivered,
            _ => AttemptOutcome.HttpStatus,
        };
        var attempts = new List<PreviewedAttempt>();
        var next = new PreviewedAttempt(1, TimeSpan.Zero, TimeSpan.Zero, TimeSpan.Zero);
        for (var age = TimeSpan.Zero; ; age += next.Delay)
        {
            attempts.Add(next);
            var then = RetrySchedule.After(options, next.Number, outcome, status == 0 ? null : status, null, age, Middle);
            if (isOrdered)
                then = RetrySchedule.OfHead(then, next.Number, subscription.FailingHead, subscription.FailingHeadAttempts);
            if (then.Status != DeliveryStatus.Pending || then.HoldsKey)
            {
                return new RetryPreviewView(
                    policy.Timeout ?? defaults.AttemptTimeout, options.MaxAge, options.MaxRetryAfter, attempts, then.Status, then.Reason,
                    isOrdered ? subscription.FailingHead : null, !isOrdered ? null : then.HoldsKey ? KeyState.Held : KeyState.Flowing);
            }
            next = new PreviewedAttempt(
                next.Number + 1, then.Delay, next.Earliest + RetrySchedule.Delay(options, next.Number, 0),
                next.Latest + RetrySchedule.Delay(options, next.Number, Most));
        }
    }
}
