using Npgsql;
using Triggers.Core;
using Triggers.Core.State;
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
internal sealed class Acknowledger(NpgsqlDataSource dataSource, ProjectionProgress? progress = null)
{
    /// <summary>Acknowledges events that exist. One that is accepted and not stored yet is waited for, briefly.</summary>
    public async Task<IReadOnlyDictionary<Guid, AcknowledgeStatus>> AcknowledgeAsync(
        Guid tenantId, IReadOnlyCollection<Guid> ids, TimeLimit limit, CancellationToken cancellationToken)
    {
        var result = new Dictionary<Guid, AcknowledgeStatus>();
        await TryAsync(tenantId, [.. ids.Distinct()], result, cancellationToken);
        if (progress is null || result.Where(r => r.Value == AcknowledgeStatus.NotFound).Select(r => r.Key)
            .ToArray() is not { Length: > 0 } missing)
            return result;

        if (await progress.WaitForAsync(tenantId, missing, limit.Less(RequestBudget.AfterWait), cancellationToken))
        {
            await TryAsync(tenantId, missing, result, cancellationToken);
        }
        else
        {
            foreach (var id in missing)
                result[id] = AcknowledgeStatus.NotYetVisible;
        }
        return result;
    }

    private async Task TryAsync(Guid tenantId, Guid[] ids, Dictionary<Guid, AcknowledgeStatus> result, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { EventState.Acknowledge(tenantId, ids) } };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
            result[reader.GetGuid(0)] = SnakeCase<AcknowledgeStatus>.Parse(reader.GetString(1));
    }
}
