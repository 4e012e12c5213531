using Aspire.Npgsql;
using Microsoft.AspNetCore.Builder;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using Triggers.Core;

namespace Triggers.ServiceDefaults;

/// <summary>What every service of Triggers has: telemetry, storage, health, orderly start and end.</summary>
public static class Extensions
{
    private const string Database = "triggersdb";

    /// <summary>
    /// Adds telemetry, the Postgres pool and EF Core over
    /// <c>ConnectionStrings:triggersdb</c>, health and shutdown. No resilience defaults for HttpClient: a webhook must go out once.
    /// </summary>
    /// <param name="builder">The service's.</param>
    /// <param name="poolDefaults">What its pool has where the connection string does not say otherwise, as in <c>Maximum Pool
    /// Size=40</c>.</param>
    public static WebApplicationBuilder AddServiceDefaults(this WebApplicationBuilder builder, string poolDefaults = "")
    {
        var services = builder.Services;
        services.TryAddSingleton(TimeProvider.System);
        // Every statement at Information would drown what matters, and carry data into the logs.
        builder.Logging.AddFilter("Npgsql", LogLevel.Warning).AddFilter("Microsoft.EntityFrameworkCore", LogLevel.Warning)
            // Whoever asks is told.
            .AddFilter("Microsoft.Extensions.Diagnostics.HealthChecks", LogLevel.None);
        builder.AddTelemetry();
        builder.AddStorage(poolDefaults);

        services.AddSettings<ShutdownOptions>("Shutdown").ValidateDataAnnotations();
        services.AddOptions<HostOptions>().Configure<IOptions<ShutdownOptions>>((host, shutdown) =>
        {
            try
            {
                host.ShutdownTimeout = shutdown.Value.Delay + shutdown.Value.GracePeriod;
            }
            catch (OptionsValidationException)
            {
                // The host reads this before the settings are validated: there it is named together with every other mistake.
            }
        });
        services.AddReadinessCheck();
        services.AddDependencyCheck<PostgresHealth>("postgres");
        services.AddHostedService<Drain>();
        services.AddHostedService<SchemaWait>();
        return builder;
    }

    /// <summary>
    /// Settings of a section. A mistake in them ends the start, and so does a name in the section that is not one of theirs.
    /// </summary>
    /// <param name="services">The service's.</param>
    /// <param name="section">As in <c>Delivery</c>.</param>
    /// <param name="others">Names in it that are somebody else's.</param>
    public static OptionsBuilder<T> AddSettings<T>(this IServiceCollection services, string section, params string[] others) where T
        : class
    {
        services.AddSingleton<IValidateOptions<T>>(provider =>
            new KnownNames<T>(provider.GetRequiredService<IConfiguration>().GetSection(section), others));
        return services.AddOptions<T>().BindConfiguration(section).ValidateOnStart();
    }

    /// <summary>
    /// A pool of Postgres connections as all of ours are: defaults below what was given, its metrics in our telemetry, and no span for
    /// each statement.
    /// </summary>
    /// <param name="builder">The service's.</param>
    /// <param name="defaults">More of them, as in <c>Maximum Pool Size=40</c>.</param>
    /// <param name="key">Of a pool beside the service's own, to the same database; null: the service's own.</param>
    /// <param name="configure">What is different about it.</param>
    public static void AddPool(this WebApplicationBuilder builder, string defaults = "",
        string? key = null, Action<NpgsqlConnectionStringBuilder>? configure = null)
    {
        void Settings(NpgsqlSettings settings)
        {
            // One that is missing is named with every other mistake in the settings, when those are validated.
            if (builder.Configuration.GetConnectionString(Database) is { Length: > 0 } given)
                settings.ConnectionString = Storage.WithDefaults($"{defaults};{given}", builder.Environment.ApplicationName);
            settings.DisableTracing = true;
            // Ours looks for partitions too.
            settings.DisableHealthChecks = true;
        }

        void DataSource(NpgsqlDataSourceBuilder source)
        {
            configure?.Invoke(source.ConnectionStringBuilder);
            source.EnableDynamicJson();
        }

        if (key is null)
            builder.AddNpgsqlDataSource(Database, Settings, DataSource);
        else
            builder.AddKeyedNpgsqlDataSource(key, Settings, DataSource);
    }

