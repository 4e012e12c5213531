using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Lists;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Inbox;

/// <summary>The body of <c>POST /inbox/acknowledge</c>.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record AcknowledgeMany
{
    /// <summary>Of events.</summary>
    [Length(1, InboxApi.MaxIds), Id(TypeId.Event)]
    public required Guid[] Ids { get; init; }
}

/// <summary>What became of acknowledging many events.</summary>
internal sealed record AcknowledgedMany(IReadOnlyList<AcknowledgedItem> Items);

/// <summary>What became of acknowledging one of many events.</summary>
internal sealed record AcknowledgedItem(string Id, AcknowledgeStatus Status);

/// <summary>For those who pull: what is not delivered, and saying that it is.</summary>
internal static class InboxApi
{
    /// <summary>The most events acknowledged in one request.</summary>
    public const int MaxIds = 1_000;

    /// <summary>Maps <c>/inbox</c> and <c>POST /events/{id}/acknowledge</c>.</summary>
    public static void MapInbox(this IEndpointRouteBuilder app)
    {
        app.MapGet("/inbox", ListAsync).RequireScope(Scopes.InboxRead).WithMetadata(InboxDocs.List);
        app.MapPost("/inbox/acknowledge", AcknowledgeManyAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxDocs.AcknowledgeMany);
        app.MapPost("/events/{id}/acknowledge", AcknowledgeAsync).RequireScope(Scopes.InboxWrite).WithMetadata(InboxDocs.Acknowledge);
    }

    private static async Task<Ok<Page<EventView>>> ListAsync(
        HttpContext context, Caller caller, EventReader reader, InboxWait inbox)
    {
        var list = ListRequest.Of(context, newestFirst: false);
        var type = list.Text("type");
        if (type is not null && !EventTypePattern.IsPattern(type))
            throw ApiException.Invalid("?type", "Must be an event type, or a pattern as in order.*.");
        var wait = TimeSpan.FromSeconds(list.Number("wait"));
        list.EnsureValid();

        var filter = new EventFilter(caller.TenantId, list.Limit) { InboxOnly = true, Type = type, After = list.After };
        return TypedResults.Ok(await inbox.ForAsync(context, caller.TenantId, wait, async () =>
        {
            var (events, after) = await reader.ReadPageAsync(filter, context.RequestAborted);
            return (list.Answer(events, after), events.Count > 0 || after is not null, (TimeSpan?)null);
        }));
    }

    private static async Task<Ok<EventView>> AcknowledgeAsync(
        string id, Deadline deadline, Caller caller, Acknowledger acknowledger, EventReader reader, CancellationToken cancellationToken)
    {
        var key = Ids.Event(id);
        var result = await acknowledger.AcknowledgeAsync(caller.TenantId, [key], deadline.Limit, cancellationToken);
        return result[key] switch
        {
            AcknowledgeStatus.NotFound => throw ApiException.NotFound("event"),
            AcknowledgeStatus.NotYetVisible => throw ApiException.NotYetVisible(),
            _ => TypedResults.Ok(await reader.FindAsync(caller.TenantId, key, deadline.Limit, cancellationToken)
                ?? throw ApiException.NotFound("event")),
        };
    }

    private static async Task<Ok<AcknowledgedMany>> AcknowledgeManyAsync(
        HttpContext context, Deadline deadline, Caller caller, Acknowledger acknowledger, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, fields => new AcknowledgeMany { Ids = fields.Ids("ids")! });
        var result = await acknowledger.AcknowledgeAsync(caller.TenantId, body.Ids, deadline.Limit, cancellationToken);
        return TypedResults.Ok(new AcknowledgedMany(
            [.. body.Ids.Select(id => new AcknowledgedItem(TypeId.Format(TypeId.Event, id), result[id]))]));
    }
}
