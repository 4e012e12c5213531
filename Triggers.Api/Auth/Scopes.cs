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
    public const string KeysWrite = "keys:write";

    /// <summary>Everything in its own tenant; and alone it makes tenants, and keys of other tenants.</summary>
    public const string Admin = "admin";

    public static readonly IReadOnlyList<string> All =
        [EventsWrite, EventsRead, InboxRead, InboxWrite, SubscriptionsWrite, SubscriptionsRead, KeysWrite, Admin];
}

/// <summary>The scope an endpoint needs; an endpoint with neither this nor AllowAnonymous answers nobody.</summary>
internal sealed record RequiredScope(string Scope);

/// <summary>How endpoints say it.</summary>
internal static class RequiredScopeExtensions
{
    /// <summary>Lets in keys with this scope.</summary>
    public static TBuilder RequireScope<TBuilder>(this TBuilder builder, string scope) where TBuilder : IEndpointConventionBuilder =>
        builder.WithMetadata(new RequiredScope(scope));
}
