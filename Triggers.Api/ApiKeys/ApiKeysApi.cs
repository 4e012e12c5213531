using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.ApiKeys;

/// <summary>Credentials. Nobody makes, rotates or revokes a key that may do more than their own.</summary>
internal static class ApiKeysApi
{
    private const int DefaultOverlapSeconds = 24 * 60 * 60;
    private const int MaxOverlapSeconds = 7 * DefaultOverlapSeconds;

    /// <summary>Maps <c>/api-keys</c>.</summary>
    public static void MapApiKeys(this IEndpointRouteBuilder app)
    {
        app.MapPost("/api-keys", CreateAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Create);
        app.MapGet("/api-keys", ListAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.List);
        app.MapGet("/api-keys/{id}", GetAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Get);
        app.MapDelete("/api-keys/{id}", RevokeAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Revoke);
        app.MapPost("/api-keys/{id}/rotate", RotateAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Rotate);
    }

    private static async Task<IResult> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, TimeProvider time, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => NewApiKey.Read(fields, time.GetUtcNow()));
        EnsureNoMore(caller, body.Scopes);
        var tenantId = await TenantAsync(caller, db, body.TenantId, "/tenantId", cancellationToken);
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, tenantId, body.Name, body.Scopes);
        key.ExpiresAt = body.ExpiresAt;
        key.RequestsPerSecond = body.RequestsPerSecond;
        key.Burst = body.Burst;
        db.Add(key);
        await db.SaveChangesAsync(cancellationToken);
        return Created(key, secret);
    }

    private static async Task<IResult> ListAsync(HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var tenant = list.Text("tenantId", 64);
        list.EnsureValid();
        var tenantId = await TenantAsync(caller, db, tenant, "?tenantId", cancellationToken);
        var query = db.ApiKeys.Where(k => k.TenantId == tenantId);
        if (list.After is { } after)
            query = list.NewestFirst ? query.Where(k => k.Id < after) : query.Where(k => k.Id > after);
        query = list.NewestFirst ? query.OrderByDescending(k => k.Id) : query.OrderBy(k => k.Id);
        var rows = await query.Take(list.Limit + 1).ToListAsync(cancellationToken);
        return TypedResults.Ok(list.Answer(rows, ApiKeyView.Of, k => k.Id));
    }

    private static async Task<IResult> GetAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(ApiKeyView.Of(await FindAsync(id, tenantId, caller, db, cancellationToken)));

    private static async Task<IResult> RevokeAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, KeyCache keys, CancellationToken cancellationToken)
    {
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken);
        EnsureNoMore(caller, key.Scopes);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        // Two admins who revoke each other at once would both see the other's key still there.
        await db.Database.ExecuteSqlAsync(
            $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Bootstrap})", cancellationToken);
        var revoked = await db.Database.ExecuteSqlAsync(
            $"""
            UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
            WHERE id = {key.Id} AND (revoked_at IS NOT NULL OR NOT scopes @> ARRAY[{Scopes.Admin}] OR EXISTS (
                SELECT FROM api_keys k WHERE k.id <> {key.Id} AND k.scopes @> ARRAY[{Scopes.Admin}]
                    AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())))
            """, cancellationToken);
        if (revoked == 0)
            throw new ApiException(ErrorCodes.LastAdminKey, "Nobody could make keys any more. Make another admin key first.");
        await transaction.CommitAsync(cancellationToken);
        keys.Forget();
        return TypedResults.NoContent();
    }

    private static async Task<IResult> RotateAsync(
        string id, string? tenantId, HttpContext context, Caller caller, TriggersDbContext db, KeyCache keys, CancellationToken cancellationToken)
    {
        var body = await Body.ReadOptionalAsync(context, fields => new RotateApiKey { OverlapSeconds = fields.Number("overlapSeconds", 0, MaxOverlapSeconds) });
        var old = await FindAsync(id, tenantId, caller, db, cancellationToken);
        EnsureNoMore(caller, old.Scopes);
        var overlap = TimeSpan.FromSeconds(body?.OverlapSeconds ?? DefaultOverlapSeconds);
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, old.TenantId, old.Name, old.Scopes);
        key.ExpiresAt = old.ExpiresAt;
        key.RequestsPerSecond = old.RequestsPerSecond;
        key.Burst = old.Burst;

        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var ended = await db.Database.ExecuteSqlAsync(
            $"""
            UPDATE api_keys SET expires_at = least(expires_at, now() + {overlap})
            WHERE id = {old.Id} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            """, cancellationToken);
        if (ended == 0)
            throw ApiException.NotFound("API key that is still valid");
        db.Add(key);
        await db.SaveChangesAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        keys.Forget();
        return Created(key, secret);
    }

    private static async Task<ApiKey> FindAsync(string id, string? tenantId, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.ApiKey(id);
        var tenant = await TenantAsync(caller, db, tenantId, "?tenantId", cancellationToken);
        return await db.ApiKeys.FirstOrDefaultAsync(k => k.Id == key && k.TenantId == tenant, cancellationToken) ?? throw ApiException.NotFound("API key");
    }

    /// <summary>The tenant a request is about: the caller's own, unless an admin names another.</summary>
    private static async Task<Guid> TenantAsync(Caller caller, TriggersDbContext db, string? tenantId, string pointer, CancellationToken cancellationToken)
    {
        if (tenantId is null)
            return caller.TenantId;
        if (!TypeId.TryParse(TypeId.Tenant, tenantId, out var id))
            throw ApiException.Invalid(pointer, "Must be an id that begins with ten_.");
        if (id == caller.TenantId)
            return id;
        if (!caller.May(Scopes.Admin))
            throw new ApiException(ErrorCodes.Forbidden, $"To name another tenant needs a key with the scope {Scopes.Admin}.");
        return await db.Tenants.AnyAsync(t => t.Id == id, cancellationToken) ? id : throw ApiException.Invalid(pointer, "There is no such tenant.");
    }

    private static void EnsureNoMore(Caller caller, IEnumerable<string> scopes)
    {
        if (scopes.FirstOrDefault(scope => !caller.May(scope)) is { } missing)
            throw new ApiException(ErrorCodes.Forbidden, $"Your own key lacks the scope {missing}.");
    }

    private static Created<ApiKeyWithSecret> Created(ApiKey key, string secret)
    {
        var view = ApiKeyView.Of(key);
        return TypedResults.Created($"/api-keys/{view.Id}", new ApiKeyWithSecret(view, secret));
    }
}
