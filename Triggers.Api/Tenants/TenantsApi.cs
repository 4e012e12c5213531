using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.Tenants;

/// <summary>The body of <c>POST /tenants</c>.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record NewTenant
{
    /// <summary>Unique.</summary>
    [Length(1, 128)]
    public required string Name { get; init; }

    /// <summary>The usage plan whose limits hold for its keys together; without it the service's defaults.</summary>
    [Id(TypeId.UsagePlan)]
    public Guid? UsagePlanId { get; init; }

    /// <summary>What becomes of events of types that are not at <c>/event-types</c>; <c>allow</c> when left out.</summary>
    public UnknownEventTypes? UnknownEventTypes { get; init; }

    public static NewTenant Read(Fields fields) => new()
    {
        Name = fields.Text("name")!,
        UsagePlanId = fields.Id("usagePlanId"),
        UnknownEventTypes = fields.OneOf<UnknownEventTypes>("unknownEventTypes"),
    };
}

/// <summary>The body of <c>PATCH /tenants/{id}</c>: what is not there stays.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TenantChange
{
    /// <summary>Unique.</summary>
    [Length(1, 128), NotRemovable]
    public string? Name { get; init; }

    /// <summary>As when making it; null takes the service's defaults.</summary>
    [Id(TypeId.UsagePlan)]
    public Guid? UsagePlanId { get; init; }

    /// <summary>As when making it; within seconds.</summary>
    [NotRemovable]
    public UnknownEventTypes? UnknownEventTypes { get; init; }

    /// <summary>Whether the plan is to change, were it to none.</summary>
    internal bool HasUsagePlan { get; init; }

    public static TenantChange Read(Fields fields) => new()
    {
        Name = fields.Text("name"),
        UsagePlanId = fields.Id("usagePlanId"),
        HasUsagePlan = fields.Has("usagePlanId"),
        UnknownEventTypes = fields.OneOf<UnknownEventTypes>("unknownEventTypes"),
    };
}

/// <summary>A tenant as clients see it.</summary>
internal sealed record TenantView(
    string Id, string Name, string? UsagePlanId, UnknownEventTypes UnknownEventTypes, DateTimeOffset CreatedAt)
{
    public static TenantView Of(Tenant t) => new(
        TypeId.Format(TypeId.Tenant, t.Id), t.Name, t.UsagePlanId is { } plan ? TypeId.Format(TypeId.UsagePlan, plan) : null,
        t.UnknownEventTypes, t.CreatedAt);
}

/// <summary>Whose data there is, and what they may use. For the platform's admin; tenants see themselves.</summary>
internal static class TenantsApi
{
    private const string Group = "Tenants";
    private const string Example =
        """{"id":"ten_01jd0000000000000000000000","name":"acme","usagePlanId":null,"unknownEventTypes":"allow","createdAt":"2026-01-31T09:30:00Z"}""";

    private static readonly Operation Create = new(
        "createTenant", Group, "Make a tenant", "It has no keys yet: make one with `tenantId` at `/api-keys`.")
    {
        Body = new(typeof(NewTenant), """{"name":"acme"}"""),
        AnswerExample = Example,
        Errors = [ErrorCodes.NameTaken, ErrorCodes.LimitReached],
    };

    private static readonly Operation List = new("listTenants", Group, "List tenants", "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    private static readonly Operation Get = new("getTenant", Group, "Get a tenant", "By its id; with the scope `tenant:admin` one's own.")
    {
        AnswerExample = Example,
    };

    private static readonly Operation Usage = new("getTenantUsage", Group, "See what a tenant has used",
        "Today, which begins at midnight UTC, by all its keys in all processes together; with the scope `tenant:admin` one's own. "
            + "Without Redis the "
        + "counts are those of one process, `this_process`, since it started; while Redis is away there are none, and `source` is "
        + "`unavailable`.")
    {
        AnswerExample =
            """{"id":"ten_01jd0000000000000000000000","usagePlanId":"pln_01jd0000000000000000000000","requestsPerSecond":50,"burst":100,"eventsPerSecond":200,"bytesPerSecond":null,"eventsPerDay":100000,"source":"all_processes","requestsToday":812,"eventsToday":20417,"eventsLeft":79583,"resetsAt":"2026-02-01T00:00:00Z"}""",
    };

    private static readonly Operation Change = new("changeTenant", Group, "Change a tenant",
        "JSON merge patch (RFC 7396): members that are not there stay. Another usage plan holds within seconds; what was used today "
            + "counts. With the scope `tenant:admin` one's own `unknownEventTypes`; the rest needs `admin`.")
    {
        Body = new(typeof(TenantChange), """{"usagePlanId":"pln_01jd0000000000000000000000"}"""),
        AnswerExample = Example.Replace("\"usagePlanId\":null", "\"usagePlanId\":\"pln_01jd0000000000000000000000\""),
        Errors = [ErrorCodes.NameTaken],
    };

    /// <summary>Maps <c>/tenants</c>.</summary>
    public static void MapTenants(this IEndpointRouteBuilder app)
    {
        app.MapPost("/tenants", CreateAsync).RequireScope(Scopes.Admin).WithMetadata(Create);
        app.MapGet("/tenants", ListAsync).RequireScope(Scopes.Admin).WithMetadata(List);
        app.MapGet("/tenants/{id}", GetAsync).RequireScope(Scopes.TenantAdmin).WithMetadata(Get);
        app.MapGet("/tenants/{id}/usage", GetUsageAsync).RequireScope(Scopes.TenantAdmin).WithMetadata(Usage);
        app.MapPatch("/tenants/{id}", ChangeAsync).RequireScope(Scopes.TenantAdmin).WithMetadata(Change);
    }

    /// <summary>The usage plan of a tenant, if it has one.</summary>
    public static IQueryable<UsagePlan> PlanOf(TriggersDbContext db, Guid tenantId) =>
        from t in db.Tenants join p in db.UsagePlans on t.UsagePlanId equals p.Id where t.Id == tenantId select p;

    /// <summary>What a plan says.</summary>
    public static PlanLimits? LimitsOf(UsagePlan? plan) =>
        plan is null ? null
            : new PlanLimits(plan.RequestsPerSecond, plan.Burst, plan.EventsPerSecond, plan.BytesPerSecond, plan.EventsPerDay);

    private static async Task<Created<TenantView>> CreateAsync(
        HttpContext context, TriggersDbContext db, IOptions<CapOptions> caps, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, NewTenant.Read);
        await using var transaction = await db.Database.BeginTransactionAsync(cancellationToken);
        await db.Database.ExecuteSqlAsync(
            $"SELECT pg_advisory_xact_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Tenants})", cancellationToken);
        await db.Tenants.EnsureRoomAsync(caps.Value.Tenants, "tenants", cancellationToken);
        var made = await WithPlanAsync(() => db.Tenants.FromSql(
            $"""
            INSERT INTO tenants (id, name, usage_plan_id, unknown_event_types, contracts_version)
            VALUES ({TypeId.NewGuid()}, {body.Name}, {body.UsagePlanId},
                {SnakeCase<UnknownEventTypes>.Of(body.UnknownEventTypes ?? UnknownEventTypes.Allow)},
                {(body.UnknownEventTypes == UnknownEventTypes.Refuse ? 1L : 0L)})
            ON CONFLICT (name) DO NOTHING RETURNING *
            """).ToListAsync(cancellationToken));
        var view = TenantView.Of(made.SingleOrDefault() ?? throw NameTaken());
        await transaction.CommitAsync(cancellationToken);
        return TypedResults.Created($"/tenants/{view.Id}", view);
    }

