using System.Net.Sockets;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Npgsql;

namespace Triggers.Core;

/// <summary>How every process of Triggers talks to Postgres.</summary>
public static class Storage
{
    private const string Defaults = "Timeout=2;Command Timeout=30;Max Auto Prepare=100;Auto Prepare Min Usages=2;Keepalive=5";

    /// <summary>The connection string with what is right for every pool of ours, where it does not say otherwise itself.</summary>
    /// <param name="connectionString">An Npgsql connection string.</param>
    /// <param name="applicationName">Shown in pg_stat_activity.</param>
    public static string WithDefaults(string connectionString, string applicationName) =>
        // The later of two equal keys wins. (A builder can't tell what was set from what was not.)
        $"{Defaults};Application Name={applicationName};{connectionString}";

    /// <summary>A pool over a connection string, prepared for the statements that repeat.</summary>
    /// <param name="connectionString">An Npgsql connection string; what it sets itself stays.</param>
    /// <param name="applicationName">Shown in pg_stat_activity.</param>
    public static NpgsqlDataSourceBuilder Builder(string connectionString, string applicationName)
    {
        var builder = new NpgsqlDataSourceBuilder(WithDefaults(connectionString, applicationName));
        builder.EnableDynamicJson();
        return builder;
    }

    /// <summary>EF Core over that pool.</summary>
    public static DbContextOptionsBuilder UseTriggers(this DbContextOptionsBuilder options, NpgsqlDataSource dataSource) => options
        .UseNpgsql(dataSource)
        .UseSnakeCaseNamingConvention()
        .UseQueryTrackingBehavior(QueryTrackingBehavior.NoTracking)
        // The schema is written in SQL, so there is no model snapshot to compare with.
        .ConfigureWarnings(w => w.Ignore(RelationalEventId.PendingModelChangesWarning));

    /// <summary>
    /// The one rule for "Postgres is away": lost, starting, overloaded, shutting down, or busy with somebody else. To be waited out.
    /// Whatever else it says, of our statement or of our data, is no reason to try the same again.
    /// </summary>
    public static bool IsAway(Exception e) => e switch
    {
        // Connection, no right to connect, no such database, rollback (deadlock), resources, operator intervention, system error.
        PostgresException
        {
            SqlState: ['0', '8', ..] or ['2', '8', ..] or ['3', 'D', ..] or ['4', '0', ..] or ['5', '3', ..] or ['5', '7', ..]
                or ['5', '8', ..]
        } => true,
        PostgresException
        {
            SqlState: PostgresErrorCodes.LockNotAvailable or PostgresErrorCodes.ReadOnlySqlTransaction or "25P03" or "25P04"
        } => true,
        PostgresException or NpgsqlOperationInProgressException => false,
        NpgsqlException or TimeoutException or SocketException or IOException => true,
        // Npgsql about a connection that broke while nobody used it.
        InvalidOperationException { Source: "Npgsql", Message: "Connection is not open" } => true,
        // Npgsql reads answers wrongly after a statement that was broken off while it was being prepared. The connection goes.
        { Source: "Npgsql" } when e.Message.StartsWith("Received unexpected backend message", StringComparison.Ordinal) => true,
        // What wraps: EF, a transaction of a connection that broke.
        { InnerException: { } inner } => IsAway(inner),
        _ => false,
    };

    /// <summary>Whether Postgres refused the data of a statement: with other data it might have gone.</summary>
    public static bool IsRefusal(Exception e) => e is PostgresException { SqlState: ['2', '2' or '3', ..] or ['5', '4', ..] };
}
