using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace Triggers.Api.Schemas;

/// <summary>
/// What most schemas consist of, in a form in which most values are seen to match by looking at them once. It only ever says that a value
/// does: what it does not see to match is judged by the whole schema. Any number of threads may use it.
/// </summary>
internal sealed class PlainSchema
{
    /// <summary>As many names as fit on the stack.</summary>
    private const int FewNames = 256;

    /// <summary>Digits that a decimal surely has room for.</summary>
    private const int ExactDigits = 25;

    /// <summary>What matching one character may cost at most.</summary>
    private const int ShortPattern = 64;

    private static readonly HashSet<string> s_annotations =
    [
        "$schema", "$id", "$anchor", "$comment", "$defs", "title", "description", "default", "examples", "deprecated", "readOnly",
        "writeOnly", "format",
    ];

    private readonly List<Func<JsonElement, bool>> _checks = [];

    private PlainSchema()
    {
    }

    /// <summary>A schema that has been found to be one; null when it has other keywords.</summary>
    public static PlainSchema? Of(JsonElement schema)
    {
        var known = new Dictionary<string, PlainSchema>(StringComparer.Ordinal);
        return Of(schema, schema, known);
    }

    /// <summary>Whether a value is seen to match. It takes time in proportion to the value's length.</summary>
    public bool Holds(JsonElement value)
    {
        foreach (var check in _checks)
        {
            if (!check(value))
                return false;
        }
        return true;
    }

    private static PlainSchema? Of(JsonElement schema, JsonElement root, Dictionary<string, PlainSchema> known)
    {
        var plain = new PlainSchema();
        return plain.Add(schema, root, known) ? plain : null;
    }

    private bool Add(JsonElement schema, JsonElement root, Dictionary<string, PlainSchema> known)
    {
        if (schema.ValueKind is JsonValueKind.True or JsonValueKind.False)
        {
            if (schema.ValueKind == JsonValueKind.False)
                _checks.Add(_ => false);
            return true;
        }
        var (objects, bounds, lengths) = (false, new Bounds(), new Lengths());
        foreach (var (name, of) in schema.EnumerateObject().Select(keyword => (keyword.Name, keyword.Value)))
        {
            if (name is "properties" or "required" or "additionalProperties")
            {
                objects = true;
                continue;
            }
            if (s_annotations.Contains(name) || bounds.Take(name, of) || lengths.Take(name, of))
                continue;
            if (CheckOf(name, of, root, known) is not { } check)
                return false;
            _checks.Add(check);
            // Each value is looked at by one schema, so that time is bounded by the value's length.
            if (name == "$ref" && schema.EnumerateObject().Any(other => other.Name != "$ref" && !s_annotations.Contains(other.Name)))
                return false;
        }
        if (bounds.Any)
            _checks.Add(bounds.Hold);
        if (lengths.Any)
            _checks.Add(lengths.Hold);
        return !objects || AddMembers(schema, root, known);
    }

    private static Func<JsonElement, bool>? CheckOf(string keyword, JsonElement of, JsonElement root, Dictionary<string, PlainSchema> known)
    {
        switch (keyword)
        {
            case "type":
                string[] types = of.ValueKind == JsonValueKind.Array ? [.. of.EnumerateArray().Select(type => type.GetString()!)]
                    : [of.GetString()!];
                return value => IsOf(types, value);
            case "enum":
                return AnyOf(of.EnumerateArray());
            case "const":
                return AnyOf([of]);
            case "minItems" when of.TryGetInt32(out var fewest):
                return value => value.ValueKind != JsonValueKind.Array || value.GetArrayLength() >= fewest;
            case "maxItems" when of.TryGetInt32(out var largest):
                return value => value.ValueKind != JsonValueKind.Array || value.GetArrayLength() <= largest;
            case "pattern" when SchemaPattern.Compile(of.GetString()!, out var size) is var pattern && size <= ShortPattern:
                return value => value.ValueKind != JsonValueKind.String || pattern.IsMatch(value.GetString()!);
            case "items" when Of(of, root, known) is { } items:
                return value => value.ValueKind != JsonValueKind.Array || value.EnumerateArray().All(items.Holds);
            case "$ref" when of.GetString() is { } pointer && Referred(pointer, root, known) is { } referred:
                return referred.Holds;
            default:
                return null;
        }
    }

    /// <summary>
    /// A schema under <c>$defs</c>. One that refers to itself does so by way of a part of the value, so that it comes to an end.
    /// </summary>
    private static PlainSchema? Referred(string pointer, JsonElement root, Dictionary<string, PlainSchema> known)
    {
        const string Definitions = "#/$defs/";
        if (known.TryGetValue(pointer, out var referred))
            return referred;
        // Names that would have to be decoded are left to the library.
        if (!pointer.StartsWith(Definitions, StringComparison.Ordinal) || pointer.AsSpan(Definitions.Length).IndexOfAny("/~%") >= 0
            || !root.TryGetProperty("$defs", out var definitions)
            || !definitions.TryGetProperty(pointer[Definitions.Length..], out var schema))
            return null;
        known[pointer] = referred = new PlainSchema();
        return referred.Add(schema, root, known) ? referred : null;
    }

