using Npgsql;

namespace Triggers.Core.State;

/// <summary>
/// The daily partitions of the tables with history. What no day covers goes to their default partitions, so a missing day stops nobody.
/// </summary>
public static class Partitions
{
    /// <summary>The tables that have them.</summary>
    public static readonly IReadOnlyList<string> Tables = ["events", "deliveries", "attempts", "acknowledgements"];

    /// <summary>The column a table is partitioned by.</summary>
    internal static string Key(string table) => table switch
    {
        "attempts" => "delivery_id",
        "acknowledgements" => "event_id",
        _ => "id",
    };

    // Whoever writes waits behind us while we wait for the lock: so not for long. There is another time.
    private const string LockTimeout = "SET LOCAL lock_timeout = '200ms'";

    /// <summary>From yesterday (UTC, by the database's clock) to so many days ahead.</summary>
    public static async Task MakeAsync(NpgsqlConnection connection, int daysAhead, CancellationToken cancellationToken)
    {
        var today = await TodayAsync(connection, cancellationToken);
        await MakeAsync(connection, today.AddDays(-1), today.AddDays(daysAhead), cancellationToken);
    }

    /// <summary>
    /// From one day to another. Each is a transaction of its own; one that has to wait for a lock is left to the next time.
    /// </summary>
    public static async Task MakeAsync(NpgsqlConnection connection, DateOnly first, DateOnly last, CancellationToken cancellationToken)
    {
        for (var day = first; day <= last; day = day.AddDays(1))
        {
            foreach (var table in Tables)
            {
                // A large default partition takes three steps; see make_partition_beside_default.
                for (var step = 0; step < 3 && !await TryMakeAsync(connection, table, day, cancellationToken); step++)
                {
                }
            }
        }
    }

    internal static async Task<DateOnly> TodayAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand("SELECT (now() AT TIME ZONE 'UTC')::date", connection);
        return (DateOnly)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    private static async Task<bool> TryMakeAsync(
        NpgsqlConnection connection, string table, DateOnly day, CancellationToken cancellationToken)
    {
        try
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands = { new(LockTimeout), new(
                    "SELECT make_partition($1, $2)") { Parameters = { new() { Value = table }, new() { Value = day } } } },
            };
            var made = await batch.ExecuteScalarAsync(cancellationToken) is true;
            await transaction.CommitAsync(cancellationToken);
            return made;
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.LockNotAvailable)
        {
            return false;
        }
    }
}
