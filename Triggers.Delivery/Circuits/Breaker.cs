using Polly;
using Polly.CircuitBreaker;
using Triggers.Core.State;
using Triggers.Core.Tables;
using CircuitState = Polly.CircuitBreaker.CircuitState;

namespace Triggers.Delivery.Circuits;

/// <summary>
/// Watches the attempts to one subscription, from the first that failed on: whoever is well has none. Polly counts the share of failed
/// ones.
/// </summary>
internal sealed class Breaker
{
    private readonly CircuitBreakerStateProvider _state = new();
    private readonly ResiliencePipeline<bool> _share;
    private readonly CircuitOptions _options;
    private readonly TimeProvider _time;
    private int _inARow;
    private long _failingSince;

    public Breaker(int revision, CircuitOptions options, TimeProvider time)
    {
        (Revision, _options, _time) = (revision, options, time);
        LastFailure = time.GetTimestamp();
        _share = new ResiliencePipelineBuilder<bool> { TimeProvider = time }.AddCircuitBreaker(new CircuitBreakerStrategyOptions<bool>
        {
            FailureRatio = options.FailureRatio,
            MinimumThroughput = options.MinimumThroughput,
            SamplingDuration = options.SamplingDuration,
            // It is asked whether it opened, and then gone: what is held is held by all processes, and probed by one.
            BreakDuration = TimeSpan.FromDays(1),
            StateProvider = _state,
            ShouldHandle = static attempt => ValueTask.FromResult(!attempt.Outcome.Result),
        }).Build();
    }

    /// <summary>Of the subscription that it watches.</summary>
    public int Revision { get; }

    /// <summary>Timestamp of the newest failed attempt.</summary>
    public long LastFailure { get; private set; }

    /// <summary>Whether the newest attempt did not fail.</summary>
    public bool IsQuiet => Volatile.Read(ref _inARow) == 0;

    /// <summary>Takes one more result, and answers what is to be said of a receiver that fails too much; null when it doesn't.</summary>
    public Failing? Add(Guid subscriptionId, AttemptOutcome outcome, int? statusCode, bool isWell)
    {
        lock (_share)
        {
            if (_state.CircuitState == CircuitState.Open)
                return null;
            if (isWell)
            {
                _inARow = 0;
            }
            else
            {
                LastFailure = _time.GetTimestamp();
                if (_inARow++ == 0)
                    _failingSince = LastFailure;
            }
            _share.Execute(static well => well, isWell);
            return _inARow >= _options.ConsecutiveFailures || _state.CircuitState == CircuitState.Open
                ? new Failing(
                    subscriptionId, Revision, _inARow == 0 ? TimeSpan.Zero : _time.GetElapsedTime(_failingSince), outcome, statusCode)
                : null;
        }
    }
}
