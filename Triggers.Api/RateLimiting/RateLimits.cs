using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Telemetry;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// Charges requests to their tenant, and to their key if it has a limit of its own. Counted in Redis for all processes; in this process
/// without Redis and while it is away, since events that are not accepted are worse than some too many. The answer carries
/// <c>RateLimit-Policy</c> and <c>RateLimit</c> as the IETF draft (draft-ietf-httpapi-ratelimit-headers) has them, a policy each.
/// </summary>
/// <remarks>
/// A request costs one whatever becomes of it. Events cost one each, whether published or asked for again; what was not accepted, or was
/// accepted before, is given back when the request ends. docs/decisions/0006-usage-plans.md says why.
/// </remarks>
internal sealed class RateLimits(LocalLimits local, ApiMetrics metrics, RedisLimits? redis = null)
{
    public const string PolicyHeader = "RateLimit-Policy";
    public const string Header = "RateLimit";

    /// <summary>Takes a request, with the events it is known to make, and says in the headers how its limits stand.</summary>
    /// <param name="context">The request.</param>
    /// <param name="caller">Whose it is.</param>
    /// <param name="isAllowed">Whether it will be let in, so that it costs events.</param>
    /// <returns>What it was charged; to be settled when the request ends.</returns>
    public async ValueTask<Charge> TakeAsync(HttpContext context, Caller caller, bool isAllowed)
    {
        var costs = isAllowed ? context.GetEndpoint()!.Metadata.GetMetadata<CostsEvents>() : null;
        var charge = new Charge(caller.Limits, costs);
        charge.Refusal = await TakeAsync(
            context, charge, new Cost(1, costs?.Events ?? 0, costs?.Bytes is true ? context.Request.ContentLength ?? 0 : 0));
        return charge;
    }

    /// <summary>Takes the events of a request once it is known how many there are, and how many bytes.</summary>
    /// <param name="context">The request.</param>
    /// <param name="events">All that it makes.</param>
    /// <param name="bytes">All that it has.</param>
    /// <returns>Why it does not get through, unless it was accepted before; null when it does.</returns>
    public async ValueTask<ApiException?> TakeEventsAsync(HttpContext context, int events, long bytes)
    {
        var charge = Charge.Of(context);
        if (charge.Refusal is not null)
            return charge.Refusal;
        var more = new Cost(0, Math.Max(0, events - charge.EventsTaken), Math.Max(0, bytes - charge.BytesTaken));
        return more == default ? null : await TakeAsync(context, charge, more);
    }

    /// <summary>Takes events of the day for work that goes on without a request: as many as are left, where that is fewer.</summary>
    /// <returns>How many were taken.</returns>
    public async ValueTask<int> TakeOfDayAsync(Limits limits, int events)
    {
        while (events > 0)
        {
            var cost = new Cost(0, 0, 0, events);
            var shared = redis is null ? null : await redis.TakeAsync(limits, cost);
            var standing = shared ?? local.Take(limits, cost);
            if (standing.Verdict == Verdict.Allowed)
                return events;
            if (standing.Verdict != Verdict.QuotaExceeded)
                return 0;
            // Fewer still by now, if others took some.
            events = (int)Math.Min(events - 1, Left(limits, standing));
        }
        return 0;
    }

    /// <summary>Gives back what the request did not use.</summary>
    public void Settle(Charge charge)
    {
        var unused = charge.EventsTaken - charge.EventsAccepted;
        if (unused <= 0)
            return;
        if (charge.IsShared)
            redis!.GiveBack(charge.Limits, charge.Day, unused);
        else
            local.GiveBack(charge.Limits, charge.Day, unused);
    }

    /// <summary>How limits stand, without taking anything.</summary>
    /// <returns>Null when only Redis knows, and it is away.</returns>
    public async ValueTask<Standing?> LookAsync(Limits limits) =>
        redis is null ? local.Take(limits, default) : await redis.LookAsync(limits);

    /// <summary>Whether the counts are those of all processes.</summary>
    public bool AreShared => redis is not null;

