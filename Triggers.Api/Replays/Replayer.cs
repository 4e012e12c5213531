using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Replays;

/// <summary>
/// Repeats deliveries: new rows, linked to what they repeat. History is never edited. A replay of a settled event does not reopen
/// it; the dead letter of what is repeated waits for how the replay ends.
/// </summary>
internal sealed class Replayer(NpgsqlDataSource dataSource)
{
    /// <summary>Repeats one delivery.</summary>
    /// <returns>The id of the new one; null when the tenant has no such delivery.</returns>
    public async Task<Guid?> ReplayDeliveryAsync(Guid tenantId, Guid deliveryId, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        NewDelivery repetition;
        await using (var command = new NpgsqlCommand(
            """
            SELECT d.event_id, d.subscription_id, d.status, d.test, s.enabled, s.deleted_at IS NOT NULL,
                coalesce((SELECT octet_length(data) FROM events e WHERE e.tenant_id = @tenant AND e.id = d.event_id), 0)
            FROM all_deliveries d JOIN subscriptions s ON s.id = d.subscription_id
            WHERE d.tenant_id = @tenant AND d.id = @id FOR SHARE OF s
            """, connection, transaction))
        {
            command.Parameters.AddWithValue("tenant", tenantId);
            command.Parameters.AddWithValue("id", deliveryId);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            if (!await reader.ReadAsync(cancellationToken))
                return null;
            if (SnakeCase<DeliveryStatus>.Parse(reader.GetString(2)) == DeliveryStatus.Pending)
                throw new ApiException(ErrorCodes.DeliveryPending, "It still has attempts ahead of it; only what has ended can be replayed.");
            EnsureReachable(reader.GetGuid(1), enabled: reader.GetBoolean(4), deleted: reader.GetBoolean(5));
            repetition = new NewDelivery(tenantId, TypeId.NewGuid(), reader.GetGuid(0), reader.GetGuid(1), reader.GetInt32(6))
            {
                ReplayOf = deliveryId,
                Test = reader.GetBoolean(3),
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
    /// <param name="subscriptionIds">To whom, whatever types they want; null for every enabled subscription that wants its type.</param>
    /// <param name="cancellationToken">Ends it.</param>
    /// <returns>The ids of the new deliveries.</returns>
    public async Task<Guid[]> ReplayEventAsync(
        Guid tenantId, Guid eventId, string type, Guid[]? subscriptionIds, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var repetitions = new List<NewDelivery>();
        var found = new HashSet<Guid>();
        await using (var command = new NpgsqlCommand(
            """
            SELECT s.id, s.enabled, s.deleted_at IS NOT NULL, s.event_types, d.id, d.status,
                coalesce((SELECT octet_length(data) FROM events WHERE tenant_id = @tenant AND id = @event), 0)
            FROM subscriptions s
            LEFT JOIN LATERAL (
                SELECT id, status FROM all_deliveries
                WHERE tenant_id = @tenant AND event_id = @event AND subscription_id = s.id AND id >= @floor
                ORDER BY id DESC LIMIT 1
            ) d ON true
            WHERE s.tenant_id = @tenant AND CASE WHEN @all THEN s.enabled AND s.deleted_at IS NULL ELSE s.id = ANY (@ids) END
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
                var pending = !reader.IsDBNull(5) && SnakeCase<DeliveryStatus>.Parse(reader.GetString(5)) == DeliveryStatus.Pending;
                if (subscriptionIds is not null)
                {
                    EnsureReachable(subscriptionId, enabled: reader.GetBoolean(1), deleted: reader.GetBoolean(2));
                    if (pending)
                        throw new ApiException(ErrorCodes.DeliveryPending,
                            $"The event is still on its way to {TypeId.Format(TypeId.Subscription, subscriptionId)}.");
                }
                // Who has it on its way gets it anyway.
                else if (pending || !EventTypePattern.MatchesAny(reader.GetFieldValue<string[]>(3), type))
                {
                    continue;
                }
                repetitions.Add(new NewDelivery(tenantId, TypeId.NewGuid(), eventId, subscriptionId, reader.GetInt32(6))
                {
                    ReplayOf = reader.IsDBNull(4) ? null : reader.GetGuid(4),
                });
            }
        }

        var missing = Array.FindIndex(subscriptionIds ?? [], id => !found.Contains(id));
        if (missing >= 0)
            throw ApiException.Invalid($"/subscriptionIds/{missing}", "There is no such subscription.");
        await InsertAsync(connection, repetitions, cancellationToken);
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

    private static async Task InsertAsync(NpgsqlConnection connection, List<NewDelivery> repetitions, CancellationToken cancellationToken)
    {
        if (repetitions.Count == 0)
            return;
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                EventState.Lock(repetitions.ConvertAll(r => r.EventId)),
                DeliveryQueue.Enqueue(repetitions),
                DeadLetterChanges.Replay(repetitions),
                new($"SELECT pg_notify('{Notifications.Deliveries}', '')"),
            },
        };
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
