using Npgsql;
using NpgsqlTypes;
using Triggers.Core.Tables;

namespace Triggers.Core.State;

/// <summary>One HTTP request that was made, to be written down.</summary>
/// <param name="Id">UUIDv7.</param>
/// <param name="Number">1 for the first of the delivery.</param>
/// <param name="Age">How long ago it began.</param>
/// <param name="Duration">How long it took.</param>
/// <param name="Outcome">How it ended.</param>
/// <param name="Error">What went wrong, one line, without secrets.</param>
/// <param name="StatusCode">HTTP status, when there was an answer.</param>
/// <param name="ResponseHeaders">Headers of the answer, as a JSON object.</param>
/// <param name="ResponseBody">The first 4 KiB of the answer.</param>
public sealed record AttemptMade(
    Guid Id, int Number, TimeSpan Age, TimeSpan Duration, AttemptOutcome Outcome, string? Error, int? StatusCode, string? ResponseHeaders,
    byte[]? ResponseBody)
{
    /// <summary>Which request it was, of a subscription that gets its events in batches.</summary>
    public Guid? BatchId { get; init; }
}

/// <summary>What becomes of a claimed delivery.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Id">The delivery.</param>
/// <param name="EventId">What it delivers.</param>
/// <param name="SubscriptionId">To whom.</param>
/// <param name="Claim">The claim it was held under.</param>
/// <param name="Status">The state it goes to; pending stays pending, at another time.</param>
/// <param name="Attempt">What was tried; null when nothing was.</param>
public sealed record DeliveryResult(
    Guid TenantId, Guid Id, Guid EventId, Guid SubscriptionId, int Claim, DeliveryStatus Status, AttemptMade? Attempt)
{
    /// <summary>For pending: how long from now it is due again.</summary>
    public TimeSpan Delay { get; init; }

    /// <summary>Whether the attempt counts as a failed one.</summary>
    public bool CountsAsFailure { get; init; }

    /// <summary>Why it failed for good; null when it did not.</summary>
    public string? Reason { get; init; }

    /// <summary>Whether it is a replay: a dead letter may wait for how it ends.</summary>
    public bool IsReplay { get; init; }

    /// <summary>
    /// The subscription's revision that the attempt was made with; null when the result counts whatever became of the subscription.
    /// </summary>
    public int? Revision { get; init; }

    /// <summary>
    /// Whether it is not in the queue, because its first attempt was made as it was read from the log: it comes into the history, or into
    /// the queue, now.
    /// </summary>
    public bool IsNew { get; init; }

    /// <summary>Its key, where it is delivered in order; null where it is not.</summary>
    public string? OrderKey { get; init; }

    /// <summary>
    /// Whether it failed for good and holds the rest of its key: as a dead letter, or, pending, before the others until somebody lets it
    /// go.
    /// </summary>
    public bool HoldsKey { get; init; }

    /// <summary>
    /// When its event was scheduled for, where it now takes its place behind what <see cref="OrderKey"/> has; null otherwise.
    /// </summary>
    public DateTimeOffset? JoinsOrderAt { get; init; }

    /// <summary>Length of the event's data, of what is new.</summary>
    public int DataBytes { get; init; }

    /// <summary>Whether the receiver said that it is gone for good: its subscription is disabled, and a REST hook deleted.</summary>
    public bool SubscriptionIsGone { get; init; }

    /// <summary>Why nothing is to be tried any more, as somebody put it, where nothing was tried.</summary>
    public string? Error { get; init; }

    /// <summary>It goes with so many in all at most from now on, since a batch with it failed; null: as before.</summary>
    public int? BatchLimit { get; init; }

    /// <summary>W3C trace context of the attempt, to be linked to by the next.</summary>
    public string? TraceParent { get; init; }
}

/// <summary>
/// The statements by which deliveries end, or are put off. A success applies to any row of the queue; anything else only under the
/// newest claim, and only while the subscription is as it was when the attempt was made: a failure at another address says nothing of
/// the one that is there now, and the delivery is due again at once. An attempt that was made is recorded always.
/// </summary>
public static class DeliveryResults
{
    /// <summary>
    /// What applies any number of results, to be run as one transaction. Each is a delivery of its own, and they are in the order of
    /// tenant and id, as everybody locks them. The last rows of three columns are status, reason and count of what ended, and
    /// <c>pending</c> with the count of what a changed subscription sent back. Rows of <c>due_lane</c> are subscriptions of which the next
    /// in order became due.
    /// </summary>
    /// <param name="results">At least one.</param>
    public static IEnumerable<NpgsqlBatchCommand> Apply(IReadOnlyList<DeliveryResult> results) =>
        [.. ApplyUnsettled(results), .. Settle(results)];

