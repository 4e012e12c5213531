using System.ComponentModel.DataAnnotations;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Replays;

/// <summary>The events of a range of time to deliver to a subscription.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record NewReplayJob
{
    private const int MaxEventTypes = 100;

    /// <summary>To whom; an enabled one.</summary>
    [Id(TypeId.Subscription)]
    public required Guid SubscriptionId { get; init; }

    /// <summary>Events accepted from then on, RFC 3339.</summary>
    public required DateTimeOffset From { get; init; }

    /// <summary>Events accepted before then, RFC 3339; now when left out, or later than now.</summary>
    public DateTimeOffset? To { get; init; }

    /// <summary>Types or patterns, whatever types the subscription wants; those that it wants when left out.</summary>
    [Length(1, MaxEventTypes), Items(EventTypePattern.MaxPatternLength, Pattern = EventTypePattern.OfReplayed)]
    public string[]? EventTypes { get; init; }

    /// <summary>
    /// <c>undelivered</c>: events that the subscription has not got, because they were never sent there, or failed; the default.
    /// <c>all</c>: every one, again. In both, what is on its way there is left to arrive.
    /// </summary>
    public ReplayInclude? Include { get; init; }

    /// <summary>Reads the body.</summary>
    public static NewReplayJob Read(Fields fields)
    {
        var body = new NewReplayJob
        {
            SubscriptionId = fields.Id("subscriptionId") ?? default,
            From = fields.Moment("from") ?? default,
            To = fields.Moment("to"),
            EventTypes = fields.Texts("eventTypes"),
            Include = fields.OneOf<ReplayInclude>("include"),
        };
        for (var i = 0; i < body.EventTypes?.Length; i++)
        {
            if (body.EventTypes[i].Length > 0
                && (!EventTypePattern.IsPattern(body.EventTypes[i]) || EventTypePattern.IsSystem(body.EventTypes[i])))
                fields.Refuse($"/eventTypes/{i}", "Must be *, an event type, or a type and .*, as in order.*, and not the system's.");
        }
        if (body.To <= body.From)
            fields.Refuse("/to", "Must be after from.");
        return body;
    }
}

/// <summary>A replay of a range of time as clients see it.</summary>
/// <param name="Id">As in <c>rpl_…</c>.</param>
/// <param name="SubscriptionId">To whom.</param>
/// <param name="Status">Where it stands. <c>completed</c>: every delivery is made; they may be pending still.</param>
/// <param name="Reason">Why it failed: <c>subscription_gone</c>.</param>
/// <param name="From">Events accepted from then on.</param>
/// <param name="To">Events accepted before then.</param>
/// <param name="EventTypes">Patterns of types; null for those that the subscription wants.</param>
/// <param name="Include">Which of the events.</param>
/// <param name="DoneUntil">Events accepted before then have been dealt with.</param>
/// <param name="Matched">Events dealt with whose type matched.</param>
/// <param name="Deliveries">Deliveries made of them.</param>
/// <param name="CreatedAt">When it was asked for.</param>
/// <param name="FinishedAt">When it ended.</param>
internal sealed record ReplayJobView(
    string Id,
    string SubscriptionId,
    ReplayJobStatus Status,
    string? Reason,
    DateTimeOffset From,
    DateTimeOffset To,
    IReadOnlyList<string>? EventTypes,
    ReplayInclude Include,
    DateTimeOffset DoneUntil,
    long Matched,
    long Deliveries,
    DateTimeOffset CreatedAt,
    DateTimeOffset? FinishedAt)
{
    public static ReplayJobView Of(ReplayJob j) => new(
        TypeId.Format(TypeId.Replay, j.Id), TypeId.Format(TypeId.Subscription, j.SubscriptionId),
        j.Status, j.Reason, j.StartsAt, j.EndsAt, j.EventTypes,
        j.Include, TypeId.CreatedAt(j.NextEvent), j.Matched, j.Deliveries, j.CreatedAt, j.FinishedAt);
}

/// <summary>Delivers what happened in a range of time. The delivery service does it, in portions.</summary>
internal static class ReplayJobsApi
{
    /// <summary>Maps <c>/replays</c>.</summary>
    public static void MapReplayJobs(this IEndpointRouteBuilder app)
    {
        app.MapPost("/replays", CreateAsync).RequireScope(Scopes.EventsWrite).WithMetadata(IdempotencyKey.Honoured.Instance)
            .WithMetadata(new CostsEvents(1, MayBeRepeated: true)).WithMetadata(ReplayDocs.CreateJob);
        app.MapGet("/replays", ListAsync).RequireScope(Scopes.EventsRead).WithMetadata(ReplayDocs.ListJobs);
        app.MapGet("/replays/{id}", GetAsync).RequireScope(Scopes.EventsRead).WithMetadata(ReplayDocs.GetJob);
        app.MapPost("/replays/{id}/cancel", CancelAsync).RequireScope(Scopes.EventsWrite).WithMetadata(ReplayDocs.CancelJob);
    }

