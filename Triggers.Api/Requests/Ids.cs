using Triggers.Api.Errors;
using Triggers.Core;

namespace Triggers.Api.Requests;

/// <summary>Ids in paths. What is no id names nothing: 404, like an id nobody has.</summary>
internal static class Ids
{
    public static Guid Event(string text) => Parse(TypeId.Event, text, "event");

    public static Guid Subscription(string text) => Parse(TypeId.Subscription, text, "subscription");

    public static Guid Delivery(string text) => Parse(TypeId.Delivery, text, "delivery");

    public static Guid DeadLetter(string text) => Parse(TypeId.Delivery, text, "dead letter");

    public static Guid Replay(string text) => Parse(TypeId.Replay, text, "replay");

    public static Guid ApiKey(string text) => Parse(TypeId.ApiKey, text, "API key");

    public static Guid Tenant(string text) => Parse(TypeId.Tenant, text, "tenant");

    public static Guid UsagePlan(string text) => Parse(TypeId.UsagePlan, text, "usage plan");

    private static Guid Parse(string prefix, string text, string what) =>
        TypeId.TryParse(prefix, text, out var id) ? id : throw ApiException.NotFound(what);
}
