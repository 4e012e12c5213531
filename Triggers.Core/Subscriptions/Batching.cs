namespace Triggers.Core.Subscriptions;

/// <summary>How a subscription gets several events in one request.</summary>
/// <param name="Max">The most events of a request.</param>
/// <param name="Wait">How long an event waits for others at most.</param>
public sealed record Batching(int Max, TimeSpan Wait)
{
    /// <summary>The most events that a request may have.</summary>
    public const int MaxEvents = 1_000;

    /// <summary>The longest that an event may wait for others.</summary>
    public const double MaxWaitSeconds = 30;

    /// <summary>That of a subscription; null where it gets each event alone.</summary>
    public static Batching? Of(int? max, TimeSpan? wait) => max is { } most ? new(most, wait ?? TimeSpan.Zero) : null;
}
