using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Lists;
using Triggers.Api.Operations;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Hooks;

/// <summary>What a client says a REST hook is.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record HookBody
{
    /// <summary>Where webhooks go, as with subscriptions. It is the hook's name: to send it again changes the hook.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public required string TargetUrl { get; init; }

    /// <summary>
    /// Types or patterns: <c>*</c>, <c>order.created</c>, <c>order.*</c>. None matches a type that begins with <c>triggers.</c>.
    /// </summary>
    [Length(1, SubscriptionBody.MaxEventTypes), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfSubscribed)]
    public required string[] EventTypes { get; init; }

    /// <summary>When it is removed by itself, give or take seconds; never when left out.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    public static HookBody Read(Fields fields) => new()
    {
        TargetUrl = ReadTarget(fields)!,
        EventTypes = SubscriptionBody.ReadEventTypes(fields)!,
        ExpiresAt = fields.Moment("expiresAt"),
    };

    public static string? ReadTarget(Fields fields)
    {
        if (fields.Text("targetUrl") is not { } url)
            return null;
        if (WebhookAddress.TryNormalize(url, out var address, out var problem))
            return address;
        fields.Refuse("/targetUrl", problem);
        return null;
    }
}

/// <summary>Which REST hook is to go.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record RemoveHook
{
    /// <summary>As it was given.</summary>
    [Length(1, SubscriptionBody.MaxUrlLength), RegularExpression(WebhookAddress.Pattern)]
    public required string TargetUrl { get; init; }

    public static RemoveHook Read(Fields fields) => new() { TargetUrl = HookBody.ReadTarget(fields)! };
}

/// <summary>A REST hook as clients see it.</summary>
/// <param name="Id">A subscription's.</param>
/// <param name="TargetUrl">Where webhooks go.</param>
/// <param name="EventTypes">Which.</param>
/// <param name="ExpiresAt">When it is removed.</param>
/// <param name="Secret">What its webhooks are signed with.</param>
internal sealed record HookView(string Id, string TargetUrl, IReadOnlyList<string> EventTypes, DateTimeOffset? ExpiresAt, string Secret);

/// <summary>Events of a type, each as a webhook has it.</summary>
internal sealed record Samples(IReadOnlyList<Sample> Items);

/// <summary>An event as a webhook has it.</summary>
internal sealed record Sample(
    string Id, string Type, DateTimeOffset Timestamp, string? Source, string? Subject, string? ExternalId, RawJson Data);

/// <summary>Subscribing as automation platforms do: by an address that is also the name, with samples to build on.</summary>
internal static class HooksApi
{
    private const string Group = "Hooks";
    private const int SamplesAtMost = 3;

    private static readonly Operation s_create = new("createHook", Group, "Subscribe an address",
        "A subscription whose address is its name: the same `targetUrl` again changes its types and its end, and is answered "
        + "with the same id. A receiver that answers 410 removes it.")
    {
        Body = new(typeof(HookBody), """{"targetUrl":"https://hooks.example.com/1/abc","eventTypes":["order.created"]}"""),
        AnswerExample =
            """{"id":"sub_01jd0000000000000000000000","targetUrl":"https://hooks.example.com/1/abc","eventTypes":["order.created"],"expiresAt":null,"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq="}""",
        Errors = [ErrorCodes.LimitReached],
    };

    private static readonly Operation s_remove = new("removeHook", Group, "Unsubscribe an address",
        "What is still pending is cancelled. 404 when it is not there, or not there any more.")
    {
        Body = new(typeof(RemoveHook), """{"targetUrl":"https://hooks.example.com/1/abc"}"""),
        Errors = [ErrorCodes.NotFound],
    };

    private static readonly Operation s_samples = new("getSamples", Group, "Get samples of an event type",
        "The newest events of the type, up to three, each as its webhook has it, but that members a webhook leaves "
        + "out are null here. None when there is none: no example is made up.")
    {
        AnswerExample =
            """{"items":[{"id":"evt_01jd0000000000000000000000","type":"order.created","timestamp":"2026-01-31T09:30:00Z","source":null,"subject":null,"externalId":null,"data":{"total":1250}}]}""",
    };

    /// <summary>Maps <c>/hooks</c> and <c>GET /event-types/{type}/samples</c>.</summary>
    public static void MapHooks(this IEndpointRouteBuilder app)
    {
        app.MapPost("/hooks", CreateAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(s_create);
        app.MapPost("/hooks/unsubscribe", RemoveAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(s_remove);
        app.MapGet("/event-types/{type}/samples", SamplesAsync).RequireScope(Scopes.EventsRead).WithMetadata(s_samples);
    }

    private static async Task<Created<HookView>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, IOptions<CapOptions> caps, TimeProvider time,
        CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, HookBody.Read);
        SubscriptionsApi.EnsureToCome(body.ExpiresAt, time);
        if (body.EventTypes.Length > caps.Value.EventTypesPerSubscription)
            throw ApiException.Invalid("/eventTypes", $"Must be an array of 1 to {caps.Value.EventTypesPerSubscription}.");
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        var hook = await Hooks(db, caller).FirstOrDefaultAsync(s => s.Url == body.TargetUrl, cancellationToken);
        if (hook is null)
        {
            await SubscriptionsApi.Living(db, caller).EnsureRoomAsync(
                caps.Value.SubscriptionsPerTenant, "subscriptions of a tenant; delete one first", cancellationToken);
            hook = new Subscription
            {
                Id = TypeId.NewGuid(),
                TenantId = caller.TenantId,
                Url = body.TargetUrl,
                EventTypes = body.EventTypes,
                Secrets = [new SigningSecret { Secret = SigningSecrets.New() }],
                IsHook = true,
                ExpiresAt = body.ExpiresAt,
            };
            db.Add(hook);
        }
        else
        {
            (hook.EventTypes, hook.ExpiresAt, hook.UpdatedAt) = (body.EventTypes, body.ExpiresAt, time.GetUtcNow());
        }
        await db.SaveChangesAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return TypedResults.Created($"/subscriptions/{TypeId.Format(TypeId.Subscription, hook.Id)}", new HookView(
            TypeId.Format(TypeId.Subscription, hook.Id), hook.Url, hook.EventTypes, hook.ExpiresAt, hook.Secrets[0].Secret));
    }

    private static async Task<NoContent> RemoveAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, RemoveHook.Read);
        var removed = await db.Database.ExecuteSqlAsync(
            $"""
            UPDATE subscriptions SET deleted_at = now()
            WHERE tenant_id = {caller.TenantId} AND url = {body.TargetUrl} AND is_hook AND deleted_at IS NULL
            """, cancellationToken);
        return removed > 0 ? TypedResults.NoContent() : throw ApiException.NotFound("hook");
    }

    private static async Task<Ok<Samples>> SamplesAsync(
        string type, Caller caller, EventReader reader, CancellationToken cancellationToken)
    {
        if (!EventTypePattern.IsType(type))
            throw ApiException.NotFound("event type");
        var filter = new EventFilter(caller.TenantId, SamplesAtMost) { Type = type, NewestFirst = true };
        var (events, _) = await reader.ReadPageAsync(filter, cancellationToken);
        return TypedResults.Ok(new Samples([.. events.Select(
            e => new Sample(e.Id, e.Type, e.Time ?? e.CreatedAt, e.Source, e.Subject, e.ExternalId, e.Data))]));
    }

    private static IQueryable<Subscription> Hooks(TriggersDbContext db, Caller caller) =>
        SubscriptionsApi.Living(db, caller).Where(s => s.IsHook);
}
