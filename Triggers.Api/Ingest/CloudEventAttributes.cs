using System.Diagnostics;
using System.Text.Json;
using System.Text.RegularExpressions;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;

namespace Triggers.Api.Ingest;

/// <summary>The attributes of one CloudEvent as they are read, and what they are of an event here.</summary>
internal sealed partial class CloudEventAttributes(ParsedEvent parsed)
{
    /// <summary>The most extension attributes of an event.</summary>
    public const int MaxExtensions = 64;

    /// <summary>The longest value of one.</summary>
    public const int MaxExtensionLength = 2048;

    private const string SpecVersion = "1.0";

    private readonly HashSet<string> _seen = new(StringComparer.Ordinal);
    // In one order, so that the same event says the same however its attributes come.
    private readonly SortedDictionary<string, JsonElement> _extensions = new(StringComparer.Ordinal);
    private string? _contentType, _schema;

    /// <summary>Takes an attribute, or refuses it.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="text">Its value where that is text.</param>
    /// <param name="value">Its value.</param>
    public void Set(string name, string? text, JsonElement value)
    {
        if (!Name().IsMatch(name))
        {
            parsed.Refuse(name, "The name of an attribute is 1 to 64 lower-case letters a to z and digits.");
            return;
        }
        if (!_seen.Add(name))
            parsed.Refuse(name, "The attribute comes twice.");
        if (text is "")
            parsed.Refuse(name, "Must not be empty.");
        else if (text is not null && text.Any(char.IsControl))
            parsed.Refuse(name, "Must not have control characters.");
        else if (name is "specversion" or "id" or "source" or "type" or "subject" or "time" or "datacontenttype" or "dataschema"
            or "expirytime")
            SetKnown(name, text);
        else if (text?.Length > MaxExtensionLength)
            parsed.Refuse(name, $"Must be at most {MaxExtensionLength} characters.");
        else
            _extensions[name] = value;
    }

    /// <summary>All have been set.</summary>
    public void End()
    {
        foreach (var name in (ReadOnlySpan<string>)["specversion", "id", "source", "type"])
        {
            if (!_seen.Contains(name))
                parsed.Refuse(name, "Is required.");
        }
        if (_extensions.Count > MaxExtensions)
            parsed.Refuse(null, $"At most {MaxExtensions} extension attributes are taken.");
        parsed.Attributes = new EventAttributes
        {
            SpecVersion = SpecVersion,
            DataContentType = _contentType,
            DataSchema = _schema,
            Extensions = _extensions.Count > 0 ? _extensions : null,
        };
        // Deliveries go on with the trace that the event itself is part of.
        if (_extensions.TryGetValue("traceparent", out var trace) && trace.ValueKind == JsonValueKind.String
            && ActivityContext.TryParse(trace.GetString(), null, out _))
        {
            parsed.TraceParent = trace.GetString();
            if (_extensions.TryGetValue("tracestate", out var state) && state.ValueKind == JsonValueKind.String)
                parsed.TraceState = state.GetString();
        }
    }

    /// <summary>What the event says: sent again, it may be part of another trace.</summary>
    public static EventAttributes WithoutTrace(EventAttributes attributes)
    {
        if (attributes.Extensions is not { } extensions || !extensions.ContainsKey("traceparent") && !extensions.ContainsKey("tracestate"))
            return attributes;
        var others = extensions.Where(e => e.Key is not ("traceparent" or "tracestate")).ToDictionary();
        return attributes with { Extensions = others.Count > 0 ? others : null };
    }

    private void SetKnown(string name, string? text)
    {
        if (text is null)
        {
            parsed.Refuse(name, "Must be text.");
            return;
        }
        switch (name)
        {
            case "specversion":
                if (text != SpecVersion)
                    parsed.Refuse(name, $"Only {SpecVersion} is taken.");
                break;
            case "id":
                EventParser.SetText(parsed, "externalId", text, shown: name);
                break;
            case "source":
                EventParser.SetText(parsed, name, text);
                if (!CloudEvent.IsUriReference(text))
                    parsed.Refuse(name, "Must be a URI reference, as in https://shop.example/orders or /shop.");
                break;
            case "expirytime":
                EventParser.SetText(parsed, "expiresAt", text, shown: name);
                break;
            case "datacontenttype":
                _contentType = text;
                if (!DataFormats.IsMediaType(text))
                    parsed.Refuse(name, "Must be a media type, as in application/json.");
                break;
            case "dataschema":
                _schema = text;
                if (text.Length > DataFormats.MaxUrlLength || !Uri.TryCreate(text, UriKind.Absolute, out _))
                    parsed.Refuse(name, $"Must be an absolute URI of at most {DataFormats.MaxUrlLength} characters.");
                break;
            default:
                EventParser.SetText(parsed, name, text);
                break;
        }
    }

    [GeneratedRegex(@"^[a-z0-9]{1,64}\z")]
    private static partial Regex Name();
}
