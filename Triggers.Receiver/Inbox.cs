using System.Security.Cryptography;

namespace Triggers.Receiver;

/// <summary>A request as it came.</summary>
/// <param name="Method">As in <c>POST</c>.</param>
/// <param name="Path">With the query.</param>
/// <param name="Headers">All of them; repeated ones joined by commas.</param>
/// <param name="Body">As text.</param>
/// <param name="Verified">Whether a known secret signed it; null when no secret is known.</param>
/// <param name="Status">What was answered.</param>
/// <param name="ReceivedAt">When.</param>
internal sealed record ReceivedRequest(
    string Method, string Path, IReadOnlyDictionary<string, string> Headers,
    string Body, bool? Verified, int Status, DateTimeOffset ReceivedAt);

/// <summary>The last requests and the secrets they may be signed with, in memory only.</summary>
internal sealed class Inbox
{
    public const int Capacity = 1000;

    private readonly Lock _lock = new();
    private readonly Queue<ReceivedRequest> _requests = new();
    private readonly List<byte[]> _secrets = [];
    private long _total;

    public void Add(ReceivedRequest request)
    {
        lock (_lock)
        {
            _total++;
            _requests.Enqueue(request);
            if (_requests.Count > Capacity)
                _requests.Dequeue();
        }
    }

    /// <summary>Newest first, and how many there have been since the last clearing.</summary>
    public (long Total, IReadOnlyList<ReceivedRequest> Newest) Latest(int limit)
    {
        lock (_lock)
            return (_total, [.. _requests.Reverse().Take(limit)]);
    }

    public void Clear()
    {
        lock (_lock)
        {
            _requests.Clear();
            _total = 0;
        }
    }

    public void AddSecret(byte[] secret)
    {
        lock (_lock)
            if (!_secrets.Exists(known => CryptographicOperations.FixedTimeEquals(known, secret)))
                _secrets.Add(secret);
    }

    public IReadOnlyList<byte[]> Secrets
    {
        get
        {
            lock (_lock)
                return [.. _secrets];
        }
    }
}
