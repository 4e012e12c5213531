using Triggers.Core.Tables;

namespace Triggers.Core.Retries;

/// <summary>What happens to a delivery now. Made by name only, so that its fields always fit together.</summary>
public sealed record Transition
{
    private Transition(DeliveryStatus status) => Status = status;

    /// <summary>The state it goes to; pending stays pending, at another time.</summary>
    public DeliveryStatus Status { get; }

    /// <summary>For pending: how long from now it is due again.</summary>
    public TimeSpan Delay { get; private init; }

    /// <summary>Why it failed for good; null when it did not.</summary>
    public string? Reason { get; private init; }

    /// <summary>Whether the rest of its key is held from now on.</summary>
    public bool HoldsKey { get; private init; }

    /// <summary>Whether the attempt counts as a failed one. Interruptions of ours do not.</summary>
    public bool CountsAsFailure { get; private init; }

    /// <summary>Whether the receiver said that it is gone for good, so that its subscription is disabled.</summary>
    public bool SubscriptionIsGone { get; private init; }

    /// <summary>The receiver has it.</summary>
    public static Transition Succeeded() => new(DeliveryStatus.Succeeded);

    /// <summary>It failed, and is tried again.</summary>
    public static Transition RetryAfter(TimeSpan delay) => new(DeliveryStatus.Pending) { Delay = delay, CountsAsFailure = true };

    /// <summary>It failed for good.</summary>
    public static Transition DeadLettered(string reason) => new(DeliveryStatus.DeadLettered) { Reason = reason, CountsAsFailure = true };

    /// <summary>It failed for good, and nothing of its key is sent until somebody says so; it stays the first of them.</summary>
    public static Transition Blocked(string reason) =>
        new(DeliveryStatus.Pending) { Reason = reason, CountsAsFailure = true, HoldsKey = true };

    /// <summary>It failed for good, and nothing of its key is sent until somebody says so; itself it is a dead letter.</summary>
    public static Transition Parked(string reason) =>
        new(DeliveryStatus.DeadLettered) { Reason = reason, CountsAsFailure = true, HoldsKey = true };

    /// <summary>Nobody is there to get it any more, or it was a test that failed.</summary>
    public static Transition Cancelled() => new(DeliveryStatus.Cancelled);

    /// <summary>Its event expires before it could be tried again.</summary>
    /// <param name="failed">Whether an attempt was made, which failed.</param>
    public static Transition Expired(bool failed) => new(DeliveryStatus.Expired) { CountsAsFailure = failed };

    /// <summary>The receiver answered 410.</summary>
    public static Transition Gone() => new(DeliveryStatus.Cancelled) { CountsAsFailure = true, SubscriptionIsGone = true };

    /// <summary>It was claimed, and nothing came of it through no fault of the receiver: due again at once, nothing counted.</summary>
    public static Transition Released() => new(DeliveryStatus.Pending);
}
