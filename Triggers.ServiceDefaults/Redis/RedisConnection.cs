using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using StackExchange.Redis;

namespace Triggers.ServiceDefaults.Redis;

/// <summary>Where Redis is. Without it every process limits for itself, and revoked keys are found by asking the database.</summary>
public sealed class RedisOptions
{
    /// <summary><c>ConnectionStrings:redis</c>, as StackExchange.Redis writes them: <c>host:6379,password=…,ssl=true</c>.</summary>
    public string? ConnectionString { get; set; }

    internal bool IsValid => Parsed() is { EndPoints.Count: > 0 };

    /// <summary>The settings as the client takes them; null when they can't be read.</summary>
    internal ConfigurationOptions? Parsed()
    {
        try
        {
            return ConfigurationOptions.Parse(ConnectionString ?? "");
        }
        catch (ArgumentException)
        {
            return null;
        }
    }
}

/// <summary>The one connection to Redis of this process. It may come and go: nothing waits for it, and it heals by itself.</summary>
public sealed partial class RedisConnection(
    IOptions<RedisOptions> options, IHostEnvironment environment, TimeProvider time, ILogger<RedisConnection> logger)
    : BackgroundLoop(time, logger), IAsyncDisposable
{
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    private readonly TaskCompletionSource<ConnectionMultiplexer> _made = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The client, once it was made; it may be away all the same.</summary>
    public Task<ConnectionMultiplexer> Made => _made.Task;

    /// <summary>
    /// Adds the connection where <c>ConnectionStrings:redis</c> names a Redis. It is made when it is started, by the host or by who first
    /// needs it.
    /// </summary>
    /// <returns>Whether there is one.</returns>
    public static bool AddTo(WebApplicationBuilder builder)
    {
        if (builder.Configuration.GetConnectionString("redis") is not { Length: > 0 } connectionString)
            return false;
        builder.Services.AddOptions<RedisOptions>().Configure(options => options.ConnectionString = connectionString)
            .Validate(
                options => options.IsValid, "ConnectionStrings:redis must be a StackExchange.Redis connection string, as in host:6379.")
            .ValidateOnStart();
        builder.Services.AddSingleton<RedisConnection>();
        return true;
    }

    /// <summary>Whether an exception says that Redis is away, slow, or refuses what we ask.</summary>
    public static bool MeansAway(Exception e) =>
        e is RedisException or TimeoutException or ObjectDisposedException or OperationCanceledException;

    /// <inheritdoc />
    protected override bool IsAway(Exception e) => MeansAway(e);

    /// <inheritdoc />
    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var settings = options.Value.Parsed()!;
        settings.ClientName ??= environment.ApplicationName;
        // It may start after us, and go away at any time.
        settings.AbortOnConnectFail = false;
        settings.ReconnectRetryPolicy = new LinearRetry((int)Pause.TotalMilliseconds);
        // What can't be sent now is not to be sent later: whoever wanted it has gone on without.
        settings.BacklogPolicy = BacklogPolicy.FailFast;
        var client = await ConnectionMultiplexer.ConnectAsync(settings);
        client.ConnectionFailed += (_, e) => Log.Lost(Logger, e.ConnectionType, e.FailureType);
        client.ConnectionRestored += (_, e) => Log.Restored(Logger, e.ConnectionType);
        _made.SetResult(client);
        End();
    }

    /// <inheritdoc />
    public async ValueTask DisposeAsync()
    {
        Dispose();
        if (_made.Task.IsCompletedSuccessfully)
            await (await _made.Task).DisposeAsync();
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "The connection to Redis ({Connection}) was lost: {Failure}")]
        public static partial void Lost(ILogger logger, ConnectionType connection, ConnectionFailureType failure);

        [LoggerMessage(EventId = 2, Level = LogLevel.Information, Message = "The connection to Redis ({Connection}) is back")]
        public static partial void Restored(ILogger logger, ConnectionType connection);
    }
}
