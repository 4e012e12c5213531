using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.Authorization.Policy;
using Triggers.Api.Auth;
using Triggers.Api.Http;

namespace Triggers.Api.RateLimiting;

/// <summary>
/// Between knowing a caller and letting the request in: charges it (429), also when the key's scopes don't allow it (403).
/// </summary>
internal sealed class ChargedAuthorization(RateLimits limits) : IAuthorizationMiddlewareResultHandler
{
    private readonly AuthorizationMiddlewareResultHandler _answers = new();

    public async Task HandleAsync(
        RequestDelegate next, HttpContext context, AuthorizationPolicy policy, PolicyAuthorizationResult authorizeResult)
    {
        if (context.Features.Get<Caller>() is not { } caller)
        {
            await _answers.HandleAsync(next, context, policy, authorizeResult);
            return;
        }

        var charge = await limits.TakeAsync(context, caller, authorizeResult.Succeeded);
        if (charge is { Refusal: { } refusal, MayBeRepetition: false })
        {
            await Problems.WriteAsync(context, refusal);
            return;
        }
        context.Features.Set(charge);
        try
        {
            await _answers.HandleAsync(next, context, policy, authorizeResult);
            charge.Succeeded();
        }
        finally
        {
            limits.Settle(charge);
        }
    }
}
