using Triggers.Core.Subscriptions;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Delivery.Subscriptions;

/// <summary>
/// What a lane may begin of what its subscription's limits leave to all processes. It is asked for before anything is claimed, so what
/// exceeds a limit stays in Postgres. Guarded by the lock of <see cref="Lanes"/>.
/// </summary>
internal sealed class Permits
{
    /// <summary>
    /// How long a permit of a rate is good for. It was counted when it was given: used much later it would come on top of the next ones.
    /// </summary>
    private static readonly TimeSpan s_good = TimeSpan.FromSeconds(1);

    /// <summary>How long what is not used is kept for what may come.</summary>
    private static readonly TimeSpan s_keep = TimeSpan.FromMilliseconds(100);

    private static readonly TimeSpan s_renew = SharedPermits.Lapse / 4;

    /// <summary>While others have all places: how soon it is asked again, and, twice as long each time, how late at most.</summary>
    private static readonly TimeSpan s_firstPause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(1);

    private int _left;
    private long _leftUntil;
    private string _counted = "";
    private TimeSpan _pause = s_firstPause;
    private long _askAt;
    private long _renewAt = long.MaxValue;
    private long _settleAt = long.MaxValue;

    /// <summary>As the subscription has them. With others it is asked anew.</summary>
    public required SubscriptionLimits Limits
    {
        get;
        set
        {
            if (field != value)
                _askAt = 0;
            field = value;
        }
    }

    /// <summary>Places that this process has, of those at once.</summary>
    public int Held { get; private set; }

    /// <summary>How many requests wait for a permit.</summary>
    public int Wanted { get; private set; }

    /// <summary>Whether it is being asked, or claimed by what there is.</summary>
    public bool IsBusy { get; set; }

    /// <summary>Whether nothing of it is anywhere.</summary>
    public bool IsIdle => Held == 0 && Wanted == 0 && _left == 0 && !IsBusy;

    /// <summary>How many requests may begin.</summary>
    /// <param name="busy">How many are under way.</param>
    /// <param name="now">A timestamp.</param>
    public int Available(int busy, long now) => Math.Max(0, Math.Min(
        Limits.Requests is null ? int.MaxValue : _leftUntil > now ? _left : 0, Limits.Concurrency is null ? int.MaxValue : Held - busy));

    /// <summary>Requests begin.</summary>
    public void Take(int requests) => _left -= Limits.Requests is null ? 0 : requests;

    /// <summary>A claim for which permits were taken has ended.</summary>
    /// <param name="unfilled">How many have not begun after all.</param>
    /// <param name="hasMore">Whether more would.</param>
    public void Claimed(int unfilled, bool hasMore)
    {
        // Others, of limits that are there only now, were taken by nobody.
        if (!IsBusy)
            return;
        IsBusy = false;
        Take(-unfilled);
        if (!hasMore)
            Wanted = 0;
    }

    /// <summary>So many would like to begin.</summary>
    /// <returns>Whether that is news.</returns>
    public bool Want(int requests)
    {
        var isNews = Wanted == 0 && requests > 0;
        Wanted = Math.Max(Wanted, requests);
        return isNews;
    }

    /// <summary>Something ended: what is not used soon is given back.</summary>
    /// <returns>Whether that is news.</returns>
    public bool SettleSoon(long now, TimeProvider time)
    {
        if (_settleAt != long.MaxValue)
            return false;
        _settleAt = Later(now, s_keep, time);
        return true;
    }

    /// <summary>When something is to be asked or told next; <see cref="long.MaxValue"/> for never.</summary>
    public long NextAt => IsBusy ? long.MaxValue : Math.Min(Wanted > 0 ? _askAt : long.MaxValue, Math.Min(_renewAt, _settleAt));

    /// <summary>What is to be asked or told now; null: nothing.</summary>
    /// <param name="lane">Whose it is.</param>
    /// <param name="isWaited">Whether what it has is about to be used.</param>
    /// <param name="now">A timestamp.</param>
    /// <param name="time">The clock.</param>
    public PermitRequest? Ask(Lane lane, bool isWaited, long now, TimeProvider time)
    {
        var asks = Wanted > 0 && _askAt <= now;
        if (_settleAt <= now)
        {
            var isUsed = _left == 0 && (Limits.Concurrency is null || Held <= lane.Busy);
            _settleAt = isWaited ? Later(now, s_keep, time) : long.MaxValue;
            if ((isUsed || isWaited) && !asks && _renewAt > now)
                return null;
        }
        var wanted = asks ? Wanted : isWaited ? Available(lane.Busy, now) : 0;
        var request = new PermitRequest(lane.SubscriptionId, Limits, Limits.Concurrency is null ? 0 : lane.Busy, wanted)
        {
            GivenBack = _left,
            Counted = _counted,
        };
        _left = 0;
        // What ends while it is asked may be followed by as much.
        Held = request.Held;
        IsBusy = true;
        return request;
    }

    /// <summary>It was answered.</summary>
    /// <returns>Whether something begins to wait for a limit.</returns>
    public bool Answer(PermitRequest request, Permitted answer, long now, TimeProvider time)
    {
        IsBusy = false;
        if (Limits.Concurrency is not null)
            Held += answer.Permits;
        _renewAt = Held > 0 ? Later(now, s_renew, time) : long.MaxValue;
        if (Limits.Requests is not null)
            (_left, _leftUntil, _counted) = (answer.Permits, Later(now, s_good, time), answer.Counted);
        if (request.Wanted == 0)
            return false;
        if (answer.Permits > 0)
        {
            (Wanted, _askAt, _pause) = (0, 0, s_firstPause);
            SettleSoon(now, time);
            return false;
        }
        var begins = _askAt == 0;
        _askAt = Later(now, answer.Wait > TimeSpan.Zero ? answer.Wait : _pause, time);
        _pause = _pause * 2 < s_longestPause ? _pause * 2 : s_longestPause;
        return begins;
    }

    private static long Later(long now, TimeSpan delay, TimeProvider time) => now + (long)(delay.TotalSeconds * time.TimestampFrequency);
}
