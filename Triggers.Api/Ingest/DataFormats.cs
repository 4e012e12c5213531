using System.Buffers.Text;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>What data may be beside JSON, and how it is said.</summary>
internal static partial class DataFormats
{
    /// <summary>The longest URL of data, and URI of a schema.</summary>
    public const int MaxUrlLength = 2048;

    /// <summary>The longest media type.</summary>
    public const int MaxMediaTypeLength = 256;

    public const string MediaTypePattern = "^[!-~][ -~]*$";
    public const string UrlPattern = "^https://[^/?#]";
    public const string Sha256Pattern = "^[0-9a-f]{64}$";

    /// <summary>Whether a text is a media type (RFC 9110), with parameters or without.</summary>
    public static bool IsMediaType(string text) =>
        text.Length is > 0 and <= MaxMediaTypeLength && text.All(c => c is >= ' ' and <= '~')
        && MediaTypeHeaderValue.TryParse(text, out _);

    /// <summary>Whether a text is a URL that a receiver can get data from. Its host may be any: it is not for us to call it.</summary>
    public static bool IsUrl(string text) =>
        text.Length <= MaxUrlLength && text.All(char.IsAscii) && text.StartsWith("https://", StringComparison.Ordinal)
        && !text.Contains('"') && WebhookAddress.TryNormalize(text, out _, out _);

    /// <summary>Whether a text is SHA-256 in lower-case hex.</summary>
    public static bool IsSha256(string text) => text.Length == 64 && Sha256().IsMatch(text);

    /// <summary>Whether a text is base64 (RFC 4648), padded and without white space.</summary>
    public static bool IsBase64(string text) => !text.Any(char.IsWhiteSpace) && Base64.IsValid(text);

    /// <summary>ASCII text as JSON: neither base64 nor a URL has anything that must be escaped.</summary>
    public static byte[] Quote(string text) => Encoding.ASCII.GetBytes($"\"{text}\"");

    /// <summary>What an event of the native form has beside its columns; null when there is nothing to say.</summary>
    /// <param name="e">Gets the mistakes.</param>
    /// <param name="form">What stands in its data.</param>
    /// <param name="contentType">As given.</param>
    /// <param name="size">As given.</param>
    /// <param name="sha256">As given.</param>
    public static EventAttributes? Read(ParsedEvent e, DataForm form, string? contentType, long? size, string? sha256)
    {
        if (form != DataForm.Url && size is not null)
            e.Refuse("dataSize", "Can be given with dataUrl only.");
        if (form != DataForm.Url && sha256 is not null)
            e.Refuse("dataSha256", "Can be given with dataUrl only.");
        if (form == DataForm.Value && contentType is null)
            return null;
        if (form == DataForm.Base64 && contentType is not null && EventAttributes.IsJson(contentType))
            e.Refuse("dataContentType", "JSON is given as data.");
        if (form == DataForm.Value && !EventAttributes.IsJson(contentType!) && !IsText(e.Data))
            e.Refuse("dataContentType", "Must be a media type of JSON, unless data is text.");
        return new EventAttributes { DataForm = form, DataContentType = contentType, DataSize = size, DataSha256 = sha256 };
    }

    /// <summary>Whether a JSON value is a string, and Unicode.</summary>
    public static bool IsText(ReadOnlyMemory<byte> json)
    {
        var reader = new Utf8JsonReader(json.Span);
        return reader.Read() && reader.TokenType == JsonTokenType.String && JsonText.Of(ref reader) is not null;
    }

    [GeneratedRegex(Sha256Pattern)]
    private static partial Regex Sha256();
}
