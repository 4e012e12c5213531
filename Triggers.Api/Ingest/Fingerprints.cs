using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Triggers.EventLog;

namespace Triggers.Api.Ingest;

/// <summary>What makes two requests, or two events, the same.</summary>
internal static class Fingerprints
{
    /// <summary>An <c>Idempotency-Key</c>: the same request is the same path and the same bytes.</summary>
    public static RequestKey OfRequest(string key, string path, ReadOnlySpan<byte> body)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Append(hash, path);
        hash.AppendData(body);
        return new RequestKey(HashOf(key), hash.GetHashAndReset());
    }

    /// <summary>An <c>externalId</c>: the same event says the same, whatever the white space around it. Null without one.</summary>
    public static RequestKey? OfEvent(ParsedEvent e)
    {
        if (e.ExternalId is null)
            return null;
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Append(hash, e.Type);
        Append(hash, e.Source);
        Append(hash, e.Subject);
        Append(hash, e.Time?.UtcTicks.ToString());
        hash.AppendData(e.Data.Span);
        return new RequestKey(HashOf(e.ExternalId), hash.GetHashAndReset());
    }

    /// <summary>What a key is looked up by.</summary>
    public static byte[] HashOf(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));

    // With its length in front, no text can run into the next; -1 stands for none.
    private static void Append(IncrementalHash hash, string? text)
    {
        Span<byte> length = stackalloc byte[4];
        var bytes = text is null ? [] : Encoding.UTF8.GetBytes(text);
        BinaryPrimitives.WriteInt32BigEndian(length, text is null ? -1 : bytes.Length);
        hash.AppendData(length);
        hash.AppendData(bytes);
    }
}
