using System.Text.Json;
using Triggers.Api.Errors;

namespace Triggers.Api.Schemas;

/// <summary>
/// Whether everything that matches one schema matches another, as far as it follows from the two, keyword by keyword (docs/contracts.md has
/// the rules). What does not follow is named, and so is what can't be judged. One thing is taken for granted: a property that a schema
/// does not name, and neither forbids nor describes, anywhere that it speaks of the same value, is not there.
/// </summary>
internal sealed class SchemaComparison
{
    private const int MaxSteps = 50_000;
    private const int MaxDepth = 200;
    private const int MaxMistakes = 20;

    private static readonly string[] s_numbers = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
    private static readonly string[] s_strings = ["minLength", "maxLength", "pattern"];
    private static readonly string[] s_arrays =
        ["minItems", "maxItems", "uniqueItems", "items", "prefixItems", "contains", "minContains", "maxContains", "unevaluatedItems"];
    private static readonly string[] s_objects =
    [
        "minProperties", "maxProperties", "required", "properties", "patternProperties", "additionalProperties", "propertyNames",
        "dependentRequired", "dependentSchemas", "unevaluatedProperties",
    ];

    private static readonly string[] s_someItems = ["contains", "unevaluatedItems"];

    // What else a keyword depends on in its schema.
    private static readonly Dictionary<string, string[]> s_together = new()
    {
        ["if"] = ["if", "then", "else"],
        ["contains"] = ["contains", "minContains", "maxContains"],
    };

    private static readonly JsonElement s_true = JsonDocument.Parse("true").RootElement.Clone();

    private readonly JsonElement _wideRoot;
    private readonly JsonElement _narrowRoot;
    private readonly bool _sameDefinitions;
    private readonly HashSet<(string, string)> _compared = [];
    private readonly Dictionary<string, Said[]> _aboutSame = [];
    private int _steps;

    private SchemaComparison(JsonElement wide, JsonElement narrow) =>
        (_wideRoot, _narrowRoot, _sameDefinitions) = (wide, narrow, HaveSameDefinitions(wide, narrow));

    /// <summary>Why values that match <paramref name="narrow"/> might not match <paramref name="wide"/>; empty when all do.</summary>
    /// <param name="wide">The schema that is to let all in.</param>
    /// <param name="narrow">The schema whose values they are.</param>
    /// <returns>Pointers into <paramref name="wide"/>.</returns>
    public static IReadOnlyList<FieldError> WhyNotAll(JsonElement wide, JsonElement narrow)
    {
        var comparison = new SchemaComparison(wide, narrow);
        var mistakes = new List<FieldError>();
        comparison.Compare(new At(wide, ""), new At(narrow, ""), mistakes, 0);
        // What was to be compared may not have been found.
        if (comparison._steps > MaxSteps && mistakes.Count == 0)
            TooEntangled(new At(wide, ""), mistakes);
        return mistakes;
    }

    private void Compare(At wide, At narrow, List<FieldError> mistakes, int depth)
    {
        if (mistakes.Count >= MaxMistakes)
            return;
        if (++_steps > MaxSteps || depth > MaxDepth)
        {
            TooEntangled(wide, mistakes);
            return;
        }
        // Begun before: what follows from it is being looked at.
        if (!_compared.Add((wide.Pointer, narrow.Key)))
            return;
        if (JsonElement.DeepEquals(wide.Schema, narrow.Schema) && _sameDefinitions)
            return;
        narrow = Follow(narrow, _narrowRoot);
        if (narrow.Schema.ValueKind == JsonValueKind.False || IsTrue(wide.Schema))
            return;
        if (wide.Schema.ValueKind == JsonValueKind.False)
        {
            Break(wide, "Nothing matches any more", mistakes);
            return;
        }
        if (wide.Get("$ref") is { } reference)
        {
            if (Target(reference, _wideRoot) is { } target)
                Compare(target, narrow, mistakes, depth + 1);
            else
                Unknown(wide.Of("$ref"), "A reference by anchor is not followed", mistakes);
        }
        var types = TypesOf(narrow);
        foreach (var keyword in wide.Schema.EnumerateObject())
        {
            if (keyword.Name == "$ref" || SchemaKeywords.Annotations.Contains(keyword.Name))
                continue;
            // What is about other values than there are says nothing.
            var about = s_numbers.Contains(keyword.Name) ? ["integer", "number"] : s_strings.Contains(keyword.Name) ? ["string"]
                : s_arrays.Contains(keyword.Name) ? ["array"] : s_objects.Contains(keyword.Name) ? ["object"] : types;
            if (about.Any(types.Contains))
                CompareKeyword(keyword.Name, wide, narrow, types, mistakes, depth);
        }
    }

