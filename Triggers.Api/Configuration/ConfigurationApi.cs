using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.Requests;

namespace Triggers.Api.Configuration;

/// <summary>What a tenant has as one document, to be kept where code is kept.</summary>
internal static class ConfigurationApi
{
    private const string Group = "Configuration";

    private const string Document =
        """{"tenant":{"unknownEventTypes":"refuse"},"eventTypes":{"order.created":{"mode":"enforce","schema":{"type":"object","required":["orderId"]}}},"subscriptions":{"warehouse":{"url":"https://example.com/hooks","eventTypes":["order.*"],"authentication":{"type":"bearer","token":{"secretRef":"warehouse-token"}}}},"inboxes":{"billing":{"eventTypes":["order.*"],"lease":60}}}""";

    private const string PlanExample =
        """{"planId":"9f86d081884c7d659a2feaa0c55ad015","changes":[{"section":"subscriptions","name":"warehouse","action":"update","fields":[{"name":"url","before":"https://example.com/old","after":"https://example.com/hooks"}]}]}""";

    private static readonly Parameter s_prune = Parameter.OneOf(
        "prune", "Whether what a section that is there does not name is deleted: things of that kind, but no subscription without a name.",
        "true", ["true", "false"]);

    private static readonly Parameter s_planId = Parameter.Text(
        "planId", "Of the plan that is to be followed: if something else would be done by now, nothing is.",
        "9f86d081884c7d659a2feaa0c55ad015", 64);

    private static readonly Operation s_get = new("getConfiguration", Group, "Get the configuration",
        "What the tenant has, in the form that `POST /configuration/apply` takes, as JSON or, with `Accept: application/yaml`, as YAML: "
        + "each section that the key may read, without secrets (`secretRef` stands for those), and without what is as it is unless said. "
        + "To apply it changes nothing. REST hooks and the inbox `default` are not in it.")
    {
        AnswerExample = Document,
        SpeaksYaml = true,
    };

    private static readonly Operation s_plan = new("planConfiguration", Group, "See what a configuration would change",
        "Takes what `POST /configuration/apply` takes, finds what is wrong with it, or answers what it would change, field by field, and "
        + "changes nothing. Needs the scopes of what it would change.")
    {
        Query = [s_prune],
        Body = new(typeof(ConfigurationBody), Document[..^1] + ""","secrets":{"warehouse-token":"a secret"}}"""),
        AnswerExample = PlanExample,
        SpeaksYaml = true,
        Errors = Refusals,
    };

    private static readonly Operation s_apply = new("applyConfiguration", Group, "Apply a configuration",
        "Makes the tenant's things what the document says, all of it or nothing; what is so already is left alone, and so is what it does "
        + "not name unless `prune=true`. A thing is what its own endpoint would make of it: what is left out is as when making it, but for "
        + "`enabled`, `signatures` and secrets of subscriptions, which stay. `secrets` has what `secretRef` stands for; a signing secret "
        + "that is made is shown in the answer and never again.")
    {
        Query = [s_prune, s_planId],
        Body = s_plan.Body,
        AnswerExample = PlanExample,
        SpeaksYaml = true,
        Errors = [.. Refusals, ErrorCodes.PlanOutdated],
    };

    private static ErrorCode[] Refusals =>
    [
        ErrorCodes.NotFound, ErrorCodes.NameTaken, ErrorCodes.LimitReached, ErrorCodes.UsagePlanInUse, ErrorCodes.IncompatibleSchema,
        ErrorCodes.MalformedYaml,
    ];

    /// <summary>Maps <c>/configuration</c>.</summary>
    public static void MapConfiguration(this IEndpointRouteBuilder app)
    {
        app.MapGet("/configuration", GetAsync).RequireScope(Scopes.SubscriptionsRead).WithMetadata(s_get);
        app.MapPost("/configuration/plan", PlanAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(s_plan);
        app.MapPost("/configuration/apply", ApplyAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(s_apply);
    }

    private static async Task<JsonOrYaml<ConfigurationView>> GetAsync(
        Caller caller, Configurator configurator, CancellationToken cancellationToken) =>
        new(await configurator.ReadAsync(caller, cancellationToken));

    private static Task<JsonOrYaml<ConfigurationPlan>> PlanAsync(
        HttpContext context, Caller caller, Configurator configurator, Deadline deadline, CancellationToken cancellationToken) =>
        RunAsync(context, caller, configurator, planId: null, apply: false, deadline, cancellationToken);

    private static Task<JsonOrYaml<ConfigurationPlan>> ApplyAsync(
        HttpContext context, Caller caller, Configurator configurator, Deadline deadline, CancellationToken cancellationToken)
    {
        var query = ListRequest.Of(context);
        var planId = query.Text(s_planId.Name);
        query.EnsureValid();
        return RunAsync(context, caller, configurator, planId, apply: true, deadline, cancellationToken);
    }

    private static async Task<JsonOrYaml<ConfigurationPlan>> RunAsync(
        HttpContext context, Caller caller, Configurator configurator, string? planId, bool apply, Deadline deadline,
        CancellationToken cancellationToken)
    {
        var query = ListRequest.Of(context);
        var prune = query.OneOf(s_prune.Name) == "true";
        query.EnsureValid();
        var json = await Body.ReadBytesOrYamlAsync(context, Body.MaxBytesOfMany);
        return new(await configurator.RunAsync(caller, json, prune, planId, apply, deadline, cancellationToken));
    }
}
