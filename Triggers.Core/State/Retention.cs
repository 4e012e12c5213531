using Npgsql;

namespace Triggers.Core.State;

/// <summary>A day of a table that is gone.</summary>
/// <param name="Table">Which table.</param>
/// <param name="Day">UTC.</param>
/// <param name="Rows">What was in it.</param>
public sealed record DroppedDay(string Table, DateOnly Day, long Rows);

/// <summary>
/// Drops whole days of the tables with history once they are old enough, and with events what hangs on them: their external ids, their
/// places in the inbox, their dead letters that are closed. Never a day with an event that is queued, unprojected, or has an unresolved
/// dead letter.
/// </summary>
/// <remarks>
/// A day is first detached, which nobody notices, then taken leave of in portions, then dropped. Whatever is interrupted goes on at the
/// next call. Not <c>DETACH … CONCURRENTLY</c>: Postgres refuses it beside a default partition. The lock is waited for a moment only.
/// </remarks>
public static class Retention
{
    private const string LockTimeout = "SET LOCAL lock_timeout = '100ms'";
    private const int Portion = 5_000;

    /// <summary>Whether a day, from <c>@first</c> to below <c>@next</c>, has anything that is not over.</summary>
    private const string IsHeld =
        $"""
        SELECT EXISTS (
                SELECT FROM delivery_queue
                WHERE event_id >= @first AND event_id < @next OR id >= @first AND id < @next)
            OR EXISTS (
                SELECT FROM dead_letters
                WHERE state IN ('open', 'replaying')
                    AND (event_id >= @first AND event_id < @next OR delivery_id >= @first AND delivery_id < @next))
            OR EXISTS (SELECT FROM inbox WHERE event_id >= @first AND event_id < @next AND deliver_at IS NOT NULL AND deliver_at > now())
            OR EXISTS (SELECT FROM fan_outs WHERE event_id >= @first AND event_id < @next)
            OR EXISTS (SELECT FROM events WHERE id >= @first AND id < @next AND seq >= {EventState.Position})
        """;

    /// <summary>Drops what is old enough. One process at a time; the others find nothing to do.</summary>
    /// <param name="connection">Open, with no transaction.</param>
    /// <param name="keep">For each table of <see cref="Partitions.Tables"/> how many days are kept behind today.</param>
    /// <param name="cancellationToken">Ends it.</param>
    public static async Task<List<DroppedDay>> DropAsync(
        NpgsqlConnection connection, Func<string, int> keep, CancellationToken cancellationToken)
    {
        var dropped = new List<DroppedDay>();
        await using (
            var take = new NpgsqlCommand($"SELECT pg_try_advisory_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Retention})", connection))
        {
            if (await take.ExecuteScalarAsync(cancellationToken) is not true)
                return dropped;
        }
        var today = await Partitions.TodayAsync(connection, cancellationToken);
        foreach (var table in Partitions.Tables)
        {
            foreach (var day in await DaysBeforeAsync(connection, table, today.AddDays(-keep(table)), cancellationToken))
            {
                if (await SetAsideAsync(connection, table, day, cancellationToken))
                    dropped.Add(new DroppedDay(table, day, await DropAsync(connection, table, day, cancellationToken)));
            }
        }
        await using var let = new NpgsqlCommand(
            $"SELECT pg_advisory_unlock({AdvisoryLocks.Class}, {AdvisoryLocks.Retention})", connection);
        await let.ExecuteScalarAsync(cancellationToken);
        return dropped;
    }

