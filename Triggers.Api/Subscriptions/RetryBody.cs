using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>
/// When to try again, and when to give up. What is left out is as the service has it, see <c>GET /subscriptions/{id}/retry-preview</c>.
/// Times are written <c>00:00:30</c>, or <c>1.12:00:00</c> for a day and a half.
/// </summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RetryBody
{
    private const int MaxDays = 7;

    /// <summary>
    /// The delays after each failed attempt, at most 49 of at most 7 days: the first attempt and one after each delay. Goes without
    /// <c>maxAttempts</c>, <c>baseDelay</c>, <c>factor</c> and <c>maxDelay</c>.
    /// </summary>
    [Length(1, 49), Duration(MaxDays)]
    public TimeSpan[]? Schedule { get; init; }

    /// <summary>Attempts in all, the first included.</summary>
    [Range(1, 50)]
    public int? MaxAttempts { get; init; }

    /// <summary>The delay after the first failed attempt.</summary>
    [Duration(1)]
    public TimeSpan? BaseDelay { get; init; }

    /// <summary>What each delay is multiplied by to get the next.</summary>
    [Range(1.0, 100.0)]
    public double? Factor { get; init; }

    /// <summary>The longest of these delays.</summary>
    [Duration(MaxDays)]
    public TimeSpan? MaxDelay { get; init; }

    /// <summary>How far a delay may be off, as a share of it, both ways: 0.2 is 80 % to 120 %.</summary>
    [Range(0.0, 1.0)]
    public double? Jitter { get; init; }

    /// <summary>
    /// How old a delivery may be when it is tried again: what would come due later is a dead letter, <c>too_old</c>. The first attempt is
    /// always made.
    /// </summary>
    [Duration(MaxDays)]
    public TimeSpan? MaxAge { get; init; }

    /// <summary>
    /// The statuses after which it is tried again, as in <c>["429","5xx"]</c>; any other from 300 on is a dead letter at once,
    /// <c>rejected</c>. 410 always disables the subscription, and what brings no status is always tried again.
    /// </summary>
    [Length(1, 50), Items(3, Pattern = "^[345]([0-9]{2}|xx)$")]
    public string[]? Statuses { get; init; }

    /// <summary>The longest wait that a <c>Retry-After</c> can ask for; it never shortens a delay.</summary>
    [Duration(MaxDays)]
    public TimeSpan? MaxRetryAfter { get; init; }

    /// <summary>How long an attempt may take, from the first step to the last byte that is read: 1 to 30 seconds.</summary>
    [Duration(1)]
    public TimeSpan? Timeout { get; init; }

    /// <param name="fields">The members.</param>
    /// <param name="patch">They again as JSON, null for those that are null: what a merge patch is to change in what is kept.</param>
    public static RetryBody Read(Fields fields, out string patch)
    {
        var body = new RetryBody
        {
            Schedule = fields.Durations("schedule"),
            MaxAttempts = fields.Number("maxAttempts"),
            BaseDelay = fields.Duration("baseDelay"),
            Factor = fields.Real("factor"),
            MaxDelay = fields.Duration("maxDelay"),
            Jitter = fields.Real("jitter"),
            MaxAge = fields.Duration("maxAge"),
            Statuses = fields.Texts("statuses"),
            MaxRetryAfter = fields.Duration("maxRetryAfter"),
            Timeout = fields.Duration("timeout"),
        };
        for (var i = 0; i < body.Statuses?.Length; i++)
        {
            // What was no text at all has been refused as that.
            if (body.Statuses[i] is var status and not "" && (status is not [>= '3' and <= '5', _, _]
                || status[1..] != "xx" && !status[1..].All(char.IsAsciiDigit)))
                fields.Refuse($"/statuses/{i}", "Must be a status from 300 to 599, or 3xx, 4xx or 5xx.");
        }
        if (body.Timeout is { } timeout && (timeout < TimeSpan.FromSeconds(1) || timeout > TimeSpan.FromSeconds(30)))
            fields.Refuse("/timeout", "Must be from 00:00:01 to 00:00:30.");
        if (Problem(body.ToPolicy()) is { } problem)
            fields.Refuse("", problem);

        var kept = JsonSerializer.SerializeToNode(body.ToPolicy())!.AsObject();
        foreach (var name in kept.Select(member => member.Key).ToList())
        {
            if (!fields.Has(JsonNamingPolicy.CamelCase.ConvertName(name)))
                kept.Remove(name);
        }
        patch = kept.ToJsonString();
        return body;
    }

    /// <summary>What is kept of it.</summary>
    public RetryPolicy ToPolicy() => new()
    {
        Schedule = Schedule,
        MaxAttempts = MaxAttempts,
        BaseDelay = BaseDelay,
        Factor = Factor,
        MaxDelay = MaxDelay,
        Jitter = Jitter,
        MaxAge = MaxAge,
        Statuses = Statuses,
        MaxRetryAfter = MaxRetryAfter,
        Timeout = Timeout,
    };

    /// <summary>Why these members don't go together; null when they do.</summary>
    public static string? Problem(RetryPolicy policy) =>
        policy.Schedule is not null
            && (policy.MaxAttempts is not null || policy.BaseDelay is not null || policy.Factor is not null || policy.MaxDelay is not null)
            ? "A schedule says all delays, and goes without maxAttempts, baseDelay, factor and maxDelay; null removes one."
            : null;
}
