using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Triggers.Core.State;

/// <summary>
/// What an event has beside what every event has: the form of its data, and what it brought as a CloudEvent. Kept as JSON; null where there
/// is nothing to say, as of almost all events.
/// </summary>
public sealed record EventAttributes
{
    /// <summary>The longest trace state that is passed on, as W3C asks for.</summary>
    public const int MaxTraceState = 512;

    /// <summary>The version of CloudEvents it came by: then <c>externalId</c> and <c>source</c> name it together.</summary>
    public string? SpecVersion { get; init; }

    /// <summary>What the stored JSON value stands for.</summary>
    public DataForm DataForm { get; init; }

    /// <summary>Media type of the data. Null: JSON where the form is <see cref="DataForm.Value"/>, else nobody said.</summary>
    public string? DataContentType { get; init; }

    /// <summary>A URI, the producer's word.</summary>
    public string? DataSchema { get; init; }

    /// <summary>Bytes of what <see cref="DataForm.Url"/> leads to, the producer's word.</summary>
    public long? DataSize { get; init; }

    /// <summary>SHA-256 of what <see cref="DataForm.Url"/> leads to, in lower-case hex, the producer's word.</summary>
    public string? DataSha256 { get; init; }

    /// <summary>Extension attributes of a CloudEvent by their names: text, whole numbers, true or false.</summary>
    public IReadOnlyDictionary<string, JsonElement>? Extensions { get; init; }

    /// <summary>
    /// W3C trace state that goes with the event's trace parent: printable ASCII of at most <see cref="MaxTraceState"/> characters.
    /// </summary>
    public string? TraceState { get; init; }

    /// <summary>Whether the data is JSON, and not text, bytes or elsewhere.</summary>
    [JsonIgnore]
    public bool HoldsJson => DataForm == DataForm.Value && (DataContentType is null || IsJson(DataContentType));

    /// <summary>The member that the stored JSON value is shown as.</summary>
    [JsonIgnore]
    public string DataMember => DataForm switch { DataForm.Base64 => "dataBase64", DataForm.Url => "dataUrl", _ => "data" };

    /// <summary>Whether a media type is one of JSON (RFC 6839), in UTF-8.</summary>
    public static bool IsJson(string mediaType) =>
        MediaTypeHeaderValue.TryParse(mediaType, out var type)
        && (type.MediaType!.EndsWith("/json", StringComparison.OrdinalIgnoreCase)
            || type.MediaType.EndsWith("+json", StringComparison.OrdinalIgnoreCase))
        && type.CharSet?.Trim('"').ToUpperInvariant() is null or "UTF-8" or "UTF8" or "US-ASCII";

    /// <summary>As it is kept.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, EventAttributesJson.Default.EventAttributes);

    /// <summary>Reads what was kept.</summary>
    /// <exception cref="JsonException">It is none.</exception>
    public static EventAttributes? Parse(string? json) =>
        json is null ? null : JsonSerializer.Deserialize(json, EventAttributesJson.Default.EventAttributes);

    /// <summary>Writes the members that are shown of it, all but the data.</summary>
    internal void WriteMembers(Utf8JsonWriter json)
    {
        Text("dataContentType", DataContentType);
        Text("dataSchema", DataSchema);
        if (DataSize is { } size)
            json.WriteNumber("dataSize", size);
        Text("dataSha256", DataSha256);
        Text("specVersion", SpecVersion);
        if (Extensions is null)
            return;
        json.WriteStartObject("extensions");
        foreach (var (name, value) in Extensions)
        {
            json.WritePropertyName(name);
            value.WriteTo(json);
        }
        json.WriteEndObject();

        void Text(string name, string? value)
        {
            if (value is not null)
                json.WriteString(name, value);
        }
    }
}

/// <summary>What the JSON value that is stored as an event's data stands for.</summary>
public enum DataForm
{
    /// <summary>For itself. Where the content type is none of JSON, it is a string: text of that type.</summary>
    [JsonStringEnumMemberName("value")]
    Value,

    /// <summary>A string: bytes in base64.</summary>
    [JsonStringEnumMemberName("base64")]
    Base64,

    /// <summary>A string: the URL where the data is.</summary>
    [JsonStringEnumMemberName("url")]
    Url,

    /// <summary>Null: there is no data.</summary>
    [JsonStringEnumMemberName("none")]
    None,
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault)]
[JsonSerializable(typeof(EventAttributes))]
internal sealed partial class EventAttributesJson : JsonSerializerContext;
