using Confluent.Kafka;
using Npgsql;
using NpgsqlTypes;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Delivery.Waking;
using Triggers.EventLog.Kafka;
using Triggers.ServiceDefaults;

namespace Triggers.Delivery.Replays;

/// <summary>
/// Carries out replay jobs, a portion at a time. What a portion makes is committed with the place where the next begins, so whoever dies
/// with one leaves nothing of it, and no event comes twice. Any process takes the next portion of any job.
/// </summary>
internal sealed partial class ReplayJobs(
    EngineDataSource dataSource, Wakeups wakeups, Readiness readiness, TimeProvider time, ILogger<ReplayJobs> logger,
    ProjectionProgress? progress = null)
    : BackgroundLoop(time, logger)
{
    /// <summary>Events looked at in one portion.</summary>
    private const int MaxScanned = 1_000;

    /// <summary>Events delivered by one portion: each is locked.</summary>
    private const int MaxDelivered = 200;

    /// <summary>
    /// While so many deliveries of the subscription are due, or wait in order, its job waits: what is published meanwhile is not to wait
    /// behind it.
    /// </summary>
    private const int MaxDue = 1_000;

    /// <summary>
    /// Deliveries made of a job and not charged yet, and never more than its tenant's quota of a day: the API charges them meanwhile, and
    /// doesn't while no events are left.
    /// </summary>
    private const int MaxUncharged = 1_000;

    private static readonly TimeSpan IdleLook = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    private sealed record Job(Guid TenantId, Guid Id, Guid SubscriptionId, Guid NextEvent, Guid EndEvent, string[] EventTypes, bool All,
        SubscriptionFilter? Filter, int Most);

    private sealed record Portion(List<Guid> Matching, Guid NextEvent, bool More, bool Ended);

    protected override Task PrepareAsync(CancellationToken stoppingToken) => readiness.SchemaIsThere.WaitAsync(stoppingToken);

    protected override bool IsAway(Exception e) => e is KafkaException || base.IsAway(e);

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var wait = await StepAsync(stoppingToken);
        Recovered();
        if (wait > TimeSpan.Zero)
            await wakeups.Replays.WaitAsync(wait, stoppingToken);
    }

    /// <summary>Takes the next portion of a job, if there is any.</summary>
    /// <returns>How long to wait for the next.</returns>
    private async Task<TimeSpan> StepAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.Pool.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var (job, running) = await TakeAsync(connection, cancellationToken);
        if (job is null)
        {
            // What may be written is that a job has ended.
            await transaction.CommitAsync(cancellationToken);
            return running ? Pause : IdleLook;
        }
        var portion = await ReadAsync(connection, job, cancellationToken);
        var made = portion.Matching.Count == 0 ? [] : await ChooseAsync(connection, job, portion.Matching, cancellationToken);
        await using var batch = new NpgsqlBatch(connection);
        if (made.Count > 0)
        {
            foreach (var command in DeliveryQueue.Replay(made))
                batch.BatchCommands.Add(command);
        }
        batch.BatchCommands.Add(new(
            """
            UPDATE replay_jobs SET next_event = @next, matched = matched + @matched, deliveries = deliveries + @made,
                next_step_at = clock_timestamp() + @pause,
                status = CASE WHEN @ended THEN 'completed' ELSE status END, finished_at = CASE WHEN @ended THEN clock_timestamp() END
            WHERE tenant_id = @tenant AND id = @id
            """)
        {
            Parameters =
            {
                new("tenant", job.TenantId), new("id", job.Id), new("next", portion.NextEvent), new("matched", portion.Matching.Count),
                new("made", made.Count), new("pause", portion.More ? TimeSpan.Zero : Pause), new("ended", portion.Ended),
            },
        });
        await batch.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        if (portion.Ended)
            Log.Completed(Logger, TypeId.Format(TypeId.Replay, job.Id));
        return TimeSpan.Zero;
    }

    /// <summary>The job whose turn it is, locked; and whether any is running.</summary>
    private static async Task<(Job? Job, bool Running)> TakeAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new(
                    $"""
                    UPDATE replay_jobs j SET status = 'failed', reason = 'subscription_gone', finished_at = clock_timestamp()
                    FROM subscriptions s
                    WHERE s.id = j.subscription_id AND {SubscriptionEnds.HasEnded} AND j.status = 'running'
                    """),
                new("SELECT EXISTS (SELECT FROM replay_jobs WHERE status = 'running')"),
                new(
                    $"""
                    SELECT j.tenant_id, j.id, j.subscription_id, j.next_event, j.end_event, coalesce(j.event_types, s.event_types),
                        j.include = 'all', s.filter, least({MaxDelivered}, p.events_per_day - (j.deliveries - j.charged))::int
                    FROM replay_jobs j JOIN subscriptions s ON s.id = j.subscription_id
                    JOIN tenants t ON t.id = j.tenant_id LEFT JOIN usage_plans p ON p.id = t.usage_plan_id
                    WHERE j.status = 'running' AND j.next_step_at <= now() AND s.enabled AND NOT {SubscriptionEnds.HasEnded}
                        AND j.deliveries - j.charged < least({MaxUncharged}, p.events_per_day)
                        AND (SELECT count(*) FROM (
                            SELECT FROM delivery_queue q
                            WHERE q.subscription_id = j.subscription_id AND NOT q.test AND q.next_attempt_at <= now()
                            LIMIT {MaxDue}) due) < {MaxDue}
                        AND (SELECT count(*) FROM (
                            SELECT FROM delivery_queue q
                            WHERE q.subscription_id = j.subscription_id AND q.order_key IS NOT NULL LIMIT {MaxDue}) due) < {MaxDue}
                    ORDER BY j.next_step_at LIMIT 1 FOR UPDATE OF j SKIP LOCKED
                    """),
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var running = reader.GetBoolean(0);
        await reader.NextResultAsync(cancellationToken);
        var job = await reader.ReadAsync(cancellationToken)
            ? new Job(reader.GetGuid(0), reader.GetGuid(1), reader.GetGuid(2), reader.GetGuid(3),
                reader.GetGuid(4), reader.GetFieldValue<string[]>(5), reader.GetBoolean(6),
                reader.IsDBNull(7) ? null : SubscriptionFilter.Parse(reader.GetString(7)), reader.GetInt32(8))
            : null;
        return (job, running);
    }

    /// <summary>
    /// An id below which no event is added any more, whichever log they are in; to be read by a statement before the one that reads
    /// events. What is in the Kafka log and not stored yet is added when it is projected, however long that takes.
    /// </summary>
    private async Task<Guid> ReadCompleteAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        var storedUntil = progress is null ? (DateTimeOffset?)null : await progress.ReadStoredUntilAsync();
        await using var command = new NpgsqlCommand(
            $"SELECT least({StoredEvents.Complete}, uuid_at(clock_timestamp() - @age), uuid_at(@storedUntil))", connection);
        command.Parameters.AddWithValue("age", RequestBudget.IdToKafka);
        command.Parameters.Add(new("storedUntil", NpgsqlDbType.TimestampTz) { Value = (object?)storedUntil ?? DBNull.Value });
        return (Guid)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>
    /// The next events in the order of their ids, as far as nothing before them can still come, and it is decided of those that match
    /// whether the subscription gets them without the job: they are projected, and do not fan out to it any more.
    /// </summary>
    private async Task<Portion> ReadAsync(NpgsqlConnection connection, Job job, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"""
            SELECT e.id, e.type, {EventState.IsUnprojected} OR {EventState.FansOutTo("@tenant", "e.id", "@subscription")}, h.safe,
                {(job.Filter is null ? "NULL" : StoredEvent.Columns)}
            FROM (SELECT @complete AS safe) h
            LEFT JOIN LATERAL (
                SELECT * FROM events
                WHERE tenant_id = @tenant AND id >= @next AND id < @end AND id < h.safe
                ORDER BY id LIMIT {MaxScanned}) e ON true
            ORDER BY e.id
            """, connection);
        command.Parameters.AddWithValue("complete", await ReadCompleteAsync(connection, cancellationToken));
        command.Parameters.AddWithValue("tenant", job.TenantId);
        command.Parameters.AddWithValue("subscription", job.SubscriptionId);
        command.Parameters.AddWithValue("next", job.NextEvent);
        command.Parameters.AddWithValue("end", job.EndEvent);
        var matching = new List<Guid>();
        var next = job.NextEvent;
        var scanned = 0;
        var safe = Guid.Empty;
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            safe = reader.GetGuid(3);
            if (reader.IsDBNull(0))
                break;
            var matches = EventTypePattern.MatchesAny(job.EventTypes, reader.GetString(1))
                && (job.Filter is null || job.Filter.Matches(StoredEvent.Read(reader, 4)));
            if (matches && reader.GetBoolean(2))
                return new Portion(matching, next, More: false, Ended: false);
            scanned++;
            next = TypeId.Add(reader.GetGuid(0), 1);
            if (matches)
                matching.Add(reader.GetGuid(0));
            if (matching.Count == job.Most)
                return new Portion(matching, next, More: true, Ended: false);
        }
        if (scanned == MaxScanned)
            return new Portion(matching, next, More: true, Ended: false);
        var ended = job.EndEvent.CompareTo(safe) <= 0;
        return new Portion(matching, ended ? job.EndEvent : next, More: false, ended);
    }

    /// <summary>What is to be made of them, under their locks: what is on its way already comes anyway.</summary>
    private static async Task<List<NewDelivery>> ChooseAsync(
        NpgsqlConnection connection, Job job, List<Guid> events, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                EventState.Lock(events),
                new(
                    $"""
                    SELECT e.id, d.newest,
                        CASE WHEN t.is_ahead THEN NULL ELSE {OrderedQueue.KeyOf("t.subject")} END, t.deliver_at, t.expires_at
                    FROM unnest(@events, @floors) AS e (id, floor)
                    CROSS JOIN LATERAL (
                        SELECT subject, deliver_at, expires_at, coalesce(deliver_at > now(), false) AS is_ahead FROM events
                        WHERE tenant_id = @tenant AND id = e.id AND {EventTimes.CanBeReplayed} LIMIT 1) t
                    JOIN subscriptions s ON s.id = @subscription
                    CROSS JOIN LATERAL (
                        SELECT (array_agg(d.id ORDER BY d.id DESC))[1] AS newest,
                            coalesce(bool_or(d.status = 'succeeded'), false) AS succeeded
                        FROM all_deliveries d
                        WHERE d.tenant_id = @tenant AND d.event_id = e.id AND d.subscription_id = @subscription AND d.id >= e.floor) d
                    WHERE NOT {EventState.IsOnItsWay("@tenant", "e.id", "@subscription")} AND (@all OR NOT d.succeeded)
                    ORDER BY e.id
                    """)
                {
                    Parameters =
                    {
                        new("events", events.ToArray()),
                        new("floors", events.ConvertAll(EventState.FirstDelivery).ToArray()),
                        new("tenant", job.TenantId), new("subscription", job.SubscriptionId), new("all", job.All),
                    },
                },
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.NextResultAsync(cancellationToken);
        var chosen = new List<NewDelivery>();
        while (await reader.ReadAsync(cancellationToken))
        {
            chosen.Add(new NewDelivery(job.TenantId, TypeId.NewGuid(), reader.GetGuid(0), job.SubscriptionId)
            {
                IsReplay = true,
                ReplayOf = reader.IsDBNull(1) ? null : reader.GetGuid(1),
                OrderKey = reader.IsDBNull(2) ? null : reader.GetString(2),
                DeliverAt = reader.IsDBNull(3) ? null : reader.GetFieldValue<DateTimeOffset>(3),
                ExpiresAt = reader.IsDBNull(4) ? null : reader.GetFieldValue<DateTimeOffset>(4),
            });
        }
        return chosen;
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "Replay job {ReplayId} has made all its deliveries")]
        public static partial void Completed(ILogger logger, string replayId);
    }
}
