namespace Triggers.Core.Tables;

/// <summary>What a producer told us. Immutable.</summary>
public sealed class Event
{
    /// <summary>The tenant it belongs to.</summary>
    public required Guid TenantId { get; init; }

    /// <summary>UUIDv7, shown as <c>evt_…</c>; holds the time of acceptance.</summary>
    public required Guid Id { get; init; }

    /// <summary>Place in the Postgres log, in the order of commits; null for events that came another way.</summary>
    public long? Seq { get; init; }

    /// <summary>The producer's own name for it, unique per tenant.</summary>
    public string? ExternalId { get; init; }

    /// <summary>Dotted name, as in <c>order.created</c>.</summary>
    public required string Type { get; init; }

    /// <summary>Where it came from, the producer's word.</summary>
    public string? Source { get; init; }

    /// <summary>What it is about, the producer's word.</summary>
    public string? Subject { get; init; }

    /// <summary>When it happened, the producer's word.</summary>
    public DateTimeOffset? Time { get; init; }

    /// <summary>Ties together everything one request caused.</summary>
    public required string CorrelationId { get; init; }

    /// <summary>W3C trace context of the request that brought it.</summary>
    public string? TraceParent { get; init; }

    /// <summary>Nobody gets it before; null: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>Nobody gets it from then on; null: it does not expire.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>When it was taken back, by the database's clock.</summary>
    public DateTimeOffset? CancelledAt { get; init; }

    /// <summary>The JSON value exactly as it was received.</summary>
    public required byte[] Data { get; init; }
}
