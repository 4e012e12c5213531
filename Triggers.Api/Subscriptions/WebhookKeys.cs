using System.Security.Cryptography;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.AspNetCore.WebUtilities;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Subscriptions;

/// <summary>A public key, as JSON Web Keys (RFC 7517, 8037) are written, and as Standard Webhooks writes it.</summary>
/// <param name="Kty">Always <c>OKP</c>.</param>
/// <param name="Crv">Always <c>Ed25519</c>.</param>
/// <param name="Alg">Always <c>EdDSA</c>.</param>
/// <param name="Use">Always <c>sig</c>.</param>
/// <param name="Kid">The same for the same key.</param>
/// <param name="X">The key.</param>
/// <param name="PublicKey">The key again: <c>whpk_</c> and base64.</param>
internal sealed record WebhookKey(string Kty, string Crv, string Alg, string Use, string Kid, string X, string PublicKey)
{
    public static WebhookKey Of(string publicKey)
    {
        var bytes = Convert.FromBase64String(publicKey[SigningKey.PublicPrefix.Length..]);
        return new(
            "OKP", "Ed25519", "EdDSA", "sig", Convert.ToHexStringLower(SHA256.HashData(bytes))[..16], WebEncoders.Base64UrlEncode(bytes),
            publicKey);
    }
}

/// <summary>Public keys, the newest first.</summary>
internal sealed record WebhookKeySet(IReadOnlyList<WebhookKey> Keys);

/// <summary>
/// <c>GET /.well-known/webhooks-keys</c>, for receivers, who have no key of ours. A key pair is a subscription's own: with one for all, any
/// tenant could have what it likes signed for another's receiver.
/// </summary>
internal static class WebhookKeys
{
    public const string Path = "/.well-known/webhooks-keys";
    public const string SubscriptionId = "subscriptionId";

    public static async Task<Ok<WebhookKeySet>> GetAsync(
        HttpContext context, TriggersDbContext db, StrangerLimits strangers, TimeProvider time, CancellationToken cancellationToken)
    {
        var query = ListRequest.Of(context);
        var id = query.Id(SubscriptionId);
        query.EnsureValid();
        if (id is null)
            throw ApiException.Invalid("?" + SubscriptionId, "Is required.");
        var secrets = await strangers.FindAsync(
            context.Connection.RemoteIpAddress,
            () => db.LivingSubscriptions.Where(s => s.Id == id).Select(s => s.Secrets).FirstOrDefaultAsync(cancellationToken),
            cancellationToken);
        context.Response.Headers.CacheControl = "public, max-age=300";
        var now = time.GetUtcNow();
        return TypedResults.Ok(new WebhookKeySet(
            [.. (secrets ?? []).Where(s => s.PublicKey is not null && !(s.ExpiresAt <= now)).Select(s => WebhookKey.Of(s.PublicKey!))]));
    }
}
