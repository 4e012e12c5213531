using System.Collections.Concurrent;
using Triggers.Core;

namespace Triggers.Bench;

/// <summary>Holds what was accepted against what arrived, event by event. Nothing is inferred from totals.</summary>
public sealed class Ledger
{
    private readonly ConcurrentDictionary<string, byte> _accepted = new();
    private readonly ConcurrentDictionary<string, DateTimeOffset[]> _arrived = new();

    /// <summary>The API answered 202 with this id.</summary>
    public void Accepted(string id) => _accepted[id] = 0;

    /// <summary>A webhook with this <c>webhook-id</c> came.</summary>
    public void Arrived(string id, DateTimeOffset at) =>
        _arrived.AddOrUpdate(id, _ => [at], (_, before) => [.. before, at]);

    /// <summary>How many ids were accepted.</summary>
    public int AcceptedCount => _accepted.Count;

    /// <summary>The ids that were accepted.</summary>
    public ICollection<string> AcceptedIds => _accepted.Keys;

    /// <summary>How many ids arrived, accepted or not.</summary>
    public int ArrivedCount => _arrived.Count;

    /// <summary>Accepted, and not arrived so far.</summary>
    public IReadOnlyList<string> Missing() => [.. _accepted.Keys.Where(id => !_arrived.ContainsKey(id))];

    /// <summary>Accepted, and arrived.</summary>
    public int Delivered() => _accepted.Keys.Count(_arrived.ContainsKey);

    /// <summary>Arrivals beyond the first of each id.</summary>
    public int Duplicates() => _arrived.Values.Sum(times => times.Length - 1);

    /// <summary>When each id arrived that did so more than once, in order.</summary>
    public IReadOnlyList<DateTimeOffset[]> Repeated() =>
        [.. _arrived.Values.Where(times => times.Length > 1).Select(times => times.Order().ToArray())];

    /// <summary>Whether a webhook with this id came, and when first.</summary>
    public DateTimeOffset? FirstArrival(string id) => _arrived.TryGetValue(id, out var times) ? times[0] : null;

    /// <summary>When webhooks arrived, in no order.</summary>
    public IReadOnlyList<DateTimeOffset> Arrivals() => [.. _arrived.Values.SelectMany(times => times)];

    /// <summary>Arrived without a 202 that reached us: the answer was lost, or was a 503 after all.</summary>
    public int Unconfirmed() => _arrived.Keys.Count(id => !_accepted.ContainsKey(id));

    /// <summary>Milliseconds from acceptance (the time in the id) to the first arrival, of all that arrived.</summary>
    public double[] AcceptToWebhook() =>
        [.. _arrived.Select(
            pair => TypeId.TryParse(TypeId.Event, pair.Key, out var id) ? (pair.Value[0] - TypeId.CreatedAt(id)).TotalMilliseconds : 0)];
}

/// <summary>Percentiles of a set of times.</summary>
public sealed record Percentiles(double P50, double P95, double P99, double Max)
{
    /// <summary>Of these values, rounded to a hundredth; zeros when there are none.</summary>
    public static Percentiles Of(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length == 0 ? new(0, 0, 0, 0) : new(At(0.50), At(0.95), At(0.99), Math.Round(sorted[^1], 2));

        double At(double share) => Math.Round(sorted[Math.Min(sorted.Length - 1, (int)Math.Ceiling(share * sorted.Length) - 1)], 2);
    }
}
