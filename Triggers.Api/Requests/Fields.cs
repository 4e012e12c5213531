using System.Globalization;
using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Core;

namespace Triggers.Api.Requests;

/// <summary>The members of a JSON object in a request: read by name, every mistake remembered with its pointer, unknown ones refused.</summary>
internal sealed class Fields
{
    private readonly Dictionary<string, JsonElement> _members = new(StringComparer.Ordinal);
    private readonly HashSet<string> _asked = new(StringComparer.Ordinal);
    private readonly FieldErrors _errors = new("The body has mistakes; see errors.");

    private Fields()
    {
    }

    /// <summary>Reads an object with <paramref name="read"/>, and refuses it with every mistake that was found.</summary>
    public static T Read<T>(JsonElement root, Func<Fields, T> read)
    {
        if (root.ValueKind != JsonValueKind.Object)
            throw ApiException.Invalid("", "The body must be a JSON object.");
        var fields = new Fields();
        foreach (var member in root.EnumerateObject())
        {
            var name = NameOf(member);
            if (name is null || !fields._members.TryAdd(name, member.Value))
                fields.Refuse(Pointer(name ?? ""), "The member comes twice, or its name is not text.");
        }

        var result = read(fields);
        foreach (var name in fields._members.Keys.Where(name => !fields._asked.Contains(name)))
            fields.Refuse(Pointer(name), $"There is no member \"{Shorten(name)}\" here.");
        fields._errors.ThrowIfAny();
        return result;
    }

    /// <summary>A member's JSON pointer (RFC 6901).</summary>
    public static string Pointer(string name) => "/" + Shorten(name).Replace("~", "~0").Replace("/", "~1");

    /// <summary>What a client sent, short enough to be said back to it.</summary>
    public static string Shorten(string text) => text.Length <= 64 ? text : text[..64] + "…";

    /// <summary>Remembers a mistake; reading ends at the 100th.</summary>
    public void Refuse(string pointer, string detail) => _errors.Add(pointer, detail);

    /// <summary>Whether the member is there, were it null.</summary>
    public bool Has(string name) => _members.ContainsKey(name);

    /// <summary>Whether the member is there, and null.</summary>
    public bool IsNull(string name) => _members.TryGetValue(name, out var element) && element.ValueKind == JsonValueKind.Null;

    /// <summary>The text of a member, null when it is not there or null.</summary>
    public string? Text(string name, int min, int max, bool required = false)
    {
        if (!TryGet(name, required, out var element))
            return null;
        return TextOf(element, Pointer(name), min, max);
    }

    /// <summary>The truth of a member.</summary>
    public bool? Flag(string name)
    {
        if (!TryGet(name, false, out var element))
            return null;
        if (element.ValueKind is JsonValueKind.True or JsonValueKind.False)
            return element.GetBoolean();
        Refuse(Pointer(name), "Must be true or false.");
        return null;
    }

    /// <summary>The whole number of a member.</summary>
    public int? Number(string name, int min, int max, bool required = false)
    {
        if (!TryGet(name, required, out var element))
            return null;
        if (element.ValueKind == JsonValueKind.Number && element.TryGetInt32(out var number) && number >= min && number <= max)
            return number;
        Refuse(Pointer(name), $"Must be a whole number from {min} to {max}.");
        return null;
    }

    /// <summary>The moment of a member.</summary>
    public DateTimeOffset? Moment(string name, bool required = false)
    {
        if (Text(name, 1, 64, required) is not { } text)
            return null;
        if (Rfc3339.TryParse(text, out var moment))
            return moment;
        Refuse(Pointer(name), "Must be an RFC 3339 time, as in 2026-01-31T09:30:00Z.");
        return null;
    }

    /// <summary>The value of a member that has few.</summary>
    public T? OneOf<T>(string name) where T : struct, Enum
    {
        if (Text(name, 0, 64) is not { } text)
            return null;
        if (SnakeCase<T>.TryParse(text, out var value))
            return value;
        Refuse(Pointer(name), $"Must be one of {string.Join(", ", SnakeCase<T>.All)}.");
        return null;
    }

