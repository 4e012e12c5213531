using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;
using Triggers.Core;

namespace Triggers.Api.ApiKeys;

/// <summary>What the contract says about API keys.</summary>
internal static class ApiKeyDocs
{
    private const string Group = "API keys";

    private const string Example =
        """{"id":"key_01jd0000000000000000000000","tenantId":"ten_01jd0000000000000000000000","name":"checkout","prefix":"trg_Zm9vYmFy","scopes":["events:write"],"requestsPerSecond":null,"burst":null,"expiresAt":null,"lastUsedAt":null,"revokedAt":null,"createdAt":"2026-01-31T09:30:00Z"}""";

    private const string Secret = ""","secret":"trg_Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2FycGx5"}""";

    private static readonly Parameter Tenant = Parameter.Id(
        "tenantId", "Another tenant's; for the platform's admin alone.", TypeId.Tenant);

    public static readonly Operation Create = new("createApiKey", Group, "Make an API key",
        "The secret is shown here and never again. The scopes must be ones the caller's own key has; `tenant:admin` is all of them in "
            + "its own tenant, "
        + "`admin` administers the platform, and alone may name another tenant. Its tenant's usage plan holds for all keys together. "
        + "`requestsPerSecond` "
        + "and `burst` limit the key further; one made by a key that has a limit or an expiry of its own shares that limit, and lives "
        + "no longer, unless a "
        + "`tenant:admin` makes it.")
    {
        Body = new(typeof(NewApiKey), """{"name":"checkout","scopes":["events:write"],"expiresAt":"2027-01-31T00:00:00Z"}"""),
        AnswerExample = Example[..^1] + Secret,
        Errors = [ErrorCodes.LimitReached],
    };

    public static readonly Operation List = new(
        "listApiKeys", Group, "List API keys", "Revoked and expired ones too. `lastUsedAt` is right to about a minute.")
    {
        Query = [Tenant, ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        AnswerExample = $$"""{"items":[{{Example}}],"nextCursor":null}""",
    };

    public static readonly Operation Get = new("getApiKey", Group, "Get an API key", "Never with its secret.")
    {
        Query = [Tenant],
        AnswerExample = Example,
    };

    public static readonly Operation Change = new("changeApiKey", Group, "Change an API key",
        "JSON merge patch (RFC 7396): members that are not there stay. A key that is revoked or expired stays as it is, and so do scopes. "
        + "To loosen a limit or an expiry needs the scope `tenant:admin`. Keys that share a limit are changed together.")
    {
        Query = [Tenant],
        Body = new(typeof(ApiKeyChange), """{"name":"checkout, old","expiresAt":"2027-01-31T00:00:00Z"}"""),
        AnswerExample = Example.Replace("\"checkout\"", "\"checkout, old\"")
            .Replace("\"expiresAt\":null", "\"expiresAt\":\"2027-01-31T00:00:00Z\""),
        Errors = [ErrorCodes.LastAdminKey],
    };

    public static readonly Operation Usage = new("getApiKeyUsage", Group, "See what an API key has used",
        "By it and the keys that share its limit, today, which begins at midnight UTC, in all processes together. What its tenant has "
            + "left is at "
        + "`/tenants/{id}/usage`. Without Redis the counts are those of one process, `this_process`, since it "
        + "started; while Redis is away there are none, and `source` is `unavailable`.")
    {
        Query = [Tenant],
        AnswerExample =
            """{"id":"key_01jd0000000000000000000000","requestsPerSecond":50,"burst":100,"source":"all_processes","requestsToday":812,"eventsToday":20417,"resetsAt":"2026-02-01T00:00:00Z"}""",
    };

    public static readonly Operation Revoke = new("revokeApiKey", Group, "Revoke an API key",
        "Refused everywhere within 1 s; within 5 s while Redis is away, or without it. The last admin key can't be revoked, nor a key "
            + "that may do more than the caller's.")
    {
        Query = [Tenant],
        Errors = [ErrorCodes.LastAdminKey],
    };

    public static readonly Operation Rotate = new("rotateApiKey", Group, "Replace an API key",
        "Makes a new key with a new secret and the same name, scopes, expiry and limit, which both share. The old one goes on for "
            + "`overlapSeconds`, "
        + "one day unless said, and then expires.")
    {
        Query = [Tenant],
        Body = new(typeof(RotateApiKey), """{"overlapSeconds":3600}"""),
        BodyIsOptional = true,
        AnswerExample = Example[..^1] + Secret,
        Errors = [ErrorCodes.LimitReached],
    };
}
