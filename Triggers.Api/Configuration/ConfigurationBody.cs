using System.Text;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Triggers.Api.Http;
using Triggers.Api.Requests;

namespace Triggers.Api.Configuration;

/// <summary>What a tenant is to be like. A member that is not there says nothing of its kind of things.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ConfigurationBody
{
    public const int MaxSecrets = 10_000;
    public const int MaxSecretLength = 65_536;

    /// <summary>By name: what <c>POST /usage-plans</c> takes, without its <c>name</c>. For the platform's admin.</summary>
    public Dictionary<string, JsonObject>? UsagePlans { get; init; }

    /// <summary>The tenant's own settings.</summary>
    public TenantSettings? Tenant { get; init; }

    /// <summary>By name: what <c>POST /event-types</c> takes, without its <c>name</c>.</summary>
    public Dictionary<string, JsonObject>? EventTypes { get; init; }

    /// <summary>
    /// By name, or by id those without one: what <c>POST /subscriptions</c> takes. Where it has a text may stand
    /// <c>{"secretRef": "name"}</c>.
    /// </summary>
    public Dictionary<string, JsonObject>? Subscriptions { get; init; }

    /// <summary>By name: what <c>POST /inboxes</c> takes, without its <c>name</c>.</summary>
    public Dictionary<string, JsonObject>? Inboxes { get; init; }

    /// <summary>
    /// What the names in <c>secretRef</c> stand for. It belongs to the request, and into no repository; a secret that is left out stays as
    /// it is.
    /// </summary>
    [Map(MaxSecrets, MaxSecretLength)]
    public Dictionary<string, string>? Secrets { get; init; }
}

/// <summary>What a tenant is like, as far as the key may see it.</summary>
internal sealed record ConfigurationView
{
    /// <summary>Of the platform.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, JsonObject>? UsagePlans { get; init; }

    /// <summary>The tenant's own settings.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonObject? Tenant { get; init; }

    /// <summary>By name.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, JsonObject>? EventTypes { get; init; }

    /// <summary>By name, or by id those without one.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, JsonObject>? Subscriptions { get; init; }

    /// <summary>By name.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, JsonObject>? Inboxes { get; init; }
}

/// <summary>What a document changes, in the order in which it is done.</summary>
/// <param name="PlanId">Of these changes from this state: with it nothing else is applied.</param>
/// <param name="Changes">None where everything is as it is to be.</param>
internal sealed record ConfigurationPlan(string PlanId, IReadOnlyList<ConfigurationChange> Changes);

/// <summary>A change.</summary>
/// <param name="Section">The member of the document.</param>
/// <param name="Name">Whose; null of the tenant's own settings.</param>
/// <param name="Action">What is done.</param>
/// <param name="Fields">What differs. A secret is <c>***</c> before and after: that it is there says that it changes.</param>
internal sealed record ConfigurationChange(string Section, string? Name, ChangeAction Action, IReadOnlyList<FieldChange> Fields)
{
    /// <summary>A signing secret that was made, which is shown here and never again.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Secret { get; init; }
}

/// <summary>What is done.</summary>
internal enum ChangeAction
{
    /// <summary>It is not there yet.</summary>
    Create,

    /// <summary>It is there, and not as it is to be.</summary>
    Update,

    /// <summary>It is there, and the document does not name it.</summary>
    Delete,
}

/// <summary>A member that differs.</summary>
/// <param name="Name">The member.</param>
/// <param name="Before">Null where there is none.</param>
/// <param name="After">Null where there will be none.</param>
internal sealed record FieldChange(string Name, RawJson Before, RawJson After)
{
    public static FieldChange Of(string name, JsonNode? before, JsonNode? after) => new(name, Raw(before), Raw(after));

    private static RawJson Raw(JsonNode? json) => new(Encoding.UTF8.GetBytes(json?.ToJsonString(Http.Json.Options) ?? "null"));
}
