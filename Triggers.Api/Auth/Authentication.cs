using Microsoft.AspNetCore.Authorization;
using Triggers.Api.Errors;
using Triggers.Api.RateLimiting;
using Triggers.Api.Setup;

namespace Triggers.Api.Auth;

/// <summary>
/// Every request to an endpoint comes through here: who is it (401), may it do this (403), does it do it too often (429). An
/// endpoint that says neither which scope it needs nor that it is open to all answers nobody.
/// </summary>
internal sealed class Authentication(RequestDelegate next, Identification identification, LastUsed lastUsed, RateLimits limits, Bootstrap bootstrap)
{
    public async Task InvokeAsync(HttpContext context)
    {
        var endpoint = context.GetEndpoint();
        if (endpoint is null || endpoint.Metadata.GetMetadata<IAllowAnonymous>() is not null || IsRefusal(endpoint))
        {
            await next(context);
            return;
        }

        var scope = endpoint.Metadata.GetMetadata<RequiredScope>()
            ?? throw new InvalidOperationException($"{endpoint.DisplayName} does not say which scope it needs.");
        await bootstrap.Done.WaitAsync(context.RequestAborted);
        if (await identification.FindAsync(context) is not { } caller)
        {
            context.Response.Headers.WWWAuthenticate = "Bearer realm=\"triggers\"";
            await Problems.WriteAsync(context, ErrorCodes.Unauthenticated,
                "Send a valid key, neither expired nor revoked, as X-API-Key or as Authorization: Bearer.");
            return;
        }

        context.Features.Set(caller);
        lastUsed.Note(caller.KeyId);
        var isAllowed = caller.May(scope.Scope);
        var events = isAllowed && endpoint.Metadata.GetMetadata<PublishesOneEvent>() is not null ? 1 : 0;
        var charge = await limits.TakeAsync(context, caller, events);
        if (charge.Refusal is { } refusal)
        {
            await Problems.WriteAsync(context, refusal);
            return;
        }
        if (!isAllowed)
        {
            await Problems.WriteAsync(context, ErrorCodes.Forbidden, $"This needs a key with the scope {scope.Scope}.");
            return;
        }

        context.Features.Set(charge);
        try
        {
            await next(context);
        }
        finally
        {
            limits.Settle(charge);
        }
    }

    // The framework's own endpoints for a path that knows other methods or media types.
    private static bool IsRefusal(Endpoint endpoint) => endpoint is not RouteEndpoint;
}

/// <summary>Finds out whose key a request carries.</summary>
internal sealed class Identification(KeyCache keys)
{
    private const int MaxKeyLength = 512;

    /// <summary>The caller, or null without a valid key.</summary>
    public async Task<Caller?> FindAsync(HttpContext context) =>
        SecretOf(context.Request.Headers) is { } secret ? await keys.FindAsync(secret, context.RequestAborted) : null;

    private static string? SecretOf(IHeaderDictionary headers)
    {
        string? secret = null;
        if (headers.TryGetValue("X-API-Key", out var key))
            secret = key is [{ } one] ? one : null;
        else if (headers.Authorization is [{ } authorization] && authorization.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase))
            secret = authorization["Bearer ".Length..].Trim();
        return secret is { Length: > 0 and <= MaxKeyLength } ? secret : null;
    }
}
