using Microsoft.AspNetCore.Authorization;

namespace Triggers.Api.Auth;

/// <summary>What an API key may do.</summary>
internal static class Scopes
{
    public const string EventsWrite = "events:write";
    public const string EventsRead = "events:read";
    public const string InboxRead = "inbox:read";
    public const string InboxWrite = "inbox:write";
    public const string SubscriptionsWrite = "subscriptions:write";
    public const string SubscriptionsRead = "subscriptions:read";
    public const string EventTypesWrite = "event_types:write";
    public const string EventTypesRead = "event_types:read";
    public const string KeysWrite = "keys:write";

    /// <summary>Everything in its own tenant, and to loosen what limits the tenant's keys.</summary>
    public const string TenantAdmin = "tenant:admin";

    /// <summary>
    /// The platform's administration: tenants, usage plans, keys of other tenants, and everything in its own tenant. Only keys of the
    /// tenant <c>default</c> have it.
    /// </summary>
    public const string Admin = "admin";

    public static readonly IReadOnlyList<string> All =
        [EventsWrite, EventsRead, InboxRead, InboxWrite, SubscriptionsWrite, SubscriptionsRead,
            EventTypesWrite, EventTypesRead, KeysWrite, TenantAdmin, Admin];

    /// <summary>The scopes of a key, with those that they include.</summary>
    public static IReadOnlySet<string> Expand(IReadOnlyCollection<string> scopes) =>
        scopes.Contains(Admin) ? All.ToHashSet()
        : scopes.Contains(TenantAdmin) ? All.Where(scope => scope != Admin).ToHashSet()
        : scopes.ToHashSet();
}

/// <summary>The scope an endpoint needs; an endpoint with neither this nor AllowAnonymous answers nobody.</summary>
internal sealed record RequiredScope(string Scope);

/// <summary>How endpoints say it.</summary>
internal static class RequiredScopeExtensions
{
    /// <summary>Lets in keys with this scope: the policy of the same name.</summary>
    public static TBuilder RequireScope<TBuilder>(this TBuilder builder, string scope) where TBuilder : IEndpointConventionBuilder =>
        builder.WithMetadata(new RequiredScope(scope)).RequireAuthorization(scope);

    /// <summary>A policy for every scope.</summary>
    public static void AddScopes(this AuthorizationOptions options)
    {
        foreach (var scope in Scopes.All)
        {
            options.AddPolicy(scope, policy => policy.AddAuthenticationSchemes(ApiKeyAuthentication.Scheme)
                .RequireClaim(ApiKeyAuthentication.ScopeClaim, scope));
        }
    }
}
