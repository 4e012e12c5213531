using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.UsagePlans;

/// <summary>What a client says a usage plan is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record UsagePlanBody
{
    /// <summary>Unique.</summary>
    [Length(1, 128)]
    public required string Name { get; init; }

    /// <summary>Sustained requests a second of each tenant.</summary>
    [Range(1, Rate.Max)]
    public required int RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once.</summary>
    [Range(1, Rate.Max)]
    public required int Burst { get; init; }

    /// <summary>
    /// Sustained events a second; without it any number. A batch of more gets in when none has come for a second, and is paid for by the
    /// time after it.
    /// </summary>
    [Range(1, Rate.Max)]
    public int? EventsPerSecond { get; init; }

    /// <summary>Sustained bytes of events a second; without it any number. A body of more as with events.</summary>
    [Range(Rate.MinBytes, Rate.MaxOfMany)]
    public int? BytesPerSecond { get; init; }

    /// <summary>Events each tenant may publish, or have delivered again, in a day (UTC); without it any number.</summary>
    [Range(1, Rate.MaxOfMany)]
    public int? EventsPerDay { get; init; }

    public static UsagePlanBody Read(Fields fields) => new()
    {
        Name = fields.Text("name")!,
        RequestsPerSecond = fields.Number("requestsPerSecond") ?? 0,
        Burst = fields.Number("burst") ?? 0,
        EventsPerSecond = fields.Number("eventsPerSecond"),
        BytesPerSecond = fields.Number("bytesPerSecond"),
        EventsPerDay = fields.Number("eventsPerDay"),
    };
}

/// <summary>What of a usage plan is to change; what is not there stays.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record UsagePlanChange
{
    private static readonly string[] Removable = ["eventsPerSecond", "bytesPerSecond", "eventsPerDay"];

    /// <summary>Unique.</summary>
    [Length(1, 128), NotRemovable]
    public string? Name { get; init; }

    /// <summary>As when making it.</summary>
    [Range(1, Rate.Max), NotRemovable]
    public int? RequestsPerSecond { get; init; }

    /// <summary>As when making it.</summary>
    [Range(1, Rate.Max), NotRemovable]
    public int? Burst { get; init; }

    /// <summary>As when making it; null for any number.</summary>
    [Range(1, Rate.Max)]
    public int? EventsPerSecond { get; init; }

    /// <summary>As when making it; null for any number.</summary>
    [Range(Rate.MinBytes, Rate.MaxOfMany)]
    public int? BytesPerSecond { get; init; }

    /// <summary>As when making it; null removes the quota.</summary>
    [Range(1, Rate.MaxOfMany)]
    public int? EventsPerDay { get; init; }

    /// <summary>Which of the removable ones are to change, were it to none.</summary>
    internal IReadOnlySet<string> Members { get; init; } = new HashSet<string>();

    public static UsagePlanChange Read(Fields fields) => new()
    {
        Name = fields.Text("name"),
        RequestsPerSecond = fields.Number("requestsPerSecond"),
        Burst = fields.Number("burst"),
        EventsPerSecond = fields.Number("eventsPerSecond"),
        BytesPerSecond = fields.Number("bytesPerSecond"),
        EventsPerDay = fields.Number("eventsPerDay"),
        Members = Removable.Where(fields.Has).ToHashSet(),
    };
}

/// <summary>A usage plan as clients see it.</summary>
internal sealed record UsagePlanView(
    string Id, string Name, int RequestsPerSecond, int Burst, int? EventsPerSecond,
    int? BytesPerSecond, int? EventsPerDay, DateTimeOffset CreatedAt)
{
    public static UsagePlanView Of(UsagePlan p) =>
        new(TypeId.Format(TypeId.UsagePlan, p.Id), p.Name, p.RequestsPerSecond,
            p.Burst, p.EventsPerSecond, p.BytesPerSecond, p.EventsPerDay, p.CreatedAt);
}