    private void CompareKeyword(
        string name, At wide, At narrow, IReadOnlyCollection<string> types, List<FieldError> mistakes, int depth)
    {
        var (value, at) = (wide.Schema.GetProperty(name), wide.Of(name));
        var other = narrow.Get(name);
        switch (name)
        {
            case "type":
                var allowed = TypesOf(wide.Schema);
                if (types.Where(type => !allowed.Contains(type) && !(type == "integer" && allowed.Contains("number"))).ToArray()
                    is { Length: > 0 } lost)
                    Break(at, $"No longer lets in {string.Join(", ", lost)}", mistakes);
                return;
            case "enum" or "const":
                var values = Values(wide.Schema)!;
                if (Values(narrow.Schema) is not { } given)
                    Break(at, "Values are not restricted to these on the other side", mistakes);
                else if (given.Any(v => !values.Any(w => JsonElement.DeepEquals(v, w))))
                    Break(at, "Lacks values of the other side", mistakes);
                return;
            case "minimum" or "exclusiveMinimum" or "maximum" or "exclusiveMaximum":
                if (!IsWithin(name, value, narrow))
                    Break(at, "Lets in fewer numbers", mistakes);
                return;
            case "minLength" or "minItems" or "minProperties":
                if (Number(value) > 0 && !(Number(other) >= Number(value))
                    && !(name == "minProperties" && Required(narrow).Count >= Number(value)))
                    Break(at, "Asks for more", mistakes);
                return;
            case "maxLength" or "maxItems" or "maxProperties":
                if (!(Number(other) <= Number(value)))
                    Break(at, "Lets in less", mistakes);
                return;
            case "multipleOf":
                if (!(Number(other) is { } step && Number(value) is { } of && of != 0 && step % of == 0))
                    Break(at, "Lets in fewer numbers", mistakes);
                return;
            case "pattern":
                if (other is null)
                    Break(at, "Text has no pattern on the other side", mistakes);
                else if (!JsonElement.DeepEquals(value, other.Value))
                    Unknown(at, "Two patterns are not compared", mistakes);
                return;
            case "uniqueItems":
                if (value.ValueKind == JsonValueKind.True && other is not { ValueKind: JsonValueKind.True })
                    Break(at, "Items may come twice on the other side", mistakes);
                return;
            case "required":
                var required = Required(narrow);
                foreach (var missing in value.EnumerateArray().Select(v => v.GetString()!).Where(p => !required.Contains(p)))
                    Break(at, $"Requires \"{missing}\", which the other side does not", mistakes);
                return;
            case "properties":
                foreach (var property in value.EnumerateObject())
                    CompareWithAny(at.Of(property.Name), Property(narrow, property.Name), mistakes, depth);
                return;
            case "additionalProperties":
                CompareAdditional(at, wide, narrow, mistakes, depth);
                return;
            case "items":
                if (!SameOf("prefixItems", wide, narrow))
                    Unknown(at, "Not compared where prefixItems differ", mistakes);
                else
                    CompareWithAny(at, Items(narrow), mistakes, depth);
                return;
            case "anyOf":
                if (other is not { } alternatives)
                    goto default;
                for (var i = 0; i < alternatives.GetArrayLength(); i++)
                {
                    var alternative = narrow.Of("anyOf").Of(i) with { Beside = [new Said(narrow, Holds: true)] };
                    if (!Enumerable.Range(0, value.GetArrayLength()).Any(j => IsWithin(at.Of(j), alternative, depth)))
                        Break(at, $"No alternative lets in what number {i} of the other side does, as far as can be judged", mistakes);
                }
                return;
            case "allOf":
                // Each is held to all that the other side says.
                if (SameOf(name, wide, narrow) && _sameDefinitions)
                    return;
                for (var i = 0; i < value.GetArrayLength(); i++)
                    Compare(at.Of(i), narrow, mistakes, depth + 1);
                return;
            case "then" or "else" or "minContains" or "maxContains":
                // Judged with what they belong to; without it they say nothing.
                return;
            case "unevaluatedProperties" or "unevaluatedItems":
                if (!IsTrue(value) && !(JsonElement.DeepEquals(wide.Schema, narrow.Schema) && _sameDefinitions))
                    Unknown(at, "Not compared where anything around it differs", mistakes);
                return;
            default:
                // What is no keyword says nothing.
                if (!IsKeyword(name) || s_together.GetValueOrDefault(name, [name]).All(k => SameOf(k, wide, narrow)) && _sameDefinitions)
                    return;
                Unknown(at, $"{name} is only compared with the same {name}", mistakes);
                return;
        }
    }

