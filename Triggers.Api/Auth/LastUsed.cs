using System.Collections.Concurrent;
using System.Threading.Channels;
using Npgsql;

namespace Triggers.Api.Auth;

/// <summary>Notes when keys were used, at most once a minute each, and never while a request waits.</summary>
internal sealed partial class LastUsed(NpgsqlDataSource dataSource, TimeProvider time, ILogger<LastUsed> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromMinutes(1);

    private readonly ConcurrentDictionary<Guid, long> _noted = new();

    private readonly Channel<Guid> _queue = Channel.CreateBounded<Guid>(
        new BoundedChannelOptions(1_000) { FullMode = BoundedChannelFullMode.DropWrite, SingleReader = true });

    /// <summary>The key was used now.</summary>
    public void Note(Guid keyId)
    {
        var now = time.GetTimestamp();
        if (_noted.TryGetValue(keyId, out var last) && time.GetElapsedTime(last, now) < Interval)
            return;
        if (_noted.Count > 100_000)
            _noted.Clear();
        _noted[keyId] = now;
        _queue.Writer.TryWrite(keyId);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        var ids = new HashSet<Guid>();
        while (await _queue.Reader.WaitToReadAsync(stoppingToken))
        {
            ids.Clear();
            while (ids.Count < 500 && _queue.Reader.TryRead(out var id))
                ids.Add(id);
            try
            {
                await using var command = dataSource.CreateCommand(
                    """
                    UPDATE api_keys SET last_used_at = now()
                    WHERE id = ANY (@ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '50 seconds')
                    """);
                command.Parameters.AddWithValue("ids", ids.ToArray());
                await command.ExecuteNonQueryAsync(stoppingToken);
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                // Nothing depends on it, so nothing may end for it.
                Log.NotNoted(logger, e.Message, ids.Count);
            }
        }
    }

    private static partial class Log
    {
        [LoggerMessage(EventId = 1, Level = LogLevel.Warning, Message = "The last use of {Keys} keys was not noted: {Problem}")]
        public static partial void NotNoted(ILogger logger, string problem, int keys);
    }
}
