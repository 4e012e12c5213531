using System.Globalization;
using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Core;

namespace Triggers.Api.Requests;

/// <summary>
/// The members of a JSON object in a request: read by name, held to the limits that the record of the body declares, every mistake
/// remembered with its pointer, unknown ones refused.
/// </summary>
internal sealed class Fields
{
    // Long enough for whatever somebody takes for one of our ids to be told what it should look like.
    private const int MaxIdLength = 64;

    private readonly Type _body;
    private readonly Dictionary<string, JsonElement> _members = new(StringComparer.Ordinal);
    private readonly HashSet<string> _asked = new(StringComparer.Ordinal);
    private readonly FieldErrors _errors;
    private readonly string _place;

    private Fields(Type body, string place, FieldErrors errors) => (_body, _place, _errors) = (body, place, errors);

    /// <summary>Reads an object with <paramref name="read"/>, and refuses it with every mistake that was found.</summary>
    /// <typeparam name="T">The record whose attributes are the limits.</typeparam>
    public static T Read<T>(JsonElement root, Func<Fields, T> read)
    {
        if (root.ValueKind != JsonValueKind.Object)
            throw ApiException.Invalid("", "The body must be a JSON object.");
        var fields = new Fields(typeof(T), "", new FieldErrors("The body has mistakes; see errors."));
        var result = fields.ReadAll(root, read);
        fields._errors.ThrowIfAny();
        return result;
    }

    /// <summary>A member's JSON pointer (RFC 6901).</summary>
    public static string Pointer(string name) => "/" + Shorten(name).Replace("~", "~0").Replace("/", "~1");

    /// <summary>What a client sent, short enough to be said back to it.</summary>
    public static string Shorten(string text) => text.Length <= 64 ? text : text[..64] + "…";

    /// <summary>Remembers a mistake; reading ends at the 100th.</summary>
    public void Refuse(string pointer, string detail) => _errors.Add(_place + pointer, detail);

    /// <summary>The object of a member, with members of its own.</summary>
    /// <typeparam name="T">The record whose attributes are their limits.</typeparam>
    public T? Object<T>(string name, Func<Fields, T> read) where T : class => Object<T, T>(name, read);

    /// <summary>The same, read as something else.</summary>
    public TRead? Object<T, TRead>(string name, Func<Fields, TRead> read) where TRead : class
    {
        if (!TryGet(name, out var element, out _))
            return null;
        if (element.ValueKind == JsonValueKind.Object)
            return new Fields(typeof(T), _place + Pointer(name), _errors).ReadAll(element, read);
        Refuse(Pointer(name), "Must be an object.");
        return null;
    }

    /// <summary>The objects by name of a member that is an object, each with members of its own.</summary>
    /// <typeparam name="T">The record whose attributes are their limits.</typeparam>
    public Dictionary<string, T>? Objects<T>(string name, Func<Fields, T> read) where T : class
    {
        if (!TryGet(name, out var element, out _))
            return null;
        var objects = new Dictionary<string, T>(StringComparer.Ordinal);
        if (element.ValueKind != JsonValueKind.Object)
        {
            Refuse(Pointer(name), "Must be an object.");
            return objects;
        }
        foreach (var member in element.EnumerateObject())
        {
            var key = JsonText.NameOf(member) ?? "";
            var place = Pointer(name) + Pointer(key);
            if (member.Value.ValueKind != JsonValueKind.Object)
                Refuse(place, "Must be an object.");
            else if (!objects.TryAdd(key, new Fields(typeof(T), _place + place, _errors).ReadAll(member.Value, read)))
                Refuse(place, "The member comes twice.");
        }
        return objects;
    }

    /// <summary>Whether the member is there, were it null.</summary>
    public bool Has(string name) => _members.ContainsKey(name);

    /// <summary>The value of a member, whatever it is; null when it is not there or null.</summary>
    public JsonElement? Any(string name) => TryGet(name, out var element, out _) ? element : null;

    /// <summary>The text of a member, null when it is not there or null.</summary>
    public string? Text(string name) =>
        TryGet(name, out var element, out var limits) ? TextOf(element, Pointer(name), limits.Length.Min, limits.Length.Max) : null;

    /// <summary>The truth of a member.</summary>
    public bool? Flag(string name)
    {
        if (!TryGet(name, out var element, out _))
            return null;
        if (element.ValueKind is JsonValueKind.True or JsonValueKind.False)
            return element.GetBoolean();
        Refuse(Pointer(name), "Must be true or false.");
        return null;
    }

