using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Triggers.Core;

namespace Triggers.ServiceDefaults;

/// <summary>
/// Work that goes on for as long as the process does. While what it depends on is away it is tried again, after pauses that grow to a
/// second. Any other failure is a mistake of ours: it ends the process, with an exit code other than 0.
/// </summary>
public abstract partial class BackgroundLoop(TimeProvider time, ILogger logger) : BackgroundService
{
    private static readonly TimeSpan s_repeatWarning = TimeSpan.FromMinutes(1);

    private readonly Backoff _backoff = new();
    private readonly long _started = time.GetTimestamp();
    private long _awaySince;
    private long _saidAt;
    private LogLevel _said;
    private bool _worked;
    private bool _ended;

    /// <summary>The clock.</summary>
    protected TimeProvider Time { get; } = time;

    /// <summary>The log.</summary>
    protected ILogger Logger { get; } = logger;

    /// <summary>Waits for what the first round needs.</summary>
    protected virtual Task PrepareAsync(CancellationToken stoppingToken) => Task.CompletedTask;

    /// <summary>
    /// One round. It is called again as soon as it ends, and after a pause when it failed because something is away. A round that goes on
    /// for long says by <see cref="Recovered"/> that it works.
    /// </summary>
    protected abstract Task RunAsync(CancellationToken stoppingToken);

    /// <summary>Whether a failure is to be waited out.</summary>
    protected virtual bool IsAway(Exception e) => Storage.IsAway(e) || e is OperationCanceledException;

    /// <summary>What the work depends on is there: the next failure is a new one.</summary>
    protected void Recovered()
    {
        _worked = true;
        if (_backoff.Failures == 0)
            return;
        Log.Recovered(Logger, Time.GetElapsedTime(_awaySince).TotalSeconds);
        _backoff.Reset();
    }

    /// <summary>Nothing is left to do: this round is the last.</summary>
    protected void End() => _ended = true;

    /// <inheritdoc />
    protected sealed override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        await PrepareAsync(stoppingToken);
        while (!_ended && !stoppingToken.IsCancellationRequested)
        {
            try
            {
                await RunAsync(stoppingToken);
                Recovered();
            }
            catch (Exception e) when (IsAway(e))
            {
                // An orderly end is one also while Postgres is away.
                if (stoppingToken.IsCancellationRequested)
                    return;
                Warn(e);
                await Task.Delay(_backoff.Next(), Time, stoppingToken);
            }
        }
    }

    private void Warn(Exception e)
    {
        // No warning while everything may be starting at the same moment.
        var level = _worked ? LogLevel.Warning : Readiness.LevelOfWaiting(Time.GetElapsedTime(_started));
        if (_backoff.Failures == 0)
            _awaySince = Time.GetTimestamp();
        else if (level == _said && Time.GetElapsedTime(_saidAt) < s_repeatWarning)
            return;
        (_said, _saidAt) = (level, Time.GetTimestamp());
        Log.Away(Logger, level, e.GetBaseException().Message);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 101, Message = "Waits, and is tried again until it works: {Problem}")]
        public static partial void Away(ILogger logger, LogLevel level, string problem);

        [LoggerMessage(EventId = 102, Level = LogLevel.Information, Message = "Works again after {Seconds:0.0} s")]
        public static partial void Recovered(ILogger logger, double seconds);
    }
}

/// <summary>Pauses between tries: 0.1 s, then twice as long each time, 1 s at most.</summary>
public sealed class Backoff
{
    private static readonly TimeSpan s_first = TimeSpan.FromSeconds(0.1);
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(1);

    /// <summary>How many tries failed in a row.</summary>
    public int Failures { get; private set; }

    /// <summary>How long to wait after one more failure.</summary>
    public TimeSpan Next()
    {
        var pause = s_first * Math.Pow(2, Math.Min(Failures++, 10));
        return pause < s_longest ? pause : s_longest;
    }

    /// <summary>A try succeeded.</summary>
    public void Reset() => Failures = 0;
}
