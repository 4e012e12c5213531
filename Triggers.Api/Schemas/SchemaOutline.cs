using System.Buffers;
using System.Text.Json;
using Json.Schema;
using Triggers.Api.Errors;

namespace Triggers.Api.Schemas;

/// <summary>
/// What is looked at of a schema before anything is made of it: that it is one, that it refers to nothing outside, and that it is no
/// larger, no deeper and no more entangled than can be judged in the time of a request. On the way it is written once more, with what
/// <see cref="StepsKeyword"/> counts at the head of each schema in it.
/// </summary>
internal sealed class SchemaOutline
{
    /// <summary>The largest schema.</summary>
    public const int MaxBytes = 64 * 1024;

    /// <summary>Schemas within schemas.</summary>
    public const int MaxDepth = 40;

    private const int MaxSchemas = 2_000;
    private const int MaxReferences = 500;
    private const int MaxPatterns = 100;
    private const int MaxUnevaluated = 50;

    /// <summary>How many schemas may be about one and the same value, with those that are referred to.</summary>
    private const int MaxOfOneValue = 5_000;

    private readonly Dictionary<string, Node> _byPointer = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Node> _byAnchor = new(StringComparer.Ordinal);
    private readonly List<(Node From, string Pointer, string Reference)> _references = [];
    private readonly List<FieldError> _mistakes = [];
    private readonly ArrayBufferWriter<byte> _buffer = new(4096);
    private int _patterns;
    private int _unevaluated;

    private SchemaOutline()
    {
    }

    /// <summary>The schema as it is compiled.</summary>
    public ReadOnlyMemory<byte> Written => _buffer.WrittenMemory;

    /// <summary>Looks at a schema.</summary>
    /// <exception cref="SchemaRefusedException">It is none, or none that is taken.</exception>
    public static SchemaOutline Of(JsonElement schema)
    {
        var outline = new SchemaOutline();
        if (schema.GetRawText().Length > MaxBytes)
            throw new SchemaRefusedException([new FieldError("", $"Is larger than {MaxBytes / 1024} KiB.")]);
        try
        {
            using var writer = new Utf8JsonWriter(outline._buffer, new JsonWriterOptions { SkipValidation = true });
            outline.Read(writer, schema, "", 0);
        }
        catch (InvalidOperationException)
        {
            throw new SchemaRefusedException([new FieldError("", "Has text that is not Unicode.")]);
        }
        if (outline._mistakes.Count == 0)
            outline.Resolve();
        return outline._mistakes.Count == 0 ? outline : throw new SchemaRefusedException(outline._mistakes);
    }

    private Node? Read(Utf8JsonWriter writer, JsonElement schema, string pointer, int depth)
    {
        if (schema.ValueKind is JsonValueKind.True or JsonValueKind.False)
        {
            schema.WriteTo(writer);
            return _byPointer[pointer] = new Node(pointer);
        }
        if (schema.ValueKind != JsonValueKind.Object)
            return Refuse(pointer, "Must be a schema: an object, true or false.");
        if (depth > MaxDepth)
            return Refuse(pointer, $"Schemas may be nested at most {MaxDepth} deep.");
        if (_byPointer.Count >= MaxSchemas)
            return Refuse("", $"Has more than {MaxSchemas} schemas in it.");

        var node = _byPointer[pointer] = new Node(pointer);
        var cost = new Cost();
        var names = new HashSet<string>(StringComparer.Ordinal);
        foreach (var member in schema.EnumerateObject())
        {
            if (!names.Add(member.Name))
                Refuse(At(pointer, member.Name), "The member comes twice.");
            Weigh(node, member, At(pointer, member.Name), ref cost);
        }
        writer.WriteStartObject();
        writer.WriteStartArray(StepsKeyword.KeywordName);
        writer.WriteNumberValue(cost.Each);
        writer.WriteNumberValue(cost.OfBytes);
        writer.WriteNumberValue(cost.OfSquare);
        writer.WriteEndArray();
        foreach (var member in schema.EnumerateObject())
        {
            if (IsLeftOut(member, pointer, depth))
                continue;
            writer.WritePropertyName(member.Name);
            var before = _mistakes.Count;
            ReadKeyword(writer, node, member, At(pointer, member.Name), depth);
            if (_mistakes.Count == before && BoundedDialect.MistakeOf(member.Name, member.Value) is { } mistake)
                Refuse(At(pointer, member.Name), mistake);
        }
        writer.WriteEndObject();
        return node;
    }

