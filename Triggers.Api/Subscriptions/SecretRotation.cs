using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Subscriptions;

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

/// <summary><c>POST /subscriptions/{id}/secret/rotate</c>: gives a subscription a new secret.</summary>
internal static class SecretRotation
{
    private const int MaxSecrets = 10;
    private static readonly TimeSpan s_overlap = TimeSpan.FromHours(24);

    public static async Task<Ok<RotatedSecret>> PostAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, SecretProtector protector, CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        var body = await Body.ReadOptionalAsync(context, RotateSecret.Read);
        return TypedResults.Ok(await RotateAsync(key, body, caller, db, protector, cancellationToken));
    }

    /// <summary>Gives one a new secret, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    public static async Task<RotatedSecret> RotateAsync(
        Guid key, RotateSecret? body, Caller caller, TriggersDbContext db, SecretProtector protector, CancellationToken cancellationToken)
    {
        var type = body?.Type is { } asked ? SnakeCase<SignatureType>.Of(asked)
            : body?.Secret is { } brought ? SigningSecrets.TypeOf(brought) : SigningSecrets.Symmetric;
        var secret = body?.Secret ?? SigningSecrets.New(type);
        var overlap = body?.Overlap ?? s_overlap;

        await using var transaction = await db.BeginUnlessBegunAsync(cancellationToken);
        var found = await db.Subscriptions.FromSql(
            $"""
            SELECT * FROM subscriptions WHERE tenant_id = {caller.TenantId} AND id = {key} AND deleted_at IS NULL AND inbox IS NULL
                AND (expires_at IS NULL OR expires_at > now())
            FOR NO KEY UPDATE
            """).AsTracking().ToListAsync(cancellationToken);
        var subscription = found.SingleOrDefault() ?? throw ApiException.NotFound("subscription");
        // What expires does so by the database's clock.
        var now = (await db.Database.SqlQuery<DateTimeOffset>($"SELECT now() AS \"Value\"").ToListAsync(cancellationToken))[0];
        var newest = SigningSecrets.Keep(secret, protector);
        // Those of before sign on for the overlap, and no longer than they would have. One that can't be decrypted signs nothing.
        var before = subscription.Secrets.Where(s => !(s.ExpiresAt <= now)).ToLookup(s => SigningSecrets.TypeOf(s) == type);
        var previous = overlap == TimeSpan.Zero ? []
            : before[true].Where(s => protector.TryUnprotect(s.Secret) is { } old && old != secret).Select(s => new SigningSecret
            {
                Secret = s.Secret,
                PublicKey = s.PublicKey,
                ExpiresAt = s.ExpiresAt < now + overlap ? s.ExpiresAt : now + overlap,
            }).ToArray();
        var others = before[false].ToLookup(s => s.ExpiresAt is null);
        subscription.Secrets = [.. new[] { newest }.Concat(others[true]).Concat(previous).Concat(others[false]).Take(MaxSecrets)];
        subscription.UpdatedAt = now;
        await db.SaveChangesAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return new RotatedSecret(
            type == SigningSecrets.Symmetric ? secret : null, newest.PublicKey, previous.FirstOrDefault()?.ExpiresAt);
    }
}
