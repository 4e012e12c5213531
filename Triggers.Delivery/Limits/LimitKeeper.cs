using Triggers.Core.Subscriptions;
using Triggers.Delivery.Subscriptions;
using Triggers.Delivery.Waking;
using Triggers.Delivery.Workers;
using Triggers.ServiceDefaults;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Delivery.Limits;

/// <summary>
/// Asks for the permits that lanes need whose subscriptions have limits, and tells what they no longer need: Redis, which counts for all
/// processes, or while that is away by this process' share of the limit. Without such subscriptions it sleeps, and Redis is not connected.
/// </summary>
internal sealed partial class LimitKeeper(
    Lanes lanes, WorkerRegistration worker, Wakeups wakeups, DeliveryMetrics metrics, TimeProvider time, ILogger<LimitKeeper> logger,
    SharedPermits? shared = null, RedisConnection? redis = null)
    : BackgroundLoop(time, logger)
{
    /// <summary>How long Redis is waited for: at the first time, and for an answer. Nobody waits who has no limits.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_look = TimeSpan.FromSeconds(2);

    private readonly Dictionary<Guid, SentLately> _lately = [];
    private readonly HashSet<Guid> _untold = [];
    private Task? _back;
    private (int Rank, int Of)? _share;
    private long _sharedAt;
    private long _connectingSince;
    private long _tidiedAt;

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            var requests = lanes.AskLimits(out var wait);
            if (requests.Count == 0)
            {
                await lanes.Limited.WaitAsync(wait, stoppingToken);
                continue;
            }
            await AnswerAsync(requests, stoppingToken);
            Recovered();
            Tidy();
            wakeups.Dispatch.Set();
        }
    }

    /// <summary>Called when all attempts have ended: nothing is left that others would have to wait for.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        // Without Redis nobody else counts what this process has.
        if (shared is null)
            return;
        try
        {
            await Task.WhenAll(lanes.LetGoOfLimits().Select(AskAsync)).WaitAsync(s_look, Time, cancellationToken);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            // They lapse.
        }
    }

    private async Task AnswerAsync(List<PermitRequest> requests, CancellationToken stoppingToken)
    {
        var answers = await SharedAsync(requests, stoppingToken) ?? await AloneAsync(requests, stoppingToken);
        foreach (var (request, answer) in answers)
        {
            Lately(request.SubscriptionId).Add(answer.Permits - request.GivenBack);
            if (lanes.LimitsAnswered(request, answer))
                metrics.LimitReached(answer.Limit);
        }
    }

    /// <summary>By what Redis says.</summary>
    /// <returns>Null while it is away.</returns>
    private async Task<List<(PermitRequest, Permitted)>?> SharedAsync(List<PermitRequest> requests, CancellationToken stoppingToken)
    {
        if (shared is null || _back is { IsCompleted: false })
            return null;
        try
        {
            if (!redis!.Made.IsCompleted)
                await ConnectAsync(stoppingToken);
            var told = requests.ConvertAll(request => _untold.Contains(request.SubscriptionId) && request.Limits.Requests is not null
                ? request with { Untold = Untold(request) } : request);
            var answers = await Task.WhenAll(told.Select(AskAsync)).WaitAsync(s_patience, Time, stoppingToken);
            if (_back is not null)
                Log.Together(Logger);
            _back = null;
            requests.ForEach(request => _untold.Remove(request.SubscriptionId));
            return [.. requests.Zip(answers)];
        }
        catch (Exception e) when (RedisConnection.MeansAway(e) && !stoppingToken.IsCancellationRequested)
        {
            if (_back is null)
                Log.Alone(Logger, e.Message);
            _back = IsBackAsync(stoppingToken);
            return null;
        }
    }

    private Task<Permitted> AskAsync(PermitRequest request) => shared!.AskAsync(request);

    /// <summary>Only now, since most need no limits.</summary>
    private async Task ConnectAsync(CancellationToken stoppingToken)
    {
        if (_connectingSince == 0)
        {
            _connectingSince = Time.GetTimestamp();
            await redis!.StartAsync(CancellationToken.None);
        }
        var left = s_patience - Time.GetElapsedTime(_connectingSince);
        await redis!.Made.WaitAsync(left > TimeSpan.Zero ? left : TimeSpan.Zero, Time, stoppingToken);
    }

    private async Task IsBackAsync(CancellationToken stoppingToken)
    {
        while (true)
        {
            await Task.Delay(s_pause, Time, stoppingToken);
            try
            {
                if (redis!.Made.IsCompletedSuccessfully)
                {
                    await redis.Made.Result.GetDatabase().PingAsync().WaitAsync(s_patience, Time, stoppingToken);
                    return;
                }
            }
            catch (Exception e) when (RedisConnection.MeansAway(e) && !stoppingToken.IsCancellationRequested)
            {
                // Nor is it now.
            }
        }
    }

    /// <summary>By this process' share of the limits.</summary>
    private async Task<List<(PermitRequest, Permitted)>> AloneAsync(List<PermitRequest> requests, CancellationToken stoppingToken)
    {
        if (_share is null || Time.GetElapsedTime(_sharedAt) >= s_look)
        {
            _share = await worker.ShareAsync(stoppingToken);
            _sharedAt = Time.GetTimestamp();
        }
        return requests.ConvertAll(request => (request, Alone(request, request.Limits.ShareOf(_share.Value.Rank, _share.Value.Of))));
    }

    private Permitted Alone(PermitRequest request, SubscriptionLimits share)
    {
        if (shared is not null)
            _untold.Add(request.SubscriptionId);
        var (permits, limit, wait) = (request.Wanted, LimitKind.None, TimeSpan.Zero);
        if (share.Requests is { } requests)
        {
            var (used, untilFewer) = Lately(request.SubscriptionId).Within(share.Per);
            var left = Math.Max(0, requests - Math.Max(0, used - request.GivenBack));
            // No longer than until it may be another share, or Redis be back.
            if (permits > left)
                (permits, limit, wait) = (left, LimitKind.Rate, untilFewer > TimeSpan.Zero && untilFewer < s_look ? untilFewer : s_look);
        }
        if (share.Concurrency is { } places && permits > places - request.Held)
            (permits, limit, wait) = (Math.Max(0, places - request.Held), LimitKind.Concurrency, TimeSpan.Zero);
        return new Permitted(permits, limit, wait, "");
    }

    /// <summary>What Redis may not know of.</summary>
    private int Untold(PermitRequest request) =>
        Math.Max(0, Lately(request.SubscriptionId).Within(request.Limits.Per).Requests - request.GivenBack);

    private SentLately Lately(Guid subscriptionId)
    {
        if (!_lately.TryGetValue(subscriptionId, out var lately))
            _lately.Add(subscriptionId, lately = new SentLately(Time));
        return lately;
    }

    /// <summary>Who was sent nothing for longer than any limit counts is forgotten.</summary>
    private void Tidy()
    {
        if (Time.GetElapsedTime(_tidiedAt) < TimeSpan.FromMinutes(1))
            return;
        _tidiedAt = Time.GetTimestamp();
        foreach (var (id, _) in _lately.Where(l => l.Value.Within(TimeSpan.FromSeconds(SubscriptionLimits.MaxPerSeconds)).Requests == 0))
            _lately.Remove(id);
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning,
            Message = "Redis does not answer, so that this process keeps its share of the limits of subscriptions: {Problem}")]
        public static partial void Alone(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information,
            Message = "Redis answers again: the limits of subscriptions are those of all processes")]
        public static partial void Together(ILogger logger);
    }
}
