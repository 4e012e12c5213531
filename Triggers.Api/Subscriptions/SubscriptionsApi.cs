using System.Text.Json;
using Microsoft.AspNetCore.Http.HttpResults;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Api.Auth;
using Triggers.Api.Errors;
using Triggers.Api.Idempotency;
using Triggers.Api.Lists;
using Triggers.Api.RateLimiting;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.ServiceDefaults;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Api.Subscriptions;

/// <summary>Who gets which events pushed where. Changes take effect for events accepted after the answer.</summary>
internal static class SubscriptionsApi
{
    /// <summary>The reason of what somebody has disabled.</summary>
    public const string DisabledByRequest = "requested";

    private const string CertificateNeedsHttps = "A client certificate goes with an https address only.";

    /// <summary>Maps <c>/subscriptions</c>.</summary>
    public static void MapSubscriptions(this IEndpointRouteBuilder app)
    {
        app.MapPost("/subscriptions", CreateAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(IdempotencyKey.Honoured.Instance)
            .WithMetadata(SubscriptionDocs.Create);
        app.MapGet("/subscriptions", ListAsync).RequireScope(Scopes.SubscriptionsRead).WithMetadata(SubscriptionDocs.List);
        app.MapGet("/subscriptions/{id}", GetAsync).RequireScope(Scopes.SubscriptionsRead).WithMetadata(SubscriptionDocs.Get);
        app.MapPatch("/subscriptions/{id}", ChangeAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(SubscriptionDocs.Change);
        app.MapPost("/subscriptions/filter-test", FilterTest.RunAsync).RequireScope(Scopes.SubscriptionsRead)
            .WithMetadata(SubscriptionDocs.TestFilter);
        app.MapPost("/subscriptions/transformation-preview", TransformationPreview.RunAsync).RequireScope(Scopes.SubscriptionsRead)
            .WithMetadata(SubscriptionDocs.PreviewTransformation);
        app.MapDelete("/subscriptions/{id}", DeleteAsync).RequireScope(Scopes.SubscriptionsWrite).WithMetadata(SubscriptionDocs.Delete);
        app.MapPost("/subscriptions/{id}/secret/rotate", SecretRotation.PostAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(SubscriptionDocs.RotateSecret);
        app.MapGet(WebhookKeys.Path, WebhookKeys.GetAsync).AllowAnonymous().WithMetadata(SubscriptionDocs.Keys);
        app.MapPost("/subscriptions/{id}/circuit/open", CircuitApi.OpenAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(SubscriptionDocs.OpenCircuit);
        app.MapPost("/subscriptions/{id}/circuit/close", CircuitApi.CloseAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(SubscriptionDocs.CloseCircuit);
        app.MapGet("/subscriptions/{id}/retry-preview", RetryPreview.GetAsync).RequireScope(Scopes.SubscriptionsRead)
            .WithMetadata(SubscriptionDocs.PreviewRetries);
        app.MapGet("/subscriptions/{id}/ordering", OrderingApi.GetAsync).RequireScope(Scopes.SubscriptionsRead)
            .WithMetadata(SubscriptionDocs.Ordering);
        app.MapPost("/subscriptions/{id}/ordering/release", OrderingApi.ReleaseAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(SubscriptionDocs.ReleaseKeys);
        app.MapPost("/subscriptions/{id}/ordering/skip", OrderingApi.SkipAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(SubscriptionDocs.SkipHead);
        app.MapPost("/subscriptions/{id}/test", SubscriptionTest.SendAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(new CostsEvents(1)).WithMetadata(SubscriptionDocs.Test);
        app.MapPost("/subscriptions/{id}/verify", SubscriptionVerification.SendAsync).RequireScope(Scopes.SubscriptionsWrite)
            .WithMetadata(new CostsEvents(SubscriptionVerification.Events)).WithMetadata(SubscriptionDocs.Verify);
    }

    private static async Task<Created<SubscriptionWithSecret>> CreateAsync(
        HttpContext context, Caller caller, TriggersDbContext db, FirstAnswers answers, SecretProtector protector,
        IOptions<CapOptions> caps, TimeProvider time, CancellationToken cancellationToken)
    {
        var key = IdempotencyKey.Of(context.Request);
        var bytes = await Body.ReadBytesAsync(context, Body.MaxBytes);
        var body = Body.Parse(bytes, SubscriptionBody.Read);
        var request = key is null ? null : Fingerprints.OfRequest(key, context.Request.Path, bytes.Span);
        var (made, repeated) = await answers.OnceAsync(
            caller.TenantId, request, () => AddAsync(body, caller, db, protector, caps.Value, time, cancellationToken), cancellationToken);
        if (repeated)
            IdempotencyKey.MarkReplayed(context.Response);
        return TypedResults.Created($"/subscriptions/{made.Subscription.Id}", new SubscriptionWithSecret(made.Subscription, made.Secret));
    }

    /// <summary>What the body describes, with secrets of its own where it brings none. Not stored yet.</summary>
    public static Subscription New(SubscriptionBody body, Guid tenantId, SecretProtector protector)
    {
        var batch = body.Batch?.ToBatching();
        var enabled = body.Enabled ?? true;
        string[] types = body.Signatures is { } asked ? [.. asked.Distinct()]
            : [body.Secret is null ? SigningSecrets.Symmetric : SigningSecrets.TypeOf(body.Secret)];
        var secrets = types.Select(type =>
            body.Secret is { } brought && SigningSecrets.TypeOf(brought) == type ? brought : SigningSecrets.New(type)).ToArray();
        return new Subscription
        {
            Id = TypeId.NewGuid(),
            TenantId = tenantId,
            Name = body.Name,
            Url = body.Url,
            EventTypes = body.EventTypes,
            Filter = body.NewFilter?.Json,
            Description = body.Description,
            Headers = (body.Headers ?? []).ToDictionary(h => h.Key, h => protector.Protect(h.Value)),
            Secrets = [.. secrets.Select(secret => SigningSecrets.Keep(secret, protector))],
            Authentication = Kept(body.NewAuthentication, protector),
            ClientCertificate = body.NewClientCertificate is { } certificate ? protector.Protect(certificate) : null,
            Format = body.Format ?? WebhookFormat.Envelope,
            Transformation = Kept(body.NewTransformation, protector),
            Retry = body.Retry?.ToPolicy(),
            Ordering = body.Ordering ?? Ordering.None,
            FailingHead = body.FailingHead ?? FailingHead.Block,
            FailingHeadAttempts = body.FailingHeadAttempts,
            RateRequests = body.RateLimit?.Requests,
            RateSeconds = RateSeconds(body.RateLimit),
            Concurrency = body.Concurrency,
            BatchMax = batch?.Max,
            BatchWait = batch?.Wait,
            ExpiresAt = body.ExpiresAt,
            Enabled = enabled,
            DisabledReason = enabled ? null : DisabledByRequest,
        };
    }

    /// <summary>Stores a new one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">It can't be as the body says, the name is taken, or there are as many as may be.</exception>
    public static async Task<NewSubscription> AddAsync(
        SubscriptionBody body, Caller caller, TriggersDbContext db, SecretProtector protector, CapOptions caps, TimeProvider time,
        CancellationToken cancellationToken)
    {
        EnsureToCome(body.ExpiresAt, time);
        EnsureFits(body.NewClientCertificate, body.Url, time);
        EnsureWithin(caps, body.EventTypes.Length, body.Headers?.Count ?? 0);
        if (BatchingOf(body.Batch, caps) is not null)
            EnsureGoesInBatches(body.Format, body.NewTransformation is not null, "/batch");
        var subscription = New(body, caller.TenantId, protector);
        await using var transaction = await db.LockTenantAsync(caller.TenantId, cancellationToken);
        await Living(db, caller)
            .EnsureRoomAsync(caps.SubscriptionsPerTenant, "subscriptions of a tenant; delete one first", cancellationToken);
        if (subscription.Ordering != Ordering.None)
            await EnsureRoomInOrderAsync(db, caller, subscription.Id, caps, cancellationToken);
        if (subscription.Name is { } name)
            await EnsureFreeAsync(name, subscription.Id, caller, db, cancellationToken);
        db.Add(subscription);
        await db.SaveChangesAsync(cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        // A private key is nobody's to know.
        return new NewSubscription(SubscriptionView.Of(subscription, caller, protector, time),
            subscription.Secrets.Find(secret => secret.PublicKey is null) is { } shared ? protector.Unprotect(shared.Secret) : null);
    }

    /// <summary>Refuses a name that another has. One that has ended, and is not deleted yet, gives it up.</summary>
    private static async Task EnsureFreeAsync(
        string name, Guid id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await db.Database.ExecuteSqlRawAsync(SubscriptionEnds.DeleteThoseOver("tenant_id = @tenant AND name = @name"),
            [new NpgsqlParameter("tenant", caller.TenantId), new NpgsqlParameter("name", name)], cancellationToken);
        if (await Living(db, caller).AnyAsync(s => s.Name == name && s.Id != id, cancellationToken))
        {
            const string Taken = "There is a subscription with this name.";
            throw new ApiException(ErrorCodes.NameTaken, Taken, [new FieldError("/name", Taken)]);
        }
    }

    /// <summary>The same for the address of a hook, which is its name.</summary>
    private static async Task EnsureAddressFreeAsync(
        string url, Guid id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await db.Database.ExecuteSqlRawAsync(SubscriptionEnds.DeleteThoseOver("tenant_id = @tenant AND url = @url AND is_hook"),
            [new NpgsqlParameter("tenant", caller.TenantId), new NpgsqlParameter("url", url)], cancellationToken);
        if (await Living(db, caller).AnyAsync(s => s.IsHook && s.Url == url && s.Id != id, cancellationToken))
        {
            const string Taken = "There is a REST hook with this address.";
            throw new ApiException(ErrorCodes.NameTaken, Taken, [new FieldError("/url", Taken)]);
        }
    }

    private static async Task<Ok<Page<SubscriptionView>>> ListAsync(
        HttpContext context, Caller caller, TriggersDbContext db, SecretProtector protector, TimeProvider time,
        CancellationToken cancellationToken)
    {
        var list = ListRequest.Of(context);
        list.EnsureValid();
        var query = Living(db, caller);
        return TypedResults.Ok(
            await list.AnswerAsync(query, s => s.Id, s => SubscriptionView.Of(s, caller, protector, time), cancellationToken));
    }

    private static async Task<Ok<SubscriptionView>> GetAsync(
        string id, Caller caller, TriggersDbContext db, SecretProtector protector, TimeProvider time, IServiceProvider services,
        CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        var found = await Living(db, caller).FirstOrDefaultAsync(s => s.Id == key, cancellationToken)
            ?? throw ApiException.NotFound("subscription");
        var limits = await LimitsInUseAsync(found, services.GetService<SharedPermits>(), time);
        return TypedResults.Ok(SubscriptionView.Of(found, caller, protector, time, limits));
    }

    /// <summary>Null without limits, and where nobody can tell.</summary>
    private static async Task<LimitsInUse?> LimitsInUseAsync(Subscription subscription, SharedPermits? permits, TimeProvider time)
    {
        if (permits is null
            || SubscriptionLimits.Of(subscription.RateRequests, subscription.RateSeconds, subscription.Concurrency) is not { } limits)
            return null;
        try
        {
            var used = await permits.LookAsync(subscription.Id, limits).WaitAsync(RequestBudget.Redis, time);
            return new LimitsInUse(used.Requests, used.Concurrency, used.Waiting);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            return null;
        }
    }

    private static int? RateSeconds(RateLimitBody? rate) => rate is null ? null : rate.PerSeconds ?? 1;

    private static async Task<Ok<SubscriptionView>> ChangeAsync(
        string id, HttpContext context, Caller caller, TriggersDbContext db, SecretProtector protector,
        IOptions<CapOptions> caps, TimeProvider time, CancellationToken cancellationToken)
    {
        var key = Ids.Subscription(id);
        var body = await Body.ReadAsync(context, SubscriptionChange.Read);
        var changed = await UpdateAsync(key, body, caller, db, protector, caps.Value, time, cancellationToken);
        return TypedResults.Ok(SubscriptionView.Of(changed, caller, protector, time));
    }

    /// <summary>Changes one, in the context's transaction where it has one.</summary>
    /// <exception cref="ApiException">There is none, or it can't be as the body says.</exception>
    public static async Task<Subscription> UpdateAsync(
        Guid key, SubscriptionChange body, Caller caller, TriggersDbContext db, SecretProtector protector, CapOptions caps,
        TimeProvider time, CancellationToken cancellationToken)
    {
        EnsureToCome(body.ExpiresAt, time);
        var headers = JsonSerializer.Serialize(
            body.Headers?.ToDictionary(h => h.Key, h => h.Value is null ? null : protector.Protect(h.Value)) ?? []);
        var authentication = Kept(body.NewAuthentication, protector);
        var transformation = Kept(body.NewTransformation, protector);
        EnsureFits(body.NewClientCertificate, body.Url, time);
        var batch = BatchingOf(body.Batch, caps);
        var certificate = body.NewClientCertificate is { } brought ? protector.Protect(brought) : null;
        await using var transaction = await db.BeginUnlessBegunAsync(cancellationToken);
        var movesHook = body.Url is not null && await Living(db, caller).AnyAsync(s => s.Id == key && s.IsHook, cancellationToken);
        // Before the row, as everybody does who counts.
        if (body.Name is not null || movesHook || body.Ordering is not (null or Ordering.None))
            await db.LockTenantAsync(caller.TenantId, cancellationToken);
        if (body.Name is { } name)
            await EnsureFreeAsync(name, key, caller, db, cancellationToken);
        if (movesHook)
            await EnsureAddressFreeAsync(body.Url!, key, caller, db, cancellationToken);
        // One statement, so that two changes at once, or a receiver's 410 in between, can't undo each other's parts.
        var changed = await db.Subscriptions.FromSql(
            $"""
            UPDATE subscriptions SET
                name = CASE WHEN {body.HasName} THEN {body.Name}::text ELSE name END,
                url = coalesce({body.Url}::text, url),
                event_types = coalesce({body.EventTypes}::text[], event_types),
                filter = CASE WHEN {body.HasFilter} THEN {body.NewFilter?.Json}::text ELSE filter END,
                description = CASE WHEN {body.HasDescription} THEN {body.Description}::text ELSE description END,
                headers = (
                    SELECT coalesce(jsonb_object_agg(name, value), jsonb_build_object()) FROM (
                        SELECT key, value FROM jsonb_each(headers)
                        WHERE NOT {body.RemovesHeaders} AND lower(key) NOT IN (SELECT lower(key) FROM jsonb_each({headers}::jsonb))
                        UNION ALL SELECT key, value FROM jsonb_each({headers}::jsonb) WHERE value <> 'null'
                    ) AS merged (name, value)),
                format = coalesce({(body.Format is { } format ? SnakeCase<WebhookFormat>.Of(format) : null)}::text, format),
                transformation = CASE WHEN {body.RemovesTransformation} THEN NULL
                    ELSE coalesce({transformation}::text, transformation) END,
                retry = CASE WHEN {body.RemovesRetry} THEN NULL WHEN {body.RetryPatch}::jsonb IS NULL THEN retry
                    ELSE nullif(
                        jsonb_strip_nulls(coalesce(retry, jsonb_build_object()) || {body.RetryPatch}::jsonb), jsonb_build_object()) END,
                rate_requests = CASE WHEN {body.HasRateLimit} THEN {body.RateLimit?.Requests}::int ELSE rate_requests END,
                rate_seconds = CASE WHEN {body.HasRateLimit} THEN {RateSeconds(body.RateLimit)}::int ELSE rate_seconds END,
                concurrency = CASE WHEN {body.HasConcurrency} THEN {body.Concurrency}::int ELSE concurrency END,
                batch_max = CASE WHEN {body.HasBatch} THEN {batch?.Max}::int ELSE batch_max END,
                batch_wait = CASE WHEN {body.HasBatch} THEN {batch?.Wait}::interval ELSE batch_wait END,
                authentication = CASE WHEN {body.RemovesAuthentication} THEN NULL ELSE coalesce({authentication}::text, authentication) END,
                ordering = coalesce({(body.Ordering is { } ordering ? SnakeCase<Ordering>.Of(ordering) : null)}::text, ordering),
                failing_head = coalesce({(body.FailingHead is { } head ? SnakeCase<FailingHead>.Of(head) : null)}::text, failing_head),
                failing_head_attempts = CASE WHEN {body.HasFailingHeadAttempts} THEN {body.FailingHeadAttempts}::int
                    ELSE failing_head_attempts END,
                client_certificate = CASE WHEN {body.RemovesClientCertificate} THEN NULL
                    ELSE coalesce({certificate}::text, client_certificate) END,
                expires_at = CASE WHEN {body.HasExpiresAt} THEN {body.ExpiresAt}::timestamptz ELSE expires_at END,
                enabled = coalesce({body.Enabled}::boolean, enabled),
                disabled_reason = CASE {body.Enabled}::boolean
                    WHEN true THEN NULL
                    WHEN false THEN {DisabledByRequest}::text
                    ELSE disabled_reason END,
                updated_at = now()
            WHERE tenant_id = {caller.TenantId} AND id = {key} AND deleted_at IS NULL AND inbox IS NULL
                AND (expires_at IS NULL OR expires_at > now())
            RETURNING *
            """).ToListAsync(cancellationToken);
        var subscription = changed.SingleOrDefault() ?? throw ApiException.NotFound("subscription");
        // What exceeds a cap that was lowered stays, and may be changed in other ways.
        EnsureWithin(caps, body.EventTypes?.Length ?? 0, body.Headers is null ? 0 : subscription.Headers.Count);
        if (body.Retry is not null && subscription.Retry is { } retry && RetryBody.Problem(retry) is { } problem)
            throw ApiException.Invalid("/retry", problem);
        if (body.Ordering is not (null or Ordering.None))
            await EnsureRoomInOrderAsync(db, caller, key, caps, cancellationToken);
        if (subscription.ClientCertificate is not null && !IsSecure(subscription.Url))
            throw ApiException.Invalid(body.Url is null ? "/clientCertificate" : "/url", CertificateNeedsHttps);
        if (subscription is { Transformation: not null, Format: not WebhookFormat.Envelope })
            throw ApiException.Invalid(body.Format is not null ? "/format" : "/transformation", SubscriptionBody.FormatGoesAlone);
        if (subscription.BatchMax is not null)
            EnsureGoesInBatches(
                subscription.Format, subscription.Transformation is not null,
                body.HasBatch ? "/batch" : body.Format is not null ? "/format" : "/transformation");
        // What failed before says nothing of another address, or of what somebody has mended and enabled again.
        if (body.Url is not null || body.Enabled is true)
            await CircuitApi.ApplyAsync(db, CircuitChanges.CloseByRequest(caller.TenantId, key), cancellationToken);
        else
            subscription.Circuit = await db.Circuits.FirstOrDefaultAsync(c => c.SubscriptionId == key, cancellationToken);
        if (transaction is not null)
            await transaction.CommitAsync(cancellationToken);
        return subscription;
    }

    private static async Task<NoContent> DeleteAsync(string id, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        await RemoveAsync(Ids.Subscription(id), caller, db, cancellationToken);
        return TypedResults.NoContent();
    }

    /// <summary>Deletes one.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    public static async Task RemoveAsync(Guid key, Caller caller, TriggersDbContext db, CancellationToken cancellationToken)
    {
        var deleted = await db.Database.ExecuteSqlRawAsync(
            SubscriptionEnds.Delete(
                "tenant_id = @tenant AND id = @id AND inbox IS NULL AND (expires_at IS NULL OR expires_at > now())",
                SubscriptionEnds.Requested),
            [new NpgsqlParameter("tenant", caller.TenantId), new NpgsqlParameter("id", key)], cancellationToken);
        if (deleted == 0)
            throw ApiException.NotFound("subscription");
    }

    private static string? Kept<T>(T? secret, SecretProtector protector) where T : class =>
        secret is null ? null : protector.Protect(JsonSerializer.Serialize(secret));

    private static void EnsureFits(string? certificate, string? url, TimeProvider time)
    {
        if (certificate is null)
            return;
        if (ClientCertificateView.Of(certificate, time.GetUtcNow()).Expired)
            throw ApiException.Invalid("/clientCertificate", "Has expired.");
        if (url is not null && !IsSecure(url))
            throw ApiException.Invalid("/clientCertificate", CertificateNeedsHttps);
    }

    private static void EnsureGoesInBatches(WebhookFormat? format, bool isTransformed, string pointer)
    {
        if (isTransformed)
            throw ApiException.Invalid(pointer, "What a transformation makes can't go in one request with others.");
        if (format == WebhookFormat.CloudeventsBinary)
            throw ApiException.Invalid(pointer, "Events in the format cloudevents_binary can't go in one request with others.");
    }

    private static Batching? BatchingOf(BatchBody? batch, CapOptions caps) => batch is null || batch.Max <= caps.EventsPerBatch
        ? batch?.ToBatching() : throw ApiException.Invalid("/batch/max", $"Must be at most {caps.EventsPerBatch}.");

    public static bool IsSecure(string url) => url.StartsWith("https://", StringComparison.OrdinalIgnoreCase);

    public static void EnsureWithin(CapOptions caps, int eventTypes, int headers)
    {
        if (eventTypes > caps.EventTypesPerSubscription)
            throw ApiException.Invalid("/eventTypes", $"Must be an array of 1 to {caps.EventTypesPerSubscription}.");
        if (headers > caps.HeadersPerSubscription)
            throw ApiException.Invalid("/headers", $"Must be an object of at most {caps.HeadersPerSubscription} members.");
    }

    /// <summary>
    /// What is delivered in order is made as the log is read, for each such subscription, and whoever is behind in the log waits for it.
    /// </summary>
    private static Task EnsureRoomInOrderAsync(
        TriggersDbContext db, Caller caller, Guid id, CapOptions caps, CancellationToken cancellationToken) =>
        Living(db, caller).Where(s => s.Ordering != Ordering.None && s.Id != id).EnsureRoomAsync(
            caps.OrderedSubscriptionsPerTenant, "subscriptions of a tenant that get their deliveries in order", cancellationToken);

    /// <summary>Refuses an end that has been.</summary>
    public static void EnsureToCome(DateTimeOffset? expiresAt, TimeProvider time)
    {
        if (expiresAt <= time.GetUtcNow())
            throw ApiException.Invalid("/expiresAt", "Must be in the future.");
    }

    /// <summary>The subscriptions of the caller's tenant that have not ended, and no inboxes.</summary>
    public static IQueryable<Subscription> Living(TriggersDbContext db, Caller caller) =>
        db.LivingSubscriptions.Include(s => s.Circuit).Where(s => s.TenantId == caller.TenantId && s.Inbox == null);
}
