using StackExchange.Redis;
using Triggers.Core;
using Triggers.ServiceDefaults;
using Triggers.ServiceDefaults.Redis;

namespace Triggers.Api.Auth;

/// <summary>
/// Tells every API process, this one first, that what it knows of a key is old. Without Redis, and while it is away, the others find
/// out by themselves when their answers are too old (<c>Auth:KeepKeys</c>).
/// </summary>
internal sealed partial class KeyChanges(KeyCache keys, TimeProvider time, ILogger<KeyChanges> logger, RedisConnection? redis = null)
    : BackgroundLoop(time, logger)
{
    // A message is the hash of a key's secret in hex, or empty for all keys. It is no secret: keys are too random to be guessed.
    private static readonly RedisChannel Channel = RedisChannel.Literal("triggers:keys");

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
            await client.GetSubscriber().PublishAsync(Channel, name).WaitAsync(RequestBudget.Redis, Time);
        }
        catch (Exception e) when (RedisConnection.MeansAway(e))
        {
            // The change itself is made.
            Log.NotTold(Logger, e.Message);
        }
    }

    protected override bool IsAway(Exception e) => RedisConnection.MeansAway(e);

    protected override async Task PrepareAsync(CancellationToken stoppingToken)
    {
        if (redis is null)
        {
            End();
            return;
        }
        // Nobody repeats what was said while we did not hear.
        (await redis.Made.WaitAsync(stoppingToken)).ConnectionRestored += (_, _) => keys.Forget("");
    }

    protected override async Task RunAsync(CancellationToken stoppingToken)
    {
        var client = await redis!.Made;
        await client.GetSubscriber().SubscribeAsync(Channel, (_, name) => keys.Forget(name.ToString()));
        End();
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning,
            Message = "Other processes were not told of a changed key, and find out by themselves: {Problem}")]
        public static partial void NotTold(ILogger logger, string problem);
    }
}
