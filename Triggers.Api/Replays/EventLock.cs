using Npgsql;

namespace Triggers.Api.Replays;

/// <summary>Held, to the end of the transaction, by whoever looks at what became of an event and acts on it: of two at once the second sees what the first did.</summary>
internal static class EventLock
{
    /// <summary>Takes it. What is read by a later statement of a read-committed transaction is what the holder before has left.</summary>
    public static async Task TakeAsync(NpgsqlConnection connection, Guid eventId, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand("SELECT pg_advisory_xact_lock(hashtextextended('event ' || $1::text, 0))", connection)
        {
            Parameters = { new() { Value = eventId } },
        };
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
