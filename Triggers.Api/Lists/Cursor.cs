using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Triggers.Api.Lists;

/// <summary>
/// A place in a list, opaque to clients: base64url of <c>{"f":"…","k":"…"}</c>, the filters it was made under (hashed) and the id
/// it stands after.
/// </summary>
internal static class Cursor
{
    private const int MaxLength = 200;

    /// <summary>The text of a place.</summary>
    public static string Write(string filters, Guid after) =>
        Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(new Content(Hash(filters), after)));

    /// <summary>Reads a place; false when it is none, or one of a list with other filters.</summary>
    public static bool TryRead(string text, string filters, out Guid after)
    {
        after = default;
        if (text.Length is 0 or > MaxLength || !Base64Url.IsValid(text))
            return false;
        try
        {
            var content = JsonSerializer.Deserialize<Content>(Base64Url.DecodeFromChars(text));
            if (content is null || content.F != Hash(filters))
                return false;
            after = content.K;
            return true;
        }
        catch (Exception e) when (e is JsonException or FormatException)
        {
            return false;
        }
    }

    private static string Hash(string filters) => Base64Url.EncodeToString(SHA256.HashData(Encoding.UTF8.GetBytes(filters)).AsSpan(0, 9));

    private sealed record Content(
        [property: System.Text.Json.Serialization.JsonPropertyName("f")] string F,
        [property: System.Text.Json.Serialization.JsonPropertyName("k")] Guid K);
}