    /// <summary>The same without <see cref="Settle"/>, for a transaction that goes on to make deliveries of these events.</summary>
    /// <param name="results">At least one.</param>
    public static IEnumerable<NpgsqlBatchCommand> ApplyUnsettled(IReadOnlyList<DeliveryResult> results)
    {
        // Whoever touches a dead letter, or judges whether anybody is still to get an event, has the event's lock. A first delivery that
        // succeeds or fails does neither.
        if (results.Where(r => r.IsReplay && r.Status != DeliveryStatus.Pending
                || r.Status is DeliveryStatus.Cancelled or DeliveryStatus.Expired)
            .Select(r => r.EventId).ToList() is { Count: > 0 } locked)
            yield return EventState.Lock(locked);
        // Then these, since the lock on a subscription keeps its address as it is until the results are written.
        if (results.Where(r => r.SubscriptionIsGone).ToList() is { Count: > 0 } gone)
            yield return SubscriptionEnds.DisableGone(gone);
        var ordered = results.Where(r => r.OrderKey is not null && (r.Status != DeliveryStatus.Pending || r.HoldsKey)).ToList();
        var joining = results.Where(r => r.JoinsOrderAt is not null).OrderBy(r => r.JoinsOrderAt).ThenBy(r => r.Id).ToList();
        if (ordered.Count + joining.Count > 0)
            yield return OrderedQueue.Lock(ordered.Concat(joining).Select(r => r.SubscriptionId));
        yield return Write(results);
        if (joining.Count > 0)
            yield return OrderedQueue.Join(joining);
        if (ordered.Where(r => r.HoldsKey).ToList() is { Count: > 0 } failed)
            yield return OrderedQueue.Hold(failed);
        if (ordered.Count > 0)
            yield return OrderedQueue.Advance(ordered.Select(r => (r.SubscriptionId, r.OrderKey!)));
        if (results.Where(r => r.Status == DeliveryStatus.Expired).ToList() is { Count: > 0 } expired)
            yield return EventTimes.Expire(expired);
    }

    /// <summary>
    /// Puts the events of what was cancelled into the inbox, where nobody else gets them: the last of a transaction, since it judges by
    /// what the queue has by then.
    /// </summary>
    /// <param name="results">What <see cref="ApplyUnsettled"/> has applied.</param>
    public static IEnumerable<NpgsqlBatchCommand> Settle(IReadOnlyList<DeliveryResult> results)
    {
        if (results.Where(r => r.Status == DeliveryStatus.Cancelled).ToList() is { Count: > 0 } cancelled)
            yield return EventState.Settle(cancelled.ConvertAll(r => (r.TenantId, r.EventId)));
    }

    /// <summary>
    /// The transaction is committed before it is on disk. What a crash of Postgres takes back of such transactions it takes back whole,
    /// the latest first: attempts are repeated whose results are gone, and none is missed. Not for dead letters: they are published.
    /// </summary>
    public static NpgsqlBatchCommand CommitBeforeOnDisk() => new("SELECT set_config('synchronous_commit', 'off', true)");

