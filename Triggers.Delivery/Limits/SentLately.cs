namespace Triggers.Delivery.Limits;

/// <summary>How many requests this process has begun lately, to one subscription.</summary>
internal sealed class SentLately(TimeProvider time)
{
    private readonly Queue<(long At, int Requests)> _begun = new();

    public void Add(int requests)
    {
        if (requests != 0)
            _begun.Enqueue((time.GetTimestamp(), requests));
    }

    /// <summary>How many within a time, and in how long they are fewer. What is longer ago is forgotten.</summary>
    public (int Requests, TimeSpan UntilFewer) Within(TimeSpan window)
    {
        while (_begun.TryPeek(out var first) && time.GetElapsedTime(first.At) >= window)
            _begun.Dequeue();
        return (Math.Max(0, _begun.Sum(b => b.Requests)),
            _begun.TryPeek(out var next) ? window - time.GetElapsedTime(next.At) : TimeSpan.Zero);
    }
}