    /// <summary>What the compiled form has no use for, once it was looked at.</summary>
    private bool IsLeftOut(JsonProperty member, string pointer, int depth)
    {
        switch (member.Name)
        {
            case "$schema":
                if (member.Value.ValueKind != JsonValueKind.String || member.Value.GetString()!.TrimEnd('#') != SchemaKeywords.Dialect)
                    Refuse(At(pointer, member.Name), $"Must be {SchemaKeywords.Dialect}, or left out.");
                return true;
            case "$id":
                if (depth > 0)
                    Refuse(At(pointer, member.Name), "Only the whole schema may have an $id.");
                return true;
            case "$vocabulary" or StepsKeyword.KeywordName:
                Refuse(At(pointer, member.Name), "Is not taken.");
                return true;
            default:
                return false;
        }
    }

    private void ReadKeyword(Utf8JsonWriter writer, Node node, JsonProperty member, string pointer, int depth)
    {
        var (name, value) = (member.Name, member.Value);
        if (SchemaKeywords.SameValue.Contains(name))
            Add(node.OfSameValue, Read(writer, value, pointer, depth + 1));
        else if (SchemaKeywords.Part.Contains(name))
            Read(writer, value, pointer, depth + 1);
        else if (SchemaKeywords.ArraysOfSameValue.Contains(name))
            ReadArray(writer, value, pointer, depth, node.OfSameValue);
        else if (SchemaKeywords.ArraysOfPart.Contains(name))
            ReadArray(writer, value, pointer, depth, null);
        else if (SchemaKeywords.MapsOfSameValue.Contains(name))
            ReadMap(writer, value, pointer, depth, node.OfSameValue);
        else if (SchemaKeywords.MapsOfPart.Contains(name))
            ReadMap(writer, value, pointer, depth, null);
        else
            value.WriteTo(writer);
    }

    private void Weigh(Node node, JsonProperty member, string pointer, ref Cost cost)
    {
        var (name, value) = (member.Name, member.Value);
        cost.Each += 1 + value.ValueKind switch
        {
            JsonValueKind.Array => value.GetArrayLength(),
            JsonValueKind.Object => value.GetPropertyCount(),
            _ => 0,
        };
        switch (name)
        {
            case "$ref" or "$dynamicRef" when value.ValueKind == JsonValueKind.String:
                _references.Add((node, pointer, value.GetString()!));
                if (_references.Count == MaxReferences + 1)
                    Refuse("", $"Has more than {MaxReferences} references.");
                break;
            case "$anchor" or "$dynamicAnchor" when value.ValueKind == JsonValueKind.String:
                if (!_byAnchor.TryAdd(value.GetString()!, node))
                    Refuse(pointer, "Another schema has this anchor.");
                break;
            case "pattern" when value.ValueKind == JsonValueKind.String:
                cost.OfBytes += 1 + ReadPattern(value.GetString()!, pointer) / 4;
                break;
            case "patternProperties" when value.ValueKind == JsonValueKind.Object:
                foreach (var entry in value.EnumerateObject())
                    cost.OfBytes += 1 + ReadPattern(entry.Name, At(pointer, entry.Name)) / 4;
                break;
            case "enum" or "const":
                var values = name == "enum" && value.ValueKind == JsonValueKind.Array ? value.GetArrayLength() : 1;
                cost.OfBytes += values;
                break;
            case "dependentRequired" when value.ValueKind == JsonValueKind.Object:
                foreach (var entry in value.EnumerateObject())
                    cost.Each += entry.Value.ValueKind == JsonValueKind.Array ? entry.Value.GetArrayLength() : 0;
                break;
            case "minLength" or "maxLength" or "multipleOf" or "minimum" or "maximum" or "exclusiveMinimum" or "exclusiveMaximum":
                cost.OfBytes++;
                break;
            case "propertyNames":
                // Makes a value of each name.
                cost.OfBytes++;
                cost.Each += 200;
                break;
            case "additionalProperties":
                cost.OfBytes++;
                break;
            case "unevaluatedProperties" or "unevaluatedItems":
                // Looks through all that the schemas around it have found out.
                cost.OfBytes++;
                cost.Each += 50;
                if (++_unevaluated == MaxUnevaluated + 1)
                    Refuse(pointer, $"There may be {MaxUnevaluated} of unevaluatedProperties and unevaluatedItems.");
                break;
            case "uniqueItems" when value.ValueKind == JsonValueKind.True:
                cost.OfBytes++;
                cost.OfSquare++;
                break;
        }
    }

