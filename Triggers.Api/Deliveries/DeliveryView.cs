using System.Text.Json.Serialization;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Deliveries;

/// <summary>A delivery as clients see it.</summary>
internal record DeliveryView(
    string Id,
    string EventId,
    string SubscriptionId,
    DeliveryStatus Status,
    bool InFlight,
    int FailedAttempts,
    DateTimeOffset? NextAttemptAt,
    DateTimeOffset? ExpiresAt,
    AttemptOutcome? LastOutcome,
    int? LastStatusCode,
    string? ReplayOf,
    bool Test,
    DateTimeOffset CreatedAt,
    DateTimeOffset? FinalizedAt)
{
    public static DeliveryView Of(Delivery d) => new(
        TypeId.Format(TypeId.Delivery, d.Id),
        TypeId.Format(TypeId.Event, d.EventId),
        TypeId.Format(TypeId.Subscription, d.SubscriptionId),
        d.Status,
        d.ClaimedBy is not null,
        d.RetryCount,
        // While an attempt is in flight the column holds its lease, which is nobody else's business.
        d.ClaimedBy is null ? d.NextAttemptAt : null,
        d.ExpiresAt,
        d.LastOutcome,
        d.LastStatusCode,
        d.ReplayOf is { } replayed ? TypeId.Format(TypeId.Delivery, replayed) : null,
        d.Test,
        TypeId.CreatedAt(d.Id),
        d.FinalizedAt);
}

/// <summary>A delivery with every attempt that was made.</summary>
internal sealed record DeliveryDetail : DeliveryView
{
    public DeliveryDetail(DeliveryView d, IReadOnlyList<AttemptView> attempts) : base(d) => Attempts = attempts;

    [JsonPropertyOrder(1)]
    public IReadOnlyList<AttemptView> Attempts { get; }
}

/// <summary>An attempt as clients see it.</summary>
internal sealed record AttemptView(
    string Id,
    int Number,
    DateTimeOffset StartedAt,
    int DurationMs,
    AttemptOutcome Outcome,
    string? Error,
    int? StatusCode,
    IReadOnlyDictionary<string, string>? ResponseHeaders,
    string? ResponseBody,
    BodyEncoding? ResponseBodyEncoding,
    string? BatchId)
{
    public static AttemptView Of(Attempt a)
    {
        ReadableBody? body = a.ResponseBody is { } bytes ? ReadableBody.Of(bytes, a.ResponseHeaders) : null;
        return new(
            TypeId.Format(TypeId.Attempt, a.Id), a.Number, a.StartedAt, a.DurationMs, a.Outcome, a.Error, a.StatusCode, a.ResponseHeaders,
            body?.Text, body?.Encoding, a.BatchId is { } batch ? TypeId.Format(TypeId.Batch, batch) : null);
    }
}
