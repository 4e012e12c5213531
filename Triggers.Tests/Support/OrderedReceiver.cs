using System.Collections.Concurrent;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Npgsql;

namespace Triggers.Tests.Support;

/// <summary>
/// Takes events whose data is a number that counts up from 0 for each subject, refuses some, and notes what comes before its time: before
/// the number before, or before what came last of its key, in a request before, is written
/// down as delivered.
/// </summary>
/// <param name="database">Where that is written down.</param>
/// <param name="strict">Whether all have one key, and not each subject its own.</param>
internal sealed class OrderedReceiver(NpgsqlDataSource database, bool strict)
{
    private readonly ConcurrentDictionary<string, byte> _arrived = new();
    private readonly ConcurrentDictionary<string, int> _next = new();

    /// <summary>The event that came last of a key.</summary>
    private readonly ConcurrentDictionary<string, Guid> _newest = new();

    private readonly ConcurrentQueue<string> _wrong = new();
    private int _attempts;

    /// <summary>What came before its time.</summary>
    public IReadOnlyCollection<string> Wrong => _wrong;

    /// <summary>How many different events came.</summary>
    public int Count => _arrived.Count;

    public async Task RespondAsync(ReceivedWebhook webhook, HttpContext context)
    {
        var body = JsonNode.Parse(webhook.Body)!;
        JsonNode[] events = body is JsonArray batch ? [.. batch.Select(e => e!)] : [body];
        var together = events.Select(e => Rows.Uuid(e["id"]!.ToString())).ToHashSet();
        foreach (var e in events)
        {
            if (!_arrived.TryAdd(e["id"]!.ToString(), 0))
                continue;
            var (subject, number) = (e["subject"]!.ToString(), (int)e["data"]!);
            if (_next.GetValueOrDefault(subject) is var expected && expected != number)
                _wrong.Enqueue($"{subject} {number} came instead of {expected}");
            _next[subject] = number + 1;
            var id = Rows.Uuid(e["id"]!.ToString());
            var key = strict ? "" : subject;
            if (_newest.TryGetValue(key, out var before) && !together.Contains(before))
            {
                // For everybody to see.
                await using var command = database.CreateCommand(
                    "SELECT EXISTS (SELECT FROM deliveries WHERE event_id = $1 AND status = 'succeeded')");
                command.Parameters.AddWithValue(before);
                if (await command.ExecuteScalarAsync() is not true)
                    _wrong.Enqueue($"{subject} {number} was sent before {before} had ended");
            }
            _newest[key] = id;
        }
        if (Interlocked.Increment(ref _attempts) % 7 == 0)
            context.Response.StatusCode = 503;
    }
}
