using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.AspNetCore.Http.HttpResults;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Telemetry;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.EventLog;

namespace Triggers.Api.Ingest;

/// <summary>Takes events in: authenticate, validate, append, and answer 202 once the append is durable.</summary>
internal static class IngestApi
{
    /// <summary>The most events of one request.</summary>
    public const int MaxBatchEvents = 1_000;

    /// <summary>Maps <c>POST /events</c> and <c>POST /events/batch</c>.</summary>
    public static void MapIngest(this IEndpointRouteBuilder app)
    {
        app.MapPost("/events", PublishAsync).RequireScope(Scopes.EventsWrite).WithMetadata(IdempotencyKey.Honoured.Instance)
            .WithMetadata(TakesEvents.Instance).WithMetadata(new CostsEvents(1, Bytes: true, MayBeRepeated: true))
                .WithMetadata(IngestDocs.Publish);
        app.MapPost("/events/batch", PublishBatchAsync).RequireScope(Scopes.EventsWrite).WithMetadata(IdempotencyKey.Honoured.Instance)
            .WithMetadata(TakesEvents.Instance).WithMetadata(new CostsEvents(0, Bytes: true, MayBeRepeated: true))
                .WithMetadata(IngestDocs.PublishBatch);
    }

    private static async Task<Results<Accepted<AcceptedEvent>, Accepted<BatchAnswer>>> PublishAsync(
        HttpContext context, Caller caller, IEventLog log, RateLimits limits, ApiMetrics metrics, ContractCheck contracts,
        TimesCheck times)
    {
        var key = IdempotencyKey.Of(context.Request);
        ReadOnlyMemory<byte> body;
        ParsedEvent parsed;
        // What of the event is not in the body.
        var beside = "";
        switch (CloudEventReader.ModeOf(context.Request))
        {
            case CloudEventMode.None:
                body = await Body.ReadBytesAsync(context, Body.MaxBytes);
                parsed = EventParser.ReadOne(body);
                break;
            case CloudEventMode.Structured:
                body = await Body.ReadTextAsync(context, Body.MaxBytes, CloudEventReader.MediaType);
                parsed = CloudEventReader.ReadStructured(body);
                break;
            case CloudEventMode.Binary:
                body = await Body.ReadAnyAsync(context, Body.MaxBytes);
                parsed = CloudEventReader.ReadBinary(context.Request, body);
                beside = "?" + CloudEventReader.HeadersOf(context.Request);
                break;
            default:
                body = await Body.ReadTextAsync(context, Body.MaxBytesOfMany, CloudEventReader.BatchMediaType);
                return await AcceptBatchAsync(
                    context, caller, log, limits, metrics, contracts, times, key, body, CloudEventReader.ReadBatch(body, MaxBatchEvents));
        }
        if (parsed.Errors.Count > 0)
            throw new ApiException(parsed.Code, "The event has mistakes; see errors.", parsed.Errors);

        times.Check([parsed]);
        await contracts.CheckAsync(caller, [parsed], context.RequestAborted);
        var firstId = TypeId.NewGuid();
        var refusal = parsed.Errors.Count > 0
            ? new ApiException(parsed.Code, "The event can't be accepted now, or not with this type; see errors.", parsed.Errors)
            : await limits.TakeEventsAsync(context, 1, body.Length);
        var result = await AppendAsync(context, caller, log, metrics, key, body, firstId, [NewEvent(parsed, firstId)], refusal, beside);
        var appended = result.Events[0];
        if (appended.Outcome == AppendedEventOutcome.ExternalIdConflict)
            throw new ApiException(ErrorCodes.ExternalIdConflict, ConflictDetail(parsed, appended), [Conflict(parsed, appended)]);

        if (result.Outcome == AppendOutcome.Repeated || appended.Outcome == AppendedEventOutcome.Repeated)
            IdempotencyKey.MarkReplayed(context.Response);
        var answer = Accepted(parsed, appended);
        return TypedResults.Accepted($"/events/{answer.Id}", answer);
    }

    private static async Task<Accepted<BatchAnswer>> PublishBatchAsync(
        HttpContext context, Caller caller, IEventLog log, RateLimits limits, ApiMetrics metrics, ContractCheck contracts,
        TimesCheck times)
    {
        var key = IdempotencyKey.Of(context.Request);
        var body = await Body.ReadBytesAsync(context, Body.MaxBytesOfMany);
        return await AcceptBatchAsync(
            context, caller, log, limits, metrics, contracts, times, key, body, EventParser.ReadBatch(body, MaxBatchEvents));
    }

