using Microsoft.Extensions.Diagnostics.HealthChecks;
using StackExchange.Redis;
using Triggers.Api.Redis;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// The limits of all processes together: one hash per key in Redis, read and written by one script, by the clock of Redis. When
/// Redis does not answer, callers are told at once, and for a second nobody but one probing request asks again.
/// </summary>
internal sealed partial class RedisLimits(RedisConnection redis, TimeProvider time, ILogger<RedisLimits> logger) : IHealthCheck
{
    private static readonly TimeSpan MaxWait = TimeSpan.FromMilliseconds(250);

    // A token bucket, and the counts of the day. Tokens come back by the time that has passed, so that a changed limit holds at once.
    // Nothing is written when nothing is taken. A day that is over is forgotten with the whole hash.
    private const string TakeScript =
        """
        local rate, burst, quota = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local cost, needed, events, requests = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
        local clock = redis.call('TIME')
        local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
        local day = math.floor(tonumber(clock[1]) / 86400)
        local state = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'day', 'events', 'requests')
        local tokens, eventsToday, requestsToday = burst, 0, 0
        if state[2] then
            local at = tonumber(state[2])
            tokens = math.min(burst, tonumber(state[1]) + math.max(0, now - at) * rate / 1000000)
            now = math.max(now, at)
            if tonumber(state[3]) >= day then
                day, eventsToday, requestsToday = tonumber(state[3]), tonumber(state[4]), tonumber(state[5])
            end
        end
        local verdict = 0
        if tokens + 0.000001 < cost then
            verdict = 1
        elseif events > 0 and quota >= 0 and eventsToday + events > quota then
            verdict = 2
        elseif cost + events + requests > 0 then
            tokens = math.max(0, tokens - cost)
            eventsToday = eventsToday + events
            requestsToday = requestsToday + requests
            redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.0f', now),
                'day', string.format('%.0f', day), 'events', string.format('%.0f', eventsToday), 'requests', string.format('%.0f', requestsToday))
            redis.call('EXPIRE', KEYS[1], 172800)
        end
        local wait = math.max(0, math.ceil((needed - tokens) / rate - 0.000001))
        local left = math.max(0, (day + 1) * 86400 - tonumber(clock[1]))
        return {verdict, math.floor(tokens + 0.000001), wait, day, left, eventsToday, requestsToday}
        """;

    // What was taken from the quota and not used, unless the day is over.
    private const string GiveBackScript =
        """
        local state = redis.call('HMGET', KEYS[1], 'day', 'events')
        if state[1] and tonumber(state[1]) == tonumber(ARGV[1]) then
            redis.call('HSET', KEYS[1], 'events', string.format('%.0f', math.max(0, tonumber(state[2]) - tonumber(ARGV[2]))))
        end
        return 0
        """;

    // When to ask again, as a timestamp of the clock; 0 while Redis answers.
    private long _askAgainAt;

    /// <summary>Decides, for all processes.</summary>
    /// <returns>Null when Redis does not answer.</returns>
    public async ValueTask<Standing?> TakeAsync(Limit limit, Cost cost)
    {
        if (!redis.Made.IsCompletedSuccessfully || !MayAsk())
            return null;
        try
        {
            return await AskAsync(limit, cost);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            return null;
        }
    }

    /// <summary>Gives back events of a day that were taken from the quota and not accepted.</summary>
    public async Task GiveBackAsync(Guid keyId, long day, int events)
    {
        try
        {
            var client = await redis.Made;
            await client.GetDatabase().ScriptEvaluateAsync(GiveBackScript, [KeyOf(keyId)], [day, events]);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            Log.NotGivenBack(logger, events, e.Message);
        }
    }

    /// <summary>Asks as requests do, so that it also ends the pause once Redis is back.</summary>
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        const string meanwhile = "; meanwhile every process limits for itself";
        if (!redis.Made.IsCompletedSuccessfully)
            return HealthCheckResult.Degraded("not connected yet" + meanwhile);
        try
        {
            await AskAsync(new Limit(Guid.Empty, 1, 1, null), default);
            return HealthCheckResult.Healthy();
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            return HealthCheckResult.Degraded(e.Message + meanwhile);
        }
    }

    private async Task<Standing> AskAsync(Limit limit, Cost cost)
    {
        try
        {
            var client = await redis.Made;
            var answer = await client.GetDatabase().ScriptEvaluateAsync(TakeScript, [KeyOf(limit.KeyId)],
                [limit.PerSecond, limit.Burst, limit.EventsPerDay ?? -1, cost.Tokens, cost.Needed, cost.Events, cost.Requests]).WaitAsync(MaxWait, time);
            var numbers = (long[])answer!;
            if (Interlocked.Exchange(ref _askAgainAt, 0) != 0)
                Log.Shared(logger);
            return new Standing(
                (Verdict)numbers[0], (int)numbers[1], (int)Math.Min(numbers[2], int.MaxValue), numbers[3], (int)numbers[4], numbers[5], numbers[6]);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            if (Interlocked.Exchange(ref _askAgainAt, time.GetTimestamp() + time.TimestampFrequency) == 0)
                Log.Alone(logger, e.Message);
            throw;
        }
    }

    private bool MayAsk()
    {
        var at = Volatile.Read(ref _askAgainAt);
        if (at == 0)
            return true;
        var now = time.GetTimestamp();
        return now >= at && Interlocked.CompareExchange(ref _askAgainAt, now + time.TimestampFrequency, at) == at;
    }

    private static RedisKey KeyOf(Guid keyId) => $"triggers:limits:{keyId:N}";

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Redis does not answer, so that this process limits for itself: {Problem}")]
        public static partial void Alone(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "Redis answers again: the limits are those of all processes")]
        public static partial void Shared(ILogger logger);

        [LoggerMessage(EventId = 3, Level = LogLevel.Warning, Message = "{Events} events that were not accepted stay in the quota's count: {Problem}")]
        public static partial void NotGivenBack(ILogger logger, int events, string problem);
    }
}