    private void CompareAdditional(At at, At wide, At narrow, List<FieldError> mistakes, int depth)
    {
        if (IsTrue(at.Schema))
            return;
        if (!SameOf("patternProperties", wide, narrow) || !_sameDefinitions && narrow.Get("patternProperties") is not null)
        {
            Unknown(at, "Not compared where patternProperties differ", mistakes);
            return;
        }
        // What the other side names, and this one doesn't.
        foreach (var name in AboutSame(narrow).SelectMany(s => Names(s.At.Get("properties"))).Distinct())
        {
            if (wide.Get("properties") is not { } named || !named.TryGetProperty(name, out _))
                CompareWithAny(at, Property(narrow, name), mistakes, depth);
        }
        At[] others = Property(narrow, null) is { Length: > 0 } described ? described : [narrow.OfOrTrue("additionalProperties")];
        if (at.Schema.ValueKind == JsonValueKind.False && !others.Any(o => o.Schema.ValueKind == JsonValueKind.False))
            Break(at, "Forbids properties that the other side lets in", mistakes);
        else
            CompareWithAny(at, others, mistakes, depth);
    }

    /// <summary>What holds for a property, all else that is said of it beside each; empty when it is not there.</summary>
    /// <param name="schema">Whose property.</param>
    /// <param name="name">Null: any that neither <c>properties</c> nor the patterns of this schema have.</param>
    private At[] Property(At schema, string? name)
    {
        var said = new List<Said>();
        foreach (var (at, holds) in AboutSame(schema))
        {
            var patterns = name is null && at.Pointer == schema.Pointer ? null : at.Get("patternProperties");
            if (name is not null && at.Get("properties") is { } properties && properties.TryGetProperty(name, out _))
                said.Add(new Said(at.Of("properties").Of(name), holds));
            else if (at.Get("additionalProperties") is { ValueKind: JsonValueKind.Object or JsonValueKind.False } others
                && (holds || others.ValueKind == JsonValueKind.Object))
                said.Add(new Said(at.Of("additionalProperties"), holds && patterns is null));
            // Which patterns it has is not looked at.
            foreach (var pattern in Names(patterns))
                said.Add(new Said(at.Of("patternProperties").Of(pattern), Holds: false));
            if (at.Get("unevaluatedProperties") is { ValueKind: JsonValueKind.Object })
                said.Add(new Said(at.Of("unevaluatedProperties"), Holds: false));
            if (name is not null && Required(at).Contains(name))
                said.Add(new Said(new At(s_true, $"{at.Pointer}/required/{name}"), Holds: false));
            if (RefersElsewhere(at))
                said.Add(new Said(at with { Beside = [] }, Holds: false));
        }
        return What(said, $"{schema.Pointer}//{name}");
    }

