using System.Buffers;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Triggers.Core.State;

namespace Triggers.Core.Subscriptions;

/// <summary>Events as CloudEvents 1.0, by the HTTP protocol binding.</summary>
internal static class CloudEvent
{
    private const string SpecVersion = "1.0";
    private const string Time = "yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'";
    private static readonly MediaTypeHeaderValue s_structured = new("application/cloudevents+json");

    /// <summary>In structured mode: one JSON object, with <c>data</c> byte for byte as it was received.</summary>
    public static WebhookMessage Structured(Guid tenantId, StoredEvent e)
    {
        var buffer = new ArrayBufferWriter<byte>(512);
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { SkipValidation = true }))
        {
            json.WriteStartObject();
            foreach (var (name, value) in Attributes(tenantId, e))
                json.WriteString(name, value);
            json.WriteString("datacontenttype", "application/json");
            json.WritePropertyName("data");
        }
        return new(MessageFormat.WithoutData(e), [.. buffer.WrittenSpan, .. e.Data, (byte)'}']) { ContentType = s_structured };
    }

    /// <summary>In binary mode: the data is the body, and the attributes are headers.</summary>
    public static WebhookMessage Binary(Guid tenantId, StoredEvent e) => new(MessageFormat.WithoutData(e), e.Data)
    {
        Headers = [.. Attributes(tenantId, e).Select(a => new KeyValuePair<string, string>("ce-" + a.Name, HeaderValue(a.Value)))],
    };

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
        yield return ("id", TypeId.Format(TypeId.Event, e.Id));
        yield return ("source", SourceOf(tenantId, e.Source));
        yield return ("type", e.Type);
        yield return ("time", (e.Time ?? TypeId.CreatedAt(e.Id)).UtcDateTime.ToString(Time, CultureInfo.InvariantCulture));
        if (e.Subject is not null)
            yield return ("subject", e.Subject);
        if (e.TraceParent is not null)
            yield return ("traceparent", e.TraceParent);
        if (e.ExternalId is not null)
            yield return ("externalid", e.ExternalId);
        // An extension of CloudEvents' own documents.
        if (e.ExpiresAt is { } expiresAt)
            yield return ("expirytime", expiresAt.UtcDateTime.ToString(Time, CultureInfo.InvariantCulture));
    }

    /// <summary>A CloudEvent's source is a URI reference, and never empty. An event's may be any text, or missing.</summary>
    private static string SourceOf(Guid tenantId, string? source) =>
        source is null ? "/tenants/" + TypeId.Format(TypeId.Tenant, tenantId)
            : Uri.IsWellFormedUriString(source, UriKind.RelativeOrAbsolute) ? source : Uri.EscapeDataString(source);
}
