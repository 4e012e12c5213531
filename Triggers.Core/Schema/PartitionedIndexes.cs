using Npgsql;

namespace Triggers.Core.Schema;

/// <summary>
/// Builds, one partition after another and without holding up who writes, the indexes that a migration has only declared: those of
/// partitioned tables that were not empty. What was interrupted goes on at the next call.
/// </summary>
internal static class PartitionedIndexes
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500);

    /// <summary>Others have taken their place.</summary>
    private static readonly string[] s_superseded = ["events_correlation", "events_of_correlation", "events_type"];

    /// <summary>Ends when every index is there. Any number of processes may call it at once; one does it.</summary>
    public static async Task CompleteAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await connection.OpenAsync(cancellationToken);
        try
        {
            // Not by waiting for the lock in Postgres: whoever builds an index waits for all who wait there.
            do
            {
                if ((await MissingAsync(connection, cancellationToken)).Count == 0
                    && (await SupersededAsync(connection, cancellationToken)).Length == 0)
                    return;
            }
            while (!await TryLockAsync(connection, cancellationToken));
            foreach (var missing in await MissingAsync(connection, cancellationToken))
            {
                if (missing.IsBroken)
                    await ExecuteAsync(connection, $"DROP INDEX CONCURRENTLY {missing.Name}", cancellationToken);
                await ExecuteAsync(connection, missing.Create, cancellationToken);
                await ChangeAsync(connection, $"ALTER INDEX {missing.Parent} ATTACH PARTITION {missing.Name}", cancellationToken);
            }
            foreach (var index in await SupersededAsync(connection, cancellationToken))
                await ChangeAsync(connection, $"DROP INDEX {index}", cancellationToken);
        }
        finally
        {
            // A pool that resets nothing leaves a connection its locks.
            if (connection.State == System.Data.ConnectionState.Open)
                await ExecuteAsync(connection, "SELECT pg_advisory_unlock_all()", CancellationToken.None);
            await connection.CloseAsync();
        }
    }

    private static async Task<bool> TryLockAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            $"SELECT pg_try_advisory_lock({AdvisoryLocks.Class}, {AdvisoryLocks.Indexes})", connection);
        if (await command.ExecuteScalarAsync(cancellationToken) is true)
            return true;
        await Task.Delay(s_pause, cancellationToken);
        return false;
    }

    private static async Task<string[]> SupersededAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            "SELECT coalesce(array_agg(i), '{}') FROM unnest($1) i WHERE to_regclass(i) IS NOT NULL", connection)
        { Parameters = { new() { Value = s_superseded } } };
        return (string[])(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    private sealed record Missing(string Parent, string Name, string Create, bool IsBroken);

    /// <summary>Of each index that is not valid yet, the partitions that have no part of it.</summary>
    private static async Task<List<Missing>> MissingAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT p.parent, p.name,
                regexp_replace(p.definition, '^CREATE INDEX \S+ ON ONLY \S+',
                    format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %s ON %s', p.name, p.leaf)),
                coalesce((SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(p.name)), false)
            FROM (
                SELECT i.indexrelid::regclass::text AS parent, pg_get_indexdef(i.indexrelid) AS definition,
                    h.inhrelid::regclass::text AS leaf,
                    quote_ident(i.indexrelid::regclass::text || replace(h.inhrelid::regclass::text, i.indrelid::regclass::text,
                        '')) AS name
                FROM pg_index i
                JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'I'
                JOIN pg_inherits h ON h.inhparent = i.indrelid
                WHERE NOT i.indisvalid AND i.indrelid::regclass::text IN ('events', 'deliveries')
                    AND NOT EXISTS (
                        SELECT FROM pg_inherits ih JOIN pg_index li ON li.indexrelid = ih.inhrelid
                        WHERE ih.inhparent = i.indexrelid AND li.indrelid = h.inhrelid)
            ) p
            ORDER BY p.leaf DESC, p.parent
            """, connection);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var missing = new List<Missing>();
        while (await reader.ReadAsync(cancellationToken))
            missing.Add(new Missing(reader.GetString(0), reader.GetString(1), reader.GetString(2), reader.GetBoolean(3)));
        return missing;
    }

    /// <summary>
    /// A change that waits for whoever reads the table, a dump for example. Whoever writes would wait behind it, so it waits in between,
    /// not in Postgres.
    /// </summary>
    private static async Task ChangeAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        while (true)
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            await ExecuteAsync(connection, "SET LOCAL lock_timeout = '200ms'", cancellationToken);
            try
            {
                await ExecuteAsync(connection, sql, cancellationToken);
                await transaction.CommitAsync(cancellationToken);
                return;
            }
            catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.LockNotAvailable)
            {
                await transaction.RollbackAsync(cancellationToken);
            }
            await Task.Delay(s_pause, cancellationToken);
        }
    }

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
