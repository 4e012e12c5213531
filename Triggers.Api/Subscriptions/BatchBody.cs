using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>Several events in one request: it goes when it is full, or its oldest event has waited long enough.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record BatchBody
{
    private const double DefaultWait = 1;

    /// <summary>The most events of a request.</summary>
    [Range(2, Batching.MaxEvents)]
    public required int Max { get; init; }

    /// <summary>How long an event waits for others at most, in seconds, to the millisecond; 1 when left out.</summary>
    [Range(0, Batching.MaxWaitSeconds)]
    public double? Wait { get; init; }

    public static BatchBody Read(Fields fields) => new() { Max = fields.Number("max") ?? 0, Wait = fields.Real("wait") };

    /// <summary>As it is kept.</summary>
    public Batching ToBatching() => new(Max, TimeSpan.FromMilliseconds(Math.Round((Wait ?? DefaultWait) * 1_000)));
}
