using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Http;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Hooks;

/// <summary>What a client says a REST hook is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record HookBody
{
    /// <summary>Where webhooks go, as with subscriptions. It is the hook's name: to send it again changes the hook.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public required string TargetUrl { get; init; }

    /// <summary>
    /// Types or patterns: <c>*</c>, <c>order.created</c>, <c>order.*</c>. None matches a type that begins with <c>triggers.</c>, but
    /// for <c>triggers.subscription.*</c>, as with subscriptions.
    /// </summary>
    [Length(1, SubscriptionBody.MaxEventTypes), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed)]
    public required string[] EventTypes { get; init; }

    /// <summary>What a request says of an event, as with subscriptions; as it was, or <c>envelope</c>, when left out.</summary>
    public WebhookFormat? Format { get; init; }

    /// <summary>When it is deleted by itself; never when left out.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    public static HookBody Read(Fields fields) => new()
    {
        TargetUrl = ReadTarget(fields)!,
        EventTypes = SubscriptionBody.ReadEventTypes(fields)!,
        Format = fields.OneOf<WebhookFormat>("format"),
        ExpiresAt = fields.Moment("expiresAt"),
    };

    public static string? ReadTarget(Fields fields)
    {
        if (fields.Text("targetUrl") is not { } url)
            return null;
        if (WebhookAddress.TryNormalize(url, out var address, out var problem))
            return address;
        fields.Refuse("/targetUrl", problem);
        return null;
    }
}

/// <summary>Which REST hook is to go.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RemoveHook
{
    /// <summary>As it was given.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public required string TargetUrl { get; init; }

    public static RemoveHook Read(Fields fields) => new() { TargetUrl = HookBody.ReadTarget(fields)! };
}

/// <summary>A REST hook as clients see it.</summary>
/// <param name="Id">A subscription's.</param>
/// <param name="TargetUrl">Where webhooks go.</param>
/// <param name="EventTypes">Which.</param>
/// <param name="Enabled">False where somebody has disabled it by request.</param>
/// <param name="ExpiresAt">When it is deleted by itself; null: never.</param>
/// <param name="Secret">What its webhooks are signed with, when it was made; null when it was there.</param>
internal sealed record HookView(
    string Id, string TargetUrl, IReadOnlyList<string> EventTypes, bool Enabled, DateTimeOffset? ExpiresAt, string? Secret);

/// <summary>What webhooks say of events.</summary>
/// <param name="Items">Bodies of webhooks, the newest event first.</param>
/// <param name="BuiltIn">Whether there was no event, and the one item is made up.</param>
internal sealed record HookSamples(IReadOnlyList<RawJson> Items, bool BuiltIn);
