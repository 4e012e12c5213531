using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Options;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>How an attempt ended, with all that is recorded of it.</summary>
/// <param name="Outcome">Whose fault it was.</param>
/// <param name="Duration">From the first step to the last byte read.</param>
/// <param name="StatusCode">Of the answer, when there was one.</param>
/// <param name="Error">One line, without secrets: why there is no answer, or why it broke off.</param>
/// <param name="RetryAfter">What the receiver asked for.</param>
/// <param name="ResponseHeaders">Capped.</param>
/// <param name="ResponseBody">The first 4 KiB.</param>
internal sealed record AttemptResult(
    AttemptOutcome Outcome,
    TimeSpan Duration,
    int? StatusCode = null,
    string? Error = null,
    TimeSpan? RetryAfter = null,
    Dictionary<string, string>? ResponseHeaders = null,
    byte[]? ResponseBody = null)
{
    /// <summary>
    /// How long the receiver wants nothing more: what 429 or 503 say in <c>Retry-After</c>, or any answer in <c>RateLimit</c>.
    /// </summary>
    public TimeSpan? Pause { get; init; }

    /// <summary>The certificate of the receiver, of a test that was answered over TLS.</summary>
    public ReceiverCertificate? Certificate { get; init; }

    /// <summary>Why the attempt failed, in words.</summary>
    public string Cause => (StatusCode, Error) switch
    {
        (null, _) => Error ?? "",
        (_, null) => $"the receiver answered {StatusCode}",
        _ => $"the receiver answered {StatusCode}; {Error}",
    };
}