    private bool AddMembers(JsonElement schema, JsonElement root, Dictionary<string, PlainSchema> known)
    {
        var members = new List<Member>();
        var index = new Dictionary<string, int>(StringComparer.Ordinal);
        if (schema.TryGetProperty("properties", out var properties))
        {
            foreach (var property in properties.EnumerateObject())
            {
                if (Of(property.Value, root, known) is not { } plain)
                    return false;
                index[property.Name] = members.Count;
                members.Add(new Member(Encoding.UTF8.GetBytes(property.Name), plain));
            }
        }
        PlainSchema? others = null;
        if (schema.TryGetProperty("additionalProperties", out var additional) && (others = Of(additional, root, known)) is null)
            return false;
        var required = 0;
        if (schema.TryGetProperty("required", out var names))
        {
            foreach (var name in names.EnumerateArray().Select(name => name.GetString()!).Distinct(StringComparer.Ordinal))
            {
                if (!index.TryGetValue(name, out var at))
                {
                    index[name] = at = members.Count;
                    members.Add(new Member(Encoding.UTF8.GetBytes(name), others));
                }
                members[at].IsRequired = true;
                required++;
            }
        }
        var all = members.ToArray();
        _checks.Add(value => value.ValueKind != JsonValueKind.Object || HasMembers(value, all, index, others, required));
        return true;
    }

    private static bool HasMembers(JsonElement value, Member[] members, Dictionary<string, int> index, PlainSchema? others, int required)
    {
        var seen = members.Length <= FewNames ? stackalloc bool[members.Length] : new bool[members.Length];
        var next = 0;
        foreach (var property in value.EnumerateObject())
        {
            // Most come in the order of the schema.
            var at = next < members.Length && property.NameEquals(members[next].Name) ? next
                : index.GetValueOrDefault(property.Name, -1);
            if (!((at < 0 ? others : members[at].Schema)?.Holds(property.Value) ?? true))
                return false;
            if (at < 0)
                continue;
            if (members[at].IsRequired && !seen[at])
                required--;
            seen[at] = true;
            next = at + 1;
        }
        return required == 0;
    }

    private static bool IsOf(string[] types, JsonElement value)
    {
        foreach (var type in types)
        {
            if (IsOf(type, value))
                return true;
        }
        return false;
    }

    private static bool IsOf(string type, JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => type == "string",
        // 1.0 is an integer too: that is for others to say.
        JsonValueKind.Number => type == "number" || type == "integer" && JsonMarshal.GetRawUtf8Value(value).IndexOfAny(".eE"u8) < 0,
        JsonValueKind.True or JsonValueKind.False => type == "boolean",
        JsonValueKind.Object => type == "object",
        JsonValueKind.Array => type == "array",
        _ => type == "null",
    };

    /// <summary>Of numbers, arrays and objects it does not see that they are equal.</summary>
    private static Func<JsonElement, bool> AnyOf(IEnumerable<JsonElement> values)
    {
        var list = values.ToList();
        var texts = list.Where(value => value.ValueKind == JsonValueKind.String).Select(value => value.GetString()!)
            .ToHashSet(StringComparer.Ordinal);
        var kinds = list.Select(value => value.ValueKind).ToHashSet();
        return value => value.ValueKind switch
        {
            JsonValueKind.String => texts.Contains(value.GetString()!),
            JsonValueKind.True or JsonValueKind.False or JsonValueKind.Null => kinds.Contains(value.ValueKind),
            _ => false,
        };
    }

    /// <summary>A number whose value a decimal has without rounding.</summary>
    private static bool TryExact(JsonElement value, out decimal number)
    {
        number = 0;
        return value.ValueKind == JsonValueKind.Number && JsonMarshal.GetRawUtf8Value(value) is { Length: <= ExactDigits } raw
            && raw.IndexOfAny((byte)'e', (byte)'E') < 0 && value.TryGetDecimal(out number);
    }

    private static int LengthOf(JsonElement text)
    {
        var raw = JsonMarshal.GetRawUtf8Value(text);
        return raw.IndexOf((byte)'\\') < 0 && Ascii.IsValid(raw) ? raw.Length - 2 : text.GetString()!.EnumerateRunes().Count();
    }

    /// <summary>What numbers lie between: each is read once.</summary>
    private sealed class Bounds
    {
        private (decimal? Least, decimal? Most, decimal? Above, decimal? Below) _are;

        public bool Any => _are != default;

        /// <summary>Takes a keyword; false for others, and for bounds that a decimal does not have exactly.</summary>
        public bool Take(string keyword, JsonElement of)
        {
            if (!TryExact(of, out var bound))
                return false;
            switch (keyword)
            {
                case "minimum":
                    _are.Least = bound;
                    return true;
                case "maximum":
                    _are.Most = bound;
                    return true;
                case "exclusiveMinimum":
                    _are.Above = bound;
                    return true;
                case "exclusiveMaximum":
                    _are.Below = bound;
                    return true;
                default:
                    return false;
            }
        }

        public bool Hold(JsonElement value) => value.ValueKind != JsonValueKind.Number || TryExact(value, out var number)
            && !(number < _are.Least || number > _are.Most || number <= _are.Above || number >= _are.Below);
    }

    /// <summary>How long text may be: it is counted once.</summary>
    private sealed class Lengths
    {
        private int? _shortest;
        private int? _longest;

        public bool Any => _shortest is not null || _longest is not null;

        /// <summary>Takes a keyword; false for others.</summary>
        public bool Take(string keyword, JsonElement of)
        {
            if (keyword is not ("minLength" or "maxLength") || !of.TryGetInt32(out var length))
                return false;
            if (keyword == "minLength")
                _shortest = length;
            else
                _longest = length;
            return true;
        }

        public bool Hold(JsonElement value) => value.ValueKind != JsonValueKind.String
            || LengthOf(value) is var length && !(length < _shortest || length > _longest);
    }

    /// <param name="Name">In UTF-8.</param>
    /// <param name="Schema">Of its value; null for any.</param>
    private sealed record Member(byte[] Name, PlainSchema? Schema)
    {
        public bool IsRequired { get; set; }
    }
}