    /// <summary>What holds for the items of an array, all else that is said of them beside each.</summary>
    private At[] Items(At schema)
    {
        var said = new List<Said>();
        foreach (var (at, holds) in AboutSame(schema))
        {
            // Those of the schema itself are on both sides.
            var first = at.Pointer == schema.Pointer ? null : at.Get("prefixItems");
            if (at.Get("items") is not null)
                said.Add(new Said(at.Of("items"), holds && first is null));
            for (var i = 0; i < first?.GetArrayLength(); i++)
                said.Add(new Said(at.Of("prefixItems").Of(i), Holds: false));
            foreach (var keyword in s_someItems.Where(k => at.Get(k) is not null))
                said.Add(new Said(at.Of(keyword), Holds: false));
            if (RefersElsewhere(at))
                said.Add(new Said(at with { Beside = [] }, Holds: false));
        }
        return What(said, $"{schema.Pointer}//") is { Length: > 0 } items ? items : [schema.OfOrTrue("items")];
    }

    /// <summary>What is said that holds, with the rest beside it. Where nothing holds it may be anything.</summary>
    private static At[] What(List<Said> said, string pointer)
    {
        if (said.Count == 0)
            return [];
        At[] holds = said.Exists(s => s.Holds) ? [.. said.Where(s => s.Holds).Select(s => s.At)] : [new At(s_true, pointer)];
        return [.. holds.Select(at => at with { Beside = [.. said.Where(s => s.At.Pointer != at.Pointer)] })];
    }

    /// <summary>
    /// The schemas about the same value: this one, those within it, what they refer to, and what is beside it. Those that hold for
    /// whatever matches it come first.
    /// </summary>
    private Said[] AboutSame(At schema)
    {
        if (_aboutSame.TryGetValue(schema.Key, out var known))
            return known;
        var (found, seen) = (new List<Said>(), new HashSet<(string, bool)>());
        Find(schema, holds: true);
        return _aboutSame[schema.Key] = [.. found.OrderByDescending(s => s.Holds).DistinctBy(s => s.At.Pointer)];

        void Find(At at, bool holds)
        {
            if (!seen.Add((at.Pointer, holds)) || ++_steps > MaxSteps)
                return;
            found.Add(new Said(at, holds));
            foreach (var beside in at.Beside)
                Find(beside.At, holds && beside.Holds);
            if (at.Schema.ValueKind != JsonValueKind.Object)
                return;
            foreach (var (name, value) in at.Schema.EnumerateObject().Select(k => (k.Name, k.Value)))
            {
                if (name == "$ref" && Target(value, _narrowRoot) is { } target)
                    Find(target, holds);
                else if (SchemaKeywords.SameValue.Contains(name))
                    Find(at.Of(name), holds: false);
                for (var i = 0; SchemaKeywords.ArraysOfSameValue.Contains(name) && i < value.GetArrayLength(); i++)
                    Find(at.Of(name).Of(i), holds && name == "allOf");
                foreach (var member in SchemaKeywords.MapsOfSameValue.Contains(name) ? Names(value) : [])
                    Find(at.Of(name).Of(member), holds: false);
            }
        }
    }

    /// <summary>Whether it refers to what is not looked up: that may say anything, of what is within as well.</summary>
    private bool RefersElsewhere(At schema) =>
        schema.Get("$dynamicRef") is not null || schema.Get("$ref") is { } reference && Target(reference, _narrowRoot) is null;

    /// <summary>Each of these holds: it is enough if what follows from one is let in.</summary>
    private void CompareWithAny(At wide, At[] narrow, List<FieldError> mistakes, int depth)
    {
        if (narrow.Length > 0 && !narrow.Skip(1).Any(one => IsWithin(wide, one, depth)))
            Compare(wide, narrow[0], mistakes, depth + 1);
    }

