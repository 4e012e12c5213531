using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Subscriptions;

/// <summary>What is to change; what is not there stays.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record SubscriptionChange
{
    /// <summary>As when subscribing; null removes it.</summary>
    [Length(1, SubscriptionBody.MaxNameLength), RegularExpression(SubscriptionBody.NamePattern)]
    public string? Name { get; init; }

    /// <summary>Whether the name is to change, were it to none.</summary>
    internal bool HasName { get; init; }

    /// <summary>As when subscribing.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern), NotRemovable]
    public string? Url { get; init; }

    /// <summary>As when subscribing; replaced as a whole.</summary>
    [Length(1, SubscriptionBody.MaxEventTypes), Items(
        EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed), NotRemovable]
    public string[]? EventTypes { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it.</summary>
    public JsonObject? Filter { get; init; }

    /// <summary>What is read of <see cref="Filter"/>.</summary>
    internal SubscriptionFilter? NewFilter { get; init; }

    /// <summary>Whether the filter is to change, were it to none.</summary>
    internal bool HasFilter { get; init; }

    /// <summary>As when subscribing; null removes it.</summary>
    [Length(0, SubscriptionBody.MaxDescriptionLength)]
    public string? Description { get; init; }

    /// <summary>A disabled subscription gets no new deliveries, and those it has wait.</summary>
    [NotRemovable]
    public bool? Enabled { get; init; }

    /// <summary>As when subscribing; merged name by name (letter case does not count), null removes one, or all of them.</summary>
    [Map(SubscriptionBody.MaxHeaders, SubscriptionBody.MaxHeaderLength, Pattern = WebhookHeaders.OfValues, IsPatch = true)]
    public Dictionary<string, string?>? Headers { get; init; }

    /// <summary>As when subscribing. It holds for what is still to be sent, retries and replays too.</summary>
    [NotRemovable]
    public WebhookFormat? Format { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it.</summary>
    public TransformationBody? Transformation { get; init; }

    /// <summary>What is read of <see cref="Transformation"/>.</summary>
    internal Transformation? NewTransformation { get; init; }

    /// <summary>Whether it goes.</summary>
    internal bool RemovesTransformation { get; init; }

    /// <summary>As when subscribing; merged member by member, null removes one, or all of them.</summary>
    public RetryBody? Retry { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it.</summary>
    public RateLimitBody? RateLimit { get; init; }

    /// <summary>As when subscribing; null removes it.</summary>
    [Range(1, SubscriptionLimits.MaxConcurrency)]
    public int? Concurrency { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it. What waits goes when it would have gone before.</summary>
    public BatchBody? Batch { get; init; }

    /// <summary>Whether the batches are to change, were it to none.</summary>
    internal bool HasBatch { get; init; }

    /// <summary>Whether the rate limit is to change, were it to null.</summary>
    internal bool HasRateLimit { get; init; }

    /// <summary>Whether the concurrency is to change, were it to null.</summary>
    internal bool HasConcurrency { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it.</summary>
    public AuthenticationBody? Authentication { get; init; }

    /// <summary>
    /// As when subscribing. It holds for events accepted after the answer; what is on its way stays in the order, or in none, that it has.
    /// </summary>
    [NotRemovable]
    public Ordering? Ordering { get; init; }

    /// <summary>As when subscribing. What is held already is held until somebody lets it go.</summary>
    [NotRemovable]
    public FailingHead? FailingHead { get; init; }

    /// <summary>As when subscribing; null removes it.</summary>
    [Range(1, SubscriptionBody.MaxFailingHeadAttempts)]
    public int? FailingHeadAttempts { get; init; }

    /// <summary>Whether these attempts are to change, were it to null.</summary>
    internal bool HasFailingHeadAttempts { get; init; }

    /// <summary>What is read of <see cref="Authentication"/>.</summary>
    internal ReceiverAuthentication? NewAuthentication { get; init; }

    /// <summary>Whether it goes.</summary>
    internal bool RemovesAuthentication { get; init; }

    /// <summary>As when subscribing; replaced as a whole, null removes it.</summary>
    public ClientCertificateBody? ClientCertificate { get; init; }

    /// <summary>What is read of <see cref="ClientCertificate"/>, as it is to be kept.</summary>
    internal string? NewClientCertificate { get; init; }

    /// <summary>Whether it goes.</summary>
    internal bool RemovesClientCertificate { get; init; }

    /// <summary>The members of <see cref="Retry"/> that are to change, those to be removed as null, as they are kept.</summary>
    internal string? RetryPatch { get; init; }

    /// <summary>Whether the retry policy goes.</summary>
    internal bool RemovesRetry { get; init; }

    /// <summary>As when subscribing; null for never.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Whether the end is to change, were it to never.</summary>
    internal bool HasExpiresAt { get; init; }

    /// <summary>Whether the description is to change, were it to null.</summary>
    internal bool HasDescription { get; init; }

    /// <summary>Whether the headers there are go.</summary>
    internal bool RemovesHeaders { get; init; }

    public static SubscriptionChange Read(Fields fields)
    {
        string? patch = null;
        var retry = fields.Object("retry", of => RetryBody.Read(of, out patch));
        var authentication = fields.Object<AuthenticationBody, ReceiverAuthentication>("authentication", AuthenticationBody.Read);
        var certificate = fields.Object<ClientCertificateBody, string>("clientCertificate", ClientCertificateBody.Read);
        var transformation = TransformationBody.ReadMember(fields);
        return new()
        {
            NewTransformation = transformation,
            RemovesTransformation = fields.Has("transformation") && transformation is null,
            Format = fields.OneOf<WebhookFormat>("format"),
            Retry = retry,
            RetryPatch = patch,
            NewAuthentication = authentication,
            RemovesAuthentication = fields.Has("authentication") && authentication is null,
            NewClientCertificate = certificate,
            RemovesClientCertificate = fields.Has("clientCertificate") && certificate is null,
            RemovesRetry = fields.Has("retry") && retry is null,
            Ordering = fields.OneOf<Ordering>("ordering"),
            FailingHead = fields.OneOf<FailingHead>("failingHead"),
            HasFailingHeadAttempts = fields.Has("failingHeadAttempts"),
            FailingHeadAttempts = fields.Number("failingHeadAttempts"),
            RateLimit = fields.Object("rateLimit", RateLimitBody.Read),
            HasRateLimit = fields.Has("rateLimit"),
            Batch = fields.Object("batch", BatchBody.Read),
            HasBatch = fields.Has("batch"),
            Concurrency = fields.Number("concurrency"),
            HasConcurrency = fields.Has("concurrency"),
            ExpiresAt = fields.Moment("expiresAt"),
            HasExpiresAt = fields.Has("expiresAt"),
            Name = SubscriptionBody.ReadName(fields),
            HasName = fields.Has("name"),
            Url = SubscriptionBody.ReadUrl(fields),
            EventTypes = SubscriptionBody.ReadEventTypes(fields),
            NewFilter = SubscriptionBody.ReadFilter(fields),
            HasFilter = fields.Has("filter"),
            HasDescription = fields.Has("description"),
            Description = fields.Text("description"),
            Enabled = fields.Flag("enabled"),
            Headers = SubscriptionBody.ReadHeaders(fields),
            RemovesHeaders = fields.Has("headers") && fields.Map("headers") is null,
        };
    }
}

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

/// <summary>How a subscription's secret is to change; may be left out.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RotateSecret
{
    /// <summary>
    /// How long the secrets of before sign on, <c>00:00:00</c> to <c>7.00:00:00</c>; <c>1.00:00:00</c> when left out. With
    /// <c>00:00:00</c> they are revoked at once.
    /// </summary>
    [Duration(maxDays: 7)]
    public TimeSpan? Overlap { get; init; }

    /// <summary>The new secret, if the receiver has one already, or private key: as when subscribing.</summary>
    [Length(1, SigningSecrets.MaxLength), RegularExpression(SigningSecrets.Pattern)]
    public string? Secret { get; init; }

    /// <summary>
    /// What the new one signs: that of <c>secret</c> when left out, or <c>v1</c>. One that the subscription did not have is added, and
    /// those that sign otherwise stay as they are.
    /// </summary>
    public SignatureType? Type { get; init; }

    public static RotateSecret Read(Fields fields)
    {
        var body = new RotateSecret
        {
            Overlap = fields.Duration("overlap"),
            Secret = SigningSecrets.Read(fields),
            Type = fields.OneOf<SignatureType>("type"),
        };
        if (body is { Secret: { } secret, Type: { } type } && SigningSecrets.TypeOf(secret) != SnakeCase<SignatureType>.Of(type))
            fields.Refuse("/secret", "Is for another signature than the one that is asked for.");
        return body;
    }
}

/// <summary>What a secret signs.</summary>
internal enum SignatureType
{
    /// <summary>HMAC-SHA256.</summary>
    V1,

    /// <summary>Ed25519.</summary>
    V1a,
}
