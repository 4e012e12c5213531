using Npgsql;
using Triggers.Api.Errors;
using Triggers.Core.State;

namespace Triggers.Api.Events;

/// <summary>Takes events back before their time comes.</summary>
internal sealed class EventCanceller(NpgsqlDataSource dataSource)
{
    /// <summary>Takes an event back that is stored; again changes nothing.</summary>
    /// <exception cref="ApiException"><c>not_scheduled</c>: its time has come, it has none, or somebody was sent it already.</exception>
    public async Task CancelAsync(Guid tenantId, Guid eventId, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        var (wasCancelled, isAhead) = await HoldAsync(connection, tenantId, eventId, cancellationToken);
        if (wasCancelled)
            return;
        if (!isAhead)
            throw new ApiException(ErrorCodes.NotScheduled, "It has no `deliverAt` that is still to come.");
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { EventTimes.Cancel(tenantId, eventId) } };
        if (await batch.ExecuteScalarAsync(cancellationToken) is not true)
            throw new ApiException(ErrorCodes.NotScheduled, "Its time has just come, or somebody was sent it before, at request.");
        await transaction.CommitAsync(cancellationToken);
    }

    private static async Task<(bool WasCancelled, bool IsAhead)> HoldAsync(
        NpgsqlConnection connection, Guid tenantId, Guid eventId, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection);
        foreach (var command in EventTimes.Hold(tenantId, eventId))
            batch.BatchCommands.Add(command);
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.NextResultAsync(cancellationToken);
        return await reader.ReadAsync(cancellationToken) ? (reader.GetBoolean(0), reader.GetBoolean(1))
            : throw ApiException.NotFound("event");
    }
}
