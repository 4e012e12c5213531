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
    /// <summary>
    /// Adds telemetry, the Postgres pool and EF Core over
    /// <c>ConnectionStrings:triggersdb</c>, health and shutdown. No resilience defaults for HttpClient: a webhook must go out once.
    /// </summary>
    public static WebApplicationBuilder AddServiceDefaults(this WebApplicationBuilder builder)
    {
        var services = builder.Services;
        services.TryAddSingleton(TimeProvider.System);
        // Every statement at Information would drown what matters, and carry data into the logs.
        builder.Logging.AddFilter("Npgsql", LogLevel.Warning).AddFilter("Microsoft.EntityFrameworkCore", LogLevel.Warning);
        builder.AddTelemetry();
        AddStorage(services, builder.Environment.ApplicationName);

        services.AddOptions<ShutdownOptions>().BindConfiguration("Shutdown").ValidateDataAnnotations().ValidateOnStart();
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
        services.AddSingleton<Readiness>();
        services.AddSingleton<IHealthPart, PostgresHealth>();
        services.AddHostedService<StartAndDrain>();
        return builder;
    }

    private static void AddStorage(IServiceCollection services, string applicationName)
    {
        services.AddOptions<StorageOptions>()
            .Configure<IConfiguration>((options, configuration) => options.ConnectionString = configuration.GetConnectionString("triggersdb"))
            .Validate(options => options.Problem is null, "ConnectionStrings:triggersdb must be an Npgsql connection string with a Host and a Database.")
            .ValidateOnStart();
        services.AddSingleton(provider =>
        {
            var builder = Storage.Builder(provider.GetRequiredService<IOptions<StorageOptions>>().Value.ConnectionString!, applicationName);
            builder.UseLoggerFactory(provider.GetRequiredService<ILoggerFactory>());
            return builder.Build();
        });
        services.AddDbContextPool<TriggersDbContext>((provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
        services.AddPooledDbContextFactory<TriggersDbContext>((provider, options) => options.UseTriggers(provider.GetRequiredService<NpgsqlDataSource>()));
    }

    /// <summary>Runs the service; a mistake in the settings ends it with every mistake named on standard error.</summary>
    /// <returns>The exit code: 0 after an orderly end, 1 otherwise.</returns>
    public static async Task<int> RunServiceAsync(this WebApplication app)
    {
        // The host would make every background service first, and report the one mistake that one of them stumbles over.
        var name = app.Environment.ApplicationName;
        try
        {
            app.Services.GetService<IStartupValidator>()?.Validate();
            await app.RunAsync();
            return Environment.ExitCode;
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
