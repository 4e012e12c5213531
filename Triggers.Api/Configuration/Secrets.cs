using System.Text.Json;
using System.Text.Json.Nodes;
using Triggers.Api.Errors;
using Triggers.Api.Requests;

namespace Triggers.Api.Configuration;

/// <summary>
/// The secrets of a request, by the names that <c>{"secretRef": "name"}</c> in its document stands for. What is not among them stays as it
/// is.
/// </summary>
internal sealed class Secrets(JsonElement document, FieldErrors errors)
{
    /// <summary>The only member of an object that stands for a secret.</summary>
    public const string Reference = "secretRef";

    private readonly JsonElement _given =
        document.ValueKind == JsonValueKind.Object && document.TryGetProperty("secrets", out var given)
            && given.ValueKind == JsonValueKind.Object ? given : default;

    /// <summary>What is kept, with references in the place of what is not shown.</summary>
    public static JsonNode? Hide(JsonNode? full, JsonNode? shown, string name) => full switch
    {
        JsonObject members => new JsonObject(members.Select(m =>
            KeyValuePair.Create(m.Key, Hide(m.Value, (shown as JsonObject)?[m.Key], $"{name}.{m.Key}")))),
        _ => JsonNode.DeepEquals(full, shown) ? full?.DeepClone() : new JsonObject { [Reference] = name },
    };

    /// <summary>The name that stands for a secret; null where none does.</summary>
    public static string? NameOf(JsonElement element) =>
        element.ValueKind == JsonValueKind.Object && element.GetPropertyCount() == 1 && element.TryGetProperty(Reference, out var name)
            && name.ValueKind == JsonValueKind.String ? name.GetString() : null;

    /// <summary>Whether a secret of which the element speaks is among those that were given.</summary>
    public bool IsGivenAnyOf(JsonElement element) => NameOf(element) is { } name
        ? TryGet(name, out _)
        : element.ValueKind == JsonValueKind.Object && element.EnumerateObject().Any(m => NameOf(m.Value) is null || IsGivenAnyOf(m.Value));

    /// <summary>Writes an element with the secrets it speaks of.</summary>
    /// <param name="element">Of the document.</param>
    /// <param name="kept">What there is in its place.</param>
    /// <param name="pointer">Where the element is.</param>
    /// <param name="writer">Where to.</param>
    public void Write(JsonElement element, JsonNode? kept, string pointer, Utf8JsonWriter writer)
    {
        if (NameOf(element) is { } name)
        {
            if (TryGet(name, out var secret))
                secret.WriteTo(writer);
            else if (kept is JsonValue)
                kept.WriteTo(writer);
            else
            {
                errors.Add(pointer, $"The secret \"{Fields.Shorten(name)}\" is not among \"secrets\", and there is none that could stay.");
                writer.WriteNullValue();
            }
            return;
        }
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                writer.WriteStartObject();
                foreach (var member in element.EnumerateObject())
                {
                    writer.WritePropertyName(member.Name);
                    var there = (kept as JsonObject)?.FirstOrDefault(
                        m => string.Equals(m.Key, member.Name, StringComparison.OrdinalIgnoreCase)).Value;
                    Write(member.Value, there, pointer + Fields.Pointer(member.Name), writer);
                }
                writer.WriteEndObject();
                break;
            case JsonValueKind.Array:
                writer.WriteStartArray();
                foreach (var (i, item) in element.EnumerateArray().Index())
                    Write(item, null, $"{pointer}/{i}", writer);
                writer.WriteEndArray();
                break;
            default:
                element.WriteTo(writer);
                break;
        }
    }

    private bool TryGet(string name, out JsonElement secret)
    {
        secret = default;
        return _given.ValueKind == JsonValueKind.Object && _given.TryGetProperty(name, out secret)
            && secret.ValueKind == JsonValueKind.String;
    }
}
