using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Triggers.Api.Auth;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Tables;

namespace Triggers.Api.ApiKeys;

/// <summary>An API key as clients see it: never its secret.</summary>
internal record ApiKeyView(
    string Id,
    string TenantId,
    string Name,
    string Prefix,
    IReadOnlyList<string> Scopes,
    int? RequestsPerSecond,
    int? Burst,
    DateTimeOffset? ExpiresAt,
    DateTimeOffset? LastUsedAt,
    DateTimeOffset? RevokedAt,
    DateTimeOffset CreatedAt)
{
    public static ApiKeyView Of(ApiKey k) => new(
        TypeId.Format(TypeId.ApiKey, k.Id), TypeId.Format(TypeId.Tenant, k.TenantId), k.Name, k.Prefix, k.Scopes,
        k.RequestsPerSecond, k.Burst, k.ExpiresAt, k.LastUsedAt, k.RevokedAt, k.CreatedAt);
}

/// <summary>A new key, with its secret, which is shown once.</summary>
internal sealed record ApiKeyWithSecret : ApiKeyView
{
    public ApiKeyWithSecret(ApiKeyView key, string secret) : base(key) => Secret = secret;

    /// <summary>What to send as <c>X-API-Key</c>.</summary>
    [JsonPropertyOrder(1)]
    public string Secret { get; }
}

/// <summary>The body of <c>POST /api-keys</c>.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record NewApiKey
{
    /// <summary>What people call it.</summary>
    [Length(1, 128)]
    public required string Name { get; init; }

    /// <summary>What it may do: none that the caller's own key lacks.</summary>
    [Length(1, 32), ScopeItems]
    public required string[] Scopes { get; init; }

    /// <summary>
    /// Not accepted from then on; without it as long as the caller's own key, or for ever if a <c>tenant:admin</c> makes it.
    /// </summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Sustained requests a second, within those of its tenant; without it that of the tenant.</summary>
    [Range(1, Rate.Max)]
    public int? RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once, within those of its tenant; without it two seconds' worth.</summary>
    [Range(1, Rate.Max)]
    public int? Burst { get; init; }

    /// <summary>Another tenant's key; for admins alone.</summary>
    [Id(TypeId.Tenant)]
    public string? TenantId { get; init; }

    public static NewApiKey Read(Fields fields, DateTimeOffset now)
    {
        var tenantId = fields.Id("tenantId");
        var body = new NewApiKey
        {
            Name = fields.Text("name")!,
            Scopes = [.. fields.Texts("scopes")?.Distinct() ?? []],
            ExpiresAt = fields.Moment("expiresAt"),
            RequestsPerSecond = fields.Number("requestsPerSecond"),
            Burst = fields.Number("burst"),
            TenantId = tenantId is { } id ? TypeId.Format(TypeId.Tenant, id) : null,
        };
        if (body.ExpiresAt <= now)
            fields.Refuse("/expiresAt", "Must be in the future.");
        return body;
    }
}

/// <summary>The body of <c>PATCH /api-keys/{id}</c>: what is not there stays, what is null is removed.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ApiKeyChange
{
    private static readonly string[] Removable = ["expiresAt", "requestsPerSecond", "burst"];

    /// <summary>What people call it.</summary>
    [Length(1, 128), NotRemovable]
    public string? Name { get; init; }

    /// <summary>Not accepted from then on; null for ever.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>Sustained requests a second; null takes that of the tenant.</summary>
    [Range(1, Rate.Max)]
    public int? RequestsPerSecond { get; init; }

    /// <summary>How many requests may come at once; null takes two seconds' worth.</summary>
    [Range(1, Rate.Max)]
    public int? Burst { get; init; }

    /// <summary>Which of them are to change, were it to null.</summary>
    internal IReadOnlySet<string> Members { get; init; } = new HashSet<string>();

    /// <summary>Whether a limit is to change.</summary>
    internal bool HasLimits => Members.Contains("requestsPerSecond") || Members.Contains("burst");

    /// <summary>What of a key it would loosen, that only an administrator may; null for nothing.</summary>
    internal string? Loosens(ApiKey key) =>
        Members.Contains("expiresAt") && (ExpiresAt ?? DateTimeOffset.MaxValue) > (key.ExpiresAt ?? DateTimeOffset.MaxValue) ? "expiresAt"
        : Members.Contains("requestsPerSecond") && (RequestsPerSecond ?? int.MaxValue) > (key.RequestsPerSecond ?? int.MaxValue)
            ? "requestsPerSecond"
        : Members.Contains("burst") && (Burst ?? int.MaxValue) > (key.Burst ?? Rate.BurstOf(key.RequestsPerSecond) ?? int.MaxValue)
            ? "burst"
        : null;

    public static ApiKeyChange Read(Fields fields, DateTimeOffset now)
    {
        var change = new ApiKeyChange
        {
            Name = fields.Text("name"),
            ExpiresAt = fields.Moment("expiresAt"),
            RequestsPerSecond = fields.Number("requestsPerSecond"),
            Burst = fields.Number("burst"),
            Members = Removable.Where(fields.Has).ToHashSet(),
        };
        if (change.ExpiresAt <= now)
            fields.Refuse("/expiresAt", "Must be in the future.");
        return change;
    }
}

/// <summary>The body of <c>POST /api-keys/{id}/rotate</c>, which may be left out.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RotateApiKey
{
    private const int MaxOverlapSeconds = 7 * 24 * 60 * 60;

    /// <summary>How long the old key goes on beside the new one: one day unless said.</summary>
    [Range(0, MaxOverlapSeconds)]
    public int? OverlapSeconds { get; init; }
}

/// <summary>The entries are scopes.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ScopeItemsAttribute() : ItemsAttribute(maxLength: 64)
{
    public override IReadOnlyCollection<string> Values => Auth.Scopes.All;
}
