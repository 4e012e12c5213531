using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.ApiKeys;

/// <summary>Credentials. Nobody makes, rotates or revokes a key that may do more than their own.</summary>
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

    private static async Task<IResult> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, TimeProvider time, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => NewApiKey.Read(fields, time.GetUtcNow()));
        EnsureNoMore(caller, body.Scopes);
        var tenantId = await TenantAsync(caller, db, body.TenantId, "/tenantId", cancellationToken);
        if (body.UsagePlanId is not null || caller.UsagePlanId is not null && (body.RequestsPerSecond ?? body.Burst) is not null)
            EnsureSetsPlans(caller);
        var planId = await PlanAsync(db, body.UsagePlanId, cancellationToken);
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, tenantId, body.Name, body.Scopes);
        key.ExpiresAt = body.ExpiresAt;
        // Otherwise who has a plan would be rid of it with the next key.
        key.UsagePlanId = planId ?? (caller.May(Scopes.Admin) ? null : caller.UsagePlanId);
        key.RequestsPerSecond = body.RequestsPerSecond;
        key.Burst = body.Burst;
        db.Add(key);
        await db.SaveChangesAsync(cancellationToken);
        return Created(key, secret);
    }

    private static async Task<IResult> ListAsync(HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var tenant = list.Id("tenantId") is { } id ? TypeId.Format(TypeId.Tenant, id) : null;
        list.EnsureValid();
        var tenantId = await TenantAsync(caller, db, tenant, "?tenantId", cancellationToken);
        var query = db.ApiKeys.Where(k => k.TenantId == tenantId);
        var rows = await list.Page(query, k => k.Id).ToListAsync(cancellationToken);
        return TypedResults.Ok(list.Answer(rows, ApiKeyView.Of, k => k.Id));
    }

    private static async Task<IResult> GetAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(ApiKeyView.Of(await FindAsync(id, tenantId, caller, db, cancellationToken)));

    private static async Task<IResult> GetUsageAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, RateLimits limits, CancellationToken cancellationToken)
    {
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken);
        var plan = await db.UsagePlans.FirstOrDefaultAsync(p => p.Id == key.UsagePlanId, cancellationToken);
        var limit = limits.LimitOf(
            key.Id, key.RequestsPerSecond ?? plan?.RequestsPerSecond, key.Burst ?? plan?.Burst, plan?.EventsPerDay);
        return TypedResults.Ok(ApiKeyUsage.Of(plan?.Id, limit, await limits.LookAsync(limit), limits.AreShared));
    }

    private static async Task<IResult> ChangeAsync(
        string id, string? tenantId, HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, TimeProvider time,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => ApiKeyChange.Read(fields, time.GetUtcNow()));
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken);
        EnsureNoMore(caller, key.Scopes);
        if (body.Members.Contains("usagePlanId") || body.HasLimits && (key.UsagePlanId ?? caller.UsagePlanId) is not null)
            EnsureSetsPlans(caller);
        var planId = await PlanAsync(db, body.UsagePlanId, cancellationToken);

        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (body.ExpiresAt is not null && key.Scopes.Contains(Scopes.Admin))
            await EnsureOtherAdminKeyAsync(key, db, cancellationToken);
        var changed = await db.ApiKeys.FromSql(
            $"""
            UPDATE api_keys SET
                name = coalesce({body.Name}::text, name),
                expires_at = CASE WHEN {body.Members.Contains("expiresAt")} THEN {body.ExpiresAt}::timestamptz ELSE expires_at END,
                usage_plan_id = CASE WHEN {body.Members.Contains("usagePlanId")} THEN {planId}::uuid ELSE usage_plan_id END,
                requests_per_second = CASE WHEN {body.Members.Contains("requestsPerSecond")} THEN {body.RequestsPerSecond}::int ELSE requests_per_second END,
                burst = CASE WHEN {body.Members.Contains("burst")} THEN {body.Burst}::int ELSE burst END
            WHERE id = {key.Id} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            RETURNING *
            """).AsNoTracking().ToListAsync(cancellationToken);
        var view = ApiKeyView.Of(changed.SingleOrDefault() ?? throw ApiException.NotFound("API key that is still valid"));
        await transaction.CommitAsync(cancellationToken);
        await changes.TellAsync(key.Hash);
        return TypedResults.Ok(view);
    }

    private static async Task<IResult> RevokeAsync(
        string id, string? tenantId, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        var key = await FindAsync(id, tenantId, caller, db, cancellationToken);
        EnsureNoMore(caller, key.Scopes);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        if (key.Scopes.Contains(Scopes.Admin) && key.RevokedAt is null)
            await EnsureOtherAdminKeyAsync(key, db, cancellationToken);
        await db.Database.ExecuteSqlAsync($"UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = {key.Id}", cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        await changes.TellAsync(key.Hash);
        return TypedResults.NoContent();
    }

    private static async Task<IResult> RotateAsync(
        string id, string? tenantId, HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        var body = await Body.ReadOptionalAsync(context, fields => new RotateApiKey { OverlapSeconds = fields.Number("overlapSeconds") });
        var old = await FindAsync(id, tenantId, caller, db, cancellationToken);
        EnsureNoMore(caller, old.Scopes);
        var overlap = TimeSpan.FromSeconds(body?.OverlapSeconds ?? DefaultOverlapSeconds);
        var secret = KeySecret.New();
        var key = KeySecret.Row(secret, old.TenantId, old.Name, old.Scopes);
        key.ExpiresAt = old.ExpiresAt;
        key.UsagePlanId = old.UsagePlanId;
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
        await changes.TellAsync(old.Hash);
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

    /// <summary>Holds until the transaction ends.</summary>
    private static async Task EnsureOtherAdminKeyAsync(ApiKey key, TriggersDbContext db, CancellationToken cancellationToken)
    {
        // Two admins who revoke each other at once would both see the other's key still there.
        await db.Database.ExecuteSqlAsync(
            $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Bootstrap})", cancellationToken);
        var others = await db.ApiKeys.FromSql(
            $"""
            SELECT * FROM api_keys WHERE id <> {key.Id} AND scopes @> ARRAY[{Scopes.Admin}]
                AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
            """).AnyAsync(cancellationToken);
        if (!others)
            throw new ApiException(ErrorCodes.LastAdminKey, "Nobody could make keys any more. Make another admin key first.");
    }

    /// <summary>The plan that was named, which must be there.</summary>
    private static async Task<Guid?> PlanAsync(TriggersDbContext db, string? planId, CancellationToken cancellationToken)
    {
        if (planId is null)
            return null;
        _ = TypeId.TryParse(TypeId.UsagePlan, planId, out var id);
        return await db.UsagePlans.AnyAsync(p => p.Id == id, cancellationToken) ? id : throw ApiException.Invalid("/usagePlanId", "There is no such usage plan.");
    }

    private static void EnsureSetsPlans(Caller caller)
    {
        if (!caller.May(Scopes.Admin))
            throw new ApiException(ErrorCodes.Forbidden, $"To choose a usage plan, or limits beside it, needs a key with the scope {Scopes.Admin}.");
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
