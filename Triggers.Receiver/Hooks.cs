using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Mvc;

namespace Triggers.Receiver;

/// <summary>Takes webhooks, and shows them.</summary>
internal static class Hooks
{
    private const int MaxBody = 4 * 1024 * 1024;

    public static void MapHooks(this WebApplication app)
    {
        app.MapPost("/hook/{**any}", ReceiveAsync);
        app.MapPost("/secrets", AddSecretAsync);
        app.MapGet("/received", (Inbox inbox, int limit = 100) =>
        {
            var (total, newest) = inbox.Latest(Math.Clamp(limit, 1, Inbox.Capacity));
            return TypedResults.Json(new { total, secrets = inbox.Secrets.Count, items = newest });
        });
        app.MapDelete("/received", (Inbox inbox) =>
        {
            inbox.Clear();
            return TypedResults.NoContent();
        });
    }

    /// <summary>Answers 204, or as <c>?status=503</c> says, after <c>?delay=</c> milliseconds: to see what the sender does then.</summary>
    private static async Task<IResult> ReceiveAsync(
        HttpRequest request, Inbox inbox, TimeProvider time, CancellationToken cancellationToken,
        [FromQuery] int status = 204, [FromQuery] int delay = 0)
    {
        if (status is < 200 or > 599 || delay is < 0 or > 600_000)
            return TypedResults.BadRequest("status must be 200 to 599, delay 0 to 600000 ms");
        using var body = new MemoryStream();
        await request.Body.CopyToAsync(body, cancellationToken);
        var content = body.GetBuffer().AsMemory(0, (int)body.Length);
        var now = time.GetUtcNow();
        var secrets = inbox.Secrets;
        bool? verified = secrets.Count == 0
            ? null
            : secrets.Any(secret => WebhookSignature.IsValid(
                secret, request.Headers["webhook-id"], request.Headers["webhook-timestamp"],
                request.Headers["webhook-signature"], content.Span, now));
        inbox.Add(new ReceivedRequest(
            request.Method,
            request.Path + request.QueryString,
            request.Headers.ToDictionary(h => h.Key.ToLowerInvariant(), h => h.Value.ToString()),
            Encoding.UTF8.GetString(content.Span),
            verified,
            status,
            now));
        if (delay > 0)
            await Task.Delay(TimeSpan.FromMilliseconds(delay), time, cancellationToken);
        return TypedResults.StatusCode(status);
    }

    /// <summary>
    /// Takes <c>{"secret": "whsec_…"}</c>, which the answer to creating a subscription also is, whatever the content type: so that
    /// one curl can be piped into the other.
    /// </summary>
    private static async Task<IResult> AddSecretAsync(HttpRequest request, Inbox inbox, CancellationToken cancellationToken)
    {
        try
        {
            using var body = await JsonDocument.ParseAsync(request.Body, cancellationToken: cancellationToken);
            if (body.RootElement.ValueKind == JsonValueKind.Object
                && body.RootElement.TryGetProperty("secret", out var member)
                && member.ValueKind == JsonValueKind.String
                && WebhookSignature.TryParseSecret(member.GetString(), out var secret))
            {
                inbox.AddSecret(secret);
                var of = body.RootElement.TryGetProperty("id", out var id) && id.ValueKind == JsonValueKind.String ? id.GetString() : null;
                return TypedResults.Json(new { known = inbox.Secrets.Count, subscription = of });
            }
        }
        catch (JsonException)
        {
            // Answered below, like everything else that is no secret.
        }
        return TypedResults.BadRequest("""A body like {"secret": "whsec_…"} is expected, with the secret in base64.""");
    }

    public static void LimitBodies(this WebApplicationBuilder builder) =>
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Limits.MaxRequestBodySize = MaxBody);
}
