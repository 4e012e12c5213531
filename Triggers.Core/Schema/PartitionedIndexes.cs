using Npgsql;

namespace Triggers.Core.Schema;

/// <summary>
/// Builds, one partition after another and without holding up who writes, the indexes that a migration has only declared: those of
/// partitioned tables that were not empty. What was interrupted goes on at the next call.
/// </summary>
internal static class PartitionedIndexes
{
    /// <summary>Ends when every index is there. Any number of processes may call it at once; one does it.</summary>
    public static async Task CompleteAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await connection.OpenAsync(cancellationToken);
        try
        {
            // Not by waiting for the lock in Postgres: whoever builds an index waits for all who wait there.
            do
            {
                if ((await MissingAsync(connection, cancellationToken)).Count == 0)
                    return;
            }
            while (!await TryLockAsync(connection, cancellationToken));
            foreach (var missing in await MissingAsync(connection, cancellationToken))
            {
                if (missing.IsBroken)
                    await ExecuteAsync(connection, $"DROP INDEX CONCURRENTLY {missing.Name}", cancellationToken);
                await ExecuteAsync(connection, missing.Create, cancellationToken);
                await ExecuteAsync(connection, $"ALTER INDEX {missing.Parent} ATTACH PARTITION {missing.Name}", cancellationToken);
            }
            // Others have taken their place.
            await ExecuteAsync(
                connection, "DROP INDEX IF EXISTS events_correlation, events_of_correlation, events_type", cancellationToken);
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
        await Task.Delay(TimeSpan.FromMilliseconds(500), cancellationToken);
        return false;
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

    private static async Task ExecuteAsync(NpgsqlConnection connection, string sql, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(cancellationToken);
    }
}