    private void ReadArray(Utf8JsonWriter writer, JsonElement value, string pointer, int depth, List<Node>? ofSameValue)
    {
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() == 0)
        {
            Refuse(pointer, "Must be an array of schemas.");
            return;
        }
        writer.WriteStartArray();
        var i = 0;
        foreach (var item in value.EnumerateArray())
            Add(ofSameValue, Read(writer, item, $"{pointer}/{i++}", depth + 1));
        writer.WriteEndArray();
    }

    private void ReadMap(Utf8JsonWriter writer, JsonElement value, string pointer, int depth, List<Node>? ofSameValue)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            Refuse(pointer, "Must be an object of schemas.");
            return;
        }
        var names = new HashSet<string>(StringComparer.Ordinal);
        writer.WriteStartObject();
        foreach (var member in value.EnumerateObject())
        {
            if (!names.Add(member.Name))
                Refuse(At(pointer, member.Name), "The member comes twice.");
            writer.WritePropertyName(member.Name);
            Add(ofSameValue, Read(writer, member.Value, At(pointer, member.Name), depth + 1));
        }
        writer.WriteEndObject();
    }

    private int ReadPattern(string pattern, string pointer)
    {
        try
        {
            if (++_patterns > MaxPatterns)
                throw new FormatException($"There may be {MaxPatterns} patterns.");
            SchemaPattern.Compile(pattern, out var size);
            return size;
        }
        catch (FormatException e)
        {
            Refuse(pointer, e.Message);
            return 0;
        }
    }

    /// <summary>Each reference leads to a schema in this one, and following them comes to an end.</summary>
    private void Resolve()
    {
        foreach (var (from, pointer, reference) in _references)
        {
            if (Find(reference) is { } target)
                from.OfSameValue.Add(target);
            else
                Refuse(pointer, "Leads to no schema in this one, as #/$defs/name does. Nothing is fetched from elsewhere.");
        }
        if (_mistakes.Count > 0)
            return;
        foreach (var node in _byPointer.Values)
        {
            if (CountOfOneValue(node) is not { } count)
                Refuse(node.Pointer, "Refers to itself without coming to a part of the value: judging would not end.");
            else if (count > MaxOfOneValue)
                Refuse(node.Pointer, $"Has more than {MaxOfOneValue} schemas about the same value, with those that it refers to.");
            if (_mistakes.Count > 0)
                return;
        }
    }

    private Node? Find(string reference)
    {
        if (!reference.StartsWith('#'))
            return null;
        string fragment;
        try
        {
            fragment = Uri.UnescapeDataString(reference[1..]);
        }
        catch (UriFormatException)
        {
            return null;
        }
        return fragment.Length == 0 || fragment[0] == '/' ? _byPointer.GetValueOrDefault(fragment) : _byAnchor.GetValueOrDefault(fragment);
    }

    /// <summary>How many schemas one value is held to; null when there is no end of it.</summary>
    private static int? CountOfOneValue(Node node)
    {
        if (node.Count is not 0)
            return node.Count > 0 ? node.Count : null;
        node.Count = -1;
        var count = 1;
        foreach (var other in node.OfSameValue)
        {
            if (CountOfOneValue(other) is not { } more)
                return null;
            count = Math.Min(count + more, MaxOfOneValue + 1);
        }
        return node.Count = count;
    }

    private Node? Refuse(string pointer, string mistake)
    {
        if (_mistakes.Count < 20)
            _mistakes.Add(new FieldError(pointer, mistake));
        return null;
    }

    private static void Add(List<Node>? nodes, Node? node)
    {
        if (node is not null)
            nodes?.Add(node);
    }

    private static string At(string pointer, string name) => $"{pointer}/{name.Replace("~", "~0").Replace("/", "~1")}";

    private sealed class Node(string pointer)
    {
        public string Pointer { get; } = pointer;

        /// <summary>Schemas that are about the same value: those within it, and those it refers to.</summary>
        public List<Node> OfSameValue { get; } = [];

        /// <summary>How many there are, with itself; 0: not counted yet, -1: being counted.</summary>
        public int Count { get; set; }
    }

    /// <summary>See <see cref="StepsKeyword"/>.</summary>
    private struct Cost
    {
        public int Each;
        public int OfBytes;
        public int OfSquare;
    }
}

/// <summary>A schema that is not taken.</summary>
/// <param name="mistakes">What is wrong with it, each with a pointer into the schema.</param>
internal sealed class SchemaRefusedException(IReadOnlyList<FieldError> mistakes) : Exception("The schema is not taken.")
{
    public IReadOnlyList<FieldError> Mistakes { get; } = mistakes;
}
