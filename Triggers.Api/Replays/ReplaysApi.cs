using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Triggers.Api.Auth;
using Triggers.Api.Deliveries;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;

namespace Triggers.Api.Replays;

/// <summary>The body of <c>POST /events/{id}/replay</c>, which may be left out.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ReplayEvent
{
    /// <summary>To whom; without it to every enabled subscription that wants the event's type now.</summary>
    [Length(1, ReplaysApi.MaxSubscriptions), Id(TypeId.Subscription)]
    public Guid[]? SubscriptionIds { get; init; }
}

/// <summary>What a replay made.</summary>
internal sealed record Replayed(IReadOnlyList<DeliveryView> Deliveries);

/// <summary>Delivers again what was delivered, or failed, before.</summary>
internal static class ReplaysApi
{
    /// <summary>The most subscriptions named in one request.</summary>
    public const int MaxSubscriptions = 100;

    /// <summary>Maps the <c>replay</c> of events, deliveries and dead letters.</summary>
    public static void MapReplays(this IEndpointRouteBuilder app)
    {
        app.MapPost("/events/{id}/replay", ReplayEventAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(1))
            .WithMetadata(ReplayDocs.OfEvent);
        app.MapPost("/deliveries/{id}/replay", ReplayDeliveryAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(1))
            .WithMetadata(ReplayDocs.OfDelivery);
        app.MapPost("/dead-letters/{id}/replay", ReplayDeadLetterAsync).RequireScope(Scopes.EventsWrite).WithMetadata(new CostsEvents(1))
            .WithMetadata(ReplayDocs.OfDeadLetter);
    }

    private static async Task<Accepted<Replayed>> ReplayEventAsync(
        string id, HttpContext context, Caller caller, EventReader reader, Replayer replayer, TriggersDbContext db, TimeProvider time)
    {
        var key = Ids.Event(id);
        var body = await Body.ReadOptionalAsync(context, fields =>
            new ReplayEvent { SubscriptionIds = fields.Ids("subscriptionIds")?.Distinct().ToArray() });
        var limit = Deadline.Of(context).Limit;
        // Before the projection has seen the event it would come twice: once by it, once by us.
        for (var pause = TimeSpan.FromMilliseconds(20);
            await reader.IsProjectedAsync(caller.TenantId, key, context.RequestAborted) == false; pause *= 2)
        {
            if (limit.Left < pause + RequestBudget.AfterWait)
                throw ApiException.NotYetVisible();
            await Task.Delay(pause, time, context.RequestAborted);
        }

        var found = await reader.FindAsync(caller.TenantId, key, limit, context.RequestAborted) ?? throw ApiException.NotFound("event");
        var made = await replayer.ReplayEventAsync(caller.TenantId, key, found.Type, body?.SubscriptionIds, context.RequestAborted);
        return await AnswerAsync(db, caller, made, context.RequestAborted);
    }

    private static async Task<Accepted<Replayed>> ReplayDeliveryAsync(
        string id, Caller caller, Replayer replayer, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var made = await replayer.ReplayDeliveryAsync(caller.TenantId, Ids.Delivery(id), asDeadLetter: false, cancellationToken)
            ?? throw ApiException.NotFound("delivery");
        return await AnswerAsync(db, caller, [made], cancellationToken);
    }

    private static async Task<Accepted<Replayed>> ReplayDeadLetterAsync(
        string id, Caller caller, Replayer replayer, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.DeadLetter(id);
        if (!await db.DeadLetters.AnyAsync(d => d.TenantId == caller.TenantId && d.DeliveryId == key, cancellationToken))
            throw ApiException.NotFound("dead letter");
        var made = await replayer.ReplayDeliveryAsync(caller.TenantId, key, asDeadLetter: true, cancellationToken)
            ?? throw ApiException.NotFound("dead letter");
        return await AnswerAsync(db, caller, [made], cancellationToken);
    }

    private static async Task<Accepted<Replayed>> AnswerAsync(
        TriggersDbContext db, Caller caller, Guid[] made, CancellationToken cancellationToken)
    {
        var deliveries = await db.Deliveries.Where(d => d.TenantId == caller.TenantId && made.Contains(d.Id)).OrderBy(d => d.Id)
            .ToListAsync(cancellationToken);
        var views = deliveries.Select(DeliveryView.Of).ToArray();
        return TypedResults.Accepted(views.Length == 1 ? $"/deliveries/{views[0].Id}" : null, new Replayed(views));
    }
}