    /// <summary>The duration of a member, as in <c>24:00:00</c> or <c>1.12:30:00</c> (a day and a half, and 30 minutes).</summary>
    public TimeSpan? Duration(string name, TimeSpan max)
    {
        if (Text(name, 1, 32) is not { } text)
            return null;
        if (TimeSpan.TryParseExact(text, "c", CultureInfo.InvariantCulture, out var duration) && duration >= TimeSpan.Zero && duration <= max)
            return duration;
        Refuse(Pointer(name), $"Must be a time from 00:00:00 to {max:c}, as in 01:30:00.");
        return null;
    }

    /// <summary>The texts of a member that is an array; what is no text is refused, and empty here.</summary>
    public string[]? Texts(string name, int minCount, int maxCount, int maxLength, bool required = false)
    {
        if (!TryGet(name, required, out var element))
            return null;
        if (element.ValueKind != JsonValueKind.Array || element.GetArrayLength() < minCount || element.GetArrayLength() > maxCount)
        {
            Refuse(Pointer(name), $"Must be an array of {minCount} to {maxCount}.");
            return null;
        }
        return [.. element.EnumerateArray().Select((item, i) => TextOf(item, $"{Pointer(name)}/{i}", 1, maxLength) ?? "")];
    }

    /// <summary>The ids of a member that is an array; null entries stand for what is no id.</summary>
    public Guid[]? Ids(string name, string prefix, int maxCount, bool required = false)
    {
        var texts = Texts(name, 1, maxCount, 64, required);
        return texts is null ? null : [.. texts.Select((text, i) => IdOf(text, prefix, $"{Pointer(name)}/{i}"))];
    }

    /// <summary>The id of a member.</summary>
    public Guid? Id(string name, string prefix, bool required = false) =>
        Text(name, 1, 64, required) is { } text ? IdOf(text, prefix, Pointer(name)) : null;

    /// <summary>The texts by name of a member that is an object.</summary>
    public Dictionary<string, string>? Map(string name, int maxCount, int maxLength)
    {
        if (!TryGet(name, false, out var element))
            return null;
        if (element.ValueKind != JsonValueKind.Object || element.GetPropertyCount() > maxCount)
        {
            Refuse(Pointer(name), $"Must be an object of at most {maxCount} members.");
            return null;
        }
        var map = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var member in element.EnumerateObject())
        {
            var key = NameOf(member) ?? "";
            var pointer = Pointer(name) + Pointer(key);
            if (TextOf(member.Value, pointer, 0, maxLength) is { } value && !map.TryAdd(key, value))
                Refuse(pointer, "The name comes twice; letter case does not count.");
        }
        return map;
    }

    private Guid IdOf(string text, string prefix, string pointer)
    {
        // What was no text at all has been refused as that.
        if (!TypeId.TryParse(prefix, text, out var id) && text.Length > 0)
            Refuse(pointer, $"Must be an id that begins with {prefix}_.");
        return id;
    }

    private bool TryGet(string name, bool required, out JsonElement element)
    {
        _asked.Add(name);
        if (_members.TryGetValue(name, out element) && element.ValueKind != JsonValueKind.Null)
            return true;
        if (required)
            Refuse(Pointer(name), "Is required.");
        return false;
    }

    private string? TextOf(JsonElement element, string pointer, int min, int max)
    {
        string? text = null;
        try
        {
            text = element.ValueKind == JsonValueKind.String ? element.GetString() : null;
        }
        catch (InvalidOperationException)
        {
            // Half of a surrogate pair.
        }
        if (text is null || text.Length < min || text.Length > max || text.Contains('\0'))
        {
            Refuse(pointer, $"Must be text of {min} to {max} characters.");
            return null;
        }
        return text;
    }

    private static string? NameOf(JsonProperty member)
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