    private bool IsWithin(At wide, At narrow, int depth)
    {
        var mistakes = new List<FieldError>();
        var before = _compared.ToArray();
        Compare(wide, narrow, mistakes, depth + 1);
        if (mistakes.Count == 0)
            return true;
        // Another way that leads here is to find the same.
        _compared.Clear();
        _compared.UnionWith(before);
        return false;
    }

    private static bool IsWithin(string name, JsonElement bound, At narrow)
    {
        var isLower = name is "minimum" or "exclusiveMinimum";
        var (closed, open) = isLower ? ("minimum", "exclusiveMinimum") : ("maximum", "exclusiveMaximum");
        if (Number(bound) is not { } limit)
            return false;
        var given = Number(narrow.Get(closed));
        var givenOpen = Number(narrow.Get(open));
        bool Beyond(double value) => isLower ? value > limit : value < limit;
        return given is { } c && (Beyond(c) || c == limit && name == closed) || givenOpen is { } o && (Beyond(o) || o == limit);
    }

    /// <summary>A schema that is nothing but a reference is what it refers to.</summary>
    private static At Follow(At schema, JsonElement root)
    {
        for (var i = 0; i < MaxDepth && schema.Get("$ref") is { } reference; i++)
        {
            if (schema.Schema.EnumerateObject().Any(k => k.Name != "$ref" && !SchemaKeywords.Annotations.Contains(k.Name))
                || Target(reference, root) is not { } target)
                break;
            schema = target with { Beside = schema.Beside };
        }
        return schema;
    }

    private static At? Target(JsonElement reference, JsonElement root)
    {
        var fragment = Uri.UnescapeDataString(reference.GetString()!.TrimStart('#'));
        if (fragment.Length > 0 && fragment[0] != '/')
            return null;
        var at = new At(root, "");
        foreach (var part in fragment.Split('/').Skip(1).Select(p => p.Replace("~1", "/").Replace("~0", "~")))
        {
            if (at.Schema.ValueKind == JsonValueKind.Array && int.TryParse(part, out var i) && i < at.Schema.GetArrayLength())
                at = at.Of(i);
            else if (at.Schema.ValueKind == JsonValueKind.Object && at.Schema.TryGetProperty(part, out _))
                at = at.Of(part);
            else
                return null;
        }
        return at;
    }

    private static string[] TypesOf(At schema) =>
        Values(schema.Schema) is { } values && schema.Get("type") is null ? [.. values.Select(TypeOf).Distinct()] : TypesOf(schema.Schema);

    private static string[] TypesOf(JsonElement schema) =>
        schema.ValueKind != JsonValueKind.Object || !schema.TryGetProperty("type", out var type)
            ? ["null", "boolean", "object", "array", "number", "integer", "string"]
            : type.ValueKind == JsonValueKind.Array ? [.. type.EnumerateArray().Select(t => t.GetString()!)] : [type.GetString()!];

    private static string TypeOf(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Null => "null",
        JsonValueKind.True or JsonValueKind.False => "boolean",
        JsonValueKind.Object => "object",
        JsonValueKind.Array => "array",
        JsonValueKind.String => "string",
        _ => value.TryGetInt64(out _) ? "integer" : "number",
    };

    /// <summary>The values there are, if they are told one by one.</summary>
    private static JsonElement[]? Values(JsonElement schema) =>
        schema.ValueKind != JsonValueKind.Object ? null
            : schema.TryGetProperty("const", out var constant) ? [constant]
            : schema.TryGetProperty("enum", out var values) ? [.. values.EnumerateArray()] : null;

    private static HashSet<string> Required(At schema) =>
        schema.Get("required") is { } required ? [.. required.EnumerateArray().Select(p => p.GetString()!)] : [];