    private async ValueTask<ApiException?> TakeAsync(HttpContext context, Charge charge, Cost cost)
    {
        var limits = charge.Limits;
        var shared = redis is null ? null : await redis.TakeAsync(limits, cost);
        var standing = shared ?? local.Take(limits, cost);
        metrics.RateLimitDecided(
            standing.Verdict switch { Verdict.Allowed => "allowed", Verdict.QuotaExceeded => "quota_exceeded", _ => "limited" },
            shared is null ? "local" : "redis");
        WriteHeaders(context.Response, limits, standing);
        if (standing.Verdict == Verdict.Allowed)
        {
            charge.Take(cost, standing.Day, shared is not null);
            return null;
        }
        charge.Refuse(standing.Verdict);
        var (code, wait, detail) = standing.Verdict switch
        {
            Verdict.QuotaExceeded => (ErrorCodes.QuotaExceeded, standing.SecondsLeft,
                $"{Left(limits, standing)} of {limits.EventsPerDay} events are left today, and this has {cost.Events}. The day ends at "
                    + "midnight UTC."),
            Verdict.EventsLimited => (ErrorCodes.RateLimited, standing.WaitSeconds,
                $"More than {limits.Events!.Value.PerSecond} events a second; Retry-After says when this is let in."),
            Verdict.BytesLimited => (ErrorCodes.RateLimited, standing.WaitSeconds,
                $"More than {limits.Bytes!.Value.PerSecond} bytes a second; Retry-After says when this is let in."),
            _ => (ErrorCodes.RateLimited, standing.WaitSeconds, "Slow down; Retry-After says when this is let in."),
        };
        return new ApiException(code, detail) { RetryAfterSeconds = Math.Max(1, wait) };
    }

    private static void WriteHeaders(HttpResponse response, Limits limits, Standing standing)
    {
        var (policies, states) = (new List<string>(5), new List<string>(5));
        void Add(string name, long quota, int window, long left, int wait)
        {
            policies.Add($"\"{name}\";q={quota};w={window}");
            states.Add($"\"{name}\";r={left};t={wait}");
        }
        void AddRate(string name, Rate? rate, long left)
        {
            if (rate is { } r)
                Add(name, r.Burst, r.SecondsToFill, left, r.SecondsTo(r.Burst - left));
        }

        AddRate("default", limits.Requests, standing.RequestsLeft);
        AddRate("key", limits.KeyRequests, standing.KeyRequestsLeft);
        AddRate("events", limits.Events, standing.EventsLeft);
        AddRate("bytes", limits.Bytes, standing.BytesLeft);
        if (limits.EventsPerDay is { } events)
            Add("events-per-day", events, 86_400, Left(limits, standing), standing.SecondsLeft);
        // When the answer starts, since an error takes all headers away. What was registered last comes first, and is newest.
        response.OnStarting(() =>
        {
            response.Headers.TryAdd(PolicyHeader, string.Join(", ", policies));
            response.Headers.TryAdd(Header, string.Join(", ", states));
            return Task.CompletedTask;
        });
    }

    private static long Left(Limits limits, Standing standing) => Math.Max(0, limits.EventsPerDay!.Value - standing.EventsToday);
}

/// <summary>What a request was charged, and what of it became events.</summary>
internal sealed class Charge(Limits limits, CostsEvents? costs)
{
    /// <summary>Whose.</summary>
    public Limits Limits { get; } = limits;

    /// <summary>Why the request does not get through.</summary>
    public ApiException? Refusal { get; set; }

    /// <summary>
    /// Whether the request itself was taken and only its events are too many: it may be the repetition of one that was accepted, which
    /// costs none.
    /// </summary>
    public bool MayBeRepetition { get; private set; }

    /// <summary>The day it was charged to.</summary>
    public long Day { get; private set; }

    /// <summary>Whether Redis counted it.</summary>
    public bool IsShared { get; private set; }

    /// <summary>Events charged.</summary>
    public int EventsTaken { get; private set; }

    /// <summary>Bytes charged.</summary>
    public long BytesTaken { get; private set; }

    /// <summary>Events accepted for the first time, or sent again.</summary>
    public int EventsAccepted { get; set; }

    /// <summary>The charge of a request that got through.</summary>
    public static Charge Of(HttpContext context) => context.Features.Get<Charge>()!;

    /// <summary>Notes what was charged.</summary>
    public void Take(Cost cost, long day, bool isShared)
    {
        EventsTaken += cost.Events;
        BytesTaken += cost.Bytes;
        (Day, IsShared) = (day, isShared);
    }

    /// <summary>Notes what was too much.</summary>
    public void Refuse(Verdict verdict) => MayBeRepetition = costs?.MayBeRepeated is true && verdict != Verdict.Limited;

    /// <summary>The request did what it asks for. Who may do a part of it, or nothing, says how much.</summary>
    public void Succeeded()
    {
        if (costs is { Events: > 0, MayBeRepeated: false })
            EventsAccepted = EventsTaken;
    }
}

/// <summary>Marks an operation that costs events: it publishes some, or asks for deliveries again.</summary>
/// <param name="Events">As many as are known before the request is read.</param>
/// <param name="Bytes">Whether its body costs bytes.</param>
/// <param name="MayBeRepeated">Whether it may be the repetition of a request that was accepted, so that its handler has to look.</param>
internal sealed record CostsEvents(int Events, bool Bytes = false, bool MayBeRepeated = false);