    private static async Task<Ok<Page<TenantView>>> ListAsync(
        HttpContext context, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        return TypedResults.Ok(await list.AnswerAsync(db.Tenants, t => t.Id, TenantView.Of, cancellationToken));
    }

    private static async Task<Ok<TenantView>> GetAsync(
        string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(TenantView.Of(await FindAsync(id, caller, db, cancellationToken)));

    private static async Task<Ok<TenantUsage>> GetUsageAsync(
        string id, Caller caller, TriggersDbContext db, RateLimits rates,
        IOptions<RateLimitingOptions> defaults, CancellationToken cancellationToken)
    {
        var tenant = await FindAsync(id, caller, db, cancellationToken);
        var plan = await PlanOf(db, tenant.Id).FirstOrDefaultAsync(cancellationToken);
        var limits = Limits.OfTenant(tenant.Id, LimitsOf(plan), defaults.Value);
        return TypedResults.Ok(TenantUsage.Of(tenant.Id, plan?.Id, limits, await rates.LookAsync(limits), rates.AreShared));
    }

    private static async Task<Ok<TenantView>> ChangeAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        var key = Ids.Tenant(id);
        var body = await Body.ReadAsync(context, TenantChange.Read);
        var view = TenantView.Of(await UpdateAsync(key, body, caller, db, cancellationToken));
        await changes.TellAllAsync();
        return TypedResults.Ok(view);
    }

    /// <summary>Changes one, in the context's transaction where it has one; whoever ends that tells of it.</summary>
    /// <exception cref="ApiException">There is none, it is not the caller's to change, or it can't be as the body says.</exception>
    public static async Task<Tenant> UpdateAsync(
        Guid key, TenantChange body, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        if (key != caller.TenantId && !caller.May(Scopes.Admin))
            throw ApiException.NotFound("tenant");
        if ((body.Name is not null || body.HasUsagePlan) && !caller.May(Scopes.Admin))
            throw new ApiException(ErrorCodes.Forbidden, $"To change its name or plan needs a key with the scope {Scopes.Admin}.");
        var changed = await WithPlanAsync(() => db.Tenants.FromSql(
            $"""
            UPDATE tenants SET
                name = coalesce({body.Name}::text, name),
                unknown_event_types = coalesce(
                    {(body.UnknownEventTypes is { } unknown ? SnakeCase<UnknownEventTypes>.Of(unknown) : null)}::text, unknown_event_types),
                usage_plan_id = CASE WHEN {body.HasUsagePlan} THEN {body.UsagePlanId}::uuid ELSE usage_plan_id END
            WHERE id = {key}
            RETURNING *
            """).ToListAsync(cancellationToken));
        return changed.SingleOrDefault() ?? throw ApiException.NotFound("tenant");
    }

    private static async Task<Tenant> FindAsync(string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Tenant(id);
        var found = key == caller.TenantId || caller.May(Scopes.Admin)
            ? await db.Tenants.FirstOrDefaultAsync(t => t.Id == key, cancellationToken) : null;
        return found ?? throw ApiException.NotFound("tenant");
    }

    private static async Task<List<Tenant>> WithPlanAsync(Func<Task<List<Tenant>>> write)
    {
        try
        {
            return await write();
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.ForeignKeyViolation)
        {
            throw ApiException.Invalid("/usagePlanId", "There is no such usage plan.");
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.UniqueViolation)
        {
            throw NameTaken();
        }
    }

    private static ApiException NameTaken()
    {
        const string taken = "There is a tenant with this name.";
        return new ApiException(ErrorCodes.NameTaken, taken, [new FieldError("/name", taken)]);
    }
}
