using System.Diagnostics;
using Triggers.Api.Auth;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// What this process knows of an account in Redis, and what it has let in since. It lets in by itself, as long as that is at most a
/// sixteenth of what Redis said was left of each limit, a moment ago; beyond that, and so near every limit, Redis is asked. Guarded by its
/// own lock.
/// </summary>
/// <remarks>
/// One process never lets in too much. Each further one can add a sixteenth of what was left when it last asked: to buckets as a debt,
/// which time pays, so that their rates hold; to the quota of the day for good.
/// </remarks>
internal sealed class SharedAccount
{
    private const int Share = 16;

    // How old an answer may be.
    private static readonly TimeSpan s_fresh = TimeSpan.FromMilliseconds(250);

    private readonly Dictionary<Guid, Key> _keys = [];
    private Standing _last;
    private Cost _unanswered;

    /// <summary>Whether it waits to be settled.</summary>
    public bool IsToBeSettled { get; set; }

    /// <summary>The day that is counted.</summary>
    public long Day => _last.Day;

    /// <summary>Those of the keys for which Redis has something to hear.</summary>
    public Limits[] Untold() => [.. _keys.Values.Where(key => key.Untold != default).Select(key => key.Limits)];

    /// <summary>Lets something in without asking.</summary>
    /// <returns>How the limits stand then; null: ask.</returns>
    public Standing? TryTake(Limits limits, Cost cost, long now)
    {
        if (!_keys.TryGetValue(limits.LimitId, out var key) || key.Limits != limits || !key.IsAnswered)
            return null;
        var age = Stopwatch.GetElapsedTime(key.At, now);
        if (age > s_fresh || _last.SecondsLeft <= 1 || !IsFar(limits, key, _unanswered + cost))
            return null;
        _unanswered += cost;
        key.Unanswered += cost;
        key.Untold += cost;
        var (all, own) = (_unanswered, key.Unanswered);
        return _last with
        {
            Verdict = Verdict.Allowed,
            WaitSeconds = 0,
            RequestsLeft = Left(limits.Requests, _last.RequestsLeft, all.Requests, age),
            EventsLeft = Left(limits.Events, _last.EventsLeft, all.Events, age),
            BytesLeft = Left(limits.Bytes, _last.BytesLeft, all.Bytes, age),
            KeyRequestsLeft = Left(limits.KeyRequests, key.Last.KeyRequestsLeft, own.Requests, age),
            EventsToday = _last.EventsToday + all.AllEventsOfDay,
            RequestsToday = _last.RequestsToday + all.Requests,
            KeyEventsToday = key.Last.KeyEventsToday + own.AllEventsOfDay,
            KeyRequestsToday = key.Last.KeyRequestsToday + own.Requests,
        };
    }

    /// <summary>Gives back events of a day.</summary>
    public void GiveBack(Limits limits, long day, int events)
    {
        // Of a day that is over only the rate.
        var cost = new Cost(0, -events, 0, day == Day ? 0 : events);
        var key = KeyOf(limits);
        _unanswered += cost;
        key.Unanswered += cost;
        key.Untold += cost;
    }

    /// <summary>Redis is about to be asked for something.</summary>
    /// <returns>What it has to hear before.</returns>
    public Cost Ask(Limits limits, Cost cost)
    {
        var key = KeyOf(limits);
        var untold = key.Untold;
        key.Untold = default;
        key.Unanswered += cost;
        _unanswered += cost;
        return untold;
    }

    /// <summary>Redis has answered, or not.</summary>
    /// <param name="limits">Whose.</param>
    /// <param name="cost">What it was told and asked for.</param>
    /// <param name="standing">The answer.</param>
    /// <param name="now">A timestamp.</param>
    public void Answered(Limits limits, Cost cost, Standing? standing, long now)
    {
        var key = KeyOf(limits);
        _unanswered -= cost;
        key.Unanswered -= cost;
        if (standing is null)
            return;
        (key.Limits, key.At, key.IsAnswered) = (limits, now, true);
        key.Last = _last = standing.Value;
    }

    private bool IsFar(Limits limits, Key key, Cost cost) =>
        IsFar(cost.Requests, _last.RequestsLeft)
        && (limits.KeyRequests is null || IsFar(cost.Requests, key.Last.KeyRequestsLeft))
        && (limits.Events is null || IsFar(cost.Events, _last.EventsLeft))
        && (limits.Bytes is null || IsFar(cost.Bytes, _last.BytesLeft))
        && (limits.EventsPerDay is not { } quota || IsFar(cost.AllEventsOfDay, quota - _last.EventsToday));

    private static bool IsFar(long cost, long left) => cost * Share <= left;

    private static long Left(Rate? rate, long left, long cost, TimeSpan age) =>
        rate is { } r ? Math.Max(0, Math.Min(r.Burst, left + (long)(age.TotalSeconds * r.PerSecond)) - cost) : 0;

    private Key KeyOf(Limits limits) => _keys.TryGetValue(limits.LimitId, out var key) ? key : _keys[limits.LimitId] = new Key(limits);

    private sealed class Key(Limits limits)
    {
        public Limits Limits { get; set; } = limits;

        public bool IsAnswered { get; set; }

        public long At { get; set; }

        public Standing Last { get; set; }

        /// <summary>What no answer has in it.</summary>
        public Cost Unanswered { get; set; }

        /// <summary>What Redis was not sent.</summary>
        public Cost Untold { get; set; }
    }
}
