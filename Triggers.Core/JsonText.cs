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
}
