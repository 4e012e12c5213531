namespace Triggers.Api.Requests;

/// <summary>
/// No request waits longer for the database than this, whatever state that is in: the deadline takes the place of
/// <see cref="HttpContext.RequestAborted"/>. The time a client takes to send its body does not count.
/// </summary>
internal sealed class Deadline : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(1.7);

    private readonly CancellationToken _aborted;
    private readonly CancellationTokenSource _source;
    private readonly TimeProvider _time;
    private long _runningSince;
    private TimeSpan _left = Limit;

    private Deadline(HttpContext context)
    {
        _time = context.RequestServices.GetRequiredService<TimeProvider>();
        _aborted = context.RequestAborted;
        _source = CancellationTokenSource.CreateLinkedTokenSource(_aborted);
        Resume();
        context.RequestAborted = _source.Token;
        context.Features.Set(this);
    }

    /// <summary>Whether the time is over.</summary>
    public bool Passed => _source.IsCancellationRequested && !_aborted.IsCancellationRequested;

    /// <summary>Starts the clock of a request.</summary>
    public static Deadline Start(HttpContext context) => new(context);

    /// <summary>The deadline of a request that has begun.</summary>
    public static Deadline Of(HttpContext context) => context.Features.Get<Deadline>()!;

    /// <summary>Stops the clock, while the request waits for something that is not the database.</summary>
    public void Pause()
    {
        _left -= _time.GetElapsedTime(_runningSince);
        _source.CancelAfter(Timeout.InfiniteTimeSpan);
    }

    /// <summary>Lets the clock run on.</summary>
    public void Resume()
    {
        _runningSince = _time.GetTimestamp();
        _source.CancelAfter(_left > TimeSpan.Zero ? _left : TimeSpan.Zero);
    }

    /// <summary>Begins anew, for a request that goes to the database again and again.</summary>
    public void Restart()
    {
        _left = Limit;
        Resume();
    }

    public void Dispose() => _source.Dispose();
}