    private static async Task<Accepted<ReplayJobView>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db,
        FirstAnswers answers, RateLimits limits, ReplayCharges charges, CancellationToken cancellationToken)
    {
        var key = IdempotencyKey.Of(context.Request);
        var bytes = await Body.ReadBytesAsync(context, Body.MaxBytes);
        var body = Body.Parse(bytes, NewReplayJob.Read);
        var request = key is null ? null : Fingerprints.OfRequest(key, context.Request.Path, bytes.Span);
        var refusal = await limits.TakeEventsAsync(context, events: 1, bytes: 0);
        var (made, repeated) = await answers.OnceAsync(
            caller.TenantId, request, () =>
                refusal is null ? AddAsync(body, caller, db, cancellationToken) : throw refusal, cancellationToken);
        if (repeated)
            IdempotencyKey.MarkReplayed(context.Response);
        else
            Charge.Of(context).EventsAccepted = 1;
        charges.Wake();
        return TypedResults.Accepted($"/replays/{made.Id}", made);
    }

    private static async Task<ReplayJobView> AddAsync(
        NewReplayJob body, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var subscription = await db.Subscriptions.FirstOrDefaultAsync(
            s => s.TenantId == caller.TenantId && s.Id == body.SubscriptionId, cancellationToken)
            ?? throw ApiException.Invalid("/subscriptionId", "There is no such subscription.");
        if (!await db.LivingSubscriptions.AnyAsync(s => s.Id == subscription.Id, cancellationToken))
            throw new ApiException(ErrorCodes.SubscriptionGone, "The subscription was deleted; nothing can be sent to it.");
        // Of an enabled one every event is either stored by now, or will be matched; so between the two nothing is missed.
        if (!subscription.Enabled)
            throw new ApiException(ErrorCodes.SubscriptionDisabled, "Enable the subscription first.");
        try
        {
            // The range ends now, so that it has an end: what is accepted later is none of it. Times are the database's.
            var made = await db.ReplayJobs.FromSql(
                $"""
                WITH made AS (
                    INSERT INTO replay_jobs (tenant_id, id, subscription_id, starts_at, ends_at, event_types, include, next_event,
                        end_event, charged)
                    SELECT {caller.TenantId}, {TypeId.NewGuid()}, {body.SubscriptionId}, {body.From.ToUniversalTime()}, e.at,
                        {body.EventTypes}::text[],
                        {SnakeCase<ReplayInclude>.Of(body.Include ?? ReplayInclude.Undelivered)}, uuid_at(greatest({body.From.ToUniversalTime()}, 'epoch')),
                        uuid_at(greatest(e.at, 'epoch')), 1
                    FROM (SELECT least({body.To?.ToUniversalTime()}::timestamptz,
                        date_trunc('milliseconds', clock_timestamp()) + interval '1 millisecond') AS at) e
                    WHERE e.at > {body.From.ToUniversalTime()}
                    RETURNING *
                ),
                woken AS MATERIALIZED (SELECT pg_notify({Notifications.Deliveries}, '') FROM made)
                SELECT made.* FROM made, woken
                """).ToListAsync(cancellationToken);
            return ReplayJobView.Of(made.SingleOrDefault() ?? throw ApiException.Invalid("/from", "Must not be in the future."));
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.UniqueViolation)
        {
            throw new ApiException(ErrorCodes.ReplayRunning, "A subscription has one replay at a time: wait for its end, or cancel it.");
        }
    }

    private static async Task<Ok<Page<ReplayJobView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        var status = list.OneOf<ReplayJobStatus>("status");
        var subscriptionId = list.Id("subscriptionId");
        list.EnsureValid();

        var query = db.ReplayJobs.Where(j => j.TenantId == caller.TenantId);
        if (status is not null)
            query = query.Where(j => j.Status == status);
        if (subscriptionId is not null)
            query = query.Where(j => j.SubscriptionId == subscriptionId);
        return TypedResults.Ok(await list.AnswerAsync(query, j => j.Id, ReplayJobView.Of, cancellationToken));
    }

    private static async Task<Ok<ReplayJobView>> GetAsync(
        string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Replay(id);
        var found = await db.ReplayJobs.FirstOrDefaultAsync(j => j.TenantId == caller.TenantId && j.Id == key, cancellationToken);
        return TypedResults.Ok(ReplayJobView.Of(found ?? throw ApiException.NotFound("replay")));
    }

    private static async Task<Ok<ReplayJobView>> CancelAsync(
        string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var key = Ids.Replay(id);
        // Waits for the portion that is being made, if one is.
        var cancelled = await db.ReplayJobs.FromSql(
            $"""
            UPDATE replay_jobs SET status = 'cancelled', finished_at = clock_timestamp()
            WHERE tenant_id = {caller.TenantId} AND id = {key} AND status = 'running'
            RETURNING *
            """).ToListAsync(cancellationToken);
        if (cancelled.SingleOrDefault() is { } job)
            return TypedResults.Ok(ReplayJobView.Of(job));
        throw await db.ReplayJobs.AnyAsync(j => j.TenantId == caller.TenantId && j.Id == key, cancellationToken)
            ? new ApiException(ErrorCodes.ReplayEnded, "It has ended before.")
            : ApiException.NotFound("replay");
    }
}
