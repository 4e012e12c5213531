using System.ComponentModel.DataAnnotations;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Requests;
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
