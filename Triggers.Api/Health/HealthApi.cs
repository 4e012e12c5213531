using Microsoft.AspNetCore.Authentication;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Operations;
using Triggers.Core;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Health;

/// <summary><c>GET /health</c>: every part this service depends on. What exactly is wrong is told to callers with a key.</summary>
internal static class HealthApi
{
    private static readonly Operation Get = new("getHealth", "Health", "See how the service is",
        "Open to all: `healthy`, or `degraded` naming the parts that are not well. With a valid key also what is wrong with them. "
        + "`/health/live` and `/health/ready` are for orchestrators.")
    {
        AnswerExample = """{"status":"healthy","parts":[{"name":"postgres","status":"healthy","detail":null}]}""",
        Errors = [ErrorCodes.StorageUnavailable],
    };

    /// <summary>Maps <c>GET /health</c>.</summary>
    public static void MapHealth(this IEndpointRouteBuilder app) => app.MapGet("/health", GetAsync).AllowAnonymous().WithMetadata(Get);

    private static async Task<Ok<ServiceHealth>> GetAsync(HttpContext context, HealthCheckService checks)
    {
        var known = IsKnownAsync(context);
        var report = await checks.CheckDependenciesAsync(context.RequestAborted);
        return TypedResults.Ok(
            await known ? report : report with { Parts = [.. report.Parts.Select(part => part with { Detail = null })] });
    }

    // With the database away nobody can be known, unless they were a moment ago; the answer must come all the same.
    private static async Task<bool> IsKnownAsync(HttpContext context)
    {
        try
        {
            return (await context.AuthenticateAsync(ApiKeyAuthentication.Scheme).WaitAsync(RequestBudget.Health, context.RequestAborted))
                .Succeeded;
        }
        catch (Exception e) when (e is ApiException || Storage.IsAway(e))
        {
            return false;
        }
    }
}
