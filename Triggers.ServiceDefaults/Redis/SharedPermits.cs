using StackExchange.Redis;
using Triggers.Core.Subscriptions;

namespace Triggers.ServiceDefaults.Redis;

/// <summary>A process that asks whether it may send something.</summary>
/// <param name="SubscriptionId">To whom.</param>
/// <param name="Limits">What it is sent at most.</param>
/// <param name="Held">Places that the process has: it has them until <see cref="SharedPermits.Lapse"/> from now.</param>
/// <param name="Wanted">How many requests it would like to begin.</param>
public sealed record PermitRequest(Guid SubscriptionId, SubscriptionLimits Limits, int Held, int Wanted)
{
    /// <summary>Requests it was permitted to begin, and won't.</summary>
    public int GivenBack { get; init; }

    /// <summary>When these were counted, as the answer had it.</summary>
    public string Counted { get; init; } = "";

    /// <summary>Requests begun without asking.</summary>
    public int Untold { get; init; }
}

/// <summary>What limits keep from being sent.</summary>
public enum LimitKind
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>So many requests were sent lately.</summary>
    Rate,

    /// <summary>So many requests are under way.</summary>
    Concurrency,
}

/// <summary>An answer.</summary>
/// <param name="Permits">How many requests may begin, soon.</param>
/// <param name="Limit">What stands in the way of more.</param>
/// <param name="Wait">With none and a rate: for how long.</param>
/// <param name="Counted">To be told with what is given back.</param>
public readonly record struct Permitted(int Permits, LimitKind Limit, TimeSpan Wait, string Counted);

/// <summary>How a subscription's limits are used.</summary>
/// <param name="Requests">Requests that count against its rate.</param>
/// <param name="Concurrency">Requests under way.</param>
/// <param name="Waiting">Whether something waits for a limit.</param>
public readonly record struct LimitsUsed(int Requests, int Concurrency, bool Waiting);

/// <summary>
/// What subscriptions are sent, counted for all processes: a hash in Redis for each subscription that has limits, read and written by one
/// script, by the clock of Redis. In it are requests by the twentieth of the time in which they were permitted; the places of each process,
/// with the time at which they lapse, so that those of one that was killed come free by themselves; and who waits.
/// </summary>
public sealed class SharedPermits(RedisConnection redis)
{
    /// <summary>How long a process has its places without saying so again.</summary>
    public static readonly TimeSpan Lapse = TimeSpan.FromSeconds(10);

    private const string Script =
        """
        local clock = redis.call('TIME')
        local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
        local key, me = KEYS[1], ARGV[1]
        local requests, window, places = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        local held, wanted, given_back, counted = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
        local untold, lapse, looks = tonumber(ARGV[9]), tonumber(ARGV[10]), me == ''

        if given_back > 0 and counted ~= '' then
            redis.call('HINCRBY', key, 'r:' .. counted, -given_back)
        end
        local used, others, waiting, oldest, gone = 0, 0, 0, now + window, {}
        local state = redis.call('HGETALL', key)
        for i = 1, #state, 2 do
            local kind, name, value = string.sub(state[i], 1, 2), string.sub(state[i], 3), state[i + 1]
            local is_gone = false
            if kind == 'r:' then
                local free_at = tonumber(name) + window
                is_gone = free_at <= now or tonumber(value) <= 0
                if not is_gone then
                    used = used + tonumber(value)
                    oldest = math.min(oldest, free_at)
                end
            elseif kind == 'p:' then
                local space = string.find(value, ' ', 1, true)
                is_gone = tonumber(string.sub(value, space + 1)) <= now
                if not is_gone and name ~= me then
                    others = others + tonumber(string.sub(value, 1, space - 1))
                end
            else
                is_gone = tonumber(value) <= now
                if not is_gone then
                    waiting = 1
                end
            end
            if is_gone then
                gone[#gone + 1] = state[i]
            end
        end
        if looks then
            return { used, others, waiting, '' }
        end
        for _, field in ipairs(gone) do
            redis.call('HDEL', key, field)
        end

        local segment = math.max(1, math.floor(window / 20))
        local ends = string.format('%.0f', (math.floor(now / segment) + 1) * segment)
        local permits, limit, wait = wanted, 0, 0
        if requests >= 0 and permits > requests - used - untold then
            permits, limit, wait = math.max(0, requests - used - untold), 1, math.max(0, oldest - now)
        end
        if places >= 0 and permits > places - others - held then
            permits, limit, wait = math.max(0, places - others - held), 2, 0
        end
        if requests >= 0 and permits + untold > 0 then
            redis.call('HINCRBY', key, 'r:' .. ends, permits + untold)
        end
        if places >= 0 and held + permits > 0 then
            redis.call('HSET', key, 'p:' .. me, string.format('%.0f %.0f', held + permits, now + lapse))
        else
            redis.call('HDEL', key, 'p:' .. me)
        end
        if wanted > 0 and permits == 0 then
            redis.call('HSET', key, 'w:' .. me, string.format('%.0f', now + wait + 2000000))
        else
            redis.call('HDEL', key, 'w:' .. me)
        end
        redis.call('EXPIRE', key, math.ceil((window + lapse) / 1000000) + 60)
        return { permits, limit, math.ceil(wait), ends }
        """;

    private readonly string _me = Guid.NewGuid().ToString("N");

    /// <summary>Takes what may be begun, and says what is under way.</summary>
    /// <exception cref="RedisException">Redis is away, as by <see cref="RedisConnection.MeansAway"/>.</exception>
    public async Task<Permitted> AskAsync(PermitRequest request)
    {
        var answer = await RunAsync(_me, request);
        return new Permitted(
            (int)answer[0], (LimitKind)(int)answer[1], TimeSpan.FromMicroseconds((long)answer[2]), (string)answer[3]!);
    }

    /// <summary>How limits are used, by all processes.</summary>
    /// <exception cref="RedisException">Redis is away, as by <see cref="RedisConnection.MeansAway"/>.</exception>
    public async Task<LimitsUsed> LookAsync(Guid subscriptionId, SubscriptionLimits limits)
    {
        var answer = await RunAsync("", new PermitRequest(subscriptionId, limits, 0, 0));
        return new LimitsUsed((int)answer[0], (int)answer[1], (int)answer[2] == 1);
    }

    private async Task<RedisResult[]> RunAsync(string me, PermitRequest request)
    {
        if (!redis.Made.IsCompletedSuccessfully)
            throw new TimeoutException("Redis is not connected yet.");
        var limits = request.Limits;
        return (RedisResult[])(await redis.Made.Result.GetDatabase().ScriptEvaluateAsync(
            Script, [$"triggers:permits:{request.SubscriptionId:N}"],
            [
                me, limits.Requests ?? -1, (long)limits.Per.TotalMicroseconds, limits.Concurrency ?? -1, request.Held, request.Wanted,
                request.GivenBack, request.Counted, request.Untold, (long)Lapse.TotalMicroseconds,
            ]))!;
    }
}
