using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Npgsql;

namespace Triggers.Core;

/// <summary>How every process of Triggers talks to Postgres.</summary>
public static class Storage
{
    /// <summary>A pool over a connection string, prepared for the statements that repeat.</summary>
    /// <param name="connectionString">An Npgsql connection string; what it sets itself stays.</param>
    /// <param name="applicationName">Shown in pg_stat_activity.</param>
    public static NpgsqlDataSourceBuilder Builder(string connectionString, string applicationName)
    {
        var settings = new NpgsqlConnectionStringBuilder(connectionString);
        settings.ApplicationName ??= applicationName;
        if (!settings.ContainsKey("Timeout"))
            settings.Timeout = 2;
        if (!settings.ContainsKey("Command Timeout"))
            settings.CommandTimeout = 30;
        if (!settings.ContainsKey("Max Auto Prepare"))
            settings.MaxAutoPrepare = 100;
        if (!settings.ContainsKey("Auto Prepare Min Usages"))
            settings.AutoPrepareMinUsages = 2;
        if (!settings.ContainsKey("Keepalive"))
            settings.KeepAlive = 5;

        var builder = new NpgsqlDataSourceBuilder(settings.ConnectionString);
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
