using System.Diagnostics;
using System.Net.Http.Headers;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Subscriptions;

namespace Triggers.Delivery.Attempts;

/// <summary>Writes the HTTP request of an attempt.</summary>
internal static class WebhookRequest
{
    private static readonly ProductInfoHeaderValue UserAgent = new(
        "Triggers",
        typeof(WebhookRequest).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0]);

    /// <summary>The request of attempt number <paramref name="number"/>, signed for this moment.</summary>
    /// <exception cref="FormatException">Message, address or headers can't be sent.</exception>
    public static HttpRequestMessage Create(
        DueDelivery delivery, WebhookMessage message, HttpContent content,
        Subscriber subscriber, int number, DateTimeOffset now, Activity? activity)
    {
        var e = message.Event;
        var request = Create(
            TypeId.Format(TypeId.Event, e.Id), message, content, subscriber, now, delivery.Test ? e.Type : null,
            activity?.Id ?? e.TraceParent, activity is null ? e.TraceState : activity.TraceStateString);
        Add(request, "triggers-delivery-id", TypeId.Format(TypeId.Delivery, delivery.Id));
        Add(request, "triggers-attempt", number.ToString());
        if (delivery.ReplayOf is not null)
            Add(request, "webhook-replay", "true");
        Add(request, "X-Correlation-ID", e.CorrelationId);
        return request;
    }

    /// <summary>The request for several events, signed for this moment.</summary>
    /// <exception cref="FormatException">Messages, address or headers can't be sent.</exception>
    public static HttpRequestMessage Create(Batch batch, Subscriber subscriber, DateTimeOffset now, Activity? activity)
    {
        var content = new ByteArrayContent(batch.Message.Body);
        content.Headers.ContentType = batch.Message.ContentType;
        var request = Create(
            TypeId.Format(TypeId.Batch, batch.Id), batch.Message, content, subscriber, now,
            batch.Deliveries[0].Test ? batch.Message.Event.Type : null, activity?.Id, activity?.TraceStateString);
        Add(request, "triggers-batch-size", batch.Deliveries.Count.ToString());
        if (batch.Deliveries.All(d => d.ReplayOf is not null))
            Add(request, "webhook-replay", "true");
        return request;
    }

    private static HttpRequestMessage Create(
        string id, WebhookMessage message, HttpContent content, Subscriber subscriber, DateTimeOffset now, string? testType,
        string? traceParent, string? traceState)
    {
        if (subscriber.IsUnreadable)
            throw new FormatException("The subscription's secrets can't be read; give it new ones.");
        if (message.Problem is { } cause)
            throw new FormatException(cause);
        var timestamp = (testType == TestEvents.Old ? now - TestEvents.Age : now).ToUnixTimeSeconds();
        var secrets = testType == TestEvents.Forged ? subscriber.SecretsAt(now).Select(Forge) : subscriber.SecretsAt(now);

        var request = new HttpRequestMessage(message.Method, WebhookAddress.Parse(subscriber.Url)) { Content = content };
        foreach (var (name, value) in subscriber.Headers)
        {
            if (WebhookHeaders.Add(request.Headers, name, value) is { } problem)
                throw new FormatException($"The subscription's header {name} can't be sent: {problem}");
        }
        foreach (var (name, value) in message.Headers)
        {
            request.Headers.Remove(name);
            Add(request, name, value);
        }
        if (AuthorizationOf(subscriber.Authentication) is { } authorization)
            request.Headers.Authorization = authorization;
        request.Headers.UserAgent.Add(UserAgent);
        Add(request, "webhook-id", id);
        Add(request, "webhook-timestamp", timestamp.ToString());
        Add(request, "webhook-signature", WebhookSignature.Sign(secrets, id, timestamp, message.Body));
        if (traceParent is not null)
            Add(request, "traceparent", traceParent);
        if (!string.IsNullOrEmpty(traceState))
            Add(request, "tracestate", traceState);
        return request;
    }

    private static void Add(HttpRequestMessage request, string name, string value)
    {
        // Some of it comes from the log, which others may write to.
        if (!WebhookHeaders.IsValue(value) || !request.Headers.TryAddWithoutValidation(name, value))
            throw new FormatException($"The event's {name} can't be sent in a header.");
    }

    // Another one of the same kind, which nobody will know.
    private static string Forge(string secret) => secret.StartsWith(SigningKey.Prefix, StringComparison.Ordinal) ? SigningKey.New()
        : "whsec_" + Convert.ToBase64String(RandomNumberGenerator.GetBytes(32));

    private static AuthenticationHeaderValue? AuthorizationOf(ReceiverAuthentication? authentication) => authentication?.Type switch
    {
        AuthenticationType.Basic => new("Basic", Convert.ToBase64String(
            Encoding.UTF8.GetBytes($"{authentication.Username}:{authentication.Password}"))),
        AuthenticationType.Bearer => new("Bearer", authentication.Token),
        _ => null,
    };
}
