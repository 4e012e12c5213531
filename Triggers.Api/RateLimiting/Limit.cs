namespace Triggers.Api.RateLimiting;

/// <summary>What a key may do, wherever it has it from: itself, its usage plan, or the settings.</summary>
/// <param name="KeyId">Whose limit it is.</param>
/// <param name="PerSecond">How fast its bucket fills.</param>
/// <param name="Burst">What its bucket holds.</param>
/// <param name="EventsPerDay">Events it may publish in a day (UTC); null for any number.</param>
internal readonly record struct Limit(Guid KeyId, int PerSecond, int Burst, int? EventsPerDay)
{
    /// <summary>The most requests, in a second or at once.</summary>
    public const int Max = 1_000_000;

    /// <summary>The highest quota.</summary>
    public const int MaxEventsPerDay = 2_000_000_000;
}

/// <summary>What is asked of a limit, all or nothing. Nothing at all: only to see how it stands.</summary>
/// <param name="Tokens">From the bucket.</param>
/// <param name="Needed">What the bucket must hold for the request to get through when it comes again; at least <paramref name="Tokens"/>.</param>
/// <param name="Events">From the quota of the day.</param>
/// <param name="Requests">How many requests this begins, for the statistics.</param>
internal readonly record struct Cost(int Tokens, int Needed, int Events, int Requests)
{
    /// <summary>A request, with the events it is known to publish.</summary>
    public static Cost OfRequest(int events) => new(1, 1, events, 1);

    /// <summary>
    /// The events of a batch, beyond the one token its request has paid. More than the bucket holds is never asked for: a batch of
    /// 1,000 events gets through a bucket of 100 whenever that is full.
    /// </summary>
    public static Cost OfBatch(int events, int publishable, int burst) =>
        new(Math.Min(events, burst) - 1, Math.Min(events, burst), publishable, 0);
}

/// <summary>Whether a request gets through.</summary>
internal enum Verdict
{
    Allowed,
    Limited,
    QuotaExceeded,
}

/// <summary>How a key stands after a decision.</summary>
/// <param name="Verdict">What was decided; what is refused takes nothing.</param>
/// <param name="TokensLeft">Whole tokens in the bucket.</param>
/// <param name="WaitSeconds">Until the bucket holds what was needed, rounded up; 0 when it does.</param>
/// <param name="Day">The day that is counted, in days since 1970-01-01 UTC.</param>
/// <param name="SecondsLeft">Until that day is over.</param>
/// <param name="EventsToday">Taken from the quota.</param>
/// <param name="RequestsToday">Let through.</param>
internal readonly record struct Standing(
    Verdict Verdict, int TokensLeft, int WaitSeconds, long Day, int SecondsLeft, long EventsToday, long RequestsToday)
{
    /// <summary>When the quota is whole again.</summary>
    public DateTimeOffset ResetsAt => DateTimeOffset.UnixEpoch.AddDays(Day + 1);
}
