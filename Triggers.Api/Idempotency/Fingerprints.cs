using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Triggers.EventLog;

namespace Triggers.Api.Idempotency;

/// <summary>What makes two requests, or two events, the same.</summary>
internal static class Fingerprints
{
    /// <summary>An <c>Idempotency-Key</c>: the same request is the same path and the same bytes.</summary>
    public static RequestKey OfRequest(string key, string path, ReadOnlySpan<byte> body) => Of(key, body, path);

    /// <summary>A key, and all that must be the same when it comes again.</summary>
    public static RequestKey Of(string key, ReadOnlySpan<byte> data, params ReadOnlySpan<string?> texts)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var text in texts)
            Append(hash, text);
        hash.AppendData(data);
        return new RequestKey(HashOf(key), hash.GetHashAndReset());
    }

    /// <summary>A CloudEvent's key. No external id has a NUL in it, so none can be the same.</summary>
    public static string CloudEventKey(string source, string id) => $"{source}\0{id}";

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
