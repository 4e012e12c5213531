using System.Text.Encodings.Web;
using Microsoft.AspNetCore.Authentication;
using Microsoft.Extensions.Options;
using Triggers.Api.Errors;
using Triggers.Api.Http;

namespace Triggers.Api.Auth;

/// <summary>Knows a caller by the API key of the request.</summary>
internal sealed class ApiKeyAuthentication(
    IOptionsMonitor<AuthenticationSchemeOptions> options, ILoggerFactory logger,
    UrlEncoder encoder, KeyCache keys, Bootstrap bootstrap, LastUsed lastUsed)
    : AuthenticationHandler<AuthenticationSchemeOptions>(options, logger, encoder)
{
    public new const string Scheme = "ApiKey";
    public const string ScopeClaim = "scope";

    private const int MaxKeyLength = 512;

    protected override async Task<AuthenticateResult> HandleAuthenticateAsync()
    {
        if (SecretOf(Request.Headers) is not { } secret)
            return AuthenticateResult.NoResult();
        await bootstrap.Done.WaitAsync(Context.RequestAborted);
        if (await keys.FindAsync(secret, Context.Connection.RemoteIpAddress, Context.RequestAborted) is not { } caller)
            return AuthenticateResult.Fail("The key is unknown, expired or revoked.");
        Context.Features.Set(caller);
        lastUsed.Note(caller.KeyId);
        return AuthenticateResult.Success(new AuthenticationTicket(caller.Principal, Scheme));
    }

    protected override Task HandleChallengeAsync(AuthenticationProperties properties)
    {
        Response.Headers.WWWAuthenticate = "Bearer realm=\"triggers\"";
        return Problems.WriteAsync(Context, ErrorCodes.Unauthenticated,
            "Send a valid key, neither expired nor revoked, as X-API-Key or as Authorization: Bearer.");
    }

    protected override Task HandleForbiddenAsync(AuthenticationProperties properties)
    {
        var scope = Context.GetEndpoint()!.Metadata.GetRequiredMetadata<RequiredScope>().Scope;
        return Problems.WriteAsync(Context, ErrorCodes.Forbidden, $"This needs a key with the scope {scope}.");
    }

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
