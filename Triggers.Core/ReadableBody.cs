using System.IO.Compression;
using System.Net.Http.Headers;
using System.Text;

namespace Triggers.Core;

/// <summary>How the text of a <see cref="ReadableBody"/> stands for the body.</summary>
public enum BodyEncoding
{
    /// <summary>It is the body's text.</summary>
    Text,

    /// <summary>The body is binary, and this is its base64.</summary>
    Base64,
}

/// <summary>
/// The start of a receiver's answer, made readable. It is kept as the bytes that came; whoever shows it decompresses it, up to the
/// length that is kept, and decodes it.
/// </summary>
/// <param name="Text">Text, or base64 where the body is none.</param>
/// <param name="Encoding">Which of the two.</param>
public readonly record struct ReadableBody(string Text, BodyEncoding Encoding)
{
    /// <summary>How much of an answer is kept, in bytes.</summary>
    public const int MaxBytes = 4096;

    private static readonly UTF8Encoding Utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Reads a body as its headers say it is to be read, and as what it looks like where they are wrong or say nothing.</summary>
    /// <param name="body">The bytes that came, which may have been cut off anywhere.</param>
    /// <param name="headers">Those of the answer.</param>
    public static ReadableBody Of(byte[] body, IEnumerable<KeyValuePair<string, string>>? headers)
    {
        var byName = (headers ?? []).ToLookup(header => header.Key, header => header.Value, StringComparer.OrdinalIgnoreCase);
        var bytes = Decompress(body, byName["content-encoding"].FirstOrDefault());
        var text = bytes is null ? null : Decode(bytes, byName["content-type"].FirstOrDefault());
        return text is null
            ? new ReadableBody(Convert.ToBase64String(body), BodyEncoding.Base64)
            : new ReadableBody(text, BodyEncoding.Text);
    }

    /// <summary>Null when it can't be decompressed.</summary>
    private static byte[]? Decompress(byte[] body, string? contentEncoding)
    {
        // Applied in the order in which they are named.
        var codings = (contentEncoding ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        foreach (var coding in codings.Reverse())
        {
            var decompressed = coding.ToLowerInvariant() switch
            {
                "identity" => body,
                "gzip" or "x-gzip" => Read(new GZipStream(new MemoryStream(body), CompressionMode.Decompress)),
                // Some mean the bare format by it, without zlib's frame.
                "deflate" => Read(new ZLibStream(new MemoryStream(body), CompressionMode.Decompress)) is { Length: > 0 } zlib
                    ? zlib
                    : Read(new DeflateStream(new MemoryStream(body), CompressionMode.Decompress)),
                "br" => Read(new BrotliStream(new MemoryStream(body), CompressionMode.Decompress)),
                _ => [],
            };
            if (decompressed.Length == 0 && body.Length > 0)
                return null;
            body = decompressed;
        }
        return body;
    }

    /// <summary>As much as there is, up to the cap: the end may be missing, or be no such thing.</summary>
    private static byte[] Read(Stream stream)
    {
        using (stream)
        {
            var buffer = new byte[MaxBytes];
            var length = 0;
            try
            {
                while (length < buffer.Length && stream.Read(buffer, length, buffer.Length - length) is > 0 and var read)
                    length += read;
            }
            catch (Exception e) when (e is InvalidDataException or InvalidOperationException or IOException)
            {
            }
            return buffer[..length];
        }
    }

    /// <summary>Null when it is no text.</summary>
    private static string? Decode(byte[] bytes, string? contentType)
    {
        _ = MediaTypeHeaderValue.TryParse(contentType, out var type);
        var charset = EncodingOf(type?.CharSet?.Trim('"', '\'')) ?? EncodingOfMark(bytes);
        var text = charset is not null ? TryDecode(charset, bytes) : TryDecode(Utf8, bytes);
        if (text is null && IsTextual(type?.MediaType))
            text = TryDecode(CodePagesEncodingProvider.Instance.GetEncoding(1252)!, bytes);
        return text?.TrimStart('\uFEFF') is { } trimmed && !trimmed.Any(IsOfNoText) ? trimmed : null;
    }

    private static string? TryDecode(Encoding encoding, byte[] bytes)
    {
        try
        {
            var characters = new char[encoding.GetMaxCharCount(bytes.Length)];
            // Without flushing: what the cap cut in two is left out.
            return new string(characters, 0, encoding.GetDecoder().GetChars(bytes, 0, bytes.Length, characters, 0, flush: false));
        }
        catch (DecoderFallbackException)
        {
            return null;
        }
    }

    private static Encoding? EncodingOf(string? charset)
    {
        if (string.IsNullOrEmpty(charset))
            return null;
        try
        {
            return charset.Equals("utf-8", StringComparison.OrdinalIgnoreCase)
                || charset.Equals("utf8", StringComparison.OrdinalIgnoreCase)
                ? Utf8
                : CodePagesEncodingProvider.Instance.GetEncoding(charset) ?? System.Text.Encoding.GetEncoding(charset);
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            return null;
        }
    }

    private static Encoding? EncodingOfMark(byte[] bytes) => bytes switch
    {
        [0xff, 0xfe, ..] => System.Text.Encoding.Unicode,
        [0xfe, 0xff, ..] => System.Text.Encoding.BigEndianUnicode,
        _ => null,
    };

    private static bool IsTextual(string? mediaType) =>
        mediaType is not null
        && (mediaType.StartsWith("text/", StringComparison.OrdinalIgnoreCase)
            || mediaType.EndsWith("json", StringComparison.OrdinalIgnoreCase)
            || mediaType.EndsWith("xml", StringComparison.OrdinalIgnoreCase));

    private static bool IsOfNoText(char c) => c is < '\b' or (> '\r' and < ' ' and not '\u001b');
}