/// <summary>Limits with a name, for any tenant. For the platform's admin alone.</summary>
internal static class UsagePlansApi
{
    private const string Group = "Usage plans";
    private const string Taken = "There is a usage plan with this name.";

    private const string Example =
        """{"id":"pln_01jd0000000000000000000000","name":"starter","requestsPerSecond":50,"burst":100,"eventsPerSecond":200,"bytesPerSecond":null,"eventsPerDay":100000,"createdAt":"2026-01-31T09:30:00Z"}""";

    private static readonly Operation Create = new("createUsagePlan", Group, "Make a usage plan",
        "Give it to a tenant with `usagePlanId` at `/tenants`. Each tenant has the limits for itself, all its keys together.")
    {
        Body = new(typeof(UsagePlanBody),
            """{"name":"starter","requestsPerSecond":50,"burst":100,"eventsPerSecond":200,"eventsPerDay":100000}"""),
        AnswerExample = Example,
        Errors = [ErrorCodes.NameTaken],
    };

    private static readonly Operation List = new("listUsagePlans", Group, "List usage plans", "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    private static readonly Operation Get = new("getUsagePlan", Group, "Get a usage plan", "By its id.") { AnswerExample = Example };

    private static readonly Operation Change = new("changeUsagePlan", Group, "Change a usage plan",
        "JSON merge patch (RFC 7396): members that are not there stay. It holds for every tenant with this plan within seconds; what "
            + "they have "
        + "used today counts.")
    {
        Body = new(typeof(UsagePlanChange), """{"requestsPerSecond":100,"burst":200}"""),
        AnswerExample = Example.Replace("50,", "100,").Replace("\"burst\":100", "\"burst\":200"),
        Errors = [ErrorCodes.NameTaken],
    };

    private static readonly Operation Delete = new("deleteUsagePlan", Group, "Delete a usage plan", "One that no tenant has any more.")
    {
        Errors = [ErrorCodes.UsagePlanInUse],
    };

    /// <summary>Maps <c>/usage-plans</c>.</summary>
    public static void MapUsagePlans(this IEndpointRouteBuilder app)
    {
        app.MapPost("/usage-plans", CreateAsync).RequireScope(Scopes.Admin).WithMetadata(Create);
        app.MapGet("/usage-plans", ListAsync).RequireScope(Scopes.Admin).WithMetadata(List);
        app.MapGet("/usage-plans/{id}", GetAsync).RequireScope(Scopes.Admin).WithMetadata(Get);
        app.MapPatch("/usage-plans/{id}", ChangeAsync).RequireScope(Scopes.Admin).WithMetadata(Change);
        app.MapDelete("/usage-plans/{id}", DeleteAsync).RequireScope(Scopes.Admin).WithMetadata(Delete);
    }

    private static async Task<Created<UsagePlanView>> CreateAsync(
        HttpContext context, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, UsagePlanBody.Read);
        var view = UsagePlanView.Of(await AddAsync(body, db, cancellationToken));
        return TypedResults.Created($"/usage-plans/{view.Id}", view);
    }

    /// <summary>What the body describes. Not stored yet.</summary>
    public static UsagePlan New(UsagePlanBody body) => new()
    {
        Id = TypeId.NewGuid(),
        Name = body.Name,
        RequestsPerSecond = body.RequestsPerSecond,
        Burst = body.Burst,
        EventsPerSecond = body.EventsPerSecond,
        BytesPerSecond = body.BytesPerSecond,
        EventsPerDay = body.EventsPerDay,
    };

    /// <summary>Stores a new one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">The name is taken.</exception>
    public static async Task<UsagePlan> AddAsync(UsagePlanBody body, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var made = await db.UsagePlans.FromSql(
            $"""
            INSERT INTO usage_plans (id, name, requests_per_second, burst, events_per_second, bytes_per_second, events_per_day)
            VALUES ({TypeId.NewGuid()}, {body.Name}, {body.RequestsPerSecond}, {body.Burst}, {body.EventsPerSecond},
                {body.BytesPerSecond}, {body.EventsPerDay})
            ON CONFLICT (name) DO NOTHING RETURNING *
            """).ToListAsync(cancellationToken);
        return made.SingleOrDefault() ?? throw NameTaken();
    }