    /// <summary>
    /// One statement, so that a crash leaves all of it or none. A replay that succeeds resolves the dead letter of its event and
    /// subscription; one that dies takes its place; one that is cancelled frees it. A delivery that somebody else ended meanwhile changes
    /// nothing, but for the attempt that was made.
    /// </summary>
    private static readonly string s_write =
        $"""
        WITH c AS MATERIALIZED (
            SELECT c.*,
                c.status <> 'succeeded' AND s.deleted_at IS NULL AND (coalesce(s.revision <> c.revision, false)
                    -- Somebody is changing it, or it would be disabled by now: soon it is known to what.
                    OR c.is_gone AND (s.enabled OR s.is_hook)) AS stale,
                CASE WHEN s.revision <> c.revision THEN interval '0' ELSE interval '1 second' END AS again
            FROM unnest(@tenants, @ids, @events, @subscriptions, @new, @data_bytes, @revisions, @claims, @statuses, @delays, @failures,
                @reasons, @attempts, @numbers, @ages, @durations, @outcomes, @errors, @codes, @headers, @bodies, @traces, @batches, @limits,
                @are_gone)
                AS c (tenant_id, id, event_id, subscription_id, is_new, data_bytes, revision, claim, status, delay, failures,
                    reason, attempt_id, number, age, duration, outcome, error, code, headers, body, trace, batch_id, batch_limit, is_gone)
            JOIN subscriptions s ON s.id = c.subscription_id
        ),
        taken AS (
            DELETE FROM delivery_queue q USING c
            WHERE {DeliveryQueue.Is("c")} AND NOT c.is_new AND c.status <> 'pending' AND NOT c.stale
                AND (c.status = 'succeeded' OR q.claim = c.claim)
            RETURNING q.tenant_id, q.id, q.event_id, q.subscription_id, q.is_replay, q.replay_of, q.test,
                q.retry_count + c.failures AS retry_count,
                CASE WHEN c.outcome IS NULL THEN q.last_outcome ELSE c.outcome END AS outcome,
                CASE WHEN c.outcome IS NULL THEN q.last_status_code ELSE c.code END AS code,
                c.claim, c.status, c.reason, c.attempt_id, c.number, c.age, c.duration, c.error, c.headers, c.body, c.batch_id
        ),
        ended AS (
            SELECT * FROM taken
            UNION ALL
            SELECT tenant_id, id, event_id, subscription_id, false, NULL, false, failures, outcome, code,
                claim, status, reason, attempt_id, number, age, duration, error, headers, body, batch_id
            FROM c WHERE is_new AND status <> 'pending' AND NOT stale
        ),
        put AS (
            INSERT INTO delivery_queue (tenant_id, id, event_id, subscription_id, claim, retry_count, next_attempt_at, data_bytes,
                last_outcome, last_status_code, last_trace_parent)
            SELECT tenant_id, id, event_id, subscription_id, claim, CASE WHEN stale THEN 0 ELSE failures END,
                clock_timestamp() + CASE WHEN stale THEN again ELSE delay END, data_bytes, outcome, code, trace
            FROM c WHERE is_new AND (status = 'pending' OR stale)
            RETURNING 1
        ),
        history AS (
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, status, claim, retry_count, last_outcome,
                last_status_code, replay_of, test,
                finalized_at, attempt_id, attempt_number, attempt_started_at, attempt_duration_ms, attempt_error, response_headers,
                    response_body, batch_id)
            SELECT tenant_id, id, event_id, subscription_id, status, claim, retry_count, outcome, code, replay_of, test,
                clock_timestamp(), attempt_id, CASE WHEN attempt_id IS NOT NULL THEN number END,
                CASE WHEN attempt_id IS NOT NULL THEN clock_timestamp() - age END, CASE WHEN attempt_id IS NOT NULL THEN duration END,
                error, headers::jsonb, body, batch_id
            FROM ended
        ),
        recorded AS (
            INSERT INTO attempts (delivery_id, claim, tenant_id, id, number, started_at, duration_ms, outcome, error, status_code,
                response_headers, response_body, batch_id)
            SELECT id, claim, tenant_id, attempt_id, number, clock_timestamp() - age, duration, outcome, error, code, headers::jsonb, body,
                batch_id
            FROM c WHERE attempt_id IS NOT NULL AND NOT EXISTS (SELECT FROM ended e WHERE e.id = c.id)
            ON CONFLICT DO NOTHING
        ),
        put_off AS (
            UPDATE delivery_queue q SET
                claimed_by = NULL,
                retry_count = q.retry_count + CASE WHEN c.stale THEN 0 ELSE c.failures END,
                next_attempt_at = CASE WHEN c.reason IS NOT NULL AND NOT c.stale OR q.next_attempt_at = 'infinity' THEN 'infinity'
                    ELSE clock_timestamp() + CASE WHEN c.stale THEN c.again ELSE c.delay END END,
                last_outcome = coalesce(c.outcome, q.last_outcome),
                last_status_code = CASE WHEN c.outcome IS NULL THEN q.last_status_code ELSE c.code END,
                last_trace_parent = coalesce(c.trace, q.last_trace_parent),
                batch_limit = coalesce(c.batch_limit, q.batch_limit)
            FROM c WHERE {DeliveryQueue.Is("c")} AND NOT c.is_new AND (c.status = 'pending' OR c.stale)
                AND q.claim = c.claim
            RETURNING c.stale
        ),
        died AS (
            INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, reason, attempts, last_outcome, last_status_code,
                last_error)
            SELECT tenant_id, id, event_id, subscription_id, reason, retry_count, outcome, code, error
            FROM ended WHERE status = 'dead_lettered'
        ),
        answered AS (
            UPDATE dead_letters l SET
                state = CASE e.status WHEN 'succeeded' THEN 'resolved' WHEN 'dead_lettered' THEN 'discarded' ELSE 'open' END,
                closed_at = CASE WHEN e.status IN ('succeeded', 'dead_lettered') THEN clock_timestamp() END
            FROM ended e
            WHERE e.is_replay AND {DeliveryQueue.Equal("l.tenant_id", "e.tenant_id")}
                AND {DeliveryQueue.Equal("l.event_id", "e.event_id")} AND l.subscription_id = e.subscription_id
                AND (e.status = 'succeeded' AND l.state IN ('open', 'replaying')
                    OR e.status IN ('dead_lettered', 'cancelled', 'expired') AND l.state = 'replaying' AND l.replay_delivery_id = e.id)
        ),
        got AS (
            DELETE FROM inbox i USING ended e
            WHERE e.status = 'succeeded' AND {DeliveryQueue.Equal("i.tenant_id", "e.tenant_id")}
                AND {DeliveryQueue.Equal("i.event_id", "e.event_id")}
        )
        SELECT status, reason, count(*) FROM ended GROUP BY status, reason
        UNION ALL SELECT 'pending', NULL, count(*) FROM (
            SELECT FROM put_off WHERE stale UNION ALL SELECT FROM c WHERE is_new AND stale) s HAVING count(*) > 0
        """;

