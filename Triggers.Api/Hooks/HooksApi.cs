using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Events;
using Triggers.Api.Http;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Api.Subscriptions;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Hooks;

/// <summary>Subscribing as automation platforms do: by an address that is also the name, with samples to build on.</summary>
internal static class HooksApi
{
    private const int MaxSamples = 3;
    private const string AtAddress = "tenant_id = @tenant AND url = @url AND is_hook";
    private static readonly DateTimeOffset s_sampleTime = new(2026, 1, 31, 9, 30, 0, TimeSpan.Zero);

    /// <summary>Maps <c>/hooks</c>.</summary>
    public static void MapHooks(this IEndpointRouteBuilder app)
    {
        app.MapPost("/hooks", CreateAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(IdempotencyKey.Honoured.Instance)
            .WithMetadata(HookDocs.Create);
        app.MapPost("/hooks/unsubscribe", RemoveAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(HookDocs.Remove);
        app.MapGet("/hooks/samples", SamplesAsync).RequireScope(Scopes.EventsRead).WithMetadata(HookDocs.Samples);
    }

    private static async Task<Created<HookView>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, FirstAnswers answers, SecretProtector protector,
        IOptions<CapOptions> caps, TimeProvider time, CancellationToken cancellationToken)
    {
        var key = IdempotencyKey.Of(context.Request);
        var bytes = await Body.ReadBytesAsync(context, Body.MaxBytes);
        var body = Body.Parse(bytes, HookBody.Read);
        var request = key is null ? null : Fingerprints.OfRequest(key, context.Request.Path, bytes.Span);
        var (hook, repeated) = await answers.OnceAsync(
            caller.TenantId, request, () => SubscribeAsync(body, caller, db, protector, caps.Value, time, cancellationToken),
            cancellationToken);
        if (repeated)
            IdempotencyKey.MarkReplayed(context.Response);
        return TypedResults.Created($"/subscriptions/{hook.Id}", hook);
    }

    private static async Task<HookView> SubscribeAsync(
        HookBody body, Caller caller, TriggersDbContext db, SecretProtector protector, CapOptions caps, TimeProvider time,
        CancellationToken cancellationToken)
    {
        SubscriptionsApi.EnsureToCome(body.ExpiresAt, time);
        SubscriptionsApi.EnsureWithin(caps, body.EventTypes.Length, headers: 0);
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        // One that has ended and is not deleted yet has the name still. A 410 from before this request says nothing of what is wanted now:
        // with another revision it does not count.
        await db.Database.ExecuteSqlRawAsync(
            SubscriptionEnds.DeleteThoseOver(AtAddress), AddressOf(caller, body.TargetUrl), cancellationToken);
        var there = await db.Subscriptions.FromSql(
            $"""
            UPDATE subscriptions SET event_types = {body.EventTypes}, expires_at = {body.ExpiresAt}, revision = revision + 1,
                format = coalesce({(body.Format is { } format ? SnakeCase<WebhookFormat>.Of(format) : null)}::text, format),
                enabled = enabled OR disabled_reason <> {SubscriptionsApi.DisabledByRequest},
                disabled_reason = CASE disabled_reason WHEN {SubscriptionsApi.DisabledByRequest} THEN disabled_reason END,
                updated_at = now()
            WHERE tenant_id = {caller.TenantId} AND url = {body.TargetUrl} AND is_hook AND deleted_at IS NULL
            RETURNING *
            """).ToListAsync(cancellationToken);
        string? secret = null;
        var hook = there.SingleOrDefault();
        if (hook is null)
        {
            await SubscriptionsApi.Living(db, caller)
                .EnsureRoomAsync(caps.SubscriptionsPerTenant, "subscriptions of a tenant; delete one first", cancellationToken);
            secret = SigningSecrets.New(SigningSecrets.Symmetric);
            hook = new Subscription
            {
                Id = TypeId.NewGuid(),
                TenantId = caller.TenantId,
                Url = body.TargetUrl,
                EventTypes = body.EventTypes,
                Secrets = [SigningSecrets.Keep(secret, protector)],
                IsHook = true,
                Format = body.Format ?? WebhookFormat.Envelope,
                ExpiresAt = body.ExpiresAt,
            };
            db.Add(hook);
            await db.SaveChangesAsync(cancellationToken);
        }
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return new HookView(
            TypeId.Format(TypeId.Subscription, hook.Id), hook.Url, hook.EventTypes, hook.Enabled, hook.ExpiresAt, secret);
    }

    private static async Task<NoContent> RemoveAsync(
        HttpContext context, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var body = await Body.ReadAsync(context, RemoveHook.Read);
        await db.Database.ExecuteSqlRawAsync(
            SubscriptionEnds.Delete(AtAddress, SubscriptionEnds.Unsubscribed), AddressOf(caller, body.TargetUrl), cancellationToken);
        return TypedResults.NoContent();
    }

    private static NpgsqlParameter[] AddressOf(Caller caller, string url) => [new("tenant", caller.TenantId), new("url", url)];

    private static async Task<Ok<HookSamples>> SamplesAsync(
        HttpContext context, Caller caller, EventReader reader, CancellationToken cancellationToken)
    {
        var query = ListRequest.Of(context);
        var type = query.Text(HookDocs.Type.Name);
        var format = query.OneOf<WebhookFormat>(HookDocs.Format.Name) ?? WebhookFormat.Envelope;
        query.EnsureValid();
        if (type is not null && !EventTypePattern.IsType(type))
            throw ApiException.Invalid("?type", "Must be an event type.");
        var filter = new EventFilter(caller.TenantId, MaxSamples) { Type = type, NewestFirst = true };
        var (events, _) = await reader.ReadPageAsync(filter, cancellationToken);
        List<StoredEvent> samples =
        [
            .. events.Select(e => e.Stored).Where(e => (type is not null || !EventTypePattern.IsSystem(e.Type))
                && (e.HoldsJson || format is WebhookFormat.Envelope or WebhookFormat.Cloudevents)),
        ];
        var builtIn = samples.Count == 0 && type is not null;
        if (builtIn)
            samples = [new StoredEvent(Guid.Empty, type!, null, null, null, s_sampleTime, "", null, "{\"example\":true}"u8.ToArray())];
        return TypedResults.Ok(new HookSamples(
            [.. samples.Select(e => new RawJson(MessageFormat.Of(format).Make(caller.TenantId, e).Body))], builtIn));
    }
}