    /// <summary>The whole number of a member, were it written as 1.0 or 1e3.</summary>
    public int? Number(string name)
    {
        if (!TryGet(name, out var element, out var limits))
            return null;
        var (min, max) = limits.Range;
        if (element.ValueKind == JsonValueKind.Number && element.TryGetDecimal(out var number) && number >= min && number <= max
            && decimal.IsInteger(number))
            return (int)number;
        Refuse(Pointer(name), $"Must be a whole number from {min} to {max}.");
        return null;
    }

    /// <summary>The number of a member, with a fraction or without.</summary>
    public double? Real(string name)
    {
        if (!TryGet(name, out var element, out var limits))
            return null;
        var (min, max) = limits.RealRange;
        if (element.ValueKind == JsonValueKind.Number && element.TryGetDouble(out var number) && number >= min && number <= max)
            return number;
        Refuse(Pointer(name), FormattableString.Invariant($"Must be a number from {min} to {max}."));
        return null;
    }

    /// <summary>The moment of a member.</summary>
    public DateTimeOffset? Moment(string name)
    {
        if (!TryGet(name, out var element, out _))
            return null;
        if (JsonText.Of(element) is { } text && Rfc3339.TryParse(text, out var moment))
            return moment;
        Refuse(Pointer(name), "Must be an RFC 3339 time, as in 2026-01-31T09:30:00Z.");
        return null;
    }

    /// <summary>The value of a member that has few.</summary>
    public T? OneOf<T>(string name) where T : struct, Enum
    {
        if (!TryGet(name, out var element, out _))
            return null;
        if (JsonText.Of(element) is { } text && SnakeCase<T>.TryParse(text, out var value))
            return value;
        Refuse(Pointer(name), $"Must be one of {string.Join(", ", SnakeCase<T>.All)}.");
        return null;
    }

    /// <summary>The duration of a member, as in <c>24:00:00</c> or <c>1.12:30:00</c> (a day and a half, and 30 minutes).</summary>
    public TimeSpan? Duration(string name)
    {
        if (!TryGet(name, out var element, out var limits))
            return null;
        return DurationOf(element, limits.Duration!, Pointer(name));
    }

    /// <summary>The durations of a member that is an array.</summary>
    public TimeSpan[]? Durations(string name)
    {
        if (!TryGet(name, out var element, out var limits))
            return null;
        var (min, max) = limits.Length;
        if (element.ValueKind == JsonValueKind.Array && element.GetArrayLength() >= min && element.GetArrayLength() <= max)
            return [.. element.EnumerateArray()
                .Select((item, i) => DurationOf(item, limits.Duration!, $"{Pointer(name)}/{i}") ?? TimeSpan.Zero)];
        Refuse(Pointer(name), $"Must be an array of {min} to {max}.");
        return null;
    }

    /// <summary>Any JSON of a member, null when it is not there or null.</summary>
    public JsonElement? Json(string name, int maxLength)
    {
        if (!TryGet(name, out var element, out _))
            return null;
        if (element.GetRawText().Length <= maxLength)
            return element.Clone();
        Refuse(Pointer(name), $"Must be at most {maxLength / 1024} KiB of JSON.");
        return null;
    }

    /// <summary>The texts of a member that is an array; what is no text is refused, and empty here.</summary>
    public string[]? Texts(string name) =>
        TryGet(name, out var element, out var limits) ? TextsOf(name, element, limits, limits.Items!.MaxLength) : null;

    /// <summary>The ids of a member that is an array.</summary>
    public Guid[]? Ids(string name) =>
        TryGet(name, out var element, out var limits) && TextsOf(name, element, limits, MaxIdLength) is { } texts
            ? [.. texts.Select((text, i) => IdOf(text, limits.IdPrefix!, $"{Pointer(name)}/{i}"))]
            : null;

    /// <summary>The id of a member.</summary>
    public Guid? Id(string name) =>
        TryGet(name, out var element, out var limits) && TextOf(element, Pointer(name), 1, MaxIdLength) is { } text
            ? IdOf(text, limits.IdPrefix!, Pointer(name))
            : null;

