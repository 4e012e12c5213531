using System.Collections.Concurrent;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using StackExchange.Redis;
using Triggers.Api.Auth;
using Triggers.Core;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// The limits of all processes together: hashes in Redis, read and written by one script, by the clock of Redis. Who is far from every
/// limit is let in here, and Redis told a moment later; <see cref="SharedAccount"/> says who is. When Redis does not answer, callers are
/// told at once, and for a second nobody but one probing request asks again.
/// </summary>
internal sealed partial class RedisLimits(RedisConnection redis, TimeProvider time, ILogger<RedisLimits> logger)
    : IHealthCheck, IAsyncDisposable
{
    // What was let in here is told together.
    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(50);
    private const int MaxAccounts = 20_000;

    private static readonly Limits Nobody = new(Guid.Empty, new Rate(1, 1), null, null, null, Guid.Empty, null);

    // Two hashes, of the account and of the key in it: token buckets, and the counts of the day. Tokens come back by the time that has
    // passed, so that a changed limit holds at once; less than none is a debt. A day that is over is forgotten.
    private const string TakeScript =
        """
        local clock = redis.call('TIME')
        local seconds = tonumber(clock[1])
        local now, today = seconds * 1000000 + tonumber(clock[2]), math.floor(seconds / 86400)

        local function read(key)
            local s = redis.call('HMGET', key, 'at', 'day', 'events', 'requests', 'request_tokens', 'event_tokens', 'byte_tokens')
            local state = { key = key, at = now, since = 0, day = today, events = 0, requests = 0, tokens = { s[5], s[6], s[7] } }
            if s[1] then
                state.at = math.max(now, tonumber(s[1]))
                state.since = state.at - tonumber(s[1])
                if tonumber(s[2]) >= today then
                    state.day, state.events, state.requests = tonumber(s[2]), tonumber(s[3]), tonumber(s[4])
                end
            end
            return state
        end

        local function refill(state, i, rate, burst)
            if rate < 0 then
                state.tokens[i] = false
            elseif state.tokens[i] then
                state.tokens[i] = math.min(burst, tonumber(state.tokens[i]) + state.since * rate / 1000000)
            else
                state.tokens[i] = burst
            end
        end

        local function wait(state, i, rate, burst, cost)
            if rate < 0 or cost == 0 then
                return 0
            end
            return math.max(0, math.ceil((math.min(cost, burst) - state.tokens[i]) / rate - 0.000001))
        end

        local function take(state, i, cost)
            if state.tokens[i] then
                state.tokens[i] = state.tokens[i] - cost
            end
        end

        local function left(state, i)
            return state.tokens[i] and math.floor(math.max(0, state.tokens[i] + 0.000001)) or 0
        end

        local function write(state)
            redis.call('HSET', state.key, 'at', string.format('%.0f', state.at), 'day', string.format('%.0f', state.day),
                'events', string.format('%.0f', state.events), 'requests', string.format('%.0f', state.requests))
            for i, name in ipairs({ 'request_tokens', 'event_tokens', 'byte_tokens' }) do
                if state.tokens[i] then
                    redis.call('HSET', state.key, name, string.format('%.6f', state.tokens[i]))
                end
            end
            redis.call('EXPIRE', state.key, 172800)
        end

        local n = {}
        for i, argument in ipairs(ARGV) do
            n[i] = tonumber(argument)
        end
        local quota, requests, events, bytes, of_day = n[9], n[10], n[11], n[12], n[13]
        local told_requests, told_events, told_bytes, told_of_day, told_day = n[14], n[15], n[16], n[17], n[18]
        local account, key = read(KEYS[1]), read(KEYS[2])
        refill(account, 1, n[1], n[2])
        refill(account, 2, n[3], n[4])
        refill(account, 3, n[5], n[6])
        refill(key, 1, n[7], n[8])
        refill(key, 2, -1, 0)
        refill(key, 3, -1, 0)
        take(account, 1, told_requests)
        take(key, 1, told_requests)
        take(account, 2, told_events)
        take(account, 3, told_bytes)
        if told_day == account.day then
            for _, state in ipairs({ account, key }) do
                state.requests, state.events = state.requests + told_requests, math.max(0, state.events + told_of_day)
            end
        end

        local verdict, waits = 0, math.max(wait(account, 1, n[1], n[2], requests), wait(key, 1, n[7], n[8], requests))
        if waits > 0 then
            verdict = 1
        elseif of_day > 0 and quota >= 0 and account.events + of_day > quota then
            verdict = 2
        else
            waits = wait(account, 2, n[3], n[4], events)
            if waits > 0 then
                verdict = 3
            else
                waits = wait(account, 3, n[5], n[6], bytes)
                if waits > 0 then
                    verdict = 4
                end
            end
        end
        if verdict ~= 1 and requests > 0 then
            take(account, 1, requests)
            take(key, 1, requests)
            account.requests, key.requests = account.requests + requests, key.requests + requests
        end
        if verdict == 0 then
            take(account, 2, events)
            take(account, 3, bytes)
            account.events, key.events = account.events + of_day, key.events + of_day
        end
        if verdict ~= 1 and requests > 0 or verdict == 0 and of_day + bytes > 0
                or told_requests ~= 0 or told_events ~= 0 or told_bytes ~= 0 or told_of_day ~= 0 then
            write(account)
            write(key)
        end
        return { verdict, waits, account.day, math.max(0, (account.day + 1) * 86400 - seconds), left(account, 1), left(account, 2), left(account, 3),
            left(key, 1), account.events, account.requests, key.events, key.requests }
        """;

    private readonly ConcurrentDictionary<Guid, SharedAccount> _accounts = new();
    private readonly ConcurrentQueue<SharedAccount> _untold = new();
    private int _isSettling;

    // When to ask again, as a timestamp of the clock; 0 while Redis answers.
    private long _askAgainAt;

    /// <summary>Decides, for all processes.</summary>
    /// <returns>Null when Redis does not answer.</returns>
    public async ValueTask<Standing?> TakeAsync(Limits limits, Cost cost)
    {
        if (!redis.Made.IsCompletedSuccessfully || !MayAsk())
            return null;
        var account = AccountOf(limits);
        Standing? standing;
        lock (account)
            standing = account.TryTake(limits, cost, time.GetTimestamp());
        if (standing is null)
            return await TryAskAsync(account, limits, cost);
        SettleSoon(account);
        return standing;
    }

    /// <summary>How limits stand in Redis, with all that this process has let in.</summary>
    /// <returns>Null when Redis does not answer.</returns>
    public async ValueTask<Standing?> LookAsync(Limits limits) =>
        redis.Made.IsCompletedSuccessfully && MayAsk() ? await TryAskAsync(AccountOf(limits), limits, default) : null;

    /// <summary>Gives back events of a day that were taken and not accepted.</summary>
    public void GiveBack(Limits limits, long day, int events)
    {
        var account = AccountOf(limits);
        lock (account)
            account.GiveBack(limits, day, events);
        SettleSoon(account);
    }

    /// <summary>Tells Redis what it has not been told yet.</summary>
    public async ValueTask DisposeAsync() => await SettleAsync();

    /// <summary>Asks as requests do, so that it also ends the pause once Redis is back.</summary>
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        const string meanwhile = "; meanwhile every process limits for itself";
        if (!redis.Made.IsCompletedSuccessfully)
            return HealthCheckResult.Degraded("not connected yet" + meanwhile);
        try
        {
            await AskAsync(AccountOf(Nobody), Nobody, default);
            return HealthCheckResult.Healthy();
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            return HealthCheckResult.Degraded(e.Message + meanwhile, e);
        }
    }

    private async Task<Standing?> TryAskAsync(SharedAccount account, Limits limits, Cost cost)
    {
        try
        {
            return await AskAsync(account, limits, cost);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            return null;
        }
    }

    private async Task<Standing> AskAsync(SharedAccount account, Limits limits, Cost cost)
    {
        Cost told = default;
        Standing? standing = null;
        try
        {
            Task<RedisResult> asked;
            // Redis hears what was let in before it is asked for more: what is sent first comes first.
            lock (account)
            {
                told = account.Ask(limits, cost);
                foreach (var other in account.Untold())
                    _ = TryAskAsync(account, other, default);
                asked = redis.Made.Result.GetDatabase().ScriptEvaluateAsync(TakeScript, KeysOf(limits),
                [
                    .. Of(limits.Requests), .. Of(limits.Events), .. Of(limits.Bytes), .. Of(limits.KeyRequests),
                    limits.EventsPerDay ?? -1, cost.Requests, cost.Events, cost.Bytes, cost.AllEventsOfDay,
                    told.Requests, told.Events, told.Bytes, told.AllEventsOfDay, account.Day,
                ]);
            }
            var n = (long[])(await asked.WaitAsync(RequestBudget.Redis, time))!;
            if (Interlocked.Exchange(ref _askAgainAt, 0) != 0)
                Log.Shared(logger);
            standing = new Standing(
                (Verdict)n[0], (int)Math.Min(n[1], int.MaxValue), Day: n[2], SecondsLeft: (int)n[3],
                RequestsLeft: n[4], EventsLeft: n[5], BytesLeft: n[6], KeyRequestsLeft: n[7],
                EventsToday: n[8], RequestsToday: n[9], KeyEventsToday: n[10], KeyRequestsToday: n[11]);
            return standing.Value;
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            if (Interlocked.Exchange(ref _askAgainAt, time.GetTimestamp() + time.TimestampFrequency) == 0)
                Log.Alone(logger, e.Message);
            throw;
        }
        finally
        {
            lock (account)
                account.Answered(limits, told + cost, standing, time.GetTimestamp());
        }
    }

    private SharedAccount AccountOf(Limits limits) => _accounts.GetOrAdd(limits.AccountId, static _ => new SharedAccount());

    private void SettleSoon(SharedAccount account)
    {
        lock (account)
        {
            if (account.IsToBeSettled)
                return;
            account.IsToBeSettled = true;
        }
        _untold.Enqueue(account);
        if (Interlocked.Exchange(ref _isSettling, 1) == 0)
            _ = SettleInAStepAsync();
    }

    private async Task SettleInAStepAsync()
    {
        await Task.Delay(Step, time);
        Volatile.Write(ref _isSettling, 0);
        await SettleAsync();
    }

    private async Task SettleAsync()
    {
        var asked = new List<Task>();
        while (_untold.TryDequeue(out var account))
        {
            lock (account)
            {
                account.IsToBeSettled = false;
                // While Redis is away nothing is counted there.
                asked.AddRange(account.Untold().Where(_ => Volatile.Read(ref _askAgainAt) == 0)
                    .Select(limits => TryAskAsync(account, limits, default)));
            }
        }
        // What one forgets that it knew, it asks for.
        if (_accounts.Count > MaxAccounts)
            _accounts.Clear();
        await Task.WhenAll(asked);
    }

    private bool MayAsk()
    {
        var at = Volatile.Read(ref _askAgainAt);
        if (at == 0)
            return true;
        var now = time.GetTimestamp();
        return now >= at && Interlocked.CompareExchange(ref _askAgainAt, now + time.TimestampFrequency, at) == at;
    }

    private static RedisValue[] Of(Rate? rate) => rate is { } r ? [r.PerSecond, r.Burst] : [-1, 0];

    // In a cluster both are in the slot of what is in the braces.
    private static RedisKey[] KeysOf(Limits limits) =>
        [$"triggers:limits:{{{limits.AccountId:N}}}", $"triggers:limits:{{{limits.AccountId:N}}}:{limits.LimitId:N}"];

    private static partial class Log
    {
        [LoggerMessage(
            EventId = 1, Level = LogLevel.Warning, Message = "Redis does not answer, so that this process limits for itself: {Problem}")]
        public static partial void Alone(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "Redis answers again: the limits are those of all processes")]
        public static partial void Shared(ILogger logger);
    }
}
