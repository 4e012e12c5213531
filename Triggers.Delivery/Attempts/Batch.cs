using System.Security.Cryptography;
using Triggers.Core;

namespace Triggers.Delivery.Attempts;

/// <summary>Deliveries to a subscription that go in one request: what is sent is an array of what each would be sent as.</summary>
internal sealed class Batch
{
    /// <param name="deliveries">At least one.</param>
    /// <param name="payloads">Their events, in the same order.</param>
    public Batch(IReadOnlyList<DueDelivery> deliveries, IReadOnlyList<Payload> payloads)
    {
        Deliveries = deliveries;
        Payloads = payloads;
        Id = IdOf(payloads.Select(p => p.Event.Id));
        using var body = new MemoryStream(payloads.Sum(p => p.Body.Length + 1) + 1);
        foreach (var payload in payloads)
        {
            body.WriteByte((byte)(body.Length == 0 ? '[' : ','));
            body.Write(payload.Body);
        }
        body.WriteByte((byte)']');
        Body = body.ToArray();
    }

    public IReadOnlyList<DueDelivery> Deliveries { get; }

    public IReadOnlyList<Payload> Payloads { get; }

    /// <summary>The same for the same events in the same order, so that a receiver knows a batch that it has had.</summary>
    public Guid Id { get; }

    /// <summary>The exact bytes of the request.</summary>
    public byte[] Body { get; }

    /// <summary>A UUIDv7 of the time of the first event, whose rest is a hash of all of them.</summary>
    private static Guid IdOf(IEnumerable<Guid> events)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> id = stackalloc byte[16];
        Span<byte> first = stackalloc byte[6];
        first.Clear();
        var isFirst = true;
        foreach (var e in events)
        {
            e.TryWriteBytes(id, bigEndian: true, out _);
            if (isFirst)
                id[..6].CopyTo(first);
            isFirst = false;
            hash.AppendData(id);
        }
        Span<byte> digest = stackalloc byte[32];
        hash.GetHashAndReset(digest);
        first.CopyTo(digest);
        digest[6] = (byte)(digest[6] & 0x0f | 0x70);
        digest[8] = (byte)(digest[8] & 0x3f | 0x80);
        return new Guid(digest[..16], bigEndian: true);
    }
}