    private static async Task<Ok<Page<UsagePlanView>>> ListAsync(
        HttpContext context, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        return TypedResults.Ok(await list.AnswerAsync(db.UsagePlans, p => p.Id, UsagePlanView.Of, cancellationToken));
    }

    private static async Task<Ok<UsagePlanView>> GetAsync(string id, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.UsagePlan(id);
        var found = await db.UsagePlans.FirstOrDefaultAsync(p => p.Id == key, cancellationToken);
        return TypedResults.Ok(UsagePlanView.Of(found ?? throw NotFound()));
    }

    private static async Task<Ok<UsagePlanView>> ChangeAsync(
        string id, HttpContext context, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        var key = Ids.UsagePlan(id);
        var body = await Body.ReadAsync(context, UsagePlanChange.Read);
        var view = UsagePlanView.Of(await UpdateAsync(key, body, db, cancellationToken));
        await changes.TellAllAsync();
        return TypedResults.Ok(view);
    }

    /// <summary>Changes one, in the context's transaction where it has one; whoever ends that tells of it.</summary>
    /// <exception cref="ApiException">There is none, or the name is taken.</exception>
    public static async Task<UsagePlan> UpdateAsync(
        Guid key, UsagePlanChange body, TriggersDbContext db, CancellationToken cancellationToken)
    {
        try
        {
            var changed = await db.UsagePlans.FromSql(
                $"""
                UPDATE usage_plans SET
                    name = coalesce({body.Name}::text, name),
                    requests_per_second = coalesce({body.RequestsPerSecond}::int, requests_per_second),
                    burst = coalesce({body.Burst}::int, burst),
                    events_per_second = CASE WHEN {body.Members.Contains("eventsPerSecond")} THEN {body.EventsPerSecond}::int
                        ELSE events_per_second END,
                    bytes_per_second = CASE WHEN {body.Members.Contains("bytesPerSecond")} THEN {body.BytesPerSecond}::int
                        ELSE bytes_per_second END,
                    events_per_day = CASE WHEN {body.Members.Contains("eventsPerDay")} THEN {body.EventsPerDay}::int
                        ELSE events_per_day END
                WHERE id = {key}
                RETURNING *
                """).ToListAsync(cancellationToken);
            return changed.SingleOrDefault() ?? throw NotFound();
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.UniqueViolation)
        {
            throw NameTaken();
        }
    }

    private static async Task<NoContent> DeleteAsync(string id, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await RemoveAsync(Ids.UsagePlan(id), db, cancellationToken);
        return TypedResults.NoContent();
    }

    /// <summary>Deletes one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">There is none, or tenants have it.</exception>
    public static async Task RemoveAsync(Guid key, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await using var transaction = await db.BeginUnlessBegunAsync(cancellationToken);
        // A plan that keys had before plans were the tenants'.
        await db.Database.ExecuteSqlAsync($"UPDATE api_keys SET usage_plan_id = NULL WHERE usage_plan_id = {key}", cancellationToken);
        try
        {
            if (await db.Database.ExecuteSqlAsync($"DELETE FROM usage_plans WHERE id = {key}", cancellationToken) == 0)
                throw NotFound();
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.ForeignKeyViolation)
        {
            throw new ApiException(ErrorCodes.UsagePlanInUse, "Give the tenants that have it another plan, or none, first.");
        }
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
    }

    private static ApiException NotFound() => ApiException.NotFound("usage plan");

    private static ApiException NameTaken() => new(ErrorCodes.NameTaken, Taken, [new FieldError("/name", Taken)]);
}
