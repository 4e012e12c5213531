using System.Text.Json;
using System.Text.Json.Serialization;
using Triggers.Api.Http;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.Api.Events;

/// <summary>What clients see of an event. What few events have is left out where there is nothing to say.</summary>
internal abstract record ShownEvent
{
    private static readonly RawJson s_null = new("null"u8.ToArray());

    protected ShownEvent(StoredEvent stored) => Stored = stored;

    internal StoredEvent Stored { get; }

    [JsonPropertyOrder(-2)]
    public string Id => TypeId.Format(TypeId.Event, Stored.Id);

    [JsonPropertyOrder(-1)]
    public string Type => Stored.Type;

    public DateTimeOffset CreatedAt => TypeId.CreatedAt(Stored.Id);

    public string CorrelationId => Stored.CorrelationId;

    /// <summary>The producer's own name for it; of a CloudEvent its <c>id</c>.</summary>
    public string? ExternalId => Stored.ExternalId;

    public string? Source => Stored.Source;

    public string? Subject => Stored.Subject;

    public DateTimeOffset? Time => Stored.Time;

    public DateTimeOffset? ExpiresAt => Stored.ExpiresAt;

    /// <summary>Any JSON value; null also where the event has <c>dataBase64</c>, <c>dataUrl</c> or no data.</summary>
    public RawJson Data => Attributes is null or { DataForm: DataForm.Value } ? new RawJson(Stored.Data) : s_null;

    /// <summary>Data that is bytes, in base64.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DataBase64 => TextIf(DataForm.Base64);

    /// <summary>Where the data is.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DataUrl => TextIf(DataForm.Url);

    /// <summary>Media type of the data. Without it <c>data</c> is JSON, and of other data nobody said.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DataContentType => Attributes?.DataContentType;

    /// <summary>The URI of a schema, the producer's word.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DataSchema => Attributes?.DataSchema;

    /// <summary>Bytes at <c>dataUrl</c>, the producer's word.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public long? DataSize => Attributes?.DataSize;

    /// <summary>SHA-256 of what is at <c>dataUrl</c>, in hex, the producer's word.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? DataSha256 => Attributes?.DataSha256;

    /// <summary>The version of CloudEvents that it came by.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? SpecVersion => Attributes?.SpecVersion;

    /// <summary>Extension attributes of a CloudEvent: text, whole numbers, true or false.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public IReadOnlyDictionary<string, JsonElement>? Extensions => Attributes?.Extensions;

    private EventAttributes? Attributes => Stored.Attributes;

    private string? TextIf(DataForm form) => Attributes?.DataForm == form ? JsonSerializer.Deserialize<string>(Stored.Data) : null;
}
