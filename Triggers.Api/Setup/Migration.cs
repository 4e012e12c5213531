using Microsoft.EntityFrameworkCore;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Schema;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Setup;

/// <summary><c>Triggers.Api --migrate</c>: creates database and schema, and ends. Nothing else changes the schema.</summary>
internal static partial class Migration
{
    private static readonly TimeSpan MaxWait = TimeSpan.FromSeconds(60);

    /// <summary>Whether this start is one.</summary>
    public static bool IsAskedFor(string[] args) => args.Contains("--migrate");

    /// <summary>Waits for Postgres to answer, brings the schema up, and gives the exit code.</summary>
    public static async Task<int> RunAsync(IServiceProvider services)
    {
        var time = services.GetRequiredService<TimeProvider>();
        var logger = services.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(Migration).FullName!);
        await using var scope = services.CreateAsyncScope();
        var db = scope.ServiceProvider.GetRequiredService<TriggersDbContext>();
        db.Database.SetCommandTimeout(TimeSpan.FromMinutes(10));
        var started = time.GetTimestamp();
        while (true)
        {
            try
            {
                var migrated = time.GetTimestamp();
                if (await SchemaVersion.PendingAsync(db, CancellationToken.None) is { Count: > 0 } pending)
                    Log.Migrating(logger, string.Join(", ", pending));
                if (await QueueMigrationTimeAsync(db) is { } expected)
                    Log.Moving(logger, expected.Deliveries, Math.Ceiling(expected.Time.TotalSeconds));
                await SchemaVersion.MigrateAsync(db, CancellationToken.None);
                var protector = services.GetRequiredService<SecretProtector>();
                if (await protector.ProtectAllAsync(db, CancellationToken.None) is > 0 and var encrypted)
                    Log.Encrypted(logger, encrypted);
                Log.UpToDate(logger, time.GetElapsedTime(migrated).TotalSeconds);
                return 0;
            }
            catch (Exception e) when (IsNotThereYet(e))
            {
                if (time.GetElapsedTime(started) > MaxWait)
                {
                    Log.NoAnswer(logger, e.Message);
                    return 1;
                }
                await Task.Delay(TimeSpan.FromMilliseconds(500), time);
            }
            catch (Exception e) when (e.GetBaseException() is PostgresException)
            {
                Log.Refused(logger, e);
                return 1;
            }
        }
    }

    /// <summary>What 0010_queue_and_history will move, and about how long it takes; null when it is not about to.</summary>
    private static async Task<(long Deliveries, TimeSpan Time)?> QueueMigrationTimeAsync(TriggersDbContext db)
    {
        var connection = (NpgsqlConnection)db.Database.GetDbConnection();
        if (!(await SchemaVersion.PendingAsync(db, CancellationToken.None)).Contains("0010_queue_and_history")
            || (await db.Database.GetAppliedMigrationsAsync()).LastOrDefault() is null)
            return null;
        await connection.OpenAsync();
        try
        {
            await using var command = new NpgsqlCommand("SELECT count(*) FROM deliveries WHERE status = 'pending'", connection);
            var pending = (long)(await command.ExecuteScalarAsync())!;
            return (pending, TimeSpan.FromSeconds(1) + pending * TimeSpan.FromMicroseconds(60));
        }
        finally
        {
            await connection.CloseAsync();
        }
    }

    // Refused what we said (a wrong password, no right to create the database) is final; being away or starting is not. Nor is that
    // another process has just created the same database or table: creating one takes no lock that a second could wait for. Nor that
    // somebody is at a table that everybody would wait for behind us.
    private static bool IsNotThereYet(Exception e) => e switch
    {
        PostgresException postgres => postgres.SqlState is PostgresErrorCodes.CannotConnectNow or PostgresErrorCodes.AdminShutdown
            or PostgresErrorCodes.TooManyConnections or PostgresErrorCodes.DuplicateDatabase or PostgresErrorCodes.DuplicateTable
            or PostgresErrorCodes.DuplicateColumn or PostgresErrorCodes.DuplicateFunction or PostgresErrorCodes.DuplicateObject
            or PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.ObjectInUse or PostgresErrorCodes.LockNotAvailable,
        NpgsqlException or TimeoutException => true,
        { InnerException: { } inner } => IsNotThereYet(inner),
        _ => false,
    };

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Information, Message = "The schema is up to date; it took {Seconds:0.0} s")]
        public static partial void UpToDate(ILogger logger, double seconds);

        [LoggerMessage(EventId = 2, Level = LogLevel.Error, Message = "Postgres does not answer: {Problem}")]
        public static partial void NoAnswer(ILogger logger, string problem);

        [LoggerMessage(EventId = 3, Level = LogLevel.Information, Message = "Bringing the schema up to date: {Migrations}")]
        public static partial void Migrating(ILogger logger, string migrations);

        [LoggerMessage(EventId = 4, Level = LogLevel.Information,
            Message =
                "Moving {Deliveries} pending deliveries into the queue takes about {Seconds} s. Events are accepted meanwhile; no "
                    + "delivery process of the version before may run")]
        public static partial void Moving(ILogger logger, long deliveries, double seconds);

        [LoggerMessage(EventId = 6, Level = LogLevel.Information,
            Message = "The secrets of {Subscriptions} subscriptions are now encrypted")]
        public static partial void Encrypted(ILogger logger, int subscriptions);

        [LoggerMessage(EventId = 5, Level = LogLevel.Error, Message = "The schema can't be brought up to date")]
        public static partial void Refused(ILogger logger, Exception exception);
    }
}
