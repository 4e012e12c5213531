using System.Text.Json;

namespace Triggers.Core;

/// <summary>Text of JSON that may be half of a surrogate pair, where the framework throws.</summary>
internal static class JsonText
{
    /// <summary>A string; null for what is none, and for half of a surrogate pair.</summary>
    public static string? Of(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.String)
            return null;
        try
        {
            return json.GetString();
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>The string, or the name, that a reader is at; null for null, and for half of a surrogate pair.</summary>
    public static string? Of(ref Utf8JsonReader reader)
    {
        try
        {
            return reader.GetString();
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>The name of a member; null for half of a surrogate pair.</summary>
    public static string? NameOf(JsonProperty member)
    {
        try
        {
            return member.Name;
        }
        catch (InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>The last member of that name; null where there is none.</summary>
    public static JsonElement? MemberOf(JsonElement json, string name)
    {
        try
        {
            return json.TryGetProperty(name, out var member) ? member : null;
        }
        catch (InvalidOperationException)
        {
            // The name of another is half of a surrogate pair.
            return json.EnumerateObject().Where(member => NameOf(member) == name)
                .Select(member => (JsonElement?)member.Value).LastOrDefault();
        }
    }
}
