using StackExchange.Redis;
using Triggers.Api.Redis;
using Triggers.ServiceDefaults;

namespace Triggers.Api.Auth;

/// <summary>
/// Tells every API process, this one first, that what it knows of a key is old. Without Redis, and while it is away, the others find
/// out by themselves when their answers are too old (<c>Auth:KeepKeys</c>).
/// </summary>
internal sealed partial class KeyChanges(KeyCache keys, TimeProvider time, ILogger<KeyChanges> logger, RedisConnection? redis = null) : BackgroundService
{
    // A message is the hash of a key's secret in hex, or empty for all keys. It is no secret: keys are too random to be guessed.
    private static readonly RedisChannel Channel = RedisChannel.Literal("triggers:keys");
    private static readonly TimeSpan MaxWait = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);

    /// <summary>A key was revoked or changed.</summary>
    public Task TellAsync(byte[] hash) => TellAsync(Convert.ToHexString(hash));

    /// <summary>Something that many keys have was changed.</summary>
    public Task TellAllAsync() => TellAsync("");

    private async Task TellAsync(string name)
    {
        keys.Forget(name);
        if (redis is not { Made.IsCompletedSuccessfully: true })
            return;
        try
        {
            var client = await redis.Made;
            await client.GetSubscriber().PublishAsync(Channel, name).WaitAsync(MaxWait, time);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            // The change itself is made.
            Log.NotTold(logger, e.Message);
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (redis is null)
            return;
        var client = await redis.Made.WaitAsync(stoppingToken);
        // Nobody repeats what was said while we did not hear.
        client.ConnectionRestored += (_, _) => keys.Forget("");
        var started = time.GetTimestamp();
        LogLevel? said = null;
        while (true)
        {
            try
            {
                await client.GetSubscriber().SubscribeAsync(Channel, (_, name) => keys.Forget(name.ToString()));
                return;
            }
            catch (Exception e) when (RedisConnection.MeansAway(e))
            {
                // Once while everything may still be starting, and once more when that is over.
                var level = Readiness.LevelOfWaiting(time.GetElapsedTime(started));
                if (level != said)
                    Log.NotListening(logger, level, e.Message);
                said = level;
                await Task.Delay(Pause, time, stoppingToken);
            }
        }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "Other processes were not told of a changed key, and find out by themselves: {Problem}")]
        public static partial void NotTold(ILogger logger, string problem);

        [LoggerMessage(EventId = 2, Message = "Not listening for changed keys yet: {Problem}")]
        public static partial void NotListening(ILogger logger, LogLevel level, string problem);
    }
}
