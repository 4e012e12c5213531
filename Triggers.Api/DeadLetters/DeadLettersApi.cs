using System.Data;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
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
    string? LastError,
    DateTimeOffset CreatedAt,
    string? ReplayDeliveryId,
    DateTimeOffset? ClosedAt)
{
    public static DeadLetterView Of(DeadLetter d) => new(
        TypeId.Format(TypeId.Delivery, d.DeliveryId),
        TypeId.Format(TypeId.Event, d.EventId),
        TypeId.Format(TypeId.Subscription, d.SubscriptionId),
        d.State, d.Reason, d.Attempts, d.LastOutcome, d.LastStatusCode, d.LastError, d.CreatedAt,
        d.ReplayDeliveryId is { } replay ? TypeId.Format(TypeId.Delivery, replay) : null,
        d.ClosedAt);
}

/// <summary>The body of <c>POST /dead-letters/discard</c>.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record DiscardDeadLetters
{
    /// <summary>Whose dead letters are given up; the subscription may be deleted.</summary>
    [Id(TypeId.Subscription)]
    public required Guid SubscriptionId { get; init; }
}

/// <summary>How many dead letters were given up, and whether there are more.</summary>
internal sealed record DiscardedDeadLetters(int Discarded, bool Remaining);

/// <summary>What failed for good, until somebody deals with it. To replay it is in Replays.</summary>
internal static class DeadLettersApi
{
    private const int DiscardedAtOnce = 500;

    /// <summary>Maps <c>/dead-letters</c>.</summary>
    public static void MapDeadLetters(this IEndpointRouteBuilder app)
    {
        app.MapGet("/dead-letters", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeadLetterDocs.List);
        app.MapGet("/dead-letters/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(DeadLetterDocs.Get);
        app.MapPost("/dead-letters/discard", DiscardAllAsync).RequireScope(Scopes.EventsWrite).WithMetadata(DeadLetterDocs.DiscardAll);
        app.MapPost("/dead-letters/{id}/discard", DiscardAsync).RequireScope(Scopes.EventsWrite).WithMetadata(DeadLetterDocs.Discard);
    }

    private static async Task<Ok<Page<DeadLetterView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var state = list.OneOf<DeadLetterState>("state");
        var eventId = list.Id("eventId");
        var subscriptionId = list.Id("subscriptionId");
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
        {
            return TypedResults.Ok(await list.AnswerAsync(PageAsync, d => d.DeliveryId, DeadLetterView.Of, cancellationToken));

            async Task<(List<DeadLetter> Rows, Guid? NextAfter)> PageAsync()
            {
                await using var snapshot = await db.Database.BeginTransactionAsync(IsolationLevel.RepeatableRead, cancellationToken);
                return await list.ScanAsync(query, d => d.State == state, d => d.DeliveryId, cancellationToken);
            }
        }
        return TypedResults.Ok(await list.AnswerAsync(query, d => d.DeliveryId, DeadLetterView.Of, cancellationToken));
    }

    private static async Task<Ok<DeadLetterView>> GetAsync(
        string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken) =>
        TypedResults.Ok(DeadLetterView.Of(await FindAsync(db, caller, Ids.DeadLetter(id), cancellationToken)));

    private static async Task<Ok<DeadLetterView>> DiscardAsync(
        string id, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        var key = Ids.DeadLetter(id);
        await FindAsync(db, caller, key, cancellationToken);
        if (await CloseAsync(dataSource, caller.TenantId, key, null, most: 1, cancellationToken) is { Closed: 0 })
            throw new ApiException(ErrorCodes.DeadLetterClosed, "It was resolved or discarded before.");
        return TypedResults.Ok(DeadLetterView.Of(await FindAsync(db, caller, key, cancellationToken)));
    }

    private static async Task<Ok<DiscardedDeadLetters>> DiscardAllAsync(
        HttpContext context, Deadline deadline, Caller caller, TriggersDbContext db, NpgsqlDataSource dataSource,
        CancellationToken cancellationToken)
    {
        var subscription = await Body.ReadAsync(context, fields =>
            new DiscardDeadLetters { SubscriptionId = fields.Id("subscriptionId") ?? default });
        if (!await db.Subscriptions.AnyAsync(s => s.TenantId == caller.TenantId && s.Id == subscription.SubscriptionId, cancellationToken))
            throw ApiException.NotFound("subscription");
        var discarded = 0;
        bool remaining;
        do
        {
            var (lookedAt, closed) = await CloseAsync(
                dataSource, caller.TenantId, null, subscription.SubscriptionId, DiscardedAtOnce, cancellationToken);
            discarded += closed;
            // Not by how many it closed: another request may have been quicker with all of these, and there are more behind them.
            remaining = lookedAt == DiscardedAtOnce;
        }
        while (remaining && deadline.Limit.Left > RequestBudget.Portion);
        return TypedResults.Ok(new DiscardedDeadLetters(discarded, remaining));
    }

    /// <summary>Closes unresolved dead letters, one or a subscription's, and lets their events follow.</summary>
    /// <returns>How many were looked at, and how many of those nobody else had closed until they were locked.</returns>
    private static async Task<(int LookedAt, int Closed)> CloseAsync(
        NpgsqlDataSource dataSource, Guid tenantId, Guid? id, Guid? subscriptionId, int most, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var (letters, events) = (new List<Guid>(), new List<Guid>());
        await using (var find = new NpgsqlBatch(
            connection)
        { BatchCommands = { DeadLetterChanges.Unresolved(tenantId, id, subscriptionId, most) } })
        await using (var reader = await find.ExecuteReaderAsync(cancellationToken))
        {
            while (await reader.ReadAsync(cancellationToken))
            {
                letters.Add(reader.GetGuid(0));
                events.Add(reader.GetGuid(1));
            }
        }
        if (letters.Count == 0)
            return (0, 0);
        await using var close = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                EventState.Lock(events), DeadLetterChanges.Discard(tenantId, letters),
                EventState.Settle(events.ConvertAll(e => (tenantId, e))),
            },
        };
        await close.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return (letters.Count, close.BatchCommands[1].RecordsAffected);
    }

    private static async Task<DeadLetter> FindAsync(TriggersDbContext db, Caller caller, Guid id, CancellationToken cancellationToken) =>
        await db.DeadLetters.FirstOrDefaultAsync(d => d.TenantId == caller.TenantId && d.DeliveryId == id, cancellationToken)
        ?? throw ApiException.NotFound("dead letter");
}
