using System.Buffers;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>Events as CloudEvents 1.0, by the HTTP protocol binding.</summary>
internal static partial class CloudEvent
{
    /// <summary>An event in structured mode.</summary>
    public const string MediaType = "application/cloudevents+json";

    private const string SpecVersion = "1.0";
    private const string UriCharacter = @"([A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})";
    private const string Time = "yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'";
    private static readonly MediaTypeHeaderValue s_structured = new(MediaType);
    private static readonly Dictionary<string, JsonElement> s_none = [];

    /// <summary>In structured mode: one JSON object, with <c>data</c> byte for byte as it was received.</summary>
    public static WebhookMessage Structured(Guid tenantId, StoredEvent e)
    {
        var buffer = new ArrayBufferWriter<byte>(512);
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { SkipValidation = true }))
        {
            json.WriteStartObject();
            foreach (var (name, value) in Attributes(tenantId, e))
                json.WriteString(name, value);
            foreach (var (name, value) in e.Attributes?.Extensions ?? s_none)
            {
                json.WritePropertyName(name);
                value.WriteTo(json);
            }
            if (DataContent.TypeOf(e) is { } contentType)
                json.WriteString("datacontenttype", contentType);
            if (e.Attributes?.DataForm is DataForm.Url or DataForm.None)
                json.WriteEndObject();
            else
                json.WritePropertyName(e.Attributes?.DataForm is DataForm.Base64 ? "data_base64" : "data");
        }
        return new(
            MessageFormat.WithoutData(e),
            e.Attributes?.DataForm is DataForm.Url or DataForm.None ? buffer.WrittenSpan.ToArray()
                : [.. buffer.WrittenSpan, .. e.Data, (byte)'}'])
        { ContentType = s_structured };
    }

    /// <summary>In binary mode: the data is the body, and the attributes are headers.</summary>
    public static WebhookMessage Binary(Guid tenantId, StoredEvent e) => DataContent.MessageOf(e) with
    {
        Headers =
        [
            .. Attributes(tenantId, e).Concat((e.Attributes?.Extensions ?? s_none).Select(x => (x.Key, Canonical(x.Value))))
                .Select(a => new KeyValuePair<string, string>("ce-" + a.Item1, HeaderValue(a.Item2))),
        ],
    };

    /// <summary>The text of an attribute, as the specification's type system has it.</summary>
    private static string Canonical(JsonElement value) => value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();

    /// <summary>A text as the binding has it in a header: what is not printable ASCII, and space, quote and percent, as %XX.</summary>
    public static string HeaderValue(string text)
    {
        if (text.All(IsPlain))
            return text;
        var encoded = new StringBuilder();
        Span<byte> utf8 = stackalloc byte[4];
        foreach (var rune in text.EnumerateRunes())
        {
            if (rune.IsAscii && IsPlain((char)rune.Value))
            {
                encoded.Append((char)rune.Value);
                continue;
            }
            foreach (var b in utf8[..rune.EncodeToUtf8(utf8)])
                encoded.Append(CultureInfo.InvariantCulture, $"%{b:X2}");
        }
        return encoded.ToString();

        static bool IsPlain(char c) => c is > ' ' and <= '~' and not '"' and not '%';
    }

    private static IEnumerable<(string Name, string Value)> Attributes(Guid tenantId, StoredEvent e)
    {
        yield return ("specversion", SpecVersion);
        // Whoever passes a CloudEvent on leaves its name as it is.
        var isOwn = e.Attributes?.SpecVersion is null;
        yield return ("id", isOwn ? TypeId.Format(TypeId.Event, e.Id) : e.ExternalId!);
        yield return ("source", isOwn ? SourceOf(tenantId, e.Source) : e.Source!);
        yield return ("type", e.Type);
        yield return ("time", (e.Time ?? TypeId.CreatedAt(e.Id)).UtcDateTime.ToString(Time, CultureInfo.InvariantCulture));
        if (e.Subject is not null)
            yield return ("subject", e.Subject);
        if (e.TraceParent is not null && e.Attributes?.Extensions?.ContainsKey("traceparent") is not true)
        {
            yield return ("traceparent", e.TraceParent);
            if (e.TraceState is not null && e.Attributes?.Extensions?.ContainsKey("tracestate") is not true)
                yield return ("tracestate", e.TraceState);
        }
        if (isOwn && e.ExternalId is not null)
            yield return ("externalid", e.ExternalId);
        if (e.Attributes?.DataSchema is { } schema)
            yield return ("dataschema", schema);
        if (DataContent.UrlOf(e) is { } url)
            yield return ("dataref", url);
        // An extension of CloudEvents' own documents.
        if (e.ExpiresAt is { } expiresAt)
            yield return ("expirytime", expiresAt.UtcDateTime.ToString(Time, CultureInfo.InvariantCulture));
    }

    /// <summary>A CloudEvent's source is a URI reference, and never empty. An event's may be any text, or missing.</summary>
    private static string SourceOf(Guid tenantId, string? source) =>
        source is null ? "/tenants/" + TypeId.Format(TypeId.Tenant, tenantId)
            : IsUriReference(source) ? source : Uri.EscapeDataString(source);

    /// <summary>Whether a text is a URI reference (RFC 3986): of its characters, and with no colon where it would end a scheme.</summary>
    public static bool IsUriReference(string text) => UriReference().IsMatch(text);

    // In this order: a scheme, or a first segment without a colon; an address in brackets; path, query, fragment.
    [GeneratedRegex(
        $@"\A([A-Za-z][A-Za-z0-9+.\-]*:|(?![^/?#]*:))(//({UriCharacter}*@)?\[[0-9A-Fa-f:.]+\](?=[:/?#]|\z))?"
        + $@"({UriCharacter}|/)*(\?({UriCharacter}|[/?])*)?(#({UriCharacter}|[/?])*)?\z",
        RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture)]
    private static partial Regex UriReference();
}
