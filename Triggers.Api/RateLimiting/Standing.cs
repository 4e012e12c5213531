namespace Triggers.Api.RateLimiting;

/// <summary>
/// What is asked of limits, all or nothing. Nothing at all: only to see how they stand. More than a bucket holds is let in when that is
/// full, and leaves a debt, so that a large batch always gets through and the rate holds all the same.
/// </summary>
/// <param name="Requests">Requests.</param>
/// <param name="Events">Events, of their rate and of the day.</param>
/// <param name="Bytes">Bytes of events.</param>
/// <param name="EventsOfDay">Events of the day alone: of work that has a pace of its own.</param>
internal readonly record struct Cost(int Requests, int Events, long Bytes, int EventsOfDay = 0)
{
    /// <summary>All events of the day.</summary>
    public int AllEventsOfDay => Events + EventsOfDay;

    public static Cost operator +(Cost a, Cost b) =>
        new(a.Requests + b.Requests, a.Events + b.Events, a.Bytes + b.Bytes, a.EventsOfDay + b.EventsOfDay);

    public static Cost operator -(Cost a, Cost b) =>
        new(a.Requests - b.Requests, a.Events - b.Events, a.Bytes - b.Bytes, a.EventsOfDay - b.EventsOfDay);
}

/// <summary>Whether a request gets through.</summary>
internal enum Verdict
{
    Allowed,

    /// <summary>Too many requests; nothing was taken.</summary>
    Limited,

    /// <summary>The events of the day are used up; only the request was taken.</summary>
    QuotaExceeded,

    /// <summary>Too many events a second; only the request was taken.</summary>
    EventsLimited,

    /// <summary>Too many bytes a second; only the request was taken.</summary>
    BytesLimited,
}

/// <summary>How limits stand after a decision.</summary>
/// <param name="Verdict">What was decided.</param>
/// <param name="WaitSeconds">Until what was refused gets through, rounded up; of a quota nothing.</param>
/// <param name="Day">The day that is counted, in days since 1970-01-01 UTC.</param>
/// <param name="SecondsLeft">Until that day is over.</param>
/// <param name="RequestsLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="EventsLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="BytesLeft">Whole tokens in the bucket; of a debt 0.</param>
/// <param name="KeyRequestsLeft">Whole tokens in the key's own bucket.</param>
/// <param name="EventsToday">Taken from the account's quota.</param>
/// <param name="RequestsToday">Let through for the account.</param>
/// <param name="KeyEventsToday">Those of the key.</param>
/// <param name="KeyRequestsToday">Those of the key.</param>
internal readonly record struct Standing(
    Verdict Verdict, int WaitSeconds, long Day, int SecondsLeft, long RequestsLeft, long EventsLeft, long BytesLeft, long KeyRequestsLeft,
    long EventsToday, long RequestsToday, long KeyEventsToday, long KeyRequestsToday)
{
    /// <summary>When the quota is whole again.</summary>
    public DateTimeOffset ResetsAt => DateTimeOffset.UnixEpoch.AddDays(Day + 1);
}
