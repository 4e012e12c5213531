using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;

namespace Triggers.Api.RateLimiting;

/// <summary>Settings <c>RateLimiting:*</c>: what a key may do that has neither limits of its own nor a usage plan.</summary>
internal sealed class RateLimitingOptions
{
    /// <summary>Sustained requests a second.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:RequestsPerSecond must be between 1 and 1000000.")]
    public int RequestsPerSecond { get; set; } = 1_000;

    /// <summary>How many requests may come at once.</summary>
    [Range(1, 1_000_000, ErrorMessage = "RateLimiting:Burst must be between 1 and 1000000.")]
    public int Burst { get; set; } = 2_000;
}

/// <summary>
/// A token bucket per key, and a quota of events per day. Counted in Redis for all processes; in this process without Redis and
/// while it is away, since events that are not accepted are worse than some too many. The answer carries <c>RateLimit-Policy</c> and
/// <c>RateLimit</c> as the IETF draft (draft-ietf-httpapi-ratelimit-headers) has them, a policy each.
/// </summary>
/// <remarks>
/// A request costs a token whatever becomes of it, a batch one for each of its events, but never more than the bucket holds. Only
/// events that are accepted for the first time count towards the quota: it is charged before they are appended, and what was not
/// accepted is given back when the request ends. What is answered 429 costs nothing, but for the token of a batch's request.
/// </remarks>
internal sealed class RateLimits(IOptions<RateLimitingOptions> options, LocalLimits local, ApiMetrics metrics, RedisLimits? redis = null)
{
    public const string PolicyHeader = "RateLimit-Policy";
    public const string Header = "RateLimit";

    /// <summary>What holds for a key.</summary>
    /// <param name="keyId">The key.</param>
    /// <param name="perSecond">The key's own or its plan's; null takes that of the settings.</param>
    /// <param name="burst">The key's own or its plan's; null takes that of the settings, and at least what comes back in a second.</param>
    /// <param name="eventsPerDay">Its plan's; null for any number.</param>
    public Limit LimitOf(Guid keyId, int? perSecond, int? burst, int? eventsPerDay)
    {
        var rate = perSecond ?? options.Value.RequestsPerSecond;
        return new Limit(keyId, rate, burst ?? Math.Max(options.Value.Burst, rate), eventsPerDay);
    }

    /// <summary>Takes a request, and says in the headers how the key stands.</summary>
    /// <param name="context">The request.</param>
    /// <param name="caller">Whose it is.</param>
    /// <param name="events">How many events it is known to publish.</param>
    /// <returns>What it was charged; to be settled when the request ends.</returns>
    public async ValueTask<Charge> TakeAsync(HttpContext context, Caller caller, int events)
    {
        var charge = new Charge(LimitOf(caller.KeyId, caller.RequestsPerSecond, caller.Burst, caller.EventsPerDay));
        charge.Refusal = await TakeAsync(context, charge, Cost.OfRequest(events));
        return charge;
    }

    /// <summary>Takes the events of a batch, once it is known how many there are.</summary>
    /// <param name="context">The request.</param>
    /// <param name="events">All of them.</param>
    /// <param name="publishable">Those that have no mistakes.</param>
    /// <exception cref="ApiException">There are more than the key may publish now.</exception>
    public async ValueTask TakeBatchAsync(HttpContext context, int events, int publishable)
    {
        var charge = Charge.Of(context);
        if (events > 0 && await TakeAsync(context, charge, Cost.OfBatch(events, publishable, charge.Limit.Burst)) is { } refusal)
            throw refusal;
    }

    /// <summary>Gives back what the request did not use. Nobody waits for it.</summary>
    public void Settle(Charge charge)
    {
        var unused = charge.EventsTaken - charge.EventsAccepted;
        if (unused <= 0)
            return;
        if (charge.IsShared)
            _ = redis!.GiveBackAsync(charge.Limit.KeyId, charge.Day, unused);
        else
            local.GiveBack(charge.Limit.KeyId, charge.Day, unused);
    }

