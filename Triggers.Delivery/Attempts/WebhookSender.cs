using System.Diagnostics;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Security.Authentication;
using Microsoft.Extensions.Options;
using Polly.Timeout;
using Triggers.Core.Tables;
using Triggers.Delivery.Dispatch;
using Triggers.Delivery.Projection;

namespace Triggers.Delivery.Attempts;

/// <summary>How an attempt ended, with all that is recorded of it.</summary>
/// <param name="Outcome">Whose fault it was.</param>
/// <param name="Duration">From the first step to the last byte read.</param>
/// <param name="StatusCode">Of the answer, when there was one.</param>
/// <param name="Error">One line, without secrets.</param>
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
    byte[]? ResponseBody = null);

/// <summary>Makes one HTTP request: signed, guarded, timed, classified. What follows from it is decided elsewhere.</summary>
internal sealed class WebhookSender(IHttpClientFactory clients, IOptions<DeliveryOptions> options, TimeProvider time)
{
    /// <summary>The HttpClient that webhooks go out by. It follows nothing, keeps nothing and retries nothing: the schedule does.</summary>
    public const string ClientName = "webhooks";

    private const int MaxBodyBytes = 4096;
    private const int MaxHeaders = 32;
    private const int MaxHeaderLength = 512;

    /// <summary>Sends, and never throws but for <paramref name="cancellationToken"/>: a failure is a result.</summary>
    public async Task<AttemptResult> SendAsync(
        DueDelivery delivery, Subscriber subscriber, int number, Activity? activity, CancellationToken cancellationToken)
    {
        var started = time.GetTimestamp();
        using var timeout = new CancellationTokenSource(options.Value.AttemptTimeout, time);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        int? statusCode = null;
        try
        {
            using var request = WebhookRequest.Create(delivery, subscriber, number, time.GetUtcNow(), activity);
            // The factory's client is cheap to make and its handler is shared: nothing of it to dispose.
            using var response = await clients.CreateClient(ClientName).SendAsync(request, HttpCompletionOption.ResponseHeadersRead, linked.Token);
            statusCode = (int)response.StatusCode;
            var body = await ReadStartAsync(response, linked.Token);
            return new AttemptResult(
                response.IsSuccessStatusCode ? AttemptOutcome.Delivered : AttemptOutcome.HttpStatus,
                time.GetElapsedTime(started),
                statusCode,
                RetryAfter: RetryAfter(response.Headers.RetryAfter),
                ResponseHeaders: Headers(response),
                ResponseBody: body);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            throw;
        }
        catch (Exception e)
        {
            var (outcome, error) = Classify(e);
            // The answer was 2xx and only its body stalled: the receiver has it, and must not get it again.
            if (statusCode is >= 200 and < 300)
                return new AttemptResult(AttemptOutcome.Delivered, time.GetElapsedTime(started), statusCode, $"the body did not end: {error}");
            return new AttemptResult(statusCode is null ? outcome : AttemptOutcome.HttpStatus, time.GetElapsedTime(started), statusCode, error);
        }
    }

    internal static (AttemptOutcome Outcome, string Error) Classify(Exception e)
    {
        for (var at = e; at is not null; at = at.InnerException)
        {
            switch (at)
            {
                case AddressRefusedException:
                    return (AttemptOutcome.RefusedByGuard, at.Message);
                case SocketException { SocketErrorCode: SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain }:
                    return (AttemptOutcome.DnsFailure, at.Message);
                case SocketException { SocketErrorCode: SocketError.ConnectionRefused }:
                    return (AttemptOutcome.ConnectionRefused, at.Message);
                case SocketException { SocketErrorCode: SocketError.TimedOut }:
                case TimeoutRejectedException or TimeoutException or OperationCanceledException:
                    return (AttemptOutcome.Timeout, "no answer in time");
                case AuthenticationException:
                case HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError } when at.InnerException is null:
                    return (AttemptOutcome.TlsFailure, at.Message);
                case HttpIOException { HttpRequestError: HttpRequestError.InvalidResponse or HttpRequestError.ConfigurationLimitExceeded }:
                    return (AttemptOutcome.InvalidResponse, at.Message);
                case FormatException:
                    return (AttemptOutcome.InvalidRequest, at.Message);
            }
        }
        return e is HttpRequestException { HttpRequestError: HttpRequestError.InvalidResponse or HttpRequestError.ConfigurationLimitExceeded }
            ? (AttemptOutcome.InvalidResponse, e.Message)
            : (AttemptOutcome.ConnectionFailed, e.Message);
    }

    private static async Task<byte[]> ReadStartAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        await using var stream = await response.Content.ReadAsStreamAsync(cancellationToken);
        var buffer = new byte[MaxBodyBytes];
        var read = await stream.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellationToken);
        return buffer[..read];
    }

    private static Dictionary<string, string> Headers(HttpResponseMessage response)
    {
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var (name, values) in response.Headers.Concat(response.Content.Headers).Take(MaxHeaders))
        {
            // Postgres keeps no NUL in text.
            var value = string.Join(", ", values).Replace("\0", "", StringComparison.Ordinal);
            headers[name] = value.Length <= MaxHeaderLength ? value : value[..MaxHeaderLength];
        }
        return headers;
    }

    private TimeSpan? RetryAfter(RetryConditionHeaderValue? value) => value switch
    {
        { Delta: { } delta } when delta >= TimeSpan.Zero => delta,
        { Date: { } date } when date - time.GetUtcNow() is var wait && wait > TimeSpan.Zero => wait,
        _ => null,
    };
}
