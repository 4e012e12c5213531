using Triggers.Delivery.Completion;

namespace Triggers.Delivery.Attempts;

/// <summary>A delivery this process has claimed.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Id">The delivery.</param>
/// <param name="EventId">What it delivers.</param>
/// <param name="SubscriptionId">Its lane.</param>
/// <param name="Claim">The claim it is held under.</param>
/// <param name="RetryCount">Attempts that failed before.</param>
/// <param name="ReplayOf">The delivery it repeats.</param>
/// <param name="Test">One attempt, no dead letter.</param>
/// <param name="ClaimedAt">Timestamp of the TimeProvider, taken before the claim was made.</param>
/// <param name="DataBytes">Length of the event's data.</param>
internal sealed record DueDelivery(
    Guid TenantId, Guid Id, Guid EventId, Guid SubscriptionId, int Claim,
    int RetryCount, Guid? ReplayOf, bool Test, long ClaimedAt, int DataBytes)
{
    /// <summary>Whether somebody asked for it, of a delivery that was made or of none.</summary>
    public bool IsReplay { get; init; }

    /// <summary>Its key, where it is delivered in order.</summary>
    public string? OrderKey { get; init; }

    /// <summary>Whether another of its key is before it in its batch.</summary>
    public bool IsBehind { get; init; }

    /// <summary>Where its result goes while it is not written yet; null when it is.</summary>
    public FirstAttempts? First { get; init; }

    /// <summary>W3C trace context of the attempt that failed last, when that was traced.</summary>
    public string? LastTraceParent { get; init; }
}