    private static async Task<Accepted<BatchAnswer>> AcceptBatchAsync(
        HttpContext context, Caller caller, IEventLog log, RateLimits limits, ApiMetrics metrics, ContractCheck contracts, TimesCheck times,
        string? key, ReadOnlyMemory<byte> body, List<ParsedEvent> parsed)
    {
        var firstId = TypeId.NewGuid();
        times.Check(parsed);
        await contracts.CheckAsync(caller, parsed, context.RequestAborted);
        if (parsed.Exists(e => e.ContractRefusal is not null && (key ?? e.ExternalId) is not null))
            await TakeBackAcceptedAsync(context, caller, log, key, body, firstId, parsed);
        var events = Events(parsed, firstId, e => e.Errors.Count == 0);

        var refusal = await limits.TakeEventsAsync(context, events.Count, body.Length);
        var items = new BatchItem[parsed.Count];
        var result = events.Count == 0 && refusal is null ? null
            : await AppendAsync(context, caller, log, metrics, key, body, firstId, events, refusal, RefusedByContract(parsed));
        if (result?.Outcome == AppendOutcome.Repeated)
            IdempotencyKey.MarkReplayed(context.Response);
        for (int i = 0, next = 0; i < items.Length; i++)
            items[i] = parsed[i].Errors.Count > 0 ? BatchItem.Refuse(parsed[i].Code, parsed[i].Errors)
                : Item(parsed[i], result!.Events[next++]);

        var accepted = items.Count(item => item.Status == BatchItemStatus.Accepted);
        foreach (var item in items.Where(item => item.Code is not null))
            metrics.Refused(item.Code!);
        if (accepted == 0)
        {
            throw new ApiException(ErrorCodes.BatchRefused, "No event of the batch was accepted; see items.")
            {
                Batch = new BatchAnswer(items, 0, items.Length),
            };
        }
        return TypedResults.Accepted((string?)null, new BatchAnswer(items, accepted, items.Length - accepted));
    }

    private static async Task<AppendResult> AppendAsync(
        HttpContext context, Caller caller, IEventLog log, ApiMetrics metrics,
        string? key, ReadOnlyMemory<byte> body, Guid firstId, List<NewEvent> events,
        ApiException? refusal, string beside = "")
    {
        // The events carry the context of this span: theirs is the trace that the deliveries go on with.
        using var activity = refusal is null ? ApiTraces.StartAppend(log, caller.TenantId, events) : null;
        var started = Stopwatch.GetTimestamp();
        var request = new AppendRequest(
            caller.TenantId, firstId, context.CorrelationId(), Activity.Current?.Id,
            key is null ? null : Fingerprints.OfRequest(key, context.Request.Path + beside, body.Span), events);
        var limit = Deadline.Of(context).Limit;
        AppendResult result;
        if (refusal is not null)
        {
            // What was accepted before gets its first answer, also when there is no room for more.
            result = await log.FindRepeatedAsync(request, limit, context.RequestAborted) ?? throw refusal;
        }
        else
        {
            try
            {
                result = await log.AppendAsync(request, limit, context.RequestAborted);
                if (result.Events is [var only])
                    activity?.SetTag("messaging.message.id", TypeId.Format(TypeId.Event, only.Id));
            }
            catch (Exception e)
            {
                activity?.SetTag("error.type", e.GetType().FullName).SetStatus(ActivityStatusCode.Error, e.Message);
                throw;
            }
            metrics.Appended(Stopwatch.GetElapsedTime(started));
        }
        switch (result.Outcome)
        {
            case AppendOutcome.KeyReused:
                throw new ApiException(
                    ErrorCodes.IdempotencyKeyReused, "Within 24 hours a key stands for one request: the same path and the same body.");
            case AppendOutcome.InProgress:
                throw new ApiException(ErrorCodes.IdempotencyInProgress, "Come again for its answer.") { RetryAfterSeconds = 1 };
            case AppendOutcome.Appended:
                var accepted = result.Events.Count(e => e.Outcome == AppendedEventOutcome.Appended);
                Charge.Of(context).EventsAccepted = accepted;
                metrics.Accepted(accepted);
                return result;
            default:
                return result;
        }
    }

    /// <summary>
    /// A key stands for the events that were accepted with it. Another time the types may refuse others, and the ids of those would be
    /// nobody's: it is not the same request then.
    /// </summary>
    private static string RefusedByContract(List<ParsedEvent> parsed) =>
        parsed.Exists(e => e.ContractRefusal is not null)
            ? "?refused=" + string.Join(',', parsed.Where(e => e.ContractRefusal is not null).Select(e => e.Index)) : "";

