using System.Text.Json;

namespace Triggers.Core.Subscriptions;

/// <summary>Reads a <see cref="SubscriptionFilter"/>, remembering how much there is of it.</summary>
internal sealed class FilterReader(Action<string, string> refuse)
{
    private static readonly string[] s_roots = ["subject", "source", "data"];
    private static readonly string[] s_relations = ["=", "<", "<=", ">", ">="];

    private int _conditions;

    public bool HasMistakes { get; private set; }

    public void Refuse(string pointer, string problem)
    {
        HasMistakes = true;
        refuse(pointer, problem);
    }

    public FilterMembers? Members(JsonElement json, string pointer, int depth)
    {
        var (all, or) = (new List<(string, FilterNode)>(), new List<FilterMembers>());
        foreach (var member in json.EnumerateObject())
        {
            if (HasMistakes)
                return null;
            if (JsonText.NameOf(member) is not { } name)
            {
                Refuse(pointer, "The name of a member is not text.");
                return null;
            }
            var at = $"{pointer}/{name.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal)}";
            if (all.Exists(other => other.Item1 == name))
                Refuse(at, "The member comes twice.");
            else if (name == "$or")
                or.AddRange(Alternatives(member.Value, at, depth));
            else if (depth == 0 && !s_roots.Contains(name))
                Refuse(at, "Must be subject, source, data or $or.");
            else if (depth == SubscriptionFilter.MaxDepth)
                Refuse(at, $"Is deeper than {SubscriptionFilter.MaxDepth}.");
            else if (member.Value.ValueKind == JsonValueKind.Array)
                all.Add((name, Conditions(member.Value, at)));
            else if (member.Value.ValueKind != JsonValueKind.Object || depth == 0 && name != "data")
                Refuse(at, "Must be an array of values and conditions, as in [\"a\", {\"prefix\": \"b\"}].");
            else if (Members(member.Value, at, depth + 1) is { } deeper)
                all.Add((name, deeper));
        }
        if (all.Count == 0 && or.Count == 0 && !HasMistakes)
            Refuse(pointer, "Must have a member.");
        // What is quickly decided comes first.
        return new FilterMembers([.. all.OrderBy(member => depth == 0 && member.Item1 == "data")], [.. or]);
    }

    private List<FilterMembers> Alternatives(JsonElement json, string pointer, int depth)
    {
        var alternatives = new List<FilterMembers>();
        if (json.ValueKind != JsonValueKind.Array || json.GetArrayLength() < 2
            || json.EnumerateArray().Any(alternative => alternative.ValueKind != JsonValueKind.Object))
        {
            Refuse(pointer, "Must be an array of at least two objects.");
            return alternatives;
        }
        foreach (var alternative in json.EnumerateArray())
        {
            // As deep as the members beside it, and with conditions of its own: so it ends.
            if (Members(alternative, $"{pointer}/{alternatives.Count}", depth) is not { } members)
                break;
            alternatives.Add(members);
        }
        return alternatives;
    }

    private FilterConditions Conditions(JsonElement json, string pointer)
    {
        var (ofValues, exists, isMissing, at, before) = (new List<Func<FilterValue, bool>>(), false, false, 0, _conditions);
        if (json.GetArrayLength() == 0)
            Refuse(pointer, "Must not be empty.");
        foreach (var condition in json.EnumerateArray())
        {
            var place = $"{pointer}/{at++}";
            if (++_conditions > SubscriptionFilter.MaxConditions)
            {
                Refuse(place, $"Is one more than {SubscriptionFilter.MaxConditions} conditions.");
                break;
            }
            if (condition.ValueKind == JsonValueKind.Object)
            {
                if (condition.GetPropertyCount() == 1 && condition.TryGetProperty("exists", out var wanted)
                    && wanted.ValueKind is JsonValueKind.True or JsonValueKind.False)
                    (exists, isMissing) = (exists | wanted.GetBoolean(), isMissing | !wanted.GetBoolean());
                else if (Operator(condition, place) is { } operation)
                    ofValues.Add(operation);
            }
            else if (Equal(condition) is { } equal)
            {
                ofValues.Add(equal);
            }
            else
            {
                Refuse(place, "Must be a text, a number, true, false, null or a condition.");
            }
        }
        return new FilterConditions(pointer, json.GetRawText(), [.. ofValues], exists, isMissing, _conditions - before);
    }

