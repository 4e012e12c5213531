using System.Net.Http.Headers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Fluid;
using Fluid.Values;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;

namespace Triggers.Core.Transformations;

/// <summary>Makes messages by a subscription's transformation. Its templates are read when the first message is made.</summary>
internal sealed class TransformationFormat : MessageFormat
{
    private readonly Guid _subscriptionId;
    private readonly Transformation _transformation;
    private readonly TransformationOptions _limits;
    private readonly MediaTypeHeaderValue _contentType;
    private readonly Lazy<(LiquidTemplate Body, KeyValuePair<string, LiquidTemplate>[] Headers)> _templates;

    /// <param name="subscriptionId">The subscription's id, as templates see it.</param>
    /// <param name="transformation">With a media type; its templates may have mistakes.</param>
    /// <param name="limits">How far each template may go.</param>
    public TransformationFormat(Guid subscriptionId, Transformation transformation, TransformationOptions limits)
    {
        (_subscriptionId, _transformation, _limits) = (subscriptionId, transformation, limits);
        _contentType = MediaTypeHeaderValue.Parse(transformation.ContentType);
        _templates = new(() => (new(transformation.Template), [.. transformation.Headers.Select(HeaderOf)]));
    }

    /// <inheritdoc/>
    public override bool IsSlow => true;

    /// <summary>Reads the templates of a transformation, and answers their mistakes, each with its header; null: of the body.</summary>
    public static IEnumerable<(string? Header, TemplateException Mistake)> MistakesOf(Transformation transformation)
    {
        if (MistakeOf(transformation.Template) is { } mistake)
            yield return (null, mistake);
        foreach (var (name, value) in transformation.Headers)
        {
            if (MistakeOf(value) is { } ofHeader)
                yield return (name, ofHeader);
        }
    }

    /// <inheritdoc/>
    public override WebhookMessage Make(Guid tenantId, StoredEvent e)
    {
        try
        {
            return Transform(e);
        }
        catch (TemplateException exception)
        {
            return new(WithoutData(e), []) { Problem = "The transformation failed. " + exception.Message };
        }
    }

    /// <summary>Makes the message, or says where it fails.</summary>
    /// <exception cref="TemplateException">A template has a mistake, or goes wrong or too far, or writes what can't be sent.</exception>
    public WebhookMessage Transform(StoredEvent e)
    {
        var (body, headers) = _templates.Value;
        using var envelope = Parse(WebhookBody.Of(e));
        KeyValuePair<string, FluidValue>[] values =
        [
            new("event", JsonValues.Of(envelope.RootElement)),
            new("subscription", JsonValues.Of(JsonElement.Parse($$"""{"id":"{{TypeId.Format(TypeId.Subscription, _subscriptionId)}}"}"""))),
        ];
        var bytes = Encoding.UTF8.GetBytes(body.Run(values, _limits, e.Data.Length, EncoderOf(_contentType.MediaType!)));
        if (IsJson(_contentType.MediaType!))
            EnsureJson(bytes);
        return new(WithoutData(e), bytes)
        {
            ContentType = _contentType,
            Method = new HttpMethod(_transformation.Method),
            Headers = [.. headers.Select(header => new KeyValuePair<string, string>(header.Key, ValueOf(header, values, e.Data.Length)))],
        };
    }

    private static TemplateException? MistakeOf(string template)
    {
        try
        {
            _ = new LiquidTemplate(template);
            return null;
        }
        catch (TemplateException e)
        {
            return e;
        }
    }

    private static KeyValuePair<string, LiquidTemplate> HeaderOf(KeyValuePair<string, string> header) =>
        new(header.Key, new(header.Value));

    private string ValueOf(
        KeyValuePair<string, LiquidTemplate> header, IEnumerable<KeyValuePair<string, FluidValue>> values, int dataBytes)
    {
        try
        {
            var value = header.Value.Run(values, _limits, dataBytes, NullEncoder.Default);
            return value.Length <= WebhookHeaders.MaxValueLength && WebhookHeaders.IsValue(value) ? value
                : throw new TemplateException($"Writes what is no value of a header: more than {WebhookHeaders.MaxValueLength} characters, "
                    + "or others than printable ASCII.");
        }
        catch (TemplateException e)
        {
            throw new TemplateException($"Header {header.Key}: {e.Message}");
        }
    }

    private static JsonDocument Parse(byte[] envelope)
    {
        try
        {
            return JsonDocument.Parse(envelope, new JsonDocumentOptions { MaxDepth = 128 });
        }
        catch (JsonException)
        {
            throw new TemplateException("The event's data is no JSON that can be read.");
        }
    }

    private static void EnsureJson(byte[] body)
    {
        try
        {
            var reader = new Utf8JsonReader(body, new JsonReaderOptions { MaxDepth = 128 });
            while (reader.Read())
            {
            }
        }
        catch (JsonException e)
        {
            throw new TemplateException(
                $"What it writes is no JSON, from line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1} of the body on.");
        }
    }

    private static bool IsJson(string mediaType) =>
        mediaType.Equals("application/json", StringComparison.OrdinalIgnoreCase)
            || mediaType.EndsWith("+json", StringComparison.OrdinalIgnoreCase);

    /// <summary>What makes a value of the event safe to stand within the text of a template.</summary>
    private static TextEncoder EncoderOf(string mediaType) =>
        IsJson(mediaType) ? JavaScriptEncoder.UnsafeRelaxedJsonEscaping
        : mediaType.ToLowerInvariant() switch
        {
            "text/html" or "text/xml" or "application/xml" => HtmlEncoder.Default,
            "application/x-www-form-urlencoded" => UrlEncoder.Default,
            var other when other.EndsWith("+xml", StringComparison.Ordinal) => HtmlEncoder.Default,
            _ => NullEncoder.Default,
        };
}
