using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Auth;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Subscriptions;

/// <summary>A subscription as clients see it: without its secrets.</summary>
internal record SubscriptionView(
    string Id,
    string? Name,
    string Url,
    IReadOnlyList<string> EventTypes,
    JsonObject? Filter,
    string? Description,
    bool Enabled,
    string? DisabledReason,
    IReadOnlyDictionary<string, string> Headers,
    IReadOnlyList<string> Signatures,
    string? PublicKey,
    AuthenticationView? Authentication,
    ClientCertificateView? ClientCertificate,
    WebhookFormat Format,
    TransformationView? Transformation,
    RetryPolicy? Retry,
    Ordering Ordering,
    FailingHead FailingHead,
    int? FailingHeadAttempts,
    RateLimitView? RateLimit,
    int? Concurrency,
    LimitsInUse? LimitsInUse,
    BatchView? Batch,
    CircuitView Circuit,
    IReadOnlyList<string>? Unreadable,
    DateTimeOffset? ExpiresAt,
    DateTimeOffset CreatedAt,
    DateTimeOffset UpdatedAt)
{
    /// <summary>What readers see in place of a header's value, and everybody in place of one that can't be decrypted.</summary>
    public const string Masked = "***";

    /// <summary>
    /// A subscription as the caller may see it. The values of headers, which may be credentials of the receiver, are for those who could
    /// have them sent to an address of theirs anyway. What can't be decrypted is as if it were not there, and named as unreadable.
    /// </summary>
    public static SubscriptionView Of(
        Subscription s, Caller caller, SecretProtector protector, TimeProvider time, LimitsInUse? limits = null)
    {
        var writes = caller.May(Scopes.SubscriptionsWrite);
        var headers = s.Headers.ToDictionary(h => h.Key, h => protector.TryUnprotect(h.Value));
        var authentication = protector.TryUnprotect(s.Authentication);
        var certificate = protector.TryUnprotect(s.ClientCertificate);
        var transformation = protector.TryUnprotect(s.Transformation);
        string[] unreadable =
        [
            .. Named("secret", s.Secrets.Exists(secret => protector.TryUnprotect(secret.Secret) is null)),
            .. Named("headers", headers.ContainsValue(null)),
            .. Named("authentication", authentication is null && s.Authentication is not null),
            .. Named("clientCertificate", certificate is null && s.ClientCertificate is not null),
            .. Named("transformation", transformation is null && s.Transformation is not null),
        ];
        return new(
            TypeId.Format(TypeId.Subscription, s.Id), s.Name, s.Url, s.EventTypes,
            FilterOf(s), s.Description, s.Enabled, s.DisabledReason,
            headers.ToDictionary(h => h.Key, h => writes ? h.Value ?? Masked : Masked),
            [.. s.Secrets.Where(secret => secret.ExpiresAt is null).Select(secret => SigningSecrets.TypeOf(secret)).Order()],
            s.Secrets.Find(secret => secret is { PublicKey: not null, ExpiresAt: null })?.PublicKey,
            authentication is null ? null : AuthenticationView.Of(JsonSerializer.Deserialize<ReceiverAuthentication>(authentication)!),
            certificate is null ? null : ClientCertificateView.Of(certificate, time.GetUtcNow()),
            s.Format,
            transformation is null ? null : TransformationView.Of(JsonSerializer.Deserialize<Transformation>(transformation)!, writes),
            s.Retry, s.Ordering, s.FailingHead, s.FailingHeadAttempts,
            s.RateRequests is { } requests ? new RateLimitView(requests, s.RateSeconds!.Value) : null, s.Concurrency, limits,
            s.BatchMax is { } max ? new BatchView(max, s.BatchWait!.Value.TotalSeconds) : null,
            CircuitView.Of(s.Circuit), unreadable.Length > 0 ? unreadable : null, s.ExpiresAt, s.CreatedAt, s.UpdatedAt);

        static string[] Named(string member, bool isUnreadable) => isUnreadable ? [member] : [];
    }

    /// <summary>The filter of a subscription or an inbox, as it was given.</summary>
    public static JsonObject? FilterOf(Subscription s) => s.Filter is null ? null : JsonNode.Parse(s.Filter)!.AsObject();
}

/// <summary>A rate.</summary>
/// <param name="Requests">The most requests.</param>
/// <param name="PerSeconds">In any so many seconds.</param>
internal sealed record RateLimitView(int Requests, int PerSeconds);

/// <summary>How many events a request has.</summary>
/// <param name="Max">At most.</param>
/// <param name="Wait">How long an event waits for others at most, in seconds.</param>
internal sealed record BatchView(int Max, double Wait);

/// <summary>How the limits are used at this moment, by all processes. Only of a single subscription, and while Redis is there.</summary>
/// <param name="Requests">Requests that count against the rate.</param>
/// <param name="Concurrency">Requests that are under way, or about to be; 0 without a limit.</param>
/// <param name="Waiting">Whether something waits because of a limit.</param>
internal sealed record LimitsInUse(int Requests, int Concurrency, bool Waiting);

/// <summary>Whether deliveries are made, or held because attempts fail.</summary>
/// <param name="State"><c>closed</c> (they are made), <c>open</c> (held), <c>half_open</c> (one is tried).</param>
/// <param name="Reason"><c>failures</c>, or <c>requested</c>; null while it is closed.</param>
/// <param name="Since">When it opened.</param>
/// <param name="FailingSince">Since when every attempt has failed.</param>
/// <param name="NextProbeAt">When the next delivery may be tried; null when it is closed by request only.</param>
/// <param name="FailedProbes">How many of those failed.</param>
/// <param name="LastOutcome">How the newest failed attempt ended.</param>
/// <param name="LastStatusCode">The HTTP status of that, when there was an answer.</param>
internal sealed record CircuitView(
    CircuitState State, CircuitReason? Reason, DateTimeOffset? Since, DateTimeOffset? FailingSince, DateTimeOffset? NextProbeAt,
    int FailedProbes, AttemptOutcome? LastOutcome, int? LastStatusCode)
{
    public static CircuitView Of(Circuit? c) => c is null
        ? new(CircuitState.Closed, null, null, null, null, 0, null, null)
        : new(c.State, c.Reason, c.Since, c.FailingSince, c.NextProbeAt, c.FailedProbes, c.LastOutcome, c.LastStatusCode);
}

/// <summary>A subscription that was made, and the secret that its receiver shares with us; null where only a key pair signs.</summary>
internal sealed record NewSubscription(SubscriptionView Subscription, string? Secret);

/// <summary>A subscription with its signing secret, which is shown when it is made and never again.</summary>
internal sealed record SubscriptionWithSecret : SubscriptionView
{
    public SubscriptionWithSecret(SubscriptionView s, string? secret) : base(s) => Secret = secret;

    [JsonPropertyOrder(1)]
    public string? Secret { get; }
}

/// <summary>
/// A new signing secret, or the public key of a new pair; the one before signs beside it until then. Null: no other signs.
/// </summary>
internal sealed record RotatedSecret(string? Secret, string? PublicKey, DateTimeOffset? PreviousExpiresAt);
