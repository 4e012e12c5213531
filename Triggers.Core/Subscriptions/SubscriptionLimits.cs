namespace Triggers.Core.Subscriptions;

/// <summary>What a receiver is sent at most.</summary>
/// <param name="Requests">The most requests in any <paramref name="Per"/>; null: no limit.</param>
/// <param name="Per">The time they are counted in.</param>
/// <param name="Concurrency">The most requests at once; null: no limit.</param>
public sealed record SubscriptionLimits(int? Requests, TimeSpan Per, int? Concurrency)
{
    /// <summary>The most requests of a rate.</summary>
    public const int MaxRequests = 10_000;

    /// <summary>The longest time of a rate.</summary>
    public const int MaxPerSeconds = 3_600;

    /// <summary>The most at once.</summary>
    public const int MaxConcurrency = 1_000;

    /// <summary>The limits of a subscription; null where it has none.</summary>
    public static SubscriptionLimits? Of(int? requests, int? seconds, int? concurrency) =>
        requests is null && concurrency is null ? null : new(requests, TimeSpan.FromSeconds(seconds ?? 0), concurrency);

    /// <summary>What one of several processes may do by itself: all their shares are the limit. It may be nothing.</summary>
    /// <param name="rank">Which of them, from 0.</param>
    /// <param name="of">How many they are.</param>
    public SubscriptionLimits ShareOf(int rank, int of)
    {
        return this with { Requests = Share(Requests), Concurrency = Share(Concurrency) };

        int? Share(int? limit) => limit / of + (rank < limit % of ? 1 : 0);
    }
}
