using Triggers.Core;

namespace Triggers.Api.Http;

/// <summary>
/// No request waits longer than <see cref="RequestBudget.Request"/> for its answer, whatever state the database is in: until the answer is
/// known the deadline takes the place of <see cref="HttpContext.RequestAborted"/>. The time a client takes to send its body, or to read
/// the answer, does not count: an answer that has begun is never cut by it.
/// </summary>
/// <remarks>
/// Who is cancelled needs not end: Npgsql tells the server first, for seconds if that hangs. So a moment after the time is over the answer
/// is given from here, and what the handler comes to, on the connection that is closed then, is dropped.
/// </remarks>
internal sealed class Deadline : IDisposable
{
    private const int ByRequest = 1;
    private const int ByDeadline = 2;

    private readonly HttpContext _context;
    private readonly CancellationToken _aborted;
    private readonly CancellationTokenSource _source;
    private readonly TimeProvider _time;
    private ITimer? _late;
    private TimeSpan _leftAtPause;
    private int _answeredBy;
    private readonly TaskCompletionSource _lateAnswer = new();

    private Deadline(HttpContext context)
    {
        _context = context;
        _time = context.RequestServices.GetRequiredService<TimeProvider>();
        _aborted = context.RequestAborted;
        _source = CancellationTokenSource.CreateLinkedTokenSource(_aborted);
        Limit = Begin(RequestBudget.Request);
        context.RequestAborted = _source.Token;
        context.Features.Set(this);
    }

    /// <summary>What is left, to be handed to whoever waits. While the clock is stopped it is that of the moment before.</summary>
    public TimeLimit Limit { get; private set; }

    /// <summary>Whether the time is over.</summary>
    public bool Passed => _source.IsCancellationRequested && !_aborted.IsCancellationRequested;

    /// <summary>Whether the client is gone.</summary>
    public bool ClientIsGone => _aborted.IsCancellationRequested;

    /// <summary>Bounds a request.</summary>
    public static async Task BoundAsync(HttpContext context, RequestDelegate next)
    {
        using var deadline = Start(context);
        try
        {
            await next(context);
        }
        catch (Exception) when (!deadline.MayAnswer())
        {
            // The answer is given.
        }
        if (!deadline.MayAnswer())
            await deadline._lateAnswer.Task;
    }

    /// <summary>Starts the clock of a request.</summary>
    public static Deadline Start(HttpContext context) => new(context);

    /// <summary>The deadline of a request that has begun.</summary>
    public static Deadline Of(HttpContext context) => context.Features.Get<Deadline>()!;

    /// <summary>Handlers take it as a parameter.</summary>
    public static ValueTask<Deadline> BindAsync(HttpContext context) => ValueTask.FromResult(Of(context));

    /// <summary>Stops the clock, while the request waits for something that is not the database.</summary>
    public void Pause()
    {
        _leftAtPause = Limit.Left;
        Stop();
    }

    /// <summary>Lets the clock run on.</summary>
    public void Resume() => Limit = Begin(_leftAtPause);

    /// <summary>Begins anew, for a request that goes to the database again and again.</summary>
    public void Restart() => Limit = Begin(RequestBudget.Request);

    private TimeLimit Begin(TimeSpan total)
    {
        _source.CancelAfter(total);
        _late?.Change(total + RequestBudget.Answer, Timeout.InfiniteTimeSpan);
        return new TimeLimit(_time, total);
    }

    private void Stop()
    {
        _source.CancelAfter(Timeout.InfiniteTimeSpan);
        _late?.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>The answer is known: from here on only the client's going ends the request.</summary>
    private void End()
    {
        Stop();
        _context.RequestAborted = _aborted;
    }

    /// <summary>To be asked by the request before it answers. False: it was answered from here.</summary>
    public bool MayAnswer() => Interlocked.CompareExchange(ref _answeredBy, ByRequest, 0) != ByDeadline;

    private async Task AnswerLateAsync()
    {
        if (ClientIsGone || Interlocked.CompareExchange(ref _answeredBy, ByDeadline, 0) != 0)
            return;
        try
        {
            await Problems.AnswerLateAsync(_context);
        }
        catch (Exception)
        {
            _context.Abort();
        }
        _lateAnswer.SetResult();
    }

    /// <summary>Ends the deadline between a handler and the writing of its result, for every endpoint of a group.</summary>
    public static async ValueTask<object?> EndBeforeAnswerAsync(EndpointFilterInvocationContext invocation, EndpointFilterDelegate next)
    {
        var deadline = Of(invocation.HttpContext);
        deadline._late = deadline._time.CreateTimer(
            _ => _ = deadline.AnswerLateAsync(), null, deadline.Limit.Left + RequestBudget.Answer, Timeout.InfiniteTimeSpan);
        var result = await next(invocation);
        deadline.End();
        return deadline.MayAnswer() ? result : Results.Empty;
    }

    /// <summary>Gives the request its own token back: whoever comes later asks it whether the client is gone.</summary>
    public void Dispose()
    {
        _context.RequestAborted = _aborted;
        _late?.Dispose();
        _source.Dispose();
    }
}
