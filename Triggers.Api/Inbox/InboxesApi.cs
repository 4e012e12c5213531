using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.Inbox;

/// <summary>
/// Inboxes with a name: each gets every event that it wants, whoever else does. The one named <c>default</c> has what nobody got; it is
/// there without being made.
/// </summary>
internal static class InboxesApi
{
    private const int MaxCounted = 10_000;

    /// <summary>Maps <c>/inboxes</c> and <c>/inboxes/{name}</c>.</summary>
    public static void MapInboxes(this IEndpointRouteBuilder app)
    {
        app.MapPost("/inboxes", CreateAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(InboxesDocs.Create);
        app.MapGet("/inboxes", ListAsync).RequireScope(Scopes.SubscriptionsRead).WithMetadata(InboxesDocs.List);
        app.MapGet("/inboxes/{name}", GetAsync).RequireScope(Scopes.SubscriptionsRead).WithMetadata(InboxesDocs.Get);
        app.MapPatch("/inboxes/{name}", ChangeAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(InboxesDocs.Change);
        app.MapDelete("/inboxes/{name}", DeleteAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(InboxesDocs.Delete);
    }

    /// <summary>An inbox by its name; <c>default</c> is made when it is first asked for.</summary>
    public static async Task<Subscription> FindInboxAsync(
        this TriggersDbContext db, Guid tenantId, string name, CancellationToken cancellationToken)
    {
        var found = await Living(db, tenantId).AsNoTracking().FirstOrDefaultAsync(s => s.Inbox == name, cancellationToken);
        if (found is not null || name != Inboxes.Default)
            return found ?? throw NotFound();
        await db.Database.ExecuteSqlAsync(
            $"""
            INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets, inbox)
            VALUES ({TypeId.NewGuid()}, {tenantId}, '', ARRAY[{Inboxes.DefaultEventType}], jsonb_build_array(), {Inboxes.Default})
            ON CONFLICT (tenant_id, inbox) WHERE inbox IS NOT NULL AND deleted_at IS NULL DO NOTHING
            """, cancellationToken);
        return await Living(db, tenantId).AsNoTracking().FirstOrDefaultAsync(s => s.Inbox == name, cancellationToken) ?? throw NotFound();
    }

    private static async Task<Created<InboxView>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, IOptions<CapOptions> caps, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, InboxBody.Read);
        var inbox = await AddAsync(body, caller, db, caps.Value, cancellationToken);
        return TypedResults.Created($"/inboxes/{body.Name}", InboxView.Of(inbox, default));
    }

    /// <summary>What the body describes. Not stored yet.</summary>
    public static Subscription New(InboxBody body, Guid tenantId) => new()
    {
        Id = TypeId.NewGuid(),
        TenantId = tenantId,
        Url = "",
        EventTypes = body.EventTypes,
        Filter = body.NewFilter?.Json,
        Description = body.Description,
        Secrets = [],
        Inbox = body.Name,
        LeaseSeconds = body.Lease ?? Subscription.DefaultLeaseSeconds,
        MaxDeliveries = body.MaxDeliveries ?? Subscription.DefaultMaxDeliveries,
    };

    /// <summary>Stores a new one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">The name is taken, or there are as many as may be.</exception>
    public static async Task<Subscription> AddAsync(
        InboxBody body, Caller caller, TriggersDbContext db, CapOptions caps, CancellationToken cancellationToken)
    {
        EnsureWithin(caps, body.EventTypes);
        if (body.Name == Inboxes.Default)
            throw NameTaken();
        var inbox = New(body, caller.TenantId);
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        if (await Living(db, caller.TenantId).AnyAsync(s => s.Inbox == body.Name, cancellationToken))
            throw NameTaken();
        await Made(db, caller.TenantId).EnsureRoomAsync(
            caps.InboxesPerTenant, "inboxes of a tenant; delete one first", cancellationToken);
        db.Add(inbox);
        await db.SaveChangesAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return inbox;
    }

    private static async Task<Ok<Page<InboxView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        var page = await list.AnswerAsync(Made(db, caller.TenantId), s => s.Id, s => s, cancellationToken);
        var counts = await CountAsync(dataSource, [.. page.Items], cancellationToken);
        return TypedResults.Ok(new Page<InboxView>([.. page.Items.Zip(counts, InboxView.Of)], page.NextCursor));
    }

    private static async Task<Ok<InboxView>> GetAsync(
        string name, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, CancellationToken cancellationToken) =>
        TypedResults.Ok(await ViewAsync(dataSource, await db.FindInboxAsync(caller.TenantId, name, cancellationToken), cancellationToken));

