using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>A rate: in any time of that length no more requests are begun, by all processes together.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RateLimitBody
{
    /// <summary>The most requests.</summary>
    [Range(1, SubscriptionLimits.MaxRequests)]
    public required int Requests { get; init; }

    /// <summary>The time, in seconds; 1 when left out.</summary>
    [Range(1, SubscriptionLimits.MaxPerSeconds)]
    public int? PerSeconds { get; init; }

    public static RateLimitBody Read(Fields fields) =>
        new() { Requests = fields.Number("requests") ?? 0, PerSeconds = fields.Number("perSeconds") };
}
