using System.Runtime.InteropServices;
using System.Text.Json;

namespace Triggers.Core.Subscriptions;

/// <summary>
/// One application of a <see cref="SubscriptionFilter"/> to one event. What is not decided within the steps there are counts as if it held:
/// what is decided all the same, subject and source at least, may still say no.
/// </summary>
internal sealed class FilterRun(string? subject, string? source, JsonElement data, int maxSteps)
{
    /// <summary>How many names of an object, or conditions of a value that is read, are compared in the time of one step.</summary>
    private const int ComparedInStep = 8;

    /// <summary>How many bytes of a value are read in that time.</summary>
    private const int BytesInStep = 256;

    /// <summary>How many steps it takes to find that a text, or a name, is none: the framework throws.</summary>
    private const int NoText = 100;

    public Dictionary<string, FilterCondition>? Explained { get; init; }

    /// <summary>How many it took, up to one more than a filter has: then it ends.</summary>
    public int Steps { get; private set; }

    private bool IsTooLong => Steps > maxSteps;

    /// <summary>What explains itself looks at everything there are steps for, else it ends where the answer is known.</summary>
    private bool Explains => Explained is not null;

    public bool Matches(FilterMembers root)
    {
        var all = true;
        foreach (var (name, node) in root.All)
        {
            all &= name switch
            {
                "subject" => Matches((FilterConditions)node, subject),
                "source" => Matches((FilterConditions)node, source),
                _ => Matches(node, data.ValueKind == JsonValueKind.Undefined ? null : data),
            };
            if (!all && !Explains)
                return false;
        }
        return all & Any(root.Or, null, isRoot: true);
    }

    /// <summary>Of a subject or a source, which is short, and so always decided.</summary>
    private bool Matches(FilterConditions conditions, string? text)
    {
        Step(1 + conditions.Count / ComparedInStep);
        var matches = text is null ? conditions.IsMissing
            : conditions.Exists || conditions.Hold(new FilterValue(JsonValueKind.String, text));
        if (Explains)
            Explain(conditions, text is null ? null : JsonSerializer.SerializeToElement(text), matches);
        return matches;
    }

    private bool Matches(FilterNode node, JsonElement? value) =>
        node is FilterMembers members ? Matches(members, value) : Matches((FilterConditions)node, value);

    private bool Matches(FilterMembers members, JsonElement? value)
    {
        if (value is { ValueKind: JsonValueKind.Array } array && array.GetArrayLength() > 0)
            return AnyElement(members, array);
        Step(1);
        var all = true;
        foreach (var (name, node) in members.All)
        {
            var member = Member(value, name);
            if (IsTooLong && !Explains)
                return true;
            all &= Matches(node, member);
            if (!all && !Explains)
                return false;
        }
        return all & Any(members.Or, value, isRoot: false);
    }

    private bool Any(FilterMembers[] alternatives, JsonElement? value, bool isRoot)
    {
        var any = alternatives.Length == 0;
        foreach (var alternative in alternatives)
        {
            if (any && !Explains)
                break;
            any |= isRoot ? Matches(alternative) : Matches(alternative, value);
        }
        return any;
    }

    private bool AnyElement(FilterMembers members, JsonElement array)
    {
        var any = false;
        foreach (var element in array.EnumerateArray())
        {
            if (IsTooLong)
                return true;
            any |= Matches(members, element);
            if (any && !Explains)
                break;
        }
        return any;
    }

    private bool Matches(FilterConditions conditions, JsonElement? value)
    {
        var matches = value is { } there
            ? conditions.Exists || conditions.OfValues.Length > 0 && OfValue(conditions, there)
            : conditions.IsMissing;
        if (Explains)
            Explain(conditions, value, matches);
        return matches;
    }

    private bool OfValue(FilterConditions conditions, JsonElement value)
    {
        var kind = value.ValueKind;
        Step(1 + kind switch
        {
            JsonValueKind.Array or JsonValueKind.Object => 0,
            _ => conditions.Count / ComparedInStep + JsonMarshal.GetRawUtf8Value(value).Length / BytesInStep,
        });
        if (IsTooLong)
            return true;
        if (kind == JsonValueKind.Array)
        {
            foreach (var element in value.EnumerateArray())
            {
                if (OfValue(conditions, element))
                    return true;
            }
            return false;
        }
        if (kind == JsonValueKind.Object)
            return false;
        var read = FilterValue.Of(value);
        if (read is { Kind: JsonValueKind.String, Text: null })
            Step(NoText);
        return conditions.Hold(read);
    }

    /// <summary>The last member of that name; null where there is none, or too much to look through.</summary>
    private JsonElement? Member(JsonElement? value, string name)
    {
        var json = value is { ValueKind: JsonValueKind.Object } there ? there : default;
        if (json.ValueKind != JsonValueKind.Object)
        {
            Step(1);
            return null;
        }
        Step(1 + json.GetPropertyCount() / ComparedInStep);
        if (IsTooLong && !Explains)
            return null;
        try
        {
            return json.TryGetProperty(name, out var found) ? found : null;
        }
        catch (InvalidOperationException)
        {
            return AmongNoText(json, name);
        }
    }

    /// <summary>The same where the name of another is half of a surrogate pair.</summary>
    private JsonElement? AmongNoText(JsonElement json, string name)
    {
        Step(NoText);
        JsonElement? found = null;
        foreach (var member in json.EnumerateObject())
        {
            if (IsTooLong)
                break;
            var other = JsonText.NameOf(member);
            Step(other is null ? NoText : 1);
            if (other == name)
                found = member.Value;
        }
        return found;
    }

    /// <summary>Of an array it is the element that holds, where one does.</summary>
    private void Explain(FilterConditions conditions, JsonElement? value, bool matches)
    {
        if (Explained!.GetValueOrDefault(conditions.Pointer) is not { Matches: true })
            Explained![conditions.Pointer] = new FilterCondition(conditions.Pointer, conditions.Json, Found(value), matches);
    }

    /// <summary>However much there is to look through at once, it counts as no more than ends the run.</summary>
    private void Step(int steps) => Steps = Math.Min(Steps + steps, SubscriptionFilter.MaxSteps + 1);

    private static string? Found(JsonElement? value) =>
        value is { } there ? there.GetRawText() is var text && text.Length > 100 ? text[..100] + "…" : text : null;
}
