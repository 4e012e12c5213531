using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Schemas;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.EventTypes;

/// <summary>What the events of a tenant look like, type by type, and what becomes of those that don't.</summary>
internal static class EventTypesApi
{
    private const int MaxVersions = 1_000;

    /// <summary>Maps <c>/event-types</c> and <c>/asyncapi.json</c>.</summary>
    public static void MapEventTypes(this IEndpointRouteBuilder app)
    {
        app.MapPost("/event-types", CreateAsync).RequireScope(Scopes.EventTypesWrite).WithMetadata(EventTypeDocs.Create);
        app.MapGet("/event-types", ListAsync).RequireScope(Scopes.EventTypesRead).WithMetadata(EventTypeDocs.List);
        app.MapGet("/event-types/{name}", GetAsync).RequireScope(Scopes.EventTypesRead).WithMetadata(EventTypeDocs.Get);
        app.MapPatch("/event-types/{name}", ChangeAsync).RequireScope(Scopes.EventTypesWrite).WithMetadata(EventTypeDocs.Change);
        app.MapDelete("/event-types/{name}", DeleteAsync).RequireScope(Scopes.EventTypesWrite).WithMetadata(EventTypeDocs.Delete);
        app.MapGet("/event-types/{name}/versions", ListVersionsAsync).RequireScope(Scopes.EventTypesRead)
            .WithMetadata(EventTypeDocs.ListVersions);
        app.MapGet("/event-types/{name}/versions/{version}", GetVersionAsync).RequireScope(Scopes.EventTypesRead)
            .WithMetadata(EventTypeDocs.GetVersion);
        app.MapGet("/asyncapi.json", AsyncApi.GetAsync).RequireScope(Scopes.EventTypesRead).WithMetadata(EventTypeDocs.AsyncApi);
    }

