using Npgsql;
using Triggers.Api.Events;
using Triggers.Core;
using Triggers.EventLog.Kafka;

namespace Triggers.Api.Inbox;

/// <summary>What became of acknowledging one event.</summary>
internal enum AcknowledgeStatus
{
    /// <summary>It has left the inbox for good, now or before.</summary>
    Acknowledged,

    /// <summary>The tenant has no such event.</summary>
    NotFound,

    /// <summary>It is accepted, and not processed yet: come again.</summary>
    NotYetVisible,
}

/// <summary>Takes events out of the inbox.</summary>
internal sealed class Acknowledger(NpgsqlDataSource dataSource, TimeProvider time, ProjectionProgress? progress = null)
{
    /// <summary>
    /// Acknowledges events that exist. One that the projection has not reached is waited for, briefly: there is no row yet to note it
    /// in. Settled events are acknowledged already.
    /// </summary>
    public async Task<IReadOnlyDictionary<Guid, AcknowledgeStatus>> AcknowledgeAsync(
        Guid tenantId, IReadOnlyCollection<Guid> ids, CancellationToken cancellationToken)
    {
        var result = new Dictionary<Guid, AcknowledgeStatus>();
        var open = ids.Distinct().ToArray();
        var started = time.GetTimestamp();
        for (var pause = TimeSpan.FromMilliseconds(20); ; pause *= 2)
        {
            await TryAsync(tenantId, open, result, cancellationToken);
            if (progress is not null && open.Where(id => result[id] == AcknowledgeStatus.NotFound).ToArray() is { Length: > 0 } missing)
            {
                if (await progress.WaitForAsync(tenantId, missing, cancellationToken))
                    await TryAsync(tenantId, missing, result, cancellationToken);
                else
                    foreach (var id in missing)
                        result[id] = AcknowledgeStatus.NotYetVisible;
            }
            open = [.. open.Where(id => result[id] == AcknowledgeStatus.NotYetVisible)];
            if (open.Length == 0 || time.GetElapsedTime(started) + pause > RequestBudget.Visibility)
                return result;
            await Task.Delay(pause, time, cancellationToken);
        }
    }

    private async Task TryAsync(Guid tenantId, Guid[] ids, Dictionary<Guid, AcknowledgeStatus> result, CancellationToken cancellationToken)
    {
        // The rows are locked first, in the order everybody locks them, and judged as they are then: a delivery that ends meanwhile
        // changes what acknowledging has to do.
        await using var command = dataSource.CreateCommand(
            """
            WITH wanted AS (
                SELECT unnest(@ids) AS id
            ),
            locked AS MATERIALIZED (
                SELECT event_id, open = 0 AND dead = 0 AS settles FROM open_events
                WHERE tenant_id = @tenant AND event_id = ANY (@ids)
                ORDER BY event_id FOR UPDATE
            ),
            settled AS (
                DELETE FROM open_events o USING locked l WHERE o.tenant_id = @tenant AND o.event_id = l.event_id AND l.settles
            ),
            noted AS (
                UPDATE open_events o SET acknowledged_at = coalesce(o.acknowledged_at, now())
                FROM locked l WHERE o.tenant_id = @tenant AND o.event_id = l.event_id AND NOT l.settles
            )
            SELECT w.id, CASE
                WHEN e.id IS NULL THEN 'not_found'
                WHEN l.event_id IS NULL AND e.seq >= (SELECT next FROM log_positions WHERE log = 'postgres' AND partition = 0) THEN 'not_yet_visible'
                ELSE 'acknowledged' END
            FROM wanted w
            LEFT JOIN events e ON e.tenant_id = @tenant AND e.id = w.id
            LEFT JOIN locked l ON l.event_id = w.id
            """);
        command.Parameters.AddWithValue("tenant", tenantId);
        command.Parameters.AddWithValue("ids", ids);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            result[reader.GetGuid(0)] = SnakeCase<AcknowledgeStatus>.Parse(reader.GetString(1));
    }
}
