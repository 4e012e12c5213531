using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>What is to change; what is not there stays.</summary>
internal sealed record SubscriptionChange
{
    /// <summary>As when subscribing.</summary>
    public string? Url { get; init; }

    /// <summary>As when subscribing; replaced as a whole.</summary>
    public string[]? EventTypes { get; init; }

    /// <summary>As when subscribing; null removes it.</summary>
    public string? Description { get; init; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait.</summary>
    public bool? Enabled { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes them.</summary>
    public Dictionary<string, string>? Headers { get; init; }
}

/// <summary>What a client says a subscription is.</summary>
internal sealed record SubscriptionBody
{
    private const int MaxUrlLength = 2_048;
    private const int MaxEventTypes = 100;
    private const int MaxHeaders = 20;
    private const int MaxHeaderLength = 4_096;

    /// <summary>
    /// Where webhooks go: http or https, at most 2,048 characters, neither user name nor fragment. Path and query are sent byte for
    /// byte as given; an international host name is kept and shown as punycode.
    /// </summary>
    public required string Url { get; init; }

    /// <summary>1–100 types or patterns: <c>*</c>, <c>order.created</c>, <c>order.*</c>.</summary>
    public required string[] EventTypes { get; init; }

    /// <summary>Free text for people, at most 1,000 characters.</summary>
    public string? Description { get; init; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait.</summary>
    public bool? Enabled { get; init; }

    /// <summary>Sent with every webhook, at most 20.</summary>
    public Dictionary<string, string>? Headers { get; init; }

    /// <summary>Whether the description is to change, were it to null.</summary>
    internal bool HasDescription { get; init; }

    /// <summary>Reads the body of a POST.</summary>
    public static SubscriptionBody ReadNew(Fields fields) => Read(fields, required: true);

    /// <summary>Reads the body of a PATCH (RFC 7396).</summary>
    public static SubscriptionBody ReadChange(Fields fields)
    {
        foreach (var name in (string[])["url", "eventTypes", "enabled"])
        {
            if (fields.IsNull(name))
                fields.Refuse(Fields.Pointer(name), "Can't be removed.");
        }
        var change = Read(fields, required: false);
        return fields.IsNull("headers") ? change with { Headers = [] } : change;
    }

    private static SubscriptionBody Read(Fields fields, bool required)
    {
        var body = new SubscriptionBody
        {
            Url = fields.Text("url", 1, MaxUrlLength, required)!,
            EventTypes = fields.Texts("eventTypes", 1, MaxEventTypes, EventTypePattern.MaxLength + 2, required)!,
            HasDescription = fields.Has("description"),
            Description = fields.Text("description", 0, 1_000),
            Enabled = fields.Flag("enabled"),
            Headers = fields.Map("headers", MaxHeaders, MaxHeaderLength),
        };
        if (body.Url is not null)
        {
            if (WebhookAddress.TryNormalize(body.Url, out var address, out var problem))
                body = body with { Url = address };
            else
                fields.Refuse("/url", problem);
        }
        for (var i = 0; i < body.EventTypes?.Length; i++)
        {
            // What was no text at all has been refused as that.
            if (body.EventTypes[i].Length > 0 && !EventTypePattern.IsPattern(body.EventTypes[i]))
                fields.Refuse($"/eventTypes/{i}", "Must be *, an event type, or a type and .*, as in order.*.");
        }
        using var request = new HttpRequestMessage();
        foreach (var (name, value) in body.Headers ?? [])
        {
            if (WebhookHeaders.Add(request.Headers, name, value) is { } problem)
                fields.Refuse("/headers" + Fields.Pointer(name), problem);
            else if (value == SubscriptionView.Masked)
                fields.Refuse("/headers" + Fields.Pointer(name), "Is what readers see in place of the value; leave the header out to keep it.");
        }
        return body;
    }
}
