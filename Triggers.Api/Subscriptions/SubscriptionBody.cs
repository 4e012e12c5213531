using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>What a client says a subscription is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record SubscriptionBody
{
    public const int MaxNameLength = 64;
    public const string NamePattern = "^(?!sub_)[A-Za-z0-9._-]{1,64}$";
    public const int MaxUrlLength = 2_048;
    public const int MaxEventTypes = 100;
    public const int MaxDescriptionLength = 1_000;
    public const int MaxHeaders = 20;
    public const int MaxHeaderLength = WebhookHeaders.MaxValueLength;
    public const int MaxFailingHeadAttempts = 50;
    public const string FormatGoesAlone = "Goes with no transformation, which is one of the envelope.";

    /// <summary>
    /// What a configuration knows it by, unique in the tenant: 1 to 64 letters, digits, <c>.</c>, <c>_</c>, <c>-</c>. None when left out.
    /// </summary>
    [Length(1, MaxNameLength), RegularExpression(NamePattern)]
    public string? Name { get; init; }

    /// <summary>
    /// Where webhooks go: http or https, neither user name nor fragment. Path and query are sent byte for byte as given; an international
    /// host name is kept and shown as punycode.
    /// </summary>
    [Length(1, MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public required string Url { get; init; }

    /// <summary>
    /// Types or patterns: <c>*</c>, <c>order.created</c>, <c>order.*</c>. None matches a type that begins with <c>triggers.</c>, but
    /// for <c>triggers.subscription.*</c>, by which the tenant is told of its subscriptions: <c>failing</c>, <c>recovered</c>,
    /// <c>disabled</c>, <c>deleted</c>, <c>expired</c>.
    /// </summary>
    [Length(1, MaxEventTypes), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed)]
    public required string[] EventTypes { get; init; }

    /// <summary>
    /// Which of these events it wants: an object of conditions on <c>subject</c>, <c>source</c> and members of <c>data</c>, as in
    /// <c>{"data":{"total":[{"numeric":[">=",100]}]}}</c>. All of them when left out.
    /// </summary>
    public JsonObject? Filter { get; init; }

    /// <summary>What is read of <see cref="Filter"/>.</summary>
    internal SubscriptionFilter? NewFilter { get; init; }

    /// <summary>Free text for people.</summary>
    [Length(0, MaxDescriptionLength)]
    public string? Description { get; init; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait. True unless said.</summary>
    public bool? Enabled { get; init; }

    /// <summary>
    /// Sent with every webhook. A name is a token of at most 128 characters, and none that a webhook, or the network, has already.
    /// </summary>
    [Map(MaxHeaders, MaxHeaderLength, Pattern = WebhookHeaders.OfValues)]
    public Dictionary<string, string>? Headers { get; init; }

    /// <summary>
    /// A signing secret that the receiver has already, as Standard Webhooks writes them: <c>whsec_</c> and the base64 of 24 to 64 bytes; or
    /// a private key, <c>whsk_</c> and the base64 of 32 or 64. What is not brought is made.
    /// </summary>
    [Length(1, SigningSecrets.MaxLength), RegularExpression(SigningSecrets.Pattern)]
    public string? Secret { get; init; }

    /// <summary>
    /// What webhooks are signed with: <c>v1</c> (HMAC-SHA256, with a secret shared with the receiver), <c>v1a</c> (Ed25519, with a key pair
    /// whose public key is at <c>/.well-known/webhooks-keys</c>), or both. That of <c>secret</c> when left out, or <c>v1</c>.
    /// </summary>
    [Length(1, 2), SignatureItems]
    public string[]? Signatures { get; init; }

    /// <summary>What the receiver knows its caller by, beside the signature.</summary>
    public AuthenticationBody? Authentication { get; init; }

    /// <summary>What is read of <see cref="Authentication"/>.</summary>
    internal ReceiverAuthentication? NewAuthentication { get; init; }

    /// <summary>What the receiver knows its caller by in the TLS handshake. Goes with an https address.</summary>
    public ClientCertificateBody? ClientCertificate { get; init; }

    /// <summary>What is read of <see cref="ClientCertificate"/>, as it is to be kept.</summary>
    internal string? NewClientCertificate { get; init; }

    /// <summary>
    /// What a request says of an event. <c>envelope</c> (unless said): a JSON object with the event's attributes, and its data as
    /// <c>data</c>. <c>data</c>: its data alone. <c>cloudevents</c>: a CloudEvent in structured mode. <c>cloudevents_binary</c>: one in
    /// binary mode, with the data as the body.
    /// </summary>
    public WebhookFormat? Format { get; init; }

    /// <summary>Makes requests of the envelope by templates. Goes with no other format.</summary>
    public TransformationBody? Transformation { get; init; }

    /// <summary>What is read of <see cref="Transformation"/>.</summary>
    internal Transformation? NewTransformation { get; init; }

    /// <summary>When to try again, as far as it is not as the service has it.</summary>
    public RetryBody? Retry { get; init; }

    /// <summary>
    /// <c>none</c> (unless said): many are sent at once. <c>per_key</c>: those of events with the same <c>subject</c> are sent one after
    /// the other, in the order in which they were accepted, and the next one only when the one before has ended; what has no subject is
    /// in no order. <c>strict</c>: the same of all.
    /// </summary>
    public Ordering? Ordering { get; init; }

    /// <summary>
    /// What becomes of a key whose first delivery fails for good. <c>block</c> (unless said): it stays the first, and nothing of the key is
    /// sent until somebody lets it go or skips it. <c>dead_letter_after</c>: it becomes a dead letter, and the next one goes on.
    /// <c>park_key</c>: it becomes a dead letter, and the rest of the key waits until somebody lets it go.
    /// </summary>
    public FailingHead? FailingHead { get; init; }

    /// <summary>After how many failed attempts it has failed for good; at the end of its retries when left out.</summary>
    [Range(1, MaxFailingHeadAttempts)]
    public int? FailingHeadAttempts { get; init; }

    /// <summary>How many requests it is sent at most in a time. As many as there are when left out.</summary>
    public RateLimitBody? RateLimit { get; init; }

    /// <summary>How many requests it is sent at once at most. As many as it stands when left out.</summary>
    [Range(1, SubscriptionLimits.MaxConcurrency)]
    public int? Concurrency { get; init; }

    /// <summary>Whether it gets several events in one request, whose body is then an array. Each alone when left out.</summary>
    public BatchBody? Batch { get; init; }

    /// <summary>When it is deleted by itself; never when left out.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    public static SubscriptionBody Read(Fields fields)
    {
        var secret = SigningSecrets.Read(fields);
        var signatures = fields.Texts("signatures");
        if (secret is not null && signatures is not null && !signatures.Contains(SigningSecrets.TypeOf(secret)))
            fields.Refuse("/secret", "Is for another signature than those that are asked for.");
        var format = fields.OneOf<WebhookFormat>("format");
        var transformation = TransformationBody.ReadMember(fields);
        if (transformation is not null && format is not (null or WebhookFormat.Envelope))
            fields.Refuse("/format", FormatGoesAlone);
        return new()
        {
            Name = ReadName(fields),
            Url = ReadUrl(fields)!,
            EventTypes = ReadEventTypes(fields)!,
            NewFilter = ReadFilter(fields),
            Description = fields.Text("description"),
            Enabled = fields.Flag("enabled"),
            Headers = ReadHeaders(fields)?.ToDictionary(h => h.Key, h => h.Value!),
            Secret = secret,
            Signatures = signatures,
            NewAuthentication = fields.Object<AuthenticationBody, ReceiverAuthentication>("authentication", AuthenticationBody.Read),
            NewClientCertificate = fields.Object<ClientCertificateBody, string>("clientCertificate", ClientCertificateBody.Read),
            Format = format,
            NewTransformation = transformation,
            Retry = fields.Object("retry", of => RetryBody.Read(of, out _)),
            Ordering = fields.OneOf<Ordering>("ordering"),
            FailingHead = fields.OneOf<FailingHead>("failingHead"),
            FailingHeadAttempts = fields.Number("failingHeadAttempts"),
            RateLimit = fields.Object("rateLimit", RateLimitBody.Read),
            Concurrency = fields.Number("concurrency"),
            Batch = fields.Object("batch", BatchBody.Read),
            ExpiresAt = fields.Moment("expiresAt"),
        };
    }

    public static string? ReadName(Fields fields)
    {
        var name = fields.Text("name");
        // What looks like an id would be taken for one.
        if (name is not null && (!EventTypePattern.IsType(name) || name.StartsWith("sub_", StringComparison.Ordinal)))
            fields.Refuse("/name", "Must be letters, digits, \".\", \"_\" and \"-\", and not begin with \"sub_\".");
        return name;
    }

    /// <summary>The address, as it is to be kept.</summary>
    public static string? ReadUrl(Fields fields)
    {
        if (fields.Text("url") is not { } url)
            return null;
        if (WebhookAddress.TryNormalize(url, out var address, out var problem))
            return address;
        fields.Refuse("/url", problem);
        return null;
    }

    public static string[]? ReadEventTypes(Fields fields)
    {
        var patterns = fields.Texts("eventTypes");
        for (var i = 0; i < patterns?.Length; i++)
        {
            // What was no text at all has been refused as that.
            if (patterns[i].Length > 0 && !EventTypePattern.IsPattern(patterns[i]))
                fields.Refuse($"/eventTypes/{i}", "Must be *, an event type, or a type and .*, as in order.*.");
            else if (EventTypePattern.IsSystem(patterns[i]) && !EventTypePattern.IsOperational(patterns[i]))
                fields.Refuse(
                    $"/eventTypes/{i}", $"Would match nothing: of the system's own types only {EventTypePattern.Operational} are sent.");
        }
        return patterns;
    }

    public static SubscriptionFilter? ReadFilter(Fields fields) => fields.Any("filter") is { } filter
        ? SubscriptionFilter.Read(filter, (pointer, problem) => fields.Refuse("/filter" + pointer, problem)) : null;

    public static Dictionary<string, string?>? ReadHeaders(Fields fields)
    {
        var headers = fields.Map("headers");
        using var request = new HttpRequestMessage();
        foreach (var (name, value) in headers ?? [])
        {
            if (value is not null && WebhookHeaders.Add(request.Headers, name, value) is { } problem)
                fields.Refuse("/headers" + Fields.Pointer(name), problem);
            else if (value == SubscriptionView.Masked)
                fields.Refuse(
                    "/headers" + Fields.Pointer(name), "Is what readers see in place of the value; leave the header out to keep it.");
        }
        return headers;
    }
}
