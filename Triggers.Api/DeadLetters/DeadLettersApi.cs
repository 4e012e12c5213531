using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Lists;
using Triggers.Api.Requests;
using Triggers.Core;
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
        var eventId = list.Id("eventId");
        var subscriptionId = list.Id("subscriptionId");
        list.EnsureValid();

        var query = db.DeadLetters.Where(d => d.TenantId == caller.TenantId);
        if (state is not null)
            query = query.Where(d => d.State == state);
        if (eventId is not null)
            query = query.Where(d => d.EventId == eventId);
        if (subscriptionId is not null)
            query = query.Where(d => d.SubscriptionId == subscriptionId);
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

        // The event's row is locked first, as by everything that counts in it. Zero rows changed: somebody else has closed the letter.
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using (var command = new NpgsqlCommand(
            "SELECT FROM open_events WHERE tenant_id = @tenant AND event_id = @event FOR UPDATE", connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", caller.TenantId);
            command.Parameters.AddWithValue("event", letter.EventId);
            await command.ExecuteNonQueryAsync(cancellationToken);
        }
        await using (var command = new NpgsqlCommand(
            """
            UPDATE dead_letters SET state = 'discarded', closed_at = now()
            WHERE tenant_id = @tenant AND delivery_id = @id AND state IN ('open', 'replaying')
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", caller.TenantId);
            command.Parameters.AddWithValue("id", key);
            if (await command.ExecuteNonQueryAsync(cancellationToken) == 0)
                throw new ApiException(ErrorCodes.DeadLetterClosed, "It was resolved or discarded before.");
        }
        await using (var batch = new NpgsqlBatch(connection, transaction))
        {
            foreach (var sql in (string[])
                [
                    "UPDATE open_events SET dead = dead - 1 WHERE tenant_id = @tenant AND event_id = @event AND dead > 0",
                    """
                    DELETE FROM open_events WHERE tenant_id = @tenant AND event_id = @event
                        AND open = 0 AND dead = 0 AND (done > 0 OR acknowledged_at IS NOT NULL)
                    """,
                ])
            {
                batch.BatchCommands.Add(new NpgsqlBatchCommand(sql) { Parameters = { new("tenant", caller.TenantId), new("event", letter.EventId) } });
            }
            await batch.ExecuteNonQueryAsync(cancellationToken);
        }
        await transaction.CommitAsync(cancellationToken);
        return TypedResults.Ok(DeadLetterView.Of(await FindAsync(db, caller, key, cancellationToken)));
    }

    private static async Task<DeadLetter> FindAsync(TriggersDbContext db, Caller caller, Guid id, CancellationToken cancellationToken) =>
        await db.DeadLetters.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.DeliveryId == id, cancellationToken)
        ?? throw ApiException.NotFound("dead letter");
}