    private static void AddStorage(this WebApplicationBuilder builder, string poolDefaults)
    {
        var services = builder.Services;
        services.AddOptions<StorageOptions>()
            .Configure<IConfiguration>((options, configuration) => options.ConnectionString = configuration.GetConnectionString(Database))
            .Validate(options =>
                options.Problem is null, "ConnectionStrings:triggersdb must be an Npgsql connection string with a Host and a Database.")
            .ValidateOnStart();
        builder.AddPool(poolDefaults);
        services.AddDbContextPool<TriggersDbContext>(
            (provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
        services.AddPooledDbContextFactory<TriggersDbContext>(
            (provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
        builder.EnrichNpgsqlDbContext<TriggersDbContext>(settings =>
        {
            // Statements are not safe to send twice; and as for the pool.
            settings.DisableRetry = true;
            settings.DisableTracing = true;
            settings.DisableHealthChecks = true;
        });
    }

    /// <summary>Runs the service; a mistake in the settings ends it with every mistake named on standard error.</summary>
    /// <returns>The exit code: 0 after an orderly end, 1 otherwise.</returns>
    public static async Task<int> RunServiceAsync(this WebApplication app)
    {
        // The host would make every background service first, and report the one mistake that one of them stumbles over.
        var name = app.Environment.ApplicationName;
        var stopping = app.Lifetime.ApplicationStopping;
        List<BackgroundService> background = [];
        bool HasDied() => background.Exists(service => service.ExecuteTask is { IsFaulted: true });
        try
        {
            app.Services.GetService<IStartupValidator>()?.Validate();
            background = app.Services.GetServices<IHostedService>().OfType<BackgroundService>().ToList();
            await app.RunAsync();
            // One that died has made the host stop: in good order, as it seems from outside.
            return HasDied() ? 1 : Environment.ExitCode;
        }
        // The end came before the server was up, which then is not started any more.
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            return HasDied() ? 1 : Environment.ExitCode;
        }
        catch (Exception e) when (SettingsMistakes(e) is { Count: > 0 } mistakes)
        {
            await Console.Error.WriteLineAsync($"{name} can't start with these settings:");
            foreach (var mistake in mistakes)
                await Console.Error.WriteLineAsync($"  {mistake}");
            return 1;
        }
    }

    private static List<string> SettingsMistakes(Exception e) => e switch
    {
        OptionsValidationException validation => [.. validation.Failures],
        AggregateException aggregate when aggregate.InnerExceptions.All(inner => inner is OptionsValidationException)
            => [.. aggregate.InnerExceptions.SelectMany(SettingsMistakes)],
        InvalidOperationException { InnerException: FormatException } invalid => [invalid.Message],
        _ => [],
    };
}

/// <summary>Where the database is.</summary>
public sealed class StorageOptions
{
    /// <summary><c>ConnectionStrings:triggersdb</c>.</summary>
    public string? ConnectionString { get; set; }

    internal string? Problem
    {
        get
        {
            try
            {
                var settings = new NpgsqlConnectionStringBuilder(ConnectionString);
                return string.IsNullOrEmpty(settings.Host) || string.IsNullOrEmpty(settings.Database) ? "incomplete" : null;
            }
            catch (ArgumentException e)
            {
                return e.Message;
            }
        }
    }
}

/// <summary>Names in a section that its type does not have: misspelt, they would be passed over in silence.</summary>
internal sealed class KnownNames<T>(IConfiguration section, string[] others) : IValidateOptions<T> where T : class
{
    public ValidateOptionsResult Validate(string? name, T options)
    {
        var unknown = Unknown(
            section.GetChildren().Where(child => !others.Contains(child.Key, StringComparer.OrdinalIgnoreCase)), typeof(T)).ToList();
        return unknown.Count == 0 ? ValidateOptionsResult.Success
            : ValidateOptionsResult.Fail(unknown.Select(path => $"{path} is not a setting."));
    }

    private static IEnumerable<string> Unknown(IEnumerable<IConfigurationSection> settings, Type type) => settings.SelectMany(setting =>
        type.GetProperties()
            .FirstOrDefault(property => property.Name.Equals(setting.Key, StringComparison.OrdinalIgnoreCase)) is not { } known
            ? [setting.Path]
            // Values and dictionaries hold no names of ours.
            : known.PropertyType.Namespace!.StartsWith("Triggers.", StringComparison.Ordinal)
                ? Unknown(setting.GetChildren(), known.PropertyType) : []);
}
