using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Inbox;

/// <summary>What a client says an inbox is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record InboxBody
{
    public const int MaxNameLength = 64;
    public const string NamePattern = "^[A-Za-z0-9._-]{1,64}$";

    /// <summary>Twelve hours.</summary>
    public const int MaxLeaseSeconds = 43_200;
    public const int MaxMaxDeliveries = 1_000;

    /// <summary>Unique in the tenant: 1 to 64 letters, digits, <c>.</c>, <c>_</c>, <c>-</c>.</summary>
    [Length(1, MaxNameLength), RegularExpression(NamePattern)]
    public required string Name { get; init; }

    /// <summary>
    /// Types or patterns: <c>*</c>, <c>order.created</c>, <c>order.*</c>. None matches a type that begins with <c>triggers.</c>.
    /// </summary>
    [Length(1, SubscriptionBody.MaxEventTypes), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed)]
    public required string[] EventTypes { get; init; }

    /// <summary>Which of these events come into it: as of a subscription. All of them when left out.</summary>
    public JsonObject? Filter { get; init; }

    /// <summary>What is read of <see cref="Filter"/>.</summary>
    internal SubscriptionFilter? NewFilter { get; init; }

    /// <summary>Free text for people.</summary>
    [Length(0, SubscriptionBody.MaxDescriptionLength)]
    public string? Description { get; init; }

    /// <summary>Seconds for which a delivery belongs to who received it, unless they ask for another time; 30 when left out.</summary>
    [Range(1, MaxLeaseSeconds)]
    public int? Lease { get; init; }

    /// <summary>How often a delivery is given out at most; 10 when left out. Then it is a dead letter.</summary>
    [Range(1, MaxMaxDeliveries)]
    public int? MaxDeliveries { get; init; }

    public static InboxBody Read(Fields fields)
    {
        var name = fields.Text("name");
        if (name is not null && !EventTypePattern.IsType(name))
            fields.Refuse("/name", "Must be letters, digits, \".\", \"_\" and \"-\".");
        return new()
        {
            Name = name!,
            EventTypes = SubscriptionBody.ReadEventTypes(fields)!,
            NewFilter = SubscriptionBody.ReadFilter(fields),
            Description = fields.Text("description"),
            Lease = fields.Number("lease"),
            MaxDeliveries = fields.Number("maxDeliveries"),
        };
    }
}

/// <summary>What of an inbox is to change; what is not there stays.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record InboxChange
{
    /// <summary>As when making it; replaced as a whole. The inbox <c>default</c> has none to be changed.</summary>
    [Length(1, SubscriptionBody.MaxEventTypes), Items(
        EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed), NotRemovable]
    public string[]? EventTypes { get; init; }

    /// <summary>As when making it; replaced as a whole, null removes it. What is in the inbox stays.</summary>
    public JsonObject? Filter { get; init; }

    /// <summary>What is read of <see cref="Filter"/>.</summary>
    internal SubscriptionFilter? NewFilter { get; init; }

    /// <summary>Whether the filter is to change, were it to none.</summary>
    internal bool HasFilter { get; init; }

    /// <summary>As when making it; null removes it.</summary>
    [Length(0, SubscriptionBody.MaxDescriptionLength)]
    public string? Description { get; init; }

    /// <summary>As when making it.</summary>
    [Range(1, InboxBody.MaxLeaseSeconds), NotRemovable]
    public int? Lease { get; init; }

    /// <summary>As when making it.</summary>
    [Range(1, InboxBody.MaxMaxDeliveries), NotRemovable]
    public int? MaxDeliveries { get; init; }

    /// <summary>Whether the description is to change, were it to null.</summary>
    internal bool HasDescription { get; init; }

    public static InboxChange Read(Fields fields) => new()
    {
        EventTypes = SubscriptionBody.ReadEventTypes(fields),
        NewFilter = SubscriptionBody.ReadFilter(fields),
        HasFilter = fields.Has("filter"),
        HasDescription = fields.Has("description"),
        Description = fields.Text("description"),
        Lease = fields.Number("lease"),
        MaxDeliveries = fields.Number("maxDeliveries"),
    };
}

/// <summary>An inbox as clients see it.</summary>
/// <param name="Id">A subscription's: deliveries, dead letters and replays name it.</param>
/// <param name="Name">What paths name it by.</param>
/// <param name="EventTypes">What comes into it; empty for <c>default</c>, which has what nobody subscribes to.</param>
/// <param name="Filter">Which of these events; null: all.</param>
/// <param name="Description">Free text.</param>
/// <param name="Lease">Seconds.</param>
/// <param name="MaxDeliveries">How often a delivery is given out at most.</param>
/// <param name="Waiting">How many deliveries could be received, now or after a delay; counting stops at 10,000.</param>
/// <param name="Leased">How many are leased; counting stops at 10,000.</param>
/// <param name="OldestEventAt">When the oldest of those was accepted.</param>
/// <param name="CreatedAt">By the database's clock.</param>
/// <param name="UpdatedAt">By the database's clock.</param>
internal sealed record InboxView(
    string Id,
    string Name,
    IReadOnlyList<string> EventTypes,
    JsonObject? Filter,
    string? Description,
    int Lease,
    int MaxDeliveries,
    int Waiting,
    int Leased,
    DateTimeOffset? OldestEventAt,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt)
{
    public static InboxView Of(Subscription s, InboxCount count) => new(
        TypeId.Format(TypeId.Subscription, s.Id), s.Inbox!, s.Inbox == Inboxes.Default ? [] : s.EventTypes,
        SubscriptionView.FilterOf(s), s.Description, s.LeaseSeconds, s.MaxDeliveries,
        count.Waiting, count.Leased, count.OldestEventAt, s.CreatedAt, s.UpdatedAt);
}

/// <summary>What is in an inbox.</summary>
internal readonly record struct InboxCount(int Waiting, int Leased, DateTimeOffset? OldestEventAt);
