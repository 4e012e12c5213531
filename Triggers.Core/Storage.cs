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
}