    /// <summary>The texts by name of a member that is an object; in a merge patch also null, for those to be removed.</summary>
    public Dictionary<string, string?>? Map(string name)
    {
        if (!TryGet(name, out var element, out var limits))
            return null;
        var (maxCount, maxLength) = (limits.Map!.MaxCount, limits.Map.MaxLength);
        if (element.ValueKind != JsonValueKind.Object || element.GetPropertyCount() > maxCount)
        {
            Refuse(Pointer(name), $"Must be an object of at most {maxCount} members.");
            return null;
        }
        var map = new Dictionary<string, string?>(StringComparer.OrdinalIgnoreCase);
        foreach (var member in element.EnumerateObject())
        {
            var key = JsonText.NameOf(member) ?? "";
            var pointer = Pointer(name) + Pointer(key);
            var isRemoval = limits.Map.IsPatch && member.Value.ValueKind == JsonValueKind.Null;
            var value = isRemoval ? null : TextOf(member.Value, pointer, 0, maxLength);
            if ((isRemoval || value is not null) && !map.TryAdd(key, value))
                Refuse(pointer, "The name comes twice; letter case does not count.");
        }
        return map;
    }

    private T ReadAll<T>(JsonElement root, Func<Fields, T> read)
    {
        foreach (var member in root.EnumerateObject())
        {
            var name = JsonText.NameOf(member);
            if (name is null || !_members.TryAdd(name, member.Value))
                Refuse(Pointer(name ?? ""), "The member comes twice, or its name is not text.");
        }

        var result = read(this);
        foreach (var name in _members.Keys.Where(name => !_asked.Contains(name)))
            Refuse(Pointer(name), $"There is no member \"{Shorten(name)}\" here.");
        return result;
    }

    private TimeSpan? DurationOf(JsonElement element, DurationAttribute duration, string pointer)
    {
        // What the framework reads without a colon is days.
        if (JsonText.Of(element) is { } text && duration.IsMatch(text))
            return TimeSpan.ParseExact(text, "c", CultureInfo.InvariantCulture);
        Refuse(pointer, $"Must be a time from 00:00:00 to {duration.MaxDays}.00:00:00, as in 01:30:00.");
        return null;
    }

    private string[]? TextsOf(string name, JsonElement element, MemberLimits limits, int maxLength)
    {
        var (min, max) = limits.Length;
        if (element.ValueKind == JsonValueKind.Array && element.GetArrayLength() >= min && element.GetArrayLength() <= max)
            return [.. element.EnumerateArray()
                .Select((item, i) => OneOf(TextOf(item, $"{Pointer(name)}/{i}", 1, maxLength), limits, $"{Pointer(name)}/{i}") ?? "")];
        Refuse(Pointer(name), $"Must be an array of {min} to {max}.");
        return null;
    }

    private Guid IdOf(string text, string prefix, string pointer)
    {
        // What was no text at all has been refused as that.
        if (!TypeId.TryParse(prefix, text, out var id) && text.Length > 0)
            Refuse(pointer, $"Must be an id that begins with {prefix}_.");
        return id;
    }

    private bool TryGet(string name, out JsonElement element, out MemberLimits limits)
    {
        _asked.Add(name);
        limits = MemberLimits.Of(_body, name);
        var isThere = _members.TryGetValue(name, out element);
        if (isThere && element.ValueKind != JsonValueKind.Null)
            return true;
        if (limits.IsRequired)
            Refuse(Pointer(name), "Is required.");
        else if (isThere && !limits.IsRemovable)
            Refuse(Pointer(name), "Can't be removed.");
        return false;
    }

    private string? OneOf(string? text, MemberLimits limits, string pointer)
    {
        if (text is null || limits.Items?.Values is not { } values || values.Contains(text))
            return text;
        Refuse(pointer, $"Must be one of {string.Join(", ", values)}.");
        return null;
    }

    private string? TextOf(JsonElement element, string pointer, int min, int max)
    {
        if (JsonText.Of(element) is { } text && IsText(text, min, max))
            return text;
        Refuse(pointer, $"Must be text of {min} to {max} characters.");
        return null;
    }

    /// <summary>
    /// Whether a text is as long as it may be, in characters as people and JSON Schema count them, and none of them is NUL.
    /// </summary>
    public static bool IsText(string text, int min, int max) =>
        text.Length >= min && (text.Length <= max || text.Length <= 2L * max && text.EnumerateRunes().Count() <= max)
            && !text.Contains('\0');
}
