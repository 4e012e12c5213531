using System.Globalization;
using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using Triggers.Core;
using Triggers.Core.State;

namespace Triggers.EventLog.Kafka;

/// <summary>An event as a record of the topic <c>events</c>. docs/topics.md describes the encoding for other readers.</summary>
/// <param name="TenantId">Whose it is.</param>
/// <param name="Id">The event's id; it holds the time of acceptance.</param>
/// <param name="Type">Dotted name.</param>
/// <param name="ExternalId">The producer's own name.</param>
/// <param name="Source">The producer's word.</param>
/// <param name="Subject">The producer's word.</param>
/// <param name="Time">The producer's word.</param>
/// <param name="CorrelationId">Of the request.</param>
/// <param name="TraceParent">W3C trace context of the request.</param>
/// <param name="Data">The JSON value exactly as received.</param>
/// <param name="Attributes">What it has beside that; null for most.</param>
public sealed record LogRecord(
    Guid TenantId, Guid Id, string Type, string? ExternalId, string? Source, string? Subject, DateTimeOffset? Time, string CorrelationId,
    string? TraceParent, ReadOnlyMemory<byte> Data, EventAttributes? Attributes = null)
{
    /// <summary>Nobody gets it before; null: at once.</summary>
    public DateTimeOffset? DeliverAt { get; init; }

    /// <summary>Nobody gets it from then on; null: it does not expire.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>The version this code writes, and the only one there is yet.</summary>
    private const int Version = 1;

    private const string TimeFormat = "yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'";

    /// <summary>The record as a message. Events of one subject stay in one partition, and so in order.</summary>
    public Message<byte[], byte[]> ToMessage()
    {
        var headers = new Headers();
        void Header(string name, string? value)
        {
            if (value is not null)
                headers.Add(name, Encoding.UTF8.GetBytes(value));
        }
        var tenant = TypeId.Format(TypeId.Tenant, TenantId);
        var id = TypeId.Format(TypeId.Event, Id);
        Header("ce_specversion", "1.0");
        Header("ce_id", id);
        Header("ce_type", Type);
        Header("ce_source", Source ?? tenant);
        Header("ce_subject", Subject);
        Header("ce_time", TypeId.CreatedAt(Id).UtcDateTime.ToString(TimeFormat, CultureInfo.InvariantCulture));
        Header("traceparent", TraceParent);
        Header("tracestate", Attributes?.TraceState);
        Header("correlation-id", CorrelationId);
        return new Message<byte[], byte[]>
        {
            Key = Encoding.UTF8.GetBytes(Subject is null ? id : $"{tenant}/{Subject}"),
            Value = Encode(tenant, id),
            Headers = headers,
        };
    }

    private byte[] Encode(string tenant, string id)
    {
        var buffer = new System.Buffers.ArrayBufferWriter<byte>(Data.Length + 512);
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartObject();
            json.WriteNumber("v", Version);
            json.WriteString("tenant", tenant);
            json.WriteString("id", id);
            json.WriteString("type", Type);
            Text("externalId", ExternalId);
            Text("source", Source);
            Text("subject", Subject);
            Moment("time", Time);
            Moment("deliverAt", DeliverAt);
            Moment("expiresAt", ExpiresAt);
            json.WriteString("correlationId", CorrelationId);
            Text("traceParent", TraceParent);
            if (Attributes is not null)
            {
                json.WritePropertyName("attributes");
                json.WriteRawValue(Attributes.ToJson(), skipInputValidation: true);
            }
            json.WritePropertyName("data");
            json.WriteRawValue(Data.Span, skipInputValidation: true);
            json.WriteEndObject();

            void Text(string name, string? value)
            {
                if (value is not null)
                    json.WriteString(name, value);
            }

            void Moment(string name, DateTimeOffset? value) =>
                Text(name, value?.UtcDateTime.ToString(TimeFormat, CultureInfo.InvariantCulture));
        }
        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Reads a record's value.</summary>
    /// <param name="value">The bytes; the record's data is a part of them.</param>
    /// <exception cref="InvalidRecordException">It is none of ours; the message says why in one line.</exception>
    public static LogRecord Decode(byte[]? value)
    {
        if (value is null)
            throw new InvalidRecordException("the record has no value");
        try
        {
            return DecodeObject(value);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new InvalidRecordException($"the value is not a JSON object of this encoding: {e.Message}");
        }
    }

    private static LogRecord DecodeObject(byte[] value)
    {
        var texts = new Dictionary<string, string?>(StringComparer.Ordinal);
        var version = 0;
        ReadOnlyMemory<byte>? data = null;
        EventAttributes? attributes = null;
        var reader = new Utf8JsonReader(value);
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartObject)
            throw new InvalidRecordException("the value is not a JSON object");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var name = reader.GetString()!;
            reader.Read();
            switch (name)
            {
                case "v":
                    version = reader.GetInt32();
                    if (version != Version)
                        throw new InvalidRecordException($"the encoding has version {version}, and only {Version} is known here");
                    break;
                case "data":
                    var start = (int)reader.TokenStartIndex;
                    reader.Skip();
                    data = value.AsMemory(start, (int)reader.BytesConsumed - start);
                    break;
                case "attributes":
                    using (var json = JsonDocument.ParseValue(ref reader))
                        attributes = EventAttributes.Parse(json.RootElement.GetRawText());
                    break;
                case "tenant" or "id" or "type" or "externalId" or "source" or "subject" or "time" or "deliverAt" or "expiresAt"
                    or "correlationId" or "traceParent":
                    texts[name] = reader.GetString();
                    break;
                default:
                    // A later version adds members, and stays readable.
                    reader.Skip();
                    break;
            }
        }
        while (reader.Read())
        {
        }

        string Required(string name) => texts.GetValueOrDefault(name) ?? throw new InvalidRecordException($"there is no {name}");
        Guid Id(string prefix, string name) =>
            TypeId.TryParse(prefix, Required(name), out var id) ? id
                : throw new InvalidRecordException($"{name} is no id that begins with {prefix}_");
        DateTimeOffset? Moment(string name) => texts.GetValueOrDefault(name) is { } moment
            ? DateTimeOffset.Parse(moment, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal) : null;
        if (version == 0)
            throw new InvalidRecordException("there is no v");
        return new LogRecord(
            Id(TypeId.Tenant, "tenant"), Id(TypeId.Event, "id"), Required("type"),
            texts.GetValueOrDefault("externalId"), texts.GetValueOrDefault("source"),
            texts.GetValueOrDefault("subject"),
            Moment("time"), Required("correlationId"), texts.GetValueOrDefault("traceParent"),
            data ?? throw new InvalidRecordException("there is no data"), attributes)
        {
            DeliverAt = Moment("deliverAt"),
            ExpiresAt = Moment("expiresAt"),
        };
    }
}

/// <summary>A record that can't be projected. The message says why in one line, without data.</summary>
public sealed class InvalidRecordException(string message) : Exception(message);
