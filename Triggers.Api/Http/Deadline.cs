using Triggers.Core;

namespace Triggers.Api.Http;

/// <summary>
/// No request waits longer than <see cref="RequestBudget.Request"/> for its answer, whatever state the database is in: until the answer is
/// known the deadline takes the place of <see cref="HttpContext.RequestAborted"/>. The time a client takes to send its body, or to read
/// the answer, does not count: an answer that has begun is never cut by it.
/// </summary>
internal sealed class Deadline : IDisposable
{
    private readonly HttpContext _context;
    private readonly CancellationToken _aborted;
    private readonly CancellationTokenSource _source;
    private readonly TimeProvider _time;
    private TimeSpan _leftAtPause;

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
        await next(context);
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
        _source.CancelAfter(Timeout.InfiniteTimeSpan);
    }

    /// <summary>Lets the clock run on.</summary>
    public void Resume() => Limit = Begin(_leftAtPause);

    /// <summary>Begins anew, for a request that goes to the database again and again.</summary>
    public void Restart() => Limit = Begin(RequestBudget.Request);

    private TimeLimit Begin(TimeSpan total)
    {
        _source.CancelAfter(total);
        return new TimeLimit(_time, total);
    }

    /// <summary>The answer is known: from here on only the client's going ends the request.</summary>
    private void End()
    {
        _source.CancelAfter(Timeout.InfiniteTimeSpan);
        _context.RequestAborted = _aborted;
    }

    /// <summary>Ends the deadline between a handler and the writing of its result, for every endpoint of a group.</summary>
    public static async ValueTask<object?> EndBeforeAnswerAsync(EndpointFilterInvocationContext invocation, EndpointFilterDelegate next)
    {
        var result = await next(invocation);
        Of(invocation.HttpContext).End();
        return result;
    }

    /// <summary>Gives the request its own token back: whoever comes later asks it whether the client is gone.</summary>
    public void Dispose()
    {
        _context.RequestAborted = _aborted;
        _source.Dispose();
    }
}
