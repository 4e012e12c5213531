using System.Security.Cryptography;
using System.Text.Json;
using Microsoft.AspNetCore.DataProtection;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Core;
using Triggers.EventLog;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Idempotency;

/// <summary>
/// Lets a request with an <c>Idempotency-Key</c> make what it makes once: for a day the same request gets its first answer again. The
/// answer is kept encrypted, since it may hold a secret that is shown nowhere else.
/// </summary>
internal sealed class FirstAnswers(TriggersDbContext db, IDataProtectionProvider protection)
{
    private static readonly TimeSpan Life = TimeSpan.FromHours(24);

    private readonly IDataProtector _protector = protection.CreateProtector("Triggers.FirstAnswers");

    private sealed record Kept(byte[] Fingerprint, byte[] Answer);

    /// <summary>Runs <paramref name="make"/> in a transaction with the keeping of its answer, or answers what it did before.</summary>
    /// <param name="tenantId">Whose request it is.</param>
    /// <param name="key">The request's key; null without one, then it just runs.</param>
    /// <param name="make">Writes through the same <see cref="TriggersDbContext"/>, and answers what JSON can hold.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The answer, and whether it is that of an earlier request.</returns>
    /// <exception cref="ApiException"><c>idempotency_key_reused</c>, <c>idempotency_answer_lost</c></exception>
    public async Task<(
        T Answer, bool Repeated)> OnceAsync<T>(Guid tenantId, RequestKey? key, Func<Task<T>> make, CancellationToken cancellationToken)
        where T : class
    {
        if (key is null)
            return (await make(), false);
        if (await FindAsync<T>(tenantId, key, cancellationToken) is { } kept)
            return (kept, true);

        await using (var transaction = await db.Database.BeginTransactionAsync(cancellationToken))
        {
            try
            {
                var made = await make();
                if (await TryKeepAsync(tenantId, key, made, cancellationToken))
                {
                    await transaction.CommitAsync(cancellationToken);
                    return (made, false);
                }
            }
            catch (ApiException)
            {
                // What refuses it may be what the same request has just made.
                await transaction.RollbackAsync(cancellationToken);
                if (await FindAsync<T>(tenantId, key, cancellationToken) is { } before)
                    return (before, true);
                throw;
            }
            // The same request, at the same moment, was first: its transaction was waited for. Nothing of this one remains.
            await transaction.RollbackAsync(cancellationToken);
        }
        return await FindAsync<T>(tenantId, key, cancellationToken) is { } first
            ? (first, true)
            : throw new ApiException(ErrorCodes.IdempotencyInProgress, "Come again for its answer.") { RetryAfterSeconds = 1 };
    }

    private async Task<T?> FindAsync<T>(Guid tenantId, RequestKey key, CancellationToken cancellationToken) where T : class
    {
        var kept = await db.Database.SqlQuery<Kept>(
            $"""
            SELECT fingerprint, answer FROM first_answers
            WHERE tenant_id = {tenantId} AND key_hash = {key.KeyHash} AND expires_at > now()
            """)
            .FirstOrDefaultAsync(cancellationToken);
        if (kept is null)
            return null;
        if (!kept.Fingerprint.AsSpan().SequenceEqual(key.Fingerprint))
            throw new ApiException(
                ErrorCodes.IdempotencyKeyReused, "Within 24 hours a key stands for one request: the same path and the same body.");
        try
        {
            return JsonSerializer.Deserialize<T>(_protector.Unprotect(kept.Answer), Http.Json.Options);
        }
        catch (CryptographicException e) when (SecretProtector.MeansLost(e))
        {
            // Not made once more: it is there.
            throw new ApiException(
                ErrorCodes.IdempotencyAnswerLost,
                "The request was done, and what it made is there; its answer can't be decrypted any more.");
        }
    }

    private async Task<bool> TryKeepAsync<T>(Guid tenantId, RequestKey key, T answer, CancellationToken cancellationToken)
    {
        var bytes = _protector.Protect(JsonSerializer.SerializeToUtf8Bytes(answer, Http.Json.Options));
        return await db.Database.ExecuteSqlAsync(
            $"""
            INSERT INTO first_answers (tenant_id, key_hash, fingerprint, answer, expires_at)
            VALUES ({tenantId}, {key.KeyHash}, {key.Fingerprint}, {bytes}, now() + {Life})
            ON CONFLICT (tenant_id, key_hash) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
                expires_at = excluded.expires_at
            WHERE first_answers.expires_at <= now()
            """, cancellationToken) == 1;
    }
}
