namespace Triggers.Core.Tables;

/// <summary>Events of a range of time on their way to one subscription, in portions.</summary>
public sealed class ReplayJob
{
    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>UUIDv7, shown as <c>rpl_…</c>.</summary>
    public required Guid Id { get; init; }

    /// <summary>To whom.</summary>
    public required Guid SubscriptionId { get; init; }

    /// <summary>Where it stands.</summary>
    public ReplayJobStatus Status { get; init; }

    /// <summary>Why it failed: <c>subscription_gone</c>.</summary>
    public string? Reason { get; init; }

    /// <summary>Events accepted from then on.</summary>
    public DateTimeOffset StartsAt { get; init; }

    /// <summary>Events accepted before then.</summary>
    public DateTimeOffset EndsAt { get; init; }

    /// <summary>Patterns of types; null for those that the subscription wants at the time.</summary>
    public string[]? EventTypes { get; init; }

    /// <summary>Which of the events.</summary>
    public ReplayInclude Include { get; init; }

    /// <summary>Every event below this id has been dealt with.</summary>
    public Guid NextEvent { get; init; }

    /// <summary>No event from this id on belongs to it.</summary>
    public Guid EndEvent { get; init; }

    /// <summary>Events dealt with whose type matched.</summary>
    public long Matched { get; init; }

    /// <summary>Deliveries made.</summary>
    public long Deliveries { get; init; }

    /// <summary>When it goes on, by the database's clock.</summary>
    public DateTimeOffset NextStepAt { get; init; }

    /// <summary>By the database's clock.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>When it ended, by the database's clock.</summary>
    public DateTimeOffset? FinishedAt { get; init; }
}

/// <summary>Where a replay job stands.</summary>
public enum ReplayJobStatus
{
    /// <summary>There are events ahead of it.</summary>
    Running,

    /// <summary>Final: every event has been dealt with. Their deliveries may be pending still.</summary>
    Completed,

    /// <summary>Final: it could not go on, since the subscription was deleted.</summary>
    Failed,

    /// <summary>Final: somebody ended it. What it had made is delivered.</summary>
    Cancelled,
}

/// <summary>Which events of its range a replay job delivers.</summary>
public enum ReplayInclude
{
    /// <summary>Those the subscription has not got: never sent there, or failed.</summary>
    Undelivered,

    /// <summary>Every one, again.</summary>
    All,
}
