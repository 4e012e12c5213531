using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Tables;

namespace Triggers.Api.DeadLetters;

/// <summary>A dead letter as clients see it. It is named by its delivery.</summary>
internal sealed record DeadLetterView(
    string Id,
    string EventId,
    string SubscriptionId,
    DeadLetterState State,
    string Reason,
    int Attempts,
    AttemptOutcome? LastOutcome,
    int? LastStatusCode,
    DateTimeOffset CreatedAt,
    string? ReplayDeliveryId,
    DateTimeOffset? ClosedAt)
{
    public static DeadLetterView Of(DeadLetter d) => new(
        TypeId.Format(TypeId.Delivery, d.DeliveryId),
        TypeId.Format(TypeId.Event, d.EventId),
        TypeId.Format(TypeId.Subscription, d.SubscriptionId),
        d.State, d.Reason, d.Attempts, d.LastOutcome, d.LastStatusCode, d.CreatedAt,
        d.ReplayDeliveryId is { } replay ? TypeId.Format(TypeId.Delivery, replay) : null,
        d.ClosedAt);
}

/// <summary>What failed for good, until somebody deals with it. To replay it is in Replays.</summary>
internal static class DeadLettersApi
{
    /// <summary>Maps <c>/dead-letters</c>.</summary>
    public static void MapDeadLetters(this IEndpointRouteBuilder app)
    {
        app.MapGet("/dead-letters", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeadLetterDocs.List);
        app.MapGet("/dead-letters/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeadLetterDocs.Get);
        app.MapPost("/dead-letters/{id}/discard", DiscardAsync).RequireScope(Scopes.EventsWrite).WithMetadata(DeadLetterDocs.Discard);
    }

    private static async Task<IResult> ListAsync(HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var state = list.OneOf<DeadLetterState>("state");
        var eventId = list.Id("eventId", TypeId.Event);
        var subscriptionId = list.Id("subscriptionId", TypeId.Subscription);
        list.EnsureValid();

        var query = db.DeadLetters.Where(d => d.TenantId == caller.TenantId);
        if (eventId is not null)
            query = query.Where(d => d.EventId == eventId);
        if (subscriptionId is not null)
            query = query.Where(d => d.SubscriptionId == subscriptionId);
        // The unresolved have an index of their own.
        if (state is DeadLetterState.Open or DeadLetterState.Replaying)
            query = query.Where(d => d.State == DeadLetterState.Open || d.State == DeadLetterState.Replaying);
        if (state is not null)
            return TypedResults.Ok(list.Answer(await list.ScanAsync(query, d => d.State == state, d => d.DeliveryId, cancellationToken), DeadLetterView.Of));
        var rows = await list.Page(query, d => d.DeliveryId).ToListAsync(cancellationToken);
        return TypedResults.Ok(list.Answer(rows, DeadLetterView.Of, d => d.DeliveryId));
    }

    private static async Task<IResult> GetAsync(string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(DeadLetterView.Of(await FindAsync(db, caller, Ids.DeadLetter(id), cancellationToken)));

    private static async Task<IResult> DiscardAsync(
        string id, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        var key = Ids.DeadLetter(id);
        var letter = await FindAsync(db, caller, key, cancellationToken);

        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using (var discard = new NpgsqlBatch(connection) { BatchCommands = { EventState.Lock([letter.EventId]), DeadLetterChanges.Discard(caller.TenantId, key) } })
        {
            await discard.ExecuteNonQueryAsync(cancellationToken);
            if (discard.BatchCommands[1].RecordsAffected == 0)
                throw new ApiException(ErrorCodes.DeadLetterClosed, "It was resolved or discarded before.");
        }
        await using (var settle = new NpgsqlBatch(connection) { BatchCommands = { EventState.Settle([(caller.TenantId, letter.EventId)]) } })
            await settle.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return TypedResults.Ok(DeadLetterView.Of(await FindAsync(db, caller, key, cancellationToken)));
    }

    private static async Task<DeadLetter> FindAsync(TriggersDbContext db, Caller caller, Guid id, CancellationToken cancellationToken) =>
        await db.DeadLetters.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.DeliveryId == id, cancellationToken)
        ?? throw ApiException.NotFound("dead letter");
}