    /// <summary>How a key stands, without taking anything.</summary>
    /// <returns>Null when only Redis knows, and it is away.</returns>
    public async ValueTask<Standing?> LookAsync(Limit limit) => redis is null ? local.Take(limit, default) : await redis.TakeAsync(limit, default);

    /// <summary>Whether the counts are those of all processes.</summary>
    public bool AreShared => redis is not null;

    private async ValueTask<ApiException?> TakeAsync(HttpContext context, Charge charge, Cost cost)
    {
        var limit = charge.Limit;
        var shared = redis is null ? null : await redis.TakeAsync(limit, cost);
        var standing = shared ?? local.Take(limit, cost);
        metrics.RateLimitDecided(
            standing.Verdict switch { Verdict.Allowed => "allowed", Verdict.Limited => "limited", _ => "quota_exceeded" },
            shared is null ? "local" : "redis");
        WriteHeaders(context.Response.Headers, limit, standing);
        switch (standing.Verdict)
        {
            case Verdict.Limited:
                return new ApiException(ErrorCodes.RateLimited, "Slow down; Retry-After says when this is let in.")
                {
                    RetryAfterSeconds = Math.Max(1, standing.WaitSeconds),
                };
            case Verdict.QuotaExceeded:
                return new ApiException(ErrorCodes.QuotaExceeded,
                    $"{Left(limit, standing)} of {limit.EventsPerDay} events are left today, and this has {cost.Events}. The day ends at midnight UTC.")
                {
                    RetryAfterSeconds = Math.Max(1, standing.SecondsLeft),
                };
            default:
                if (cost.Events > 0)
                    charge.Take(cost.Events, standing.Day, shared is not null);
                return null;
        }
    }

    private static void WriteHeaders(IHeaderDictionary headers, Limit limit, Standing standing)
    {
        var policy = $"\"default\";q={limit.Burst};w={CeilingDivide(limit.Burst, limit.PerSecond)}";
        var state = $"\"default\";r={standing.TokensLeft};t={CeilingDivide(limit.Burst - standing.TokensLeft, limit.PerSecond)}";
        if (limit.EventsPerDay is { } events)
        {
            policy += $", \"events-per-day\";q={events};w=86400";
            state += $", \"events-per-day\";r={Left(limit, standing)};t={standing.SecondsLeft}";
        }
        headers[PolicyHeader] = policy;
        headers[Header] = state;
    }

    private static long Left(Limit limit, Standing standing) => Math.Max(0, limit.EventsPerDay!.Value - standing.EventsToday);

    private static int CeilingDivide(int value, int by) => (value + by - 1) / by;
}

/// <summary>What a request was charged of the quota of the day, and what of it became events.</summary>
internal sealed class Charge(Limit limit)
{
    /// <summary>Whose quota.</summary>
    public Limit Limit { get; } = limit;

    /// <summary>The answer, when the request does not get through.</summary>
    public ApiException? Refusal { get; set; }

    /// <summary>The day it was charged to.</summary>
    public long Day { get; private set; }

    /// <summary>Whether Redis counted it.</summary>
    public bool IsShared { get; private set; }

    /// <summary>Charged.</summary>
    public int EventsTaken { get; private set; }

    /// <summary>Accepted for the first time.</summary>
    public int EventsAccepted { get; set; }

    /// <summary>The charge of a request that got through.</summary>
    public static Charge Of(HttpContext context) => context.Features.Get<Charge>()!;

    /// <summary>Notes what was charged.</summary>
    public void Take(int events, long day, bool isShared) => (EventsTaken, Day, IsShared) = (events, day, isShared);
}

/// <summary>Marks the operation that publishes one event, so that it is charged together with the request.</summary>
internal sealed class PublishesOneEvent
{
    public static readonly PublishesOneEvent Instance = new();
}
