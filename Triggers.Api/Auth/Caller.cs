using System.Security.Claims;
using System.Security.Cryptography;
using System.Text;
using Triggers.Core.Tables;

namespace Triggers.Api.Auth;

/// <summary>Whose API key a request came with.</summary>
/// <param name="KeyId">The key.</param>
/// <param name="TenantId">The tenant it speaks for.</param>
/// <param name="Scopes">What it may do, with what its scopes include.</param>
/// <param name="ExpiresAt">Not accepted from then on.</param>
/// <param name="Limits">What it may use.</param>
/// <param name="ContractsVersion">The state of its tenant's event types; 0: there is nothing to hold events to.</param>
internal sealed record Caller(
    Guid KeyId, Guid TenantId, IReadOnlySet<string> Scopes, DateTimeOffset? ExpiresAt, Limits Limits, long ContractsVersion)
{
    /// <summary>The same for ASP.NET Core.</summary>
    public ClaimsPrincipal Principal { get; } = new(new ClaimsIdentity(
        Scopes.Select(scope => new Claim(ApiKeyAuthentication.ScopeClaim, scope)), ApiKeyAuthentication.Scheme));

    /// <summary>Whether the key carries the scope.</summary>
    public bool May(string scope) => Scopes.Contains(scope);

    /// <summary>Handlers take it as a parameter.</summary>
    public static ValueTask<Caller?> BindAsync(HttpContext context) => ValueTask.FromResult(context.Features.Get<Caller>());
}

/// <summary>The text of a key: what is shown once and never stored.</summary>
internal static class KeySecret
{
    /// <summary>A new one: <c>trg_</c> and 32 random bytes.</summary>
    public static string New() =>
        "trg_" + System.Buffers.Text.Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(32));

    /// <summary>What is stored of it.</summary>
    public static byte[] Hash(string secret) => SHA256.HashData(Encoding.UTF8.GetBytes(secret));

    /// <summary>What it may be recognised by: enough of ours, and little of one that somebody chose.</summary>
    public static string Prefix(string secret) => secret[..(secret.StartsWith("trg_", StringComparison.Ordinal) ? 12 : 4)];

    /// <summary>A row for a new key.</summary>
    public static ApiKey Row(string secret, Guid tenantId, string name, string[] scopes) => new()
    {
        Id = Core.TypeId.NewGuid(),
        TenantId = tenantId,
        Name = name,
        Prefix = Prefix(secret),
        Hash = Hash(secret),
        Scopes = scopes,
    };
}
