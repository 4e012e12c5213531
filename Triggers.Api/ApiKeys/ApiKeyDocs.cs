using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.OpenApi;
using Triggers.Core;

namespace Triggers.Api.ApiKeys;

/// <summary>What the contract says about API keys.</summary>
internal static class ApiKeyDocs
{
    private const string Group = "API keys";

    private const string Example =
        """{"id":"key_01jd0000000000000000000000","tenantId":"ten_01jd0000000000000000000000","name":"checkout","prefix":"trg_Zm9vYmFy","scopes":["events:write"],"usagePlanId":null,"requestsPerSecond":null,"burst":null,"expiresAt":null,"lastUsedAt":null,"revokedAt":null,"createdAt":"2026-01-31T09:30:00Z"}""";

    private const string Secret = ""","secret":"trg_Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2FycGx5"}""";

    private static readonly Parameter Tenant = Parameter.Id("tenantId", "Another tenant's; for admins alone.", TypeId.Tenant);

    public static readonly Operation Create = new("createApiKey", Group, "Make an API key",
        "The secret is shown here and never again. The scopes must be ones the caller's own key has; `admin` is all of them in its own "
        + "tenant, and alone may name another tenant, or a usage plan. Without one the key has the plan of the caller's own; the limits "
        + "of a key that has a plan are for admins to set.")
    {
        Body = new(typeof(NewApiKey), """{"name":"checkout","scopes":["events:write"],"expiresAt":"2027-01-31T00:00:00Z"}"""),
        Status = 201,
        Answer = new(typeof(ApiKeyWithSecret), Example[..^1] + Secret),
    };

    public static readonly Operation List = new("listApiKeys", Group, "List API keys", "Revoked and expired ones too. `lastUsedAt` is right to about a minute.")
    {
        Query = [Tenant, ListParameters.Order, ListParameters.Limit, ListParameters.Cursor],
        Answer = new(typeof(Page<ApiKeyView>), $$"""{"items":[{{Example}}],"nextCursor":null}"""),
    };

    public static readonly Operation Get = new("getApiKey", Group, "Get an API key", "Never with its secret.")
    {
        Query = [Tenant],
        Answer = new(typeof(ApiKeyView), Example),
    };

    public static readonly Operation Change = new("changeApiKey", Group, "Change an API key",
        "JSON merge patch (RFC 7396): members that are not there stay. A key that is revoked or expired stays as it is, and so do scopes. "
        + "`usagePlanId`, and the limits of a key that has a plan, are for admins alone.")
    {
        Query = [Tenant],
        Body = new(typeof(ApiKeyChange), """{"name":"checkout, old","expiresAt":"2027-01-31T00:00:00Z"}"""),
        Answer = new(typeof(ApiKeyView), Example.Replace("\"checkout\"", "\"checkout, old\"").Replace("\"expiresAt\":null", "\"expiresAt\":\"2027-01-31T00:00:00Z\"")),
        Errors = [ErrorCodes.LastAdminKey],
    };

    public static readonly Operation Usage = new("getApiKeyUsage", Group, "See what an API key has used",
        "Today, which begins at midnight UTC, in all processes together. Without Redis the counts are those of one process, `this_process`, since it "
        + "started; while Redis is away there are none, and `source` is `unavailable`.")
    {
        Query = [Tenant],
        Answer = new(typeof(ApiKeyUsage),
            """{"id":"key_01jd0000000000000000000000","usagePlanId":"pln_01jd0000000000000000000000","requestsPerSecond":50,"burst":100,"eventsPerDay":100000,"source":"all_processes","requestsToday":812,"eventsToday":20417,"eventsLeft":79583,"resetsAt":"2026-02-01T00:00:00Z"}"""),
    };

    public static readonly Operation Revoke = new("revokeApiKey", Group, "Revoke an API key",
        "Refused everywhere within 1 s; within 5 s while Redis is away, or without it. The last admin key can't be revoked, nor a key that may do more than the caller's.")
    {
        Query = [Tenant],
        Status = 204,
        Errors = [ErrorCodes.LastAdminKey],
    };

    public static readonly Operation Rotate = new("rotateApiKey", Group, "Replace an API key",
        "Makes a new key with a new secret and the same name, scopes and limits. The old one goes on for `overlapSeconds`, one day unless "
        + "said, and then expires.")
    {
        Query = [Tenant],
        Body = new(typeof(RotateApiKey), """{"overlapSeconds":3600}"""),
        BodyIsOptional = true,
        Status = 201,
        Answer = new(typeof(ApiKeyWithSecret), Example[..^1] + Secret),
    };
}
