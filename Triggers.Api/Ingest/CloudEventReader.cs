using System.Buffers;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Api.Requests;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>Reads CloudEvents 1.0 by the HTTP protocol binding and the JSON format.</summary>
internal static class CloudEventReader
{
    /// <summary>A body in structured mode.</summary>
    public const string MediaType = CloudEvent.MediaType;

    /// <summary>A body in batched mode.</summary>
    public const string BatchMediaType = "application/cloudevents-batch+json";

    private const string HeaderPrefix = "ce-";
    private static readonly string[] s_required = ["specversion", "id", "source", "type"];

    /// <summary>How a request carries CloudEvents.</summary>
    public static CloudEventMode ModeOf(HttpRequest request)
    {
        var contentType = request.ContentType ?? "";
        if (contentType.StartsWith("application/cloudevents-batch", StringComparison.OrdinalIgnoreCase))
            return CloudEventMode.Batched;
        if (contentType.StartsWith("application/cloudevents", StringComparison.OrdinalIgnoreCase))
            return CloudEventMode.Structured;
        foreach (var name in s_required)
        {
            if (request.Headers.ContainsKey(HeaderPrefix + name))
                return CloudEventMode.Binary;
        }
        return CloudEventMode.None;
    }

    /// <summary>Reads a body in structured mode.</summary>
    public static ParsedEvent ReadStructured(ReadOnlyMemory<byte> body) => EventJson.ReadOne(body, ReadMembers);