/// <summary>Makes one HTTP request: signed, guarded, timed, classified. What follows from it is decided elsewhere.</summary>
internal sealed class WebhookSender(
    IHttpMessageHandlerFactory handlers, AddressGuard guard, AccessTokens tokens, IOptions<DeliveryOptions> options, TimeProvider time,
    string client = WebhookSender.ClientName)
{
    /// <summary>
    /// The HttpClient that webhooks go out by. It follows nothing, keeps nothing and retries nothing: the schedule does.
    /// </summary>
    public const string ClientName = "webhooks";

    private const int MaxNameLength = 500;

    /// <summary>The client's handlers, without what a client does beside. They are the factory's to dispose of.</summary>
    private readonly HttpMessageInvoker _webhooks = new(handlers.CreateHandler(client), disposeHandler: false);

    /// <summary>How long a request may take.</summary>
    public static readonly HttpRequestOptionsKey<TimeSpan> TimeLimit = new(nameof(TimeLimit));

    /// <summary>By which certificate the receiver knows its caller.</summary>
    public static readonly HttpRequestOptionsKey<CertificateOf> ClientCertificate = new(nameof(ClientCertificate));

    /// <summary>Sends, and never throws but for <paramref name="cancellationToken"/>: a failure is a result.</summary>
    /// <param name="delivery">What is sent.</param>
    /// <param name="share">Of its event; let go once the request is written.</param>
    /// <param name="signed">Called when the request is made, and signed.</param>
    /// <param name="written">Called when it is written.</param>
    /// <param name="subscriber">To whom.</param>
    /// <param name="number">1 for the first attempt.</param>
    /// <param name="activity">Its span.</param>
    /// <param name="cancellationToken">Breaks it off.</param>
    public Task<AttemptResult> SendAsync(
        DueDelivery delivery, PayloadShare share, Action signed, Action written, Subscriber subscriber, int number, Activity? activity,
        CancellationToken cancellationToken) =>
        SendAsync(
            delivery, share, signed, written, subscriber,
            (part, done, token) => CreateAsync(delivery, part!, done, subscriber, number, activity, token), cancellationToken);

    /// <summary>The same of several deliveries.</summary>
    /// <param name="batch">What is sent.</param>
    /// <param name="signed">Called when the request is made, and signed.</param>
    /// <param name="subscriber">To whom.</param>
    /// <param name="activity">Its span.</param>
    /// <param name="cancellationToken">Breaks it off.</param>
    public Task<AttemptResult> SendAsync(
        Batch batch, Action signed, Subscriber subscriber, Activity? activity, CancellationToken cancellationToken) =>
        SendAsync(
            batch.Deliveries[0], share: null, signed, () => { }, subscriber,
            (_, _, _) => Task.FromResult(
                WithCertificate(WebhookRequest.Create(batch, subscriber, time.GetUtcNow(), activity), subscriber)),
            cancellationToken);

    private async Task<AttemptResult> SendAsync(
        DueDelivery delivery, PayloadShare? share, Action signed, Action written, Subscriber subscriber,
        Func<PayloadShare?, Action, CancellationToken, Task<HttpRequestMessage>> create, CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();
        HttpRequestMessage request;
        try
        {
            request = await create(share, written, cancellationToken);
        }
        catch (FormatException e)
        {
            return new AttemptResult(AttemptOutcome.InvalidRequest, time.GetElapsedTime(started), Error: e.Message);
        }
        signed();

        var timeLimit = options.Value.TimeoutOf(subscriber.Retry);
        request.Options.Set(TimeLimit, timeLimit);
        using var timeout = new CancellationTokenSource(timeLimit, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        var exchange = Exchange.Begin(wantsCertificate: delivery.Test);
        using (request)
        {
            try
            {
                guard.CheckBeforeProxy(request.RequestUri!);
                var token = await AuthorizeAsync(request, subscriber, refused: null, linked.Token);
                using var response = await _webhooks.SendAsync(request, linked.Token);
                if (token is null || response.StatusCode != HttpStatusCode.Unauthorized)
                    return await RecordAsync(delivery, response, exchange, started, linked.Token);

                // It may have been revoked. Another one has one try, which is of the same attempt.
                using var again = share?.Again();
                using var second = await create(again, () => { }, linked.Token);
                second.Options.Set(TimeLimit, timeLimit);
                await AuthorizeAsync(second, subscriber, token, linked.Token);
                exchange = Exchange.Begin(wantsCertificate: delivery.Test);
                using var answer = await _webhooks.SendAsync(second, linked.Token);
                return await RecordAsync(delivery, answer, exchange, started, linked.Token);
            }
            catch (NoTokenException e)
            {
                return new AttemptResult(AttemptOutcome.TokenFailure, time.GetElapsedTime(started), Error: e.Message);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                throw;
            }
            catch (Exception e)
            {
                var elapsed = time.GetElapsedTime(started);
                var (outcome, cause) = Failure.Of(e, exchange, elapsed);
                return new AttemptResult(outcome, elapsed, Error: cause);
            }
        }
    }

    /// <summary>Gives the request a token, where the receiver wants one.</summary>
    private async ValueTask<string?> AuthorizeAsync(
        HttpRequestMessage request, Subscriber subscriber, string? refused, CancellationToken cancellationToken)
    {
        if (subscriber.Authentication?.Type != AuthenticationType.ClientCredentials)
            return null;
        var token = await tokens.GetAsync(subscriber, refused, cancellationToken);
        request.Headers.Authorization = new("Bearer", token);
        return token;
    }

    /// <summary>A method of its own, so that nothing here keeps the payload while the answer is waited for.</summary>
    private async Task<HttpRequestMessage> CreateAsync(
        DueDelivery delivery, PayloadShare share, Action written, Subscriber subscriber,
        int number, Activity? activity, CancellationToken cancellationToken)
    {
        var message = await share.ReadAsync(cancellationToken) ?? throw new FormatException("The event is no longer kept.");
        var request = WebhookRequest.Create(
            delivery, message, new WebhookContent(share, message, written), subscriber, number, time.GetUtcNow(), activity);
        return WithCertificate(request, subscriber);
    }

    private static HttpRequestMessage WithCertificate(HttpRequestMessage request, Subscriber subscriber)
    {
        if (subscriber.ClientCertificate is { } certificate)
            request.Options.Set(ClientCertificate, certificate);
        return request;
    }

    /// <summary>The status has come: whatever happens to the rest of the answer, it counts, and so does all that came with it.</summary>
    private async Task<AttemptResult> RecordAsync(
        DueDelivery delivery, HttpResponseMessage response, Exchange exchange, long started, CancellationToken cancellationToken)
    {
        var result = new AttemptResult(
            response.IsSuccessStatusCode ? AttemptOutcome.Delivered : AttemptOutcome.HttpStatus,
            time.GetElapsedTime(started),
            (int)response.StatusCode,
            RetryAfter: Answer.RetryAfter(response, time.GetUtcNow()),
            ResponseHeaders: Answer.Headers(response))
        {
            Certificate = exchange.ReceiverCertificate is { } certificate ? Seen(delivery, certificate) : null,
        };
        result = result with { Pause = Answer.QuotaResets(response) ?? (result.StatusCode is 429 or 503 ? result.RetryAfter : null) };
        if (response.StatusCode == HttpStatusCode.SwitchingProtocols)
        {
            return result with
            {
                Outcome = AttemptOutcome.InvalidResponse,
                Error = "the receiver switched to another protocol, which nobody asked for",
            };
        }

        var (body, brokeOff) = await Answer.ReadBodyAsync(response, cancellationToken);
        var elapsed = time.GetElapsedTime(started);
        return result with
        {
            Duration = elapsed,
            Error = brokeOff is null ? null : Failure.Of(brokeOff, exchange, elapsed).Cause,
            ResponseBody = body,
        };
    }

    private static ReceiverCertificate Seen(DueDelivery delivery, X509Certificate2 certificate) => new()
    {
        SubscriptionId = delivery.SubscriptionId,
        TenantId = delivery.TenantId,
        Subject = Name(certificate.Subject),
        Issuer = Name(certificate.Issuer),
        Thumbprint = certificate.GetCertHashString(HashAlgorithmName.SHA256).ToLowerInvariant(),
        NotBefore = certificate.NotBefore.ToUniversalTime(),
        ExpiresAt = certificate.NotAfter.ToUniversalTime(),
    };

    // The receiver has written it. Postgres keeps no NUL in text.
    private static string Name(string name) =>
        (name.Length <= MaxNameLength ? name : name[..MaxNameLength] + "…").Replace("\0", "", StringComparison.Ordinal);
}