    private static async Task<Ok<InboxView>> ChangeAsync(
        string name, HttpContext context, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource,
        IOptions<CapOptions> caps, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, InboxChange.Read);
        var inbox = await UpdateAsync(name, body, caller, db, caps.Value, cancellationToken);
        return TypedResults.Ok(await ViewAsync(dataSource, inbox, cancellationToken));
    }

    /// <summary>Changes one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">There is none, or it can't be as the body says.</exception>
    public static async Task<Subscription> UpdateAsync(
        string name, InboxChange body, Caller caller, TriggersDbContext db, CapOptions caps, CancellationToken cancellationToken)
    {
        EnsureWithin(caps, body.EventTypes ?? []);
        if (name == Inboxes.Default && (body.EventTypes is not null || body.NewFilter is not null))
        {
            throw ApiException.Invalid(
                body.EventTypes is null ? "/filter" : "/eventTypes", "The inbox \"default\" has what nobody subscribes to.");
        }
        var inbox = await db.FindInboxAsync(caller.TenantId, name, cancellationToken);
        var changed = await db.Subscriptions.FromSql(
            $"""
            UPDATE subscriptions SET
                event_types = coalesce({body.EventTypes}::text[], event_types),
                filter = CASE WHEN {body.HasFilter} THEN {body.NewFilter?.Json}::text ELSE filter END,
                description = CASE WHEN {body.HasDescription} THEN {body.Description}::text ELSE description END,
                lease_seconds = coalesce({body.Lease}::int, lease_seconds),
                max_deliveries = coalesce({body.MaxDeliveries}::int, max_deliveries),
                updated_at = now()
            WHERE tenant_id = {caller.TenantId} AND id = {inbox.Id} AND deleted_at IS NULL
            RETURNING *
            """).AsNoTracking().ToListAsync(cancellationToken);
        return changed.SingleOrDefault() ?? throw NotFound();
    }

    private static async Task<NoContent> DeleteAsync(string name, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await RemoveAsync(name, caller, db, cancellationToken);
        return TypedResults.NoContent();
    }

    /// <summary>Deletes one.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    public static async Task RemoveAsync(string name, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var deleted = await db.Database.ExecuteSqlAsync(
            $"UPDATE subscriptions SET deleted_at = now() WHERE tenant_id = {caller.TenantId} AND inbox = {name} AND deleted_at IS NULL",
            cancellationToken);
        if (deleted == 0)
            throw NotFound();
    }

    private static async Task<InboxView> ViewAsync(NpgsqlDataSource dataSource, Subscription inbox, CancellationToken cancellationToken) =>
        InboxView.Of(inbox, (await CountAsync(dataSource, [inbox], cancellationToken))[0]);

    private static async Task<List<InboxCount>> CountAsync(
        NpgsqlDataSource dataSource, Subscription[] inboxes, CancellationToken cancellationToken)
    {
        var counts = new List<InboxCount>();
        if (inboxes.Length == 0)
            return counts;
        await using var batch = dataSource.CreateBatch();
        foreach (var inbox in inboxes)
            batch.BatchCommands.Add(Inboxes.Count(inbox.Id, inbox.Inbox == Inboxes.Default ? inbox.TenantId : null, MaxCounted));
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        do
        {
            while (await reader.ReadAsync(cancellationToken))
            {
                counts.Add(new InboxCount(
                    reader.GetInt32(0), reader.GetInt32(1), reader.IsDBNull(2) ? null : TypeId.CreatedAt(reader.GetGuid(2))));
            }
        }
        while (await reader.NextResultAsync(cancellationToken));
        return counts;
    }

    private static void EnsureWithin(CapOptions caps, string[] eventTypes)
    {
        if (eventTypes.Length > caps.EventTypesPerSubscription)
            throw ApiException.Invalid("/eventTypes", $"Must be an array of 1 to {caps.EventTypesPerSubscription}.");
    }

    /// <summary>Those that were made, of the tenant.</summary>
    public static IQueryable<Subscription> Made(TriggersDbContext db, Guid tenantId) =>
        Living(db, tenantId).Where(s => s.Inbox != Inboxes.Default);

    private static IQueryable<Subscription> Living(TriggersDbContext db, Guid tenantId) =>
        db.Subscriptions.Where(s => s.TenantId == tenantId && s.DeletedAt == null && s.Inbox != null);

    private static ApiException NotFound() => ApiException.NotFound("inbox");

    private static ApiException NameTaken()
    {
        const string Taken = "There is an inbox with this name.";
        return new(ErrorCodes.NameTaken, Taken, [new FieldError("/name", Taken)]);
    }
}