    /// <summary>Reads a body in batched mode.</summary>
    public static List<ParsedEvent> ReadBatch(ReadOnlyMemory<byte> body, int maxEvents)
    {
        try
        {
            var reader = new Utf8JsonReader(body.Span, EventJson.ReaderOptions);
            reader.Read();
            var events = EventJson.ReadArray(ref reader, body, "", maxEvents, ReadMembers);
            reader.Read();
            return events.Count > 0 ? events : throw EventJson.NoEvents("", maxEvents);
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    /// <summary>Reads a request in binary mode.</summary>
    /// <param name="request">Its headers.</param>
    /// <param name="body">The data.</param>
    public static ParsedEvent ReadBinary(HttpRequest request, ReadOnlyMemory<byte> body)
    {
        var parsed = new ParsedEvent { Index = null, Room = new MistakesLeft(), IsInHeaders = true };
        var attributes = new CloudEventAttributes(parsed);
        foreach (var (header, values) in request.Headers)
        {
            if (!header.StartsWith(HeaderPrefix, StringComparison.OrdinalIgnoreCase))
                continue;
            var name = header[HeaderPrefix.Length..].ToLowerInvariant();
            if (name is "datacontenttype" or "data" or "data_base64")
                parsed.Refuse(name, "Is no header in binary mode: the body is the data, and Content-Type says what it is.");
            else if (values is not [{ } value])
                parsed.Refuse(name, "The header comes twice.");
            else if (Decode(value) is { } text)
                attributes.Set(name, text, JsonSerializer.SerializeToElement(text));
            else
                parsed.Refuse(name, "Is not UTF-8 where it is percent-encoded, or quoted without an end.");
        }
        if (!string.IsNullOrEmpty(request.ContentType))
            attributes.Set("datacontenttype", request.ContentType, default);
        attributes.End();
        if (parsed.Errors.Count > 0)
            return parsed;

        var contentType = parsed.Attributes!.DataContentType;
        if (body.IsEmpty)
        {
            SetData(parsed, "null"u8.ToArray(), DataForm.None);
            return parsed;
        }
        if (contentType is null || !EventAttributes.IsJson(contentType))
        {
            SetData(parsed, DataFormats.Quote(Convert.ToBase64String(body.Span)), DataForm.Base64);
            return parsed;
        }
        SetData(parsed, ReadJson(parsed, body), DataForm.Value);
        return parsed;
    }

    /// <summary>Whatever of a request in binary mode is not in its body, as text.</summary>
    public static string HeadersOf(HttpRequest request) => string.Join('\n', request.Headers
        .Where(h => h.Key.StartsWith(HeaderPrefix, StringComparison.OrdinalIgnoreCase))
        .Select(h => $"{h.Key.ToLowerInvariant()}:{h.Value}").Order(StringComparer.Ordinal).Append(request.ContentType));

    private static void SetData(ParsedEvent parsed, ReadOnlyMemory<byte> data, DataForm form)
    {
        parsed.Data = data;
        parsed.Attributes = parsed.Attributes! with { DataForm = form };
    }

    private static ReadOnlyMemory<byte> ReadJson(ParsedEvent parsed, ReadOnlyMemory<byte> json)
    {
        if (json.Span.StartsWith("\uFEFF"u8))
            json = json[3..];
        try
        {
            var reader = new Utf8JsonReader(json.Span, EventJson.ReaderOptions);
            reader.Read();
            // It has no object around it here, and one wherever else it is seen.
            var data = EventJson.ReadData(ref reader, json, parsed, "data", outside: -1);
            reader.Read();
            return System.Text.Unicode.Utf8.IsValid(data.Span) ? data
                : throw new ApiException(ErrorCodes.MalformedJson, "The body is not valid UTF-8.");
        }
        catch (JsonException e)
        {
            throw Body.Malformed(e);
        }
    }

    private static void ReadMembers(ref Utf8JsonReader reader, ReadOnlyMemory<byte> body, ParsedEvent parsed)
    {
        var outside = reader.CurrentDepth;
        var attributes = new CloudEventAttributes(parsed);
        ReadOnlyMemory<byte>? data = null;
        string? base64 = null;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var name = EventJson.NameOf(ref reader);
            reader.Read();
            if (name == "data")
            {
                if (data is not null)
                    parsed.Refuse(name, "The member comes twice.");
                data = EventJson.ReadData(ref reader, body, parsed, name, outside);
            }
            else if (name == "data_base64" && reader.TokenType != JsonTokenType.Null)
            {
                if (base64 is not null)
                    parsed.Refuse(name, "The member comes twice.");
                base64 = reader.TokenType == JsonTokenType.String ? JsonText.Of(ref reader) : null;
                if (base64 is null || !DataFormats.IsBase64(base64))
                    parsed.Refuse(name, "Must be base64 (RFC 4648), padded.");
            }
            else if (name != "data_base64")
            {
                ReadAttribute(ref reader, parsed, attributes, name);
            }
            reader.Skip();
        }
        attributes.End();
        if (data is not null && base64 is not null)
            parsed.Refuse(null, "Only one of data and data_base64 can be given.");
        if (parsed.Errors.Count == 0)
            SetData(parsed, data, base64);
    }

    /// <summary>Where the content type is one of JSON, or there is none beside <c>data</c>, data is JSON, however it is carried.</summary>
    private static void SetData(ParsedEvent parsed, ReadOnlyMemory<byte>? data, string? base64)
    {
        var contentType = parsed.Attributes!.DataContentType;
        if (data is { } value)
        {
            if (contentType is not null && !EventAttributes.IsJson(contentType) && !DataFormats.IsText(value))
                parsed.Refuse("data", "Must be text, since datacontenttype is none of JSON.");
            SetData(parsed, value, DataForm.Value);
        }
        else if (base64 is null)
        {
            SetData(parsed, "null"u8.ToArray(), DataForm.None);
        }
        else if (contentType is null || !EventAttributes.IsJson(contentType))
        {
            SetData(parsed, DataFormats.Quote(base64), DataForm.Base64);
        }
        else
        {
            try
            {
                SetData(parsed, ReadJson(parsed, Convert.FromBase64String(base64)), DataForm.Value);
            }
            catch (ApiException)
            {
                parsed.Refuse("data_base64", "Must hold JSON in UTF-8, as datacontenttype says.");
            }
        }
    }

    private static void ReadAttribute(ref Utf8JsonReader reader, ParsedEvent parsed, CloudEventAttributes attributes, string name)
    {
        switch (reader.TokenType)
        {
            case JsonTokenType.String when JsonText.Of(ref reader) is { } text:
                attributes.Set(name, text, JsonSerializer.SerializeToElement(text));
                break;
            case JsonTokenType.String:
                parsed.Refuse(name, "Is not Unicode text.");
                break;
            case JsonTokenType.Number when reader.TryGetInt32(out var number):
                attributes.Set(name, null, JsonSerializer.SerializeToElement(number));
                break;
            case JsonTokenType.True or JsonTokenType.False:
                attributes.Set(name, null, JsonSerializer.SerializeToElement(reader.GetBoolean()));
                break;
            case JsonTokenType.Null:
                break;
            default:
                parsed.Refuse(name, "Must be text, true, false, or a whole number of 32 bits.");
                break;
        }
    }

    /// <summary>The value of a header by the binding: what is quoted, then what is percent-encoded. Null for what is none.</summary>
    public static string? Decode(string header)
    {
        var text = header.Trim(' ', '\t');
        if (text is ['"', ..])
        {
            if (Unquote(text) is not { } unquoted)
                return null;
            text = unquoted;
        }
        if (!text.Contains('%'))
            return text;
        var bytes = Encoding.UTF8.GetBytes(text);
        var length = 0;
        for (var i = 0; i < bytes.Length; i++)
        {
            if (bytes[i] == '%' && i + 2 < bytes.Length
                && byte.TryParse(bytes.AsSpan(i + 1, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var decoded))
            {
                bytes[length++] = decoded;
                i += 2;
            }
            else
            {
                bytes[length++] = bytes[i];
            }
        }
        var utf8 = bytes.AsSpan(0, length);
        return System.Text.Unicode.Utf8.IsValid(utf8) ? Encoding.UTF8.GetString(utf8) : null;
    }

    private static string? Unquote(string quoted)
    {
        var text = new StringBuilder(quoted.Length);
        for (var i = 1; i < quoted.Length; i++)
        {
            if (quoted[i] == '"')
                return i == quoted.Length - 1 ? text.ToString() : null;
            if (quoted[i] == '\\' && ++i == quoted.Length)
                return null;
            text.Append(quoted[i]);
        }
        return null;
    }
}

/// <summary>How a request carries CloudEvents.</summary>
internal enum CloudEventMode
{
    None,
    Structured,
    Batched,
    Binary,
}
