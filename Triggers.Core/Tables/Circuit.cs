namespace Triggers.Core.Tables;

/// <summary>The circuit breaker of a subscription, while it is not closed: its deliveries are held.</summary>
public sealed class Circuit
{
    /// <summary>Whose it is.</summary>
    public Guid SubscriptionId { get; init; }

    /// <summary>The tenant of that.</summary>
    public Guid TenantId { get; init; }

    /// <summary>Another one with every change.</summary>
    public long Epoch { get; init; }

    /// <summary>Whether a probe is under way.</summary>
    public CircuitState State { get; init; }

    /// <summary>Why it is not closed.</summary>
    public CircuitReason Reason { get; init; }

    /// <summary>When it was opened.</summary>
    public DateTimeOffset Since { get; init; }

    /// <summary>Since when attempts have done nothing but fail; null when it was opened by request.</summary>
    public DateTimeOffset? FailingSince { get; init; }

    /// <summary>Probes that failed since it was opened.</summary>
    public int FailedProbes { get; init; }

    /// <summary>When the next probe may be made; null when it is closed by request only.</summary>
    public DateTimeOffset? NextProbeAt { get; init; }

    /// <summary>How the newest failed attempt ended.</summary>
    public AttemptOutcome? LastOutcome { get; init; }

    /// <summary>The HTTP status of that, when there was an answer.</summary>
    public int? LastStatusCode { get; init; }
}

/// <summary>States of a circuit breaker. Closed is the one that is stored nowhere.</summary>
public enum CircuitState
{
    /// <summary>Deliveries are made.</summary>
    Closed,

    /// <summary>Deliveries are held.</summary>
    Open,

    /// <summary>All but one are held, and that one shows whether the receiver is well again.</summary>
    HalfOpen,
}

/// <summary>Why a circuit breaker is not closed.</summary>
public enum CircuitReason
{
    /// <summary>Too many attempts failed.</summary>
    Failures,

    /// <summary>Somebody asked for it.</summary>
    Requested,
}