    private static NpgsqlBatchCommand Write(IReadOnlyList<DeliveryResult> results)
    {
        var command = new NpgsqlBatchCommand(s_write);
        var parameters = command.Parameters;
        parameters.AddColumn("tenants", NpgsqlDbType.Uuid, results, r => r.TenantId);
        parameters.AddColumn("ids", NpgsqlDbType.Uuid, results, r => r.Id);
        parameters.AddColumn("events", NpgsqlDbType.Uuid, results, r => r.EventId);
        parameters.AddColumn("subscriptions", NpgsqlDbType.Uuid, results, r => r.SubscriptionId);
        parameters.AddColumn("new", NpgsqlDbType.Boolean, results, r => r.IsNew);
        parameters.AddColumn("data_bytes", NpgsqlDbType.Integer, results, r => r.DataBytes);
        parameters.AddColumn("revisions", NpgsqlDbType.Integer, results, r => r.Revision);
        parameters.AddColumn("claims", NpgsqlDbType.Integer, results, r => r.Claim);
        parameters.AddColumn("statuses", NpgsqlDbType.Text, results, r => SnakeCase<DeliveryStatus>.Of(r.Status));
        parameters.AddColumn("delays", NpgsqlDbType.Interval, results, r => r.Delay);
        parameters.AddColumn("failures", NpgsqlDbType.Integer, results, r => r.CountsAsFailure ? 1 : 0);
        parameters.AddColumn("reasons", NpgsqlDbType.Text, results, r => r.Reason);
        parameters.AddColumn("attempts", NpgsqlDbType.Uuid, results, r => r.Attempt?.Id);
        parameters.AddColumn("numbers", NpgsqlDbType.Integer, results, r => r.Attempt?.Number ?? 0);
        parameters.AddColumn("ages", NpgsqlDbType.Interval, results, r => r.Attempt?.Age ?? TimeSpan.Zero);
        parameters.AddColumn("durations", NpgsqlDbType.Integer, results, r => (int)(r.Attempt?.Duration.TotalMilliseconds ?? 0));
        parameters.AddColumn(
            "outcomes", NpgsqlDbType.Text, results, r => r.Attempt is { } a ? SnakeCase<AttemptOutcome>.Of(a.Outcome) : null);
        // Postgres keeps no NUL in text.
        parameters.AddColumn(
            "errors", NpgsqlDbType.Text, results, r => (r.Attempt?.Error ?? r.Error)?.Replace("\0", "", StringComparison.Ordinal));
        parameters.AddColumn("codes", NpgsqlDbType.Integer, results, r => r.Attempt?.StatusCode);
        parameters.AddColumn("headers", NpgsqlDbType.Text, results, r => r.Attempt?.ResponseHeaders);
        parameters.AddColumn("bodies", NpgsqlDbType.Bytea, results, r => r.Attempt?.ResponseBody);
        parameters.AddColumn("traces", NpgsqlDbType.Text, results, r => r.TraceParent);
        parameters.AddColumn("batches", NpgsqlDbType.Uuid, results, r => r.Attempt?.BatchId);
        parameters.AddColumn("limits", NpgsqlDbType.Integer, results, r => r.BatchLimit);
        parameters.AddColumn("are_gone", NpgsqlDbType.Boolean, results, r => r.SubscriptionIsGone);
        return command;
    }
}
