using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.OpenApi;
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
}

/// <summary>A tenant as clients see it.</summary>
internal sealed record TenantView(string Id, string Name, DateTimeOffset CreatedAt)
{
    public static TenantView Of(Tenant t) => new(TypeId.Format(TypeId.Tenant, t.Id), t.Name, t.CreatedAt);
}

/// <summary>Whose data there is. For admin keys alone, of whatever tenant.</summary>
internal static class TenantsApi
{
    private const string Group = "Tenants";
    private const string Example = """{"id":"ten_01jd0000000000000000000000","name":"acme","createdAt":"2026-01-31T09:30:00Z"}""";

    private static readonly Operation Create = new("createTenant", Group, "Make a tenant", "It has no keys yet: make one with `tenantId` at `/api-keys`.")
    {
        Body = new(typeof(NewTenant), """{"name":"acme"}"""),
        Status = 201,
        Answer = new(typeof(TenantView), Example),
        Errors = [ErrorCodes.NameTaken],
    };

    private static readonly Operation List = new("listTenants", Group, "List tenants", "Newest first unless `order=asc`.")
    {
        Query = [ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        Answer = new(typeof(Page<TenantView>), $$"""{"items":[{{Example}}],"nextCursor":null}"""),
    };

    private static readonly Operation Get = new("getTenant", Group, "Get a tenant", "By its id.") { Answer = new(typeof(TenantView), Example) };

    /// <summary>Maps <c>/tenants</c>.</summary>
    public static void MapTenants(this IEndpointRouteBuilder app)
    {
        app.MapPost("/tenants", CreateAsync).RequireScope(Scopes.Admin).WithMetadata(Create);
        app.MapGet("/tenants", ListAsync).RequireScope(Scopes.Admin).WithMetadata(List);
        app.MapGet("/tenants/{id}", GetAsync).RequireScope(Scopes.Admin).WithMetadata(Get);
    }

    private static async Task<IResult> CreateAsync(HttpContext context, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => new NewTenant { Name = fields.Text("name")! });
        var made = await db.Tenants.FromSql(
            $"INSERT INTO tenants (id, name) VALUES ({TypeId.NewGuid()}, {body.Name}) ON CONFLICT (name) DO NOTHING RETURNING *").ToListAsync(cancellationToken);
        const string taken = "There is a tenant with this name.";
        var tenant = made.SingleOrDefault() ?? throw new ApiException(ErrorCodes.NameTaken, taken, [new FieldError("/name", taken)]);
        var view = TenantView.Of(tenant);
        return TypedResults.Created($"/tenants/{view.Id}", view);
    }

    private static async Task<IResult> ListAsync(HttpContext context, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        var rows = await list.Page(db.Tenants, t => t.Id).ToListAsync(cancellationToken);
        return TypedResults.Ok(list.Answer(rows, TenantView.Of, t => t.Id));
    }

    private static async Task<IResult> GetAsync(string id, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Tenant(id);
        var found = await db.Tenants.FirstOrDefaultAsync(t => t.Id == key, cancellationToken);
        return TypedResults.Ok(TenantView.Of(found ?? throw ApiException.NotFound("tenant")));
    }
}