    private static async Task<Created<EventTypeDetails>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, IOptions<CapOptions> caps,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, EventTypeBody.Read);
        var type = await AddAsync(body, caller, db, caps.Value, cancellationToken);
        await changes.TellAsync(caller.TenantId);
        return TypedResults.Created($"/event-types/{type.Name}", EventTypeDetails.Of(type, Text(body.Schema)));
    }

    /// <summary>What the body describes. Not stored yet.</summary>
    public static EventType New(EventTypeBody body, Guid tenantId) => new()
    {
        TenantId = tenantId,
        Name = body.Name,
        Id = TypeId.NewGuid(),
        Description = body.Description,
        GroupName = body.Group,
        Mode = body.Mode ?? ContractMode.Off,
        Compatibility = body.Compatibility ?? SchemaCompatibility.None,
        Version = body.Schema.Utf8.IsEmpty ? 0 : 1,
        Example = Text(body.Example),
        Deprecation = body.Deprecation,
    };

    /// <summary>Stores a new one, in the context's transaction where it has one; whoever ends that tells of it.</summary>
    /// <exception cref="ApiException">It can't be as the body says, the name is taken, or there are as many as may be.</exception>
    public static async Task<EventType> AddAsync(
        EventTypeBody body, Caller caller, TriggersDbContext db, CapOptions caps, CancellationToken cancellationToken)
    {
        if (body.Schema.Utf8.IsEmpty && body.Mode is not (null or ContractMode.Off))
            throw NeedsSchema();
        EnsureMatches(Text(body.Example), Text(body.Schema));
        var type = New(body, caller.TenantId);
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        if (await OfTenant(db, caller).AnyAsync(t => t.Name == body.Name, cancellationToken))
        {
            const string Taken = "There is an event type with this name.";
            throw new ApiException(ErrorCodes.NameTaken, Taken, [new FieldError("/name", Taken)]);
        }
        await OfTenant(db, caller).EnsureRoomAsync(
            caps.EventTypesPerTenant, "event types of a tenant; delete one first", cancellationToken);
        db.Add(type);
        if (type.Version > 0)
            db.Add(NewVersion(type.Id, 1, body.Schema));
        await db.SaveChangesAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return type;
    }

    private static async Task<Ok<Page<EventTypeView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var group = list.Text("group");
        list.EnsureValid();
        return TypedResults.Ok(await list.AnswerAsync(
            OfTenant(db, caller).Where(t => group == null || t.GroupName == group), t => t.Id, EventTypeView.Of, cancellationToken));
    }

    private static async Task<Ok<EventTypeDetails>> GetAsync(
        string name, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var type = await FindAsync(db, caller, name, cancellationToken);
        return TypedResults.Ok(EventTypeDetails.Of(type, await SchemaAsync(db, type, cancellationToken)));
    }

    private static async Task<Ok<EventTypeDetails>> ChangeAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, EventTypeChange.Read);
        var changed = await UpdateAsync(name, body, caller, db, cancellationToken);
        await changes.TellAsync(caller.TenantId);
        return TypedResults.Ok(changed);
    }

    /// <summary>Changes one, in the context's transaction where it has one; whoever ends that tells of it.</summary>
    /// <exception cref="ApiException">There is none, or it can't be as the body says.</exception>
    public static async Task<EventTypeDetails> UpdateAsync(
        string name, EventTypeChange body, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        var type = await FindAsync(db, caller, name, cancellationToken);
        var schema = await SchemaAsync(db, type, cancellationToken);
        if (body.Schema is { Utf8.IsEmpty: false } next && !AreSame(schema, next))
        {
            EnsureCompatible(body.Compatibility ?? type.Compatibility, schema, next);
            if (type.Version == MaxVersions)
                throw new ApiException(ErrorCodes.LimitReached, $"There may be {MaxVersions} versions of a type.");
            db.Add(NewVersion(type.Id, type.Version + 1, next));
            await db.SaveChangesAsync(cancellationToken);
            (type.Version, schema) = (type.Version + 1, Text(next));
        }
        type.Mode = body.Mode ?? type.Mode;
        if (type.Mode != ContractMode.Off && type.Version == 0)
            throw NeedsSchema();
        type.Compatibility = body.Compatibility ?? type.Compatibility;
        if (body.Members.Contains("description"))
            type.Description = body.Description;
        if (body.Members.Contains("group"))
            type.GroupName = body.Group;
        if (body.Members.Contains("deprecation"))
            type.Deprecation = body.Deprecation;
        if (body.Members.Contains("example"))
            type.Example = Text(body.Example);
        EnsureMatches(type.Example, schema);
        var changed = await db.EventTypes.FromSql(
            $"""
            UPDATE event_types SET description = {type.Description}, group_name = {type.GroupName},
                mode = {SnakeCase<ContractMode>.Of(type.Mode)}, compatibility = {SnakeCase<SchemaCompatibility>.Of(type.Compatibility)},
                version = {type.Version}, example = {type.Example}, deprecation = {type.Deprecation}, updated_at = now()
            WHERE tenant_id = {caller.TenantId} AND name = {name}
            RETURNING *
            """).ToListAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return EventTypeDetails.Of(changed.Single(), schema);
    }

    private static async Task<NoContent> DeleteAsync(
        string name, Caller caller, TriggersDbContext db, KeyChanges changes, CancellationToken cancellationToken)
    {
        await RemoveAsync(name, caller, db, cancellationToken);
        await changes.TellAsync(caller.TenantId);
        return TypedResults.NoContent();
    }

    /// <summary>Deletes one; whoever ends the transaction tells of it.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    public static async Task RemoveAsync(string name, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        if (await OfTenant(db, caller).Where(t => t.Name == name).ExecuteDeleteAsync(cancellationToken) == 0)
            throw NotFound();
    }

    private static async Task<Ok<Page<EventTypeVersionView>>> ListVersionsAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        var type = await FindAsync(db, caller, name, cancellationToken);
        return TypedResults.Ok(await list.AnswerAsync(
            db.EventTypeVersions.Where(v => v.EventTypeId == type.Id), v => v.Id, EventTypeVersionView.Of, cancellationToken));
    }

    private static async Task<Ok<EventTypeVersionDetails>> GetVersionAsync(
        string name, string version, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var type = await FindAsync(db, caller, name, cancellationToken);
        var isNumber = int.TryParse(version, System.Globalization.NumberStyles.None, null, out var number);
        var found = await db.EventTypeVersions.FirstOrDefaultAsync(
            v => isNumber && v.EventTypeId == type.Id && v.Version == number, cancellationToken);
        return found is null ? throw ApiException.NotFound("version of this event type") : TypedResults.Ok(
            new EventTypeVersionDetails(found.Version, found.CreatedAt, new RawJson(Encoding.UTF8.GetBytes(found.Schema))));
    }

    private static IQueryable<EventType> OfTenant(TriggersDbContext db, Caller caller) =>
        db.EventTypes.Where(t => t.TenantId == caller.TenantId);

    private static async Task<EventType> FindAsync(
        TriggersDbContext db, Caller caller, string name, CancellationToken cancellationToken) =>
        await OfTenant(db, caller).FirstOrDefaultAsync(t => t.Name == name, cancellationToken) ?? throw NotFound();

    private static Task<string?> SchemaAsync(TriggersDbContext db, EventType type, CancellationToken cancellationToken) =>
        db.EventTypeVersions.Where(v => v.EventTypeId == type.Id && v.Version == type.Version).Select(v => (string?)v.Schema)
            .FirstOrDefaultAsync(cancellationToken);

    private static EventTypeVersion NewVersion(Guid typeId, int version, RawJson schema) =>
        new() { EventTypeId = typeId, Version = version, Id = TypeId.NewGuid(), Schema = Text(schema)! };

    private static bool AreSame(string? schema, RawJson other)
    {
        if (schema is null)
            return false;
        using var one = JsonDocument.Parse(schema);
        using var two = JsonDocument.Parse(other.Utf8);
        return JsonElement.DeepEquals(one.RootElement, two.RootElement);
    }

    private static void EnsureMatches(string? example, string? schema)
    {
        if (example is null || schema is null)
            return;
        var mistakes = EventSchema.Compile(schema).Judge(Encoding.UTF8.GetBytes(example), new Steps(), FieldErrors.Max);
        if (mistakes.Count > 0)
        {
            throw new ApiException(ErrorCodes.InvalidRequest, "The example does not match the schema.",
                [.. mistakes.Select(m => new FieldError("/example" + m.Pointer, m.Detail))]);
        }
    }

    private static void EnsureCompatible(SchemaCompatibility compatibility, string? before, RawJson next)
    {
        if (before is null || compatibility == SchemaCompatibility.None)
            return;
        using var one = JsonDocument.Parse(before);
        using var two = JsonDocument.Parse(next.Utf8);
        var mistakes = new List<FieldError>();
        if (compatibility is SchemaCompatibility.Backward or SchemaCompatibility.Full)
        {
            mistakes.AddRange(SchemaComparison.WhyNotAll(two.RootElement, one.RootElement)
                .Select(m => new FieldError("/schema" + m.Pointer, $"Backward: {m.Detail}")));
        }
        if (compatibility is SchemaCompatibility.Forward or SchemaCompatibility.Full)
        {
            // Its pointers lead into the version before.
            mistakes.AddRange(SchemaComparison.WhyNotAll(one.RootElement, two.RootElement)
                .Select(m => new FieldError("/schema", $"Forward: \"{m.Pointer}\" of the version before: {m.Detail}")));
        }
        if (mistakes.Count > 0)
        {
            throw new ApiException(ErrorCodes.IncompatibleSchema,
                $"The type asks for {SnakeCase<SchemaCompatibility>.Of(compatibility)} compatibility with the version before.", mistakes);
        }
    }

    private static string? Text(RawJson json) => json.Utf8.IsEmpty ? null : Encoding.UTF8.GetString(json.Utf8.Span);

    private static ApiException NeedsSchema() => ApiException.Invalid("/mode", "Without a schema it can only be off.");

    private static ApiException NotFound() => ApiException.NotFound("event type");
}