    private static IEnumerable<string> Names(JsonElement? members) =>
        members is { } of ? of.EnumerateObject().Select(m => m.Name) : [];

    private static double? Number(JsonElement? value) =>
        value is { ValueKind: JsonValueKind.Number } number && number.TryGetDouble(out var real) ? real : null;

    private static bool IsTrue(JsonElement schema) =>
        schema.ValueKind == JsonValueKind.True || schema.ValueKind == JsonValueKind.Object && schema.GetPropertyCount() == 0;

    private static bool IsKeyword(string name) =>
        SchemaKeywords.SameValue.Contains(name) || SchemaKeywords.ArraysOfSameValue.Contains(name)
        || SchemaKeywords.MapsOfSameValue.Contains(name) || s_objects.Contains(name) || s_arrays.Contains(name)
        || name is "$dynamicRef";

    private static bool SameOf(string name, At wide, At narrow) => (wide.Get(name), narrow.Get(name)) switch
    {
        (null, null) => true,
        ({ } one, { } other) => JsonElement.DeepEquals(one, other),
        _ => false,
    };

    /// <summary>
    /// Whether equal text means the same on both sides: what it refers to is among definitions, and those are equal.
    /// </summary>
    private static bool HaveSameDefinitions(JsonElement one, JsonElement other) =>
        SameOf("$defs", new At(one, ""), new At(other, "")) && SameOf("definitions", new At(one, ""), new At(other, ""))
        && RefersToDefinitions(one) && RefersToDefinitions(other);

    private static bool RefersToDefinitions(JsonElement schema) => schema.ValueKind switch
    {
        JsonValueKind.Object => schema.EnumerateObject().All(member => member.Name switch
        {
            "$dynamicRef" => false,
            "$ref" when member.Value.ValueKind == JsonValueKind.String =>
                member.Value.GetString()!.StartsWith("#/$defs/", StringComparison.Ordinal)
                || member.Value.GetString()!.StartsWith("#/definitions/", StringComparison.Ordinal),
            _ => RefersToDefinitions(member.Value),
        }),
        JsonValueKind.Array => schema.EnumerateArray().All(RefersToDefinitions),
        _ => true,
    };

    private static void Break(At at, string detail, List<FieldError> mistakes) => Add(at, detail + ".", mistakes);

    private static void Unknown(At at, string detail, List<FieldError> mistakes) => Add(at, $"Can't be judged: {detail}.", mistakes);

    private static void TooEntangled(At at, List<FieldError> mistakes) =>
        Unknown(at, "The schemas are too entangled to be compared", mistakes);

    private static void Add(At at, string detail, List<FieldError> mistakes)
    {
        if (mistakes.Count < MaxMistakes)
            mistakes.Add(new FieldError(at.Pointer, detail));
    }

    /// <summary>A place in a schema.</summary>
    private readonly record struct At(JsonElement Schema, string Pointer)
    {
        /// <summary>What else is said of the same value. It is looked into for what it names, and not compared.</summary>
        public IReadOnlyList<Said> Beside { get; init; } = [];

        /// <summary>The place, and all that is beside it.</summary>
        public string Key => Pointer + string.Concat(Beside.Select(b => (b.Holds ? " & " : " | ") + b.At.Key));

        public JsonElement? Get(string name) =>
            Schema.ValueKind == JsonValueKind.Object && Schema.TryGetProperty(name, out var value) ? value : null;

        public At Of(string name) => new(Schema.GetProperty(name), $"{Pointer}/{name.Replace("~", "~0").Replace("/", "~1")}");

        public At OfOrTrue(string name) => Get(name) is null ? new At(s_true, $"{Pointer}/{name}") : Of(name);

        public At Of(int index) => new(Schema[index], $"{Pointer}/{index}");
    }

    /// <summary>A schema that speaks of a value.</summary>
    /// <param name="At">Where it is.</param>
    /// <param name="Holds">Whether the value matches it for certain.</param>
    private readonly record struct Said(At At, bool Holds);
}