    /// <summary>Days that have a partition, attached or detached already, or rows in the default partition.</summary>
    private static async Task<List<DateOnly>> DaysBeforeAsync(
        NpgsqlConnection connection, string table, DateOnly before, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"""
            SELECT to_date(right(relname, 8), 'YYYYMMDD') AS day FROM pg_class
            WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND relkind = 'r'
                AND relname ~ '^{table}_[0-9]{"{8}"}$'
                AND to_date(right(relname, 8), 'YYYYMMDD') < @before
            UNION
            SELECT DISTINCT (to_timestamp(('x' || left(replace({Partitions.Key(table)}::text, '-', ''),
                12))::bit(48)::bigint / 1000) AT TIME ZONE 'UTC')::date
            FROM {table}_default WHERE {Partitions.Key(table)} < uuid_at(@before::timestamp AT TIME ZONE 'UTC')
            ORDER BY day
            """, connection);
        command.Parameters.AddWithValue("before", before);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var days = new List<DateOnly>();
        while (await reader.ReadAsync(cancellationToken))
            days.Add(reader.GetFieldValue<DateOnly>(0));
        return days;
    }

    /// <summary>Makes a day a table of its own that nobody reads. False where something holds it, or somebody holds up the lock.</summary>
    private static async Task<bool> SetAsideAsync(
        NpgsqlConnection connection, string table, DateOnly day, CancellationToken cancellationToken)
    {
        if (await IsHeldAsync(connection, day, cancellationToken))
            return false;
        var child = Child(table, day);
        try
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            await using (var detach = new NpgsqlCommand(
                $"""
                {LockTimeout};
                DO $$ BEGIN
                    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass('{child}')) THEN
                        ALTER TABLE {table} DETACH PARTITION {child};
                    ELSE
                        CREATE TABLE IF NOT EXISTS {child} (LIKE {table} INCLUDING ALL);
                    END IF;
                END $$
                """, connection))
                await detach.ExecuteNonQueryAsync(cancellationToken);
            // Whoever makes a delivery of an event reads it in the same transaction: they are done, or come too late.
            if (await IsHeldAsync(connection, day, cancellationToken))
                return false;
            await transaction.CommitAsync(cancellationToken);
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.LockNotAvailable)
        {
            return false;
        }
        // What the default partition caught of that day.
        await InPortionsAsync(connection,
            $"""
            WITH caught AS (
                DELETE FROM {table}_default WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM {table}_default WHERE {Partitions.Key(table)} >= @first
                        AND {Partitions.Key(table)} < @next LIMIT {Portion}))
                RETURNING *
            )
            INSERT INTO {child} SELECT * FROM caught
            """, day, cancellationToken);
        return true;
    }

    private static async Task<bool> IsHeldAsync(NpgsqlConnection connection, DateOnly day, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(IsHeld, connection);
        AddRange(command, day);
        return await command.ExecuteScalarAsync(cancellationToken) is true;
    }

    private static async Task<long> DropAsync(NpgsqlConnection connection, string table, DateOnly day, CancellationToken cancellationToken)
    {
        var child = Child(table, day);
        if (table == "events")
        {
            await InPortionsAsync(connection,
                $"""
                DELETE FROM request_keys WHERE ctid = ANY (ARRAY(
                    SELECT k.ctid FROM {child} e
                    JOIN request_keys k ON k.tenant_id = e.tenant_id AND k.kind = 1
                        AND k.key_hash = sha256(convert_to(e.external_id, 'UTF8')) AND k.event_id = e.id
                    WHERE e.external_id IS NOT NULL LIMIT {Portion}))
                """, day, cancellationToken);
            await InPortionsAsync(connection,
                "DELETE FROM inbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM inbox WHERE event_id >= @first AND event_id < @next LIMIT "
                    + $"{Portion}))",
                day, cancellationToken);
            await InPortionsAsync(connection,
                $"""
                DELETE FROM dead_letters WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM dead_letters WHERE event_id >= @first AND event_id < @next
                        AND state IN ('resolved', 'discarded') LIMIT {Portion}))
                """, day, cancellationToken);
        }
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await using var count = new NpgsqlCommand($"SELECT count(*) FROM {child}", connection);
        var rows = (long)(await count.ExecuteScalarAsync(cancellationToken))!;
        await using var drop = new NpgsqlCommand($"DROP TABLE {child}", connection);
        await drop.ExecuteNonQueryAsync(cancellationToken);
        await transaction.CommitAsync(cancellationToken);
        return rows;
    }

    /// <summary>So that no transaction is long.</summary>
    private static async Task InPortionsAsync(NpgsqlConnection connection, string sql, DateOnly day, CancellationToken cancellationToken)
    {
        int affected;
        do
        {
            await using var command = new NpgsqlCommand(sql, connection);
            AddRange(command, day);
            affected = await command.ExecuteNonQueryAsync(cancellationToken);
        }
        while (affected == Portion);
    }

    private static void AddRange(NpgsqlCommand command, DateOnly day)
    {
        command.Parameters.AddWithValue("first", TypeId.At(new DateTimeOffset(day, TimeOnly.MinValue, TimeSpan.Zero)));
        command.Parameters.AddWithValue("next", TypeId.At(new DateTimeOffset(day.AddDays(1), TimeOnly.MinValue, TimeSpan.Zero)));
    }

    private static string Child(string table, DateOnly day) => $"{table}_{day:yyyyMMdd}";
}
