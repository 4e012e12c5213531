using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Replays;

/// <summary>
/// Repeats deliveries: new rows, linked to what they repeat. History is never edited. A replay of a settled event does not reopen
/// it; the dead letter of what is repeated waits for how the replay ends. Of an event only one delivery to a subscription is on its way
/// at a time: who replays holds the event's lock from the look to the commit.
/// </summary>
internal sealed class Replayer(NpgsqlDataSource dataSource)
{
    private const string Subject = "(SELECT subject FROM events WHERE tenant_id = @tenant AND id = @event LIMIT 1)";

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
        await using (var find = new NpgsqlCommand(
            "SELECT event_id FROM all_deliveries WHERE tenant_id = @tenant AND id = @id", connection, transaction))
        {
            find.Parameters.AddWithValue("tenant", tenantId);
            find.Parameters.AddWithValue("id", deliveryId);
            if (await find.ExecuteScalarAsync(cancellationToken) is not Guid found)
                return null;
            eventId = found;
        }
        await LockAsync(connection, eventId, cancellationToken);
        var times = await ReadTimesAsync(connection, tenantId, eventId, cancellationToken);
        NewDelivery repetition;
        await using (var command = new NpgsqlCommand(
            $"""
            SELECT d.subscription_id, d.test, s.enabled, {SubscriptionEnds.HasEnded} AS deleted,
                {EventState.IsOnItsWay("d.tenant_id", "@event", "d.subscription_id")} AS pending,
                EXISTS (
                    SELECT FROM dead_letters l
                    WHERE l.tenant_id = d.tenant_id AND l.delivery_id = d.id AND {EventState.IsUnresolved}) AS unresolved,
                {OrderedQueue.KeyOf(Subject)}
            FROM all_deliveries d JOIN subscriptions s ON s.id = d.subscription_id
            WHERE d.tenant_id = @tenant AND d.id = @id FOR SHARE OF s
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("id", deliveryId);
            command.Parameters.AddWithValue("event", eventId);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            if (!await reader.ReadAsync(cancellationToken))
                return null;
            if (asDeadLetter && !reader.GetBoolean(5))
                throw new ApiException(ErrorCodes.DeadLetterClosed, "It is closed; replay its event, or its delivery, instead.");
            if (reader.GetBoolean(4))
                throw new ApiException(ErrorCodes.DeliveryPending,
                    "The event is still on its way to this subscription; only what has ended can be replayed.");
            EnsureReachable(reader.GetGuid(0), enabled: reader.GetBoolean(2), deleted: reader.GetBoolean(3));
            repetition = new NewDelivery(tenantId, TypeId.NewGuid(), eventId, reader.GetGuid(0))
            {
                IsReplay = true,
                ReplayOf = deliveryId,
                Test = reader.GetBoolean(1),
                OrderKey = reader.GetBoolean(1) || times.IsAhead || reader.IsDBNull(6) ? null : reader.GetString(6),
                DeliverAt = times.DeliverAt,
                ExpiresAt = times.ExpiresAt,
            };
        }
        await InsertAsync(connection, [repetition], cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return repetition.Id;
    }

    /// <summary>Delivers an event again.</summary>
    /// <param name="tenantId">The tenant.</param>
    /// <param name="eventId">An event the projection has seen.</param>
    /// <param name="type">Its type.</param>
    /// <param name="subscriptionIds">To whom, whatever types they want; null for every enabled subscription that wants it.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The ids of the new deliveries.</returns>
    public async Task<Guid[]> ReplayEventAsync(
        Guid tenantId, Guid eventId, string type, Guid[]? subscriptionIds, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await LockAsync(connection, eventId, cancellationToken);
        var times = await ReadTimesAsync(connection, tenantId, eventId, cancellationToken);
        // Only who is not named is chosen, also by filters.
        var stored = subscriptionIds is null ? await StoredEvents.ReadAsync(connection, tenantId, eventId, cancellationToken) : null;
        var repetitions = new List<NewDelivery>();
        var found = new HashSet<Guid>();
        var underWay = false;
        await using (var command = new NpgsqlCommand(
            $"""
            SELECT s.id, s.enabled, {SubscriptionEnds.HasEnded}, s.event_types, d.id, s.filter,
                {EventState.IsOnItsWay("@tenant", "@event", "s.id")},
                {OrderedQueue.KeyOf(Subject)}
            FROM subscriptions s
            LEFT JOIN LATERAL (
                SELECT id FROM all_deliveries
                WHERE tenant_id = @tenant AND event_id = @event AND subscription_id = s.id AND id >= @floor
                ORDER BY id DESC LIMIT 1
            ) d ON true
            WHERE s.tenant_id = @tenant AND CASE WHEN @all THEN s.enabled AND NOT {SubscriptionEnds.HasEnded} ELSE s.id = ANY (@ids) END
            ORDER BY s.id FOR SHARE OF s
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("event", eventId);
            command.Parameters.AddWithValue("floor", EventState.FirstDelivery(eventId));
            command.Parameters.AddWithValue("all", subscriptionIds is null);
            command.Parameters.AddWithValue("ids", subscriptionIds ?? []);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            while (await reader.ReadAsync(cancellationToken))
            {
                var subscriptionId = reader.GetGuid(0);
                found.Add(subscriptionId);
                var pending = reader.GetBoolean(6);
                if (subscriptionIds is not null)
                {
                    EnsureReachable(subscriptionId, enabled: reader.GetBoolean(1), deleted: reader.GetBoolean(2));
                    if (pending)
                        throw new ApiException(ErrorCodes.DeliveryPending,
                            $"The event is still on its way to {TypeId.Format(TypeId.Subscription, subscriptionId)}.");
                }
                else if (!EventTypePattern.MatchesAny(reader.GetFieldValue<string[]>(3), type)
                    || !reader.IsDBNull(5) && stored is not null && !SubscriptionFilter.Parse(reader.GetString(5)).Matches(stored))
                {
                    continue;
                }
                // Who has it on its way gets it anyway.
                else if (pending)
                {
                    underWay = true;
                    continue;
                }
                repetitions.Add(new NewDelivery(tenantId, TypeId.NewGuid(), eventId, subscriptionId)
                {
                    IsReplay = true,
                    ReplayOf = reader.IsDBNull(4) ? null : reader.GetGuid(4),
                    OrderKey = times.IsAhead || reader.IsDBNull(7) ? null : reader.GetString(7),
                    DeliverAt = times.DeliverAt,
                    ExpiresAt = times.ExpiresAt,
                });
            }
        }

        var missing = Array.FindIndex(subscriptionIds ?? [], id => !found.Contains(id));
        if (missing >= 0)
            throw ApiException.Invalid($"/subscriptionIds/{missing}", "There is no such subscription.");
        if (repetitions.Count == 0 && underWay)
            throw new ApiException(ErrorCodes.DeliveryPending, "The event is still on its way to everybody who wants it.");
        await InsertAsync(connection, repetitions, cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return [.. repetitions.Select(r => r.Id)];
    }

    private sealed record Times(DateTimeOffset? DeliverAt, DateTimeOffset? ExpiresAt, bool IsAhead);

    /// <summary>When the event is to be delivered, under its lock.</summary>
    /// <exception cref="ApiException">It was cancelled, has expired, or is no longer kept.</exception>
    private static async Task<Times> ReadTimesAsync(
        NpgsqlConnection connection, Guid tenantId, Guid eventId, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT deliver_at, expires_at, coalesce(deliver_at > now(), false), cancelled_at IS NOT NULL,
                coalesce(expires_at <= now(), false)
            FROM events WHERE tenant_id = @tenant AND id = @id
            """, connection);
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("id", eventId);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        // Its deliveries may be kept for longer.
        if (!await reader.ReadAsync(cancellationToken))
            throw ApiException.NotFound("event");
        if (reader.GetBoolean(3))
            throw new ApiException(ErrorCodes.EventCancelled, "It was cancelled before its time came; publish it anew.");
        if (reader.GetBoolean(4))
            throw new ApiException(ErrorCodes.EventExpired, "Its `expiresAt` has passed; publish it anew.");
        return new Times(
            reader.IsDBNull(0) ? null : reader.GetFieldValue<DateTimeOffset>(0),
            reader.IsDBNull(1) ? null : reader.GetFieldValue<DateTimeOffset>(1), reader.GetBoolean(2));
    }

    private static void EnsureReachable(Guid subscriptionId, bool enabled, bool deleted)
    {
        var id = TypeId.Format(TypeId.Subscription, subscriptionId);
        if (deleted)
            throw new ApiException(ErrorCodes.SubscriptionGone, $"The subscription {id} was deleted; nothing can be sent to it.");
        if (!enabled)
            throw new ApiException(ErrorCodes.SubscriptionDisabled, $"Enable the subscription {id} first.");
    }

    private static async Task InsertAsync(NpgsqlConnection connection, List<NewDelivery> repetitions, CancellationToken cancellationToken)
    {
        if (repetitions.Count == 0)
            return;
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in DeliveryQueue.Replay(repetitions))
            batch.BatchCommands.Add(command);
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }

    private static async Task LockAsync(NpgsqlConnection connection, Guid eventId, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { EventState.Lock([eventId]) } };
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
