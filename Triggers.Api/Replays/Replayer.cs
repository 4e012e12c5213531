using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Replays;

/// <summary>
/// Repeats deliveries: new rows, linked to what they repeat. History is never edited. A replay of a settled event does not reopen
/// it; the dead letter of what is repeated waits for how the replay ends. Of an event only one delivery to a subscription is on its way
/// at a time: who replays holds the event's lock (<see cref="EventLock"/>) from the look to the commit.
/// </summary>
internal sealed class Replayer(NpgsqlDataSource dataSource)
{
    private sealed record Repetition(Guid Id, Guid EventId, Guid SubscriptionId, Guid? ReplayOf, bool Test);

    /// <summary>Repeats one delivery.</summary>
    /// <param name="tenantId">The tenant.</param>
    /// <param name="deliveryId">What is repeated.</param>
    /// <param name="asDeadLetter">Whether it is the delivery's dead letter that is repeated, so that it must be unresolved.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The id of the new one; null when the tenant has no such delivery.</returns>
    public async Task<Guid?> ReplayDeliveryAsync(Guid tenantId, Guid deliveryId, bool asDeadLetter, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        Guid eventId;
        await using (var find = new NpgsqlCommand("SELECT event_id FROM deliveries WHERE tenant_id = @tenant AND id = @id", connection, transaction))
        {
            find.Parameters.AddWithValue("tenant", tenantId);
            find.Parameters.AddWithValue("id", deliveryId);
            if (await find.ExecuteScalarAsync(cancellationToken) is not Guid found)
                return null;
            eventId = found;
        }
        await EventLock.TakeAsync(connection, eventId, cancellationToken);
        Repetition repetition;
        await using (var command = new NpgsqlCommand(
            """
            SELECT d.subscription_id, d.test, s.enabled, s.deleted_at IS NOT NULL AS deleted,
                EXISTS (
                    SELECT FROM deliveries o
                    WHERE o.tenant_id = d.tenant_id AND o.event_id = @event AND o.id >= @floor AND o.subscription_id = d.subscription_id
                        AND o.status = 'pending') AS pending,
                EXISTS (
                    SELECT FROM dead_letters l
                    WHERE l.tenant_id = d.tenant_id AND l.delivery_id = d.id AND l.state IN ('open', 'replaying')) AS unresolved
            FROM deliveries d JOIN subscriptions s ON s.id = d.subscription_id
            WHERE d.tenant_id = @tenant AND d.id = @id FOR SHARE OF s
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("id", deliveryId);
            command.Parameters.AddWithValue("event", eventId);
            command.Parameters.AddWithValue("floor", Events.EventReader.DeliveriesFrom(eventId));
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            if (!await reader.ReadAsync(cancellationToken))
                return null;
            if (asDeadLetter && !reader.GetBoolean(5))
                throw new ApiException(ErrorCodes.DeadLetterClosed, "It is closed; replay its event, or its delivery, instead.");
            if (reader.GetBoolean(4))
                throw new ApiException(ErrorCodes.DeliveryPending, "The event is still on its way to this subscription; only what has ended can be replayed.");
            EnsureReachable(reader.GetGuid(0), enabled: reader.GetBoolean(2), deleted: reader.GetBoolean(3));
            repetition = new Repetition(TypeId.NewGuid(), eventId, reader.GetGuid(0), deliveryId, reader.GetBoolean(1));
        }
        // Since nobody waits for the event's lock to discard a dead letter.
        if (await InsertAsync(connection, tenantId, [repetition], cancellationToken) == 0 && asDeadLetter)
            throw new ApiException(ErrorCodes.DeadLetterClosed, "It was discarded meanwhile.");
        await transaction.CommitAsync(cancellationToken);
        return repetition.Id;
    }

    /// <summary>Delivers an event again.</summary>
    /// <param name="tenantId">The tenant.</param>
    /// <param name="eventId">An event the projection has seen.</param>
    /// <param name="type">Its type.</param>
    /// <param name="subscriptionIds">To whom, whatever types they want; null for every enabled subscription that wants its type.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The ids of the new deliveries.</returns>
    public async Task<Guid[]> ReplayEventAsync(
        Guid tenantId, Guid eventId, string type, Guid[]? subscriptionIds, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await EventLock.TakeAsync(connection, eventId, cancellationToken);
        var repetitions = new List<Repetition>();
        var found = new HashSet<Guid>();
        var underWay = false;
        await using (var command = new NpgsqlCommand(
            """
            SELECT s.id, s.enabled, s.deleted_at IS NOT NULL, s.event_types, d.id, coalesce(d.pending, false)
            FROM subscriptions s
            LEFT JOIN LATERAL (
                SELECT id, bool_or(status = 'pending') OVER () AS pending FROM deliveries
                WHERE tenant_id = @tenant AND event_id = @event AND subscription_id = s.id AND id >= @floor
                ORDER BY id DESC LIMIT 1
            ) d ON true
            WHERE s.tenant_id = @tenant AND CASE WHEN @all THEN s.enabled AND s.deleted_at IS NULL ELSE s.id = ANY (@ids) END
            ORDER BY s.id FOR SHARE OF s
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("event", eventId);
            command.Parameters.AddWithValue("floor", Events.EventReader.DeliveriesFrom(eventId));
            command.Parameters.AddWithValue("all", subscriptionIds is null);
            command.Parameters.AddWithValue("ids", subscriptionIds ?? []);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                var subscriptionId = reader.GetGuid(0);
                found.Add(subscriptionId);
                var pending = reader.GetBoolean(5);
                if (subscriptionIds is not null)
                {
                    EnsureReachable(subscriptionId, enabled: reader.GetBoolean(1), deleted: reader.GetBoolean(2));
                    if (pending)
                        throw new ApiException(ErrorCodes.DeliveryPending,
                            $"The event is still on its way to {TypeId.Format(TypeId.Subscription, subscriptionId)}.");
                }
                else if (!EventTypePattern.MatchesAny(reader.GetFieldValue<string[]>(3), type))
                {
                    continue;
                }
                // Who has it on its way gets it anyway.
                else if (pending)
                {
                    underWay = true;
                    continue;
                }
                repetitions.Add(new Repetition(TypeId.NewGuid(), eventId, subscriptionId, reader.IsDBNull(4) ? null : reader.GetGuid(4), Test: false));
            }
        }

        var missing = Array.FindIndex(subscriptionIds ?? [], id => !found.Contains(id));
        if (missing >= 0)
            throw ApiException.Invalid($"/subscriptionIds/{missing}", "There is no such subscription.");
        if (repetitions.Count == 0 && underWay)
            throw new ApiException(ErrorCodes.DeliveryPending, "The event is still on its way to everybody who wants it.");
        await InsertAsync(connection, tenantId, repetitions, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return [.. repetitions.Select(r => r.Id)];
    }

    private static void EnsureReachable(Guid subscriptionId, bool enabled, bool deleted)
    {
        var id = TypeId.Format(TypeId.Subscription, subscriptionId);
        if (deleted)
            throw new ApiException(ErrorCodes.SubscriptionGone, $"The subscription {id} was deleted; nothing can be sent to it.");
        if (!enabled)
            throw new ApiException(ErrorCodes.SubscriptionDisabled, $"Enable the subscription {id} first.");
    }

    /// <returns>How many dead letters wait for how it ends.</returns>
    private static async Task<ulong> InsertAsync(
        NpgsqlConnection connection, Guid tenantId, List<Repetition> repetitions, CancellationToken cancellationToken)
    {
        if (repetitions.Count == 0)
            return 0;
        await using var batch = new NpgsqlBatch(connection);
        void Add(string sql)
        {
            batch.BatchCommands.Add(new NpgsqlBatchCommand(sql)
            {
                Parameters =
                {
                    new("tenant", tenantId),
                    new("ids", repetitions.Select(r => r.Id).ToArray()),
                    new("events", repetitions.Select(r => r.EventId).ToArray()),
                    new("subscriptions", repetitions.Select(r => r.SubscriptionId).ToArray()),
                    new("replayed", repetitions.Select(r => r.ReplayOf).ToArray()),
                    new("tests", repetitions.Select(r => r.Test).ToArray()),
                },
            });
        }

        // In the order in which completions lock: dead letters, then their event.
        Add("""
            UPDATE dead_letters d SET state = 'replaying', replay_delivery_id = r.id
            FROM unnest(@ids, @events, @subscriptions) AS r (id, event_id, subscription_id)
            WHERE d.tenant_id = @tenant AND d.event_id = r.event_id AND d.subscription_id = r.subscription_id AND d.state IN ('open', 'replaying')
            """);
        Add("UPDATE open_events SET open = open + cardinality(@ids) WHERE tenant_id = @tenant AND event_id = @events[1]");
        Add("""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at, replay_of, test)
            SELECT @tenant, r.id, r.event_id, r.subscription_id, now(), r.replay_of, r.test
            FROM unnest(@ids, @events, @subscriptions, @replayed, @tests) AS r (id, event_id, subscription_id, replay_of, test)
            """);
        batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')"));
        await batch.ExecuteNonQueryAsync(cancellationToken);
        return batch.BatchCommands[0].Rows;
    }
}
