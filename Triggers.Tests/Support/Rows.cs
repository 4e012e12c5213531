using Npgsql;
using Triggers.Core;

namespace Triggers.Tests.Support;

/// <summary>Writes what the delivery service would write, so that tests of the API need not wait for it to come about.</summary>
internal sealed class Rows(NpgsqlDataSource dataSource)
{
    /// <summary>The projection has seen everything, and nobody subscribed.</summary>
    public Task ProjectAsync() => ExecuteAsync(
        """
        WITH seen AS (
            SELECT tenant_id, id, seq FROM events WHERE seq >= (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0)
        ), opened AS (
            INSERT INTO open_events (tenant_id, event_id, open) SELECT tenant_id, id, 0 FROM seen
        )
        UPDATE log_positions SET next = greatest(next, (SELECT max(seq) + 1 FROM seen)) WHERE log = 'postgres' AND partition = 0
        """);

    /// <summary>A pending delivery of an event that the projection has seen.</summary>
    public async Task<string> AddDeliveryAsync(TestTenant tenant, string eventId, string subscriptionId)
    {
        var id = TypeId.NewGuid();
        await ExecuteAsync(
            """
            WITH opened AS (UPDATE open_events SET open = open + 1 WHERE tenant_id = @tenant AND event_id = @event)
            INSERT INTO deliveries (tenant_id, id, event_id, subscription_id, next_attempt_at)
            VALUES (@tenant, @id, @event, @subscription, now() + interval '1 hour')
            """,
            ("tenant", tenant.Key), ("event", Uuid(eventId)), ("subscription", Uuid(subscriptionId)), ("id", id));
        return TypeId.Format(TypeId.Delivery, id);
    }

    /// <summary>The delivery succeeded, at its first attempt.</summary>
    public Task SucceedAsync(string deliveryId) => ExecuteAsync(
        """
        WITH ended AS (
            UPDATE deliveries SET status = 'succeeded', next_attempt_at = NULL, finalized_at = now(), last_outcome = 'delivered', last_status_code = 200
            WHERE id = @id RETURNING tenant_id, id, event_id
        ), counted AS (
            UPDATE open_events o SET open = open - 1, done = done + 1 FROM ended e WHERE o.tenant_id = e.tenant_id AND o.event_id = e.event_id
        )
        INSERT INTO attempts (delivery_id, claim, tenant_id, id, number, started_at, duration_ms, outcome, status_code, response_headers, response_body)
        SELECT id, 1, tenant_id, @attempt, 1, now(), 12, 'delivered', 200, '{"content-type":"text/plain"}', 'thanks' FROM ended
        """, ("id", Uuid(deliveryId)), ("attempt", TypeId.NewGuid()));

    /// <summary>The delivery failed for good, at its first attempt.</summary>
    public Task DieAsync(string deliveryId) => ExecuteAsync(
        """
        WITH ended AS (
            UPDATE deliveries SET status = 'dead_lettered', next_attempt_at = NULL, finalized_at = now(), retry_count = 1,
                last_outcome = 'http_status', last_status_code = 503
            WHERE id = @id RETURNING tenant_id, id, event_id, subscription_id
        ), counted AS (
            UPDATE open_events o SET open = open - 1, dead = dead + 1 FROM ended e WHERE o.tenant_id = e.tenant_id AND o.event_id = e.event_id
        )
        INSERT INTO dead_letters (tenant_id, delivery_id, event_id, subscription_id, reason, attempts, last_outcome, last_status_code)
        SELECT tenant_id, id, event_id, subscription_id, 'exhausted', 1, 'http_status', 503 FROM ended
        """, ("id", Uuid(deliveryId)));

    /// <summary>Removes what is settled, as every transition does.</summary>
    public Task SettleAsync() => ExecuteAsync(
        "DELETE FROM open_events WHERE open = 0 AND dead = 0 AND (done > 0 OR acknowledged_at IS NOT NULL)");

    public async Task<T> ScalarAsync<T>(string sql, params (string Name, object Value)[] parameters)
    {
        await using var command = Command(sql, parameters);
        return (T)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
    }

    public async Task ExecuteAsync(string sql, params (string Name, object Value)[] parameters)
    {
        await using var command = Command(sql, parameters);
        await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
    }

    /// <summary>The uuid of an id, whatever its prefix.</summary>
    public static Guid Uuid(string id) => TypeId.TryParse(id[..3], id, out var uuid) ? uuid : throw new FormatException(id);

    private NpgsqlCommand Command(string sql, (string Name, object Value)[] parameters)
    {
        var command = dataSource.CreateCommand(sql);
        foreach (var (name, value) in parameters)
            command.Parameters.AddWithValue(name, value);
        return command;
    }
}