    private Func<FilterValue, bool>? Operator(JsonElement json, string pointer)
    {
        var member = json.GetPropertyCount() == 1 ? json.EnumerateObject().First() : default;
        var name = json.GetPropertyCount() == 1 ? JsonText.NameOf(member) : null;
        Func<FilterValue, bool>? operation;
        string expects;
        switch (name)
        {
            case "prefix" or "suffix" or "equals-ignore-case":
                (operation, expects) = (OfText(name, member.Value), "Must be a text of at least one character.");
                break;
            case "numeric":
                (operation, expects) = (Numeric(member.Value),
                    "Must be a relation and a number, or two: [\"=\", 5], [\">\", 0, \"<=\", 5].");
                break;
            case "anything-but":
                (operation, expects) = (AnythingBut(member.Value),
                    "Must be a text, a number, an array of those, or one of prefix, suffix and equals-ignore-case.");
                break;
            case "exists":
                (operation, expects) = (null, "Must be true or false.");
                break;
            default:
                Refuse(pointer, "Must have one member: prefix, suffix, equals-ignore-case, numeric, anything-but or exists.");
                return null;
        }
        if (operation is null)
            Refuse($"{pointer}/{name}", expects);
        return operation;
    }

    private static Func<FilterValue, bool>? OfText(string name, JsonElement json)
    {
        if (JsonText.Of(json) is not { Length: > 0 } wanted)
            return null;
        return name switch
        {
            "prefix" => value => value.Text is { } text && text.StartsWith(wanted, StringComparison.Ordinal),
            "suffix" => value => value.Text is { } text && text.EndsWith(wanted, StringComparison.Ordinal),
            _ => value => value.Text is { } text && text.Equals(wanted, StringComparison.OrdinalIgnoreCase),
        };
    }

    private Func<FilterValue, bool>? AnythingBut(JsonElement json)
    {
        if (json.ValueKind == JsonValueKind.Object)
        {
            var member = json.GetPropertyCount() == 1 ? json.EnumerateObject().First() : default;
            if (json.GetPropertyCount() != 1 || JsonText.NameOf(member) is not ("prefix" or "suffix" or "equals-ignore-case"))
                return null;
            var texts = Listed(member.Value).Select(item => OfText(member.Name, item)).ToArray();
            return texts.Length == 0 || texts.Contains(null) ? null : value => !Array.Exists(texts, text => text!(value));
        }
        var values = Listed(json).Select(item =>
            item.ValueKind is JsonValueKind.String or JsonValueKind.Number ? Equal(item) : null).ToArray();
        return values.Length == 0 || values.Contains(null) ? null : value => !Array.Exists(values, equal => equal!(value));
    }

    /// <summary>The items, each of which counts as a condition; of what is no array, itself.</summary>
    private List<JsonElement> Listed(JsonElement json)
    {
        List<JsonElement> items = json.ValueKind == JsonValueKind.Array ? [.. json.EnumerateArray()] : [json];
        _conditions += Math.Max(0, items.Count - 1);
        return _conditions > SubscriptionFilter.MaxConditions ? [] : items;
    }

    private static Func<FilterValue, bool>? Numeric(JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Array || json.GetArrayLength() is not (2 or 4))
            return null;
        var bounds = new List<Func<FilterValue, bool>>();
        for (var i = 0; i < json.GetArrayLength(); i += 2)
        {
            var (relation, number) = (JsonText.Of(json[i]), json[i + 1]);
            if (!s_relations.Contains(relation) || number.ValueKind != JsonValueKind.Number)
                return null;
            var wanted = FilterNumber.Of(number);
            bounds.Add(relation switch
            {
                "=" => value => value.Number.CompareTo(wanted) == 0,
                "<" => value => value.Number.CompareTo(wanted) < 0,
                "<=" => value => value.Number.CompareTo(wanted) <= 0,
                ">" => value => value.Number.CompareTo(wanted) > 0,
                _ => value => value.Number.CompareTo(wanted) >= 0,
            });
        }
        return value => value.Kind == JsonValueKind.Number && bounds.TrueForAll(bound => bound(value));
    }

    private static Func<FilterValue, bool>? Equal(JsonElement json)
    {
        switch (json.ValueKind)
        {
            case JsonValueKind.String when JsonText.Of(json) is { } wanted:
                return value => value.Text == wanted;
            case JsonValueKind.Number:
                var number = FilterNumber.Of(json);
                return value => value.Kind == JsonValueKind.Number && value.Number.CompareTo(number) == 0;
            case JsonValueKind.True or JsonValueKind.False or JsonValueKind.Null:
                var kind = json.ValueKind;
                return value => value.Kind == kind;
            default:
                return null;
        }
    }
}