    /// <summary>
    /// What was accepted before its type, or the time, began to refuse it gets its first answer: the whole batch by its key, else an
    /// event by its external id.
    /// </summary>
    private static async Task TakeBackAcceptedAsync(
        HttpContext context, Caller caller, IEventLog log, string? key, ReadOnlyMemory<byte> body, Guid firstId, List<ParsedEvent> parsed)
    {
        if (await IsRepeatedAsync("", e => e.Errors.Count == 0 || e.ContractRefusal is not null))
        {
            foreach (var e in parsed.Where(e => e.ContractRefusal is not null))
                e.TakeBack();
            return;
        }
        var accepted = await log.FindAcceptedAsync(
            new AppendRequest(
                caller.TenantId, firstId, context.CorrelationId(), null, null, Events(parsed, firstId, e => e.ContractRefusal is not null)),
            Deadline.Of(context).Limit, context.RequestAborted);
        // What the first answer to a key refused stays refused, though another request may have had it accepted since.
        if (accepted.Count == 0 || await IsRepeatedAsync(RefusedByContract(parsed), e => e.Errors.Count == 0))
            return;
        for (var i = 0; i < parsed.Count; i++)
        {
            if (accepted.Contains(TypeId.Add(firstId, i)))
                parsed[i].TakeBack();
        }

        async Task<bool> IsRepeatedAsync(string refused, Predicate<ParsedEvent> which) =>
            key is not null && await log.FindRepeatedAsync(
                new AppendRequest(
                    caller.TenantId, firstId, context.CorrelationId(), null,
                    Fingerprints.OfRequest(key, context.Request.Path + refused, body.Span), Events(parsed, firstId, which)),
                Deadline.Of(context).Limit, context.RequestAborted) is { Outcome: AppendOutcome.Repeated };
    }

    private static List<NewEvent> Events(List<ParsedEvent> parsed, Guid firstId, Predicate<ParsedEvent> which)
    {
        var events = new List<NewEvent>(parsed.Count);
        for (var i = 0; i < parsed.Count; i++)
        {
            if (which(parsed[i]))
                events.Add(NewEvent(parsed[i], TypeId.Add(firstId, i)));
        }
        return events;
    }

    private static NewEvent NewEvent(ParsedEvent e, Guid id) =>
        new(id, e.Type, e.ExternalId, KeyOf(e), e.Source, e.Subject, e.Time, e.Data, Traced(e), e.TraceParent)
        {
            DeliverAt = e.DeliverAt,
            ExpiresAt = e.ExpiresAt,
        };

    /// <summary>Its attributes, with the trace state that goes with its trace parent, or that of the request.</summary>
    private static EventAttributes? Traced(ParsedEvent e) =>
        (e.TraceParent is null ? Activity.Current?.TraceStateString : e.TraceState)
            is { Length: > 0 and <= EventAttributes.MaxTraceState } state && WebhookHeaders.IsValue(state)
            ? (e.Attributes ?? new EventAttributes()) with { TraceState = state }
            : e.Attributes;

    /// <summary>The same event says the same, whatever the white space around its data. Null without an <c>externalId</c>.</summary>
    private static RequestKey? KeyOf(ParsedEvent e)
    {
        if (e.ExternalId is null)
            return null;
        List<string?> said = [e.Type, e.Source, e.Subject, e.Time?.UtcTicks.ToString()];
        // What has none of these keeps the fingerprint that it had before there were any.
        if (e.DeliverAt is not null || e.ExpiresAt is not null)
            said.AddRange([e.DeliverAt?.UtcTicks.ToString(), e.ExpiresAt?.UtcTicks.ToString()]);
        if (e.Attributes is not null)
            said.Add(CloudEventAttributes.WithoutTrace(e.Attributes).ToJson());
        return Fingerprints.Of(
            e.IsCloudEvent ? Fingerprints.CloudEventKey(e.Source!, e.ExternalId) : e.ExternalId, e.Data.Span,
            CollectionsMarshal.AsSpan(said));
    }

    private static AcceptedEvent Accepted(ParsedEvent e, AppendedEvent appended) =>
        new(TypeId.Format(TypeId.Event, appended.Id), e.Type, e.DeliverAt > TypeId.CreatedAt(appended.Id) ? "scheduled" : "pending",
            TypeId.CreatedAt(appended.Id), appended.CorrelationId)
        {
            Warnings = e.Warnings,
        };

    private static BatchItem Item(ParsedEvent e, AppendedEvent appended) =>
        appended.Outcome == AppendedEventOutcome.ExternalIdConflict
            ? BatchItem.Refuse(ErrorCodes.ExternalIdConflict, [Conflict(e, appended)])
            : new BatchItem
            {
                Status = BatchItemStatus.Accepted,
                Id = TypeId.Format(TypeId.Event, appended.Id),
                Type = e.Type,
                CreatedAt = TypeId.CreatedAt(appended.Id),
                CorrelationId = appended.CorrelationId,
                Repeated = appended.Outcome == AppendedEventOutcome.Repeated ? true : null,
                Warnings = e.Warnings,
            };

    private static FieldError Conflict(ParsedEvent e, AppendedEvent holder) =>
        new(e.PlaceOf(e.IsCloudEvent ? "/id" : "/externalId"), ConflictDetail(e, holder));

    private static string ConflictDetail(ParsedEvent e, AppendedEvent holder) =>
        $"The event {TypeId.Format(TypeId.Event, holder.Id)} has this {(e.IsCloudEvent ? "id and source" : "externalId")}, and says "
        + "something else. \"data\" is compared byte for byte, with its white space and the order of its members.";
}
