using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Tenants;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.ApiKeys;

/// <summary>Credentials. Nobody makes, changes, rotates or revokes a key that may do more than their own.</summary>
internal static class ApiKeysApi
{
    private const int DefaultOverlapSeconds = 24 * 60 * 60;

    /// <summary>Maps <c>/api-keys</c>.</summary>
    public static void MapApiKeys(this IEndpointRouteBuilder app)
    {
        app.MapPost("/api-keys", CreateAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Create);
        app.MapGet("/api-keys", ListAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.List);
        app.MapGet("/api-keys/{id}", GetAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Get);
        app.MapGet("/api-keys/{id}/usage", GetUsageAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Usage);
        app.MapPatch("/api-keys/{id}", ChangeAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Change);
        app.MapDelete("/api-keys/{id}", RevokeAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Revoke);
        app.MapPost("/api-keys/{id}/rotate", RotateAsync).RequireScope(Scopes.KeysWrite).WithMetadata(ApiKeyDocs.Rotate);
    }

    private static async Task<Created<ApiKeyWithSecret>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db,
        IOptions<CapOptions> caps, TimeProvider time, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => NewApiKey.Read(fields, time.GetUtcNow()));
        EnsureNoMore(caller, body.Scopes);
        var tenantId = await TenantAsync(caller, db, body.TenantId, "/tenantId", cancellationToken);
        if (tenantId != caller.TenantId && body.Scopes.IndexOf(Scopes.Admin) is >= 0 and var i)
            throw ApiException.Invalid(
                $"/scopes/{i}", $"Only keys of the tenant that administers the platform have it; a tenant's own is {Scopes.TenantAdmin}.");
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, tenantId, body.Name, body.Scopes);
        key.ExpiresAt = body.ExpiresAt;
        key.RequestsPerSecond = body.RequestsPerSecond;
        key.Burst = body.Burst;
        if (!caller.May(Scopes.TenantAdmin))
            Inherit(key, await db.ApiKeys.AsNoTracking().SingleAsync(k => k.Id == caller.KeyId, cancellationToken));

        await using var transaction = await db.LockTenantAsync(tenantId, cancellationToken);
        await EnsureRoomAsync(db, tenantId, caps.Value, cancellationToken);
        db.Add(key);
        await db.SaveChangesAsync(cancellationToken);
        await transaction!.CommitAsync(cancellationToken);
        return Created(key, secret);
    }

    private static async Task<Ok<Page<ApiKeyView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var tenant = list.Id("tenantId") is { } id ? TypeId.Format(TypeId.Tenant, id) : null;
        list.EnsureValid();
        var tenantId = await TenantAsync(caller, db, tenant, "?tenantId", cancellationToken);
        var query = db.ApiKeys.Where(k => k.TenantId == tenantId);
        return TypedResults.Ok(await list.AnswerAsync(query, k => k.Id, ApiKeyView.Of, cancellationToken));
    }

    private static async Task<Ok<ApiKeyView>> GetAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(ApiKeyView.Of(await FindAsync(id, tenantId, caller, db, cancellationToken)));

    private static async Task<Ok<ApiKeyUsage>> GetUsageAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, RateLimits rates, IOptions<RateLimitingOptions> defaults,
        CancellationToken cancellationToken)
    {
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken);
        var plan = await TenantsApi.PlanOf(db, key.TenantId).FirstOrDefaultAsync(cancellationToken);
        var limits = Limits.Of(
            key.TenantId, Scopes.Expand(key.Scopes), key.LimitId ?? key.Id,
            key.RequestsPerSecond, key.Burst, TenantsApi.LimitsOf(plan), defaults.Value);
        return TypedResults.Ok(ApiKeyUsage.Of(key.Id, limits, await rates.LookAsync(limits), rates.AreShared));
    }

    private static async Task<Ok<ApiKeyView>> ChangeAsync(
        string id, string? tenantId, HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, TimeProvider time,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => ApiKeyChange.Read(fields, time.GetUtcNow()));
        // The keys that share a limit are changed together, by one at a time.
        var tenant = await TenantAsync(caller, db, tenantId, "?tenantId", cancellationToken);
        await using var transaction = await db.LockTenantAsync(tenant, cancellationToken);
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken, isToChange: true);
        EnsureNoMore(caller, key.Scopes);
        if (body.Loosens(key) is { } member && !caller.May(Scopes.TenantAdmin))
            throw new ApiException(ErrorCodes.Forbidden, $"To loosen {member} needs a key with the scope {Scopes.TenantAdmin}.");
        if (body.ExpiresAt is not null && key.Scopes.Contains(Scopes.Admin))
            await EnsureOtherAdminKeyAsync(key, db, cancellationToken);
        var changed = await db.ApiKeys.FromSql(
            $"""
            UPDATE api_keys SET
                name = coalesce({body.Name}::text, name),
                expires_at = CASE WHEN {body.Members.Contains("expiresAt")} THEN {body.ExpiresAt}::timestamptz ELSE expires_at END,
                requests_per_second = CASE WHEN {body.Members.Contains("requestsPerSecond")} THEN {body.RequestsPerSecond}::int
                    ELSE requests_per_second END,
                burst = CASE WHEN {body.Members.Contains("burst")} THEN {body.Burst}::int ELSE burst END
            WHERE id = {key.Id} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            RETURNING *
            """).AsNoTracking().ToListAsync(cancellationToken);
        var found = changed.SingleOrDefault() ?? throw ApiException.NotFound("API key that is still valid");
        if (body.HasLimits)
        {
            // The keys that share a limit have the same one.
            var limitId = key.LimitId ?? key.Id;
            await db.ApiKeys.Where(k => k.TenantId == key.TenantId && k.Id != key.Id && (k.Id == limitId || k.LimitId == limitId))
                .ExecuteUpdateAsync(
                k => k.SetProperty(x => x.RequestsPerSecond, found.RequestsPerSecond).SetProperty(x => x.Burst, found.Burst),
                cancellationToken);
        }
        await transaction!.CommitAsync(cancellationToken);
        await (body.HasLimits ? changes.TellAllAsync() : changes.TellAsync(key.Hash));
        return TypedResults.Ok(ApiKeyView.Of(found));
    }

    private static async Task<NoContent> RevokeAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken, isToChange: true);
        EnsureNoMore(caller, key.Scopes);
        if (key.Scopes.Contains(Scopes.Admin) && key.RevokedAt is null)
            await EnsureOtherAdminKeyAsync(key, db, cancellationToken);
        await db.Database.ExecuteSqlAsync(
            $"UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = {key.Id}", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        await changes.TellAsync(key.Hash);
        return TypedResults.NoContent();
    }

    private static async Task<Created<ApiKeyWithSecret>> RotateAsync(
        string id, string? tenantId, HttpContext context, Caller caller,
        TriggersDbContext db, KeyChanges changes, IOptions<CapOptions> caps,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadOptionalAsync(context, fields => new RotateApiKey { OverlapSeconds = fields.Number("overlapSeconds") });
        var overlap = TimeSpan.FromSeconds(body?.OverlapSeconds ?? DefaultOverlapSeconds);
        var tenant = await TenantAsync(caller, db, tenantId, "?tenantId", cancellationToken);
        await using var transaction = await db.LockTenantAsync(tenant, cancellationToken);
        var old = await FindAsync(id, tenantId, caller, db, cancellationToken, isToChange: true);
        EnsureNoMore(caller, old.Scopes);
        if (!caller.May(Scopes.TenantAdmin))
            EnsureNoLooser(await db.ApiKeys.AsNoTracking().SingleAsync(k => k.Id == caller.KeyId, cancellationToken), old);
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, old.TenantId, old.Name, old.Scopes);
        key.ExpiresAt = old.ExpiresAt;
        key.LimitId = old.LimitId ?? old.Id;
        key.RequestsPerSecond = old.RequestsPerSecond;
        key.Burst = old.Burst;

        var ended = await db.Database.ExecuteSqlAsync(
            $"""
            UPDATE api_keys SET expires_at = least(expires_at, now() + {overlap})
            WHERE id = {old.Id} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            """, cancellationToken);
        if (ended == 0)
            throw ApiException.NotFound("API key that is still valid");
        await EnsureRoomAsync(db, tenant, caps.Value, cancellationToken);
        db.Add(key);
        await db.SaveChangesAsync(cancellationToken);
        await transaction!.CommitAsync(cancellationToken);
        await changes.TellAsync(old.Hash);
        return Created(key, secret);
    }

    private static async Task<ApiKey> FindAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, CancellationToken cancellationToken, bool isToChange = false)
    {
        var key = Ids.ApiKey(id);
        var tenant = await TenantAsync(caller, db, tenantId, "?tenantId", cancellationToken);
        var found = isToChange
            ? db.ApiKeys.FromSql($"SELECT * FROM api_keys WHERE id = {key} AND tenant_id = {tenant} FOR NO KEY UPDATE")
            : db.ApiKeys.Where(k => k.Id == key && k.TenantId == tenant);
        // As one list: FOR UPDATE can't be part of a larger query.
        return (await found.AsNoTracking().ToListAsync(cancellationToken)).SingleOrDefault() ?? throw ApiException.NotFound("API key");
    }

    /// <summary>The tenant a request is about: the caller's own, unless an admin names another.</summary>
    private static async Task<Guid> TenantAsync(
        Caller caller, TriggersDbContext db, string? tenantId, string pointer, CancellationToken cancellationToken)
    {
        if (tenantId is null)
            return caller.TenantId;
        if (!TypeId.TryParse(TypeId.Tenant, tenantId, out var id))
            throw ApiException.Invalid(pointer, "Must be an id that begins with ten_.");
        if (id == caller.TenantId)
            return id;
        if (!caller.May(Scopes.Admin))
            throw new ApiException(ErrorCodes.Forbidden, $"To name another tenant needs a key with the scope {Scopes.Admin}.");
        return await db.Tenants.AnyAsync(t => t.Id == id, cancellationToken) ? id
            : throw ApiException.Invalid(pointer, "There is no such tenant.");
    }

    /// <summary>Holds until the transaction ends.</summary>
    private static async Task EnsureOtherAdminKeyAsync(ApiKey key, TriggersDbContext db, CancellationToken cancellationToken)
    {
        // Two admins who revoke each other at once would both see the other's key still there.
        await db.Database.ExecuteSqlAsync(
            $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Bootstrap})", cancellationToken);
        var others = await db.ApiKeys.FromSql(
            $"""
            SELECT * FROM api_keys WHERE id <> {key.Id} AND scopes @> ARRAY[{Scopes.Admin}]
                AND bootstrap IS DISTINCT FROM 'replaced'
                AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            """).AnyAsync(cancellationToken);
        if (!others)
            throw new ApiException(ErrorCodes.LastAdminKey, "Nobody could make keys any more. Make another admin key first.");
    }

    private static Task EnsureRoomAsync(TriggersDbContext db, Guid tenantId, CapOptions caps, CancellationToken cancellationToken) =>
        db.ApiKeys.FromSql(
            $"SELECT * FROM api_keys WHERE tenant_id = {tenantId} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())")
            .EnsureRoomAsync(caps.KeysPerTenant, "valid API keys of a tenant; revoke one first", cancellationToken);

    /// <summary>What a key hands on to those it makes: otherwise it would be rid of its limits with the next one.</summary>
    private static void Inherit(ApiKey made, ApiKey maker)
    {
        if (made.ExpiresAt > maker.ExpiresAt)
            throw new ApiException(ErrorCodes.Forbidden, "Your own key expires earlier.");
        made.ExpiresAt ??= maker.ExpiresAt;
        if ((maker.RequestsPerSecond ?? maker.Burst) is null)
            return;
        if ((made.RequestsPerSecond ?? made.Burst) is not null)
        {
            throw new ApiException(ErrorCodes.Forbidden,
                $"The keys that yours makes share its limit; to give them another needs a key with the scope {Scopes.TenantAdmin}.");
        }
        (made.RequestsPerSecond, made.Burst, made.LimitId) = (maker.RequestsPerSecond, maker.Burst, maker.LimitId ?? maker.Id);
    }

    private static void EnsureNoLooser(ApiKey own, ApiKey other)
    {
        var sharesLimit = (own.LimitId ?? own.Id) == (other.LimitId ?? other.Id);
        if ((own.RequestsPerSecond ?? own.Burst) is not null && !sharesLimit
            || (other.ExpiresAt ?? DateTimeOffset.MaxValue) > (own.ExpiresAt ?? DateTimeOffset.MaxValue))
        {
            throw new ApiException(ErrorCodes.Forbidden,
                "Your own key has another limit, or expires earlier: to replace this one needs a key with the scope "
                    + $"{Scopes.TenantAdmin}.");
        }
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
