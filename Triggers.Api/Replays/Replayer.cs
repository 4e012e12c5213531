using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Api.Replays;

/// <summary>
/// Repeats deliveries: new rows, linked to what they repeat. History is never edited. A replay of a settled event does not reopen
/// it; the dead letter of what is repeated waits for how the replay ends.
/// </summary>
internal sealed class Replayer(NpgsqlDataSource dataSource)
{
    private sealed record Repetition(Guid Id, Guid EventId, Guid SubscriptionId, Guid? ReplayOf, bool Test);

    /// <summary>Repeats one delivery.</summary>
    /// <returns>The id of the new one; null when the tenant has no such delivery.</returns>
    public async Task<Guid?> ReplayDeliveryAsync(Guid tenantId, Guid deliveryId, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        Repetition repetition;
        await using (var command = new NpgsqlCommand(
            """
            SELECT d.event_id, d.subscription_id, d.status, d.test, s.enabled, s.deleted_at IS NOT NULL
            FROM deliveries d JOIN subscriptions s ON s.id = d.subscription_id
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
            repetition = new Repetition(TypeId.NewGuid(), reader.GetGuid(0), reader.GetGuid(1), deliveryId, reader.GetBoolean(3));
        }
        await InsertAsync(connection, tenantId, [repetition], cancellationToken);
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
        var repetitions = new List<Repetition>();
        var found = new HashSet<Guid>();
        await using (var command = new NpgsqlCommand(
            """
            SELECT s.id, s.enabled, s.deleted_at IS NOT NULL, s.event_types, d.id, d.status
            FROM subscriptions s
            LEFT JOIN LATERAL (
                SELECT id, status FROM deliveries
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
                repetitions.Add(new Repetition(TypeId.NewGuid(), eventId, subscriptionId, reader.IsDBNull(4) ? null : reader.GetGuid(4), Test: false));
            }
        }

        var missing = Array.FindIndex(subscriptionIds ?? [], id => !found.Contains(id));
        if (missing >= 0)
            throw ApiException.Invalid($"/subscriptionIds/{missing}", "There is no such subscription.");
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

    private static async Task InsertAsync(NpgsqlConnection connection, Guid tenantId, List<Repetition> repetitions, CancellationToken cancellationToken)
    {
        if (repetitions.Count == 0)
            return;
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

        Add("UPDATE open_events SET open = open + cardinality(@ids) WHERE tenant_id = @tenant AND event_id = @events[1]");
        Add("""
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at, replay_of, test)
            SELECT @tenant, r.id, r.event_id, r.subscription_id, now(), r.replay_of, r.test
            FROM unnest(@ids, @events, @subscriptions, @replayed, @tests) AS r (id, event_id, subscription_id, replay_of, test)
            """);
        Add("""
            UPDATE dead_letters d SET state = 'replaying', replay_delivery_id = r.id
            FROM unnest(@ids, @replayed) AS r (id, replay_of)
            WHERE d.tenant_id = @tenant AND d.delivery_id = r.replay_of AND d.state IN ('open', 'replaying')
            """);
        batch.BatchCommands.Add(new NpgsqlBatchCommand($"SELECT pg_notify('{Notifications.Deliveries}', '')"));
        await batch.ExecuteNonQueryAsync(cancellationToken);
    }
}
