using System.Text.Json;

namespace Triggers.Core.Subscriptions;

/// <summary>One application of a <see cref="SubscriptionFilter"/> to one event.</summary>
internal sealed class FilterRun(string? subject, string? source, JsonElement data)
{
    private int _steps;

    public Dictionary<string, FilterCondition>? Explained { get; init; }

    private bool IsTooLong => _steps > SubscriptionFilter.MaxSteps;

    public bool Matches(FilterMembers root)
    {
        // What explains itself looks at everything, else it ends where the answer is known.
        var all = true;
        foreach (var (name, node) in root.All)
        {
            all &= Matches(node, Root(name));
            if (!all && Explained is null)
                return IsTooLong;
        }
        return (all & Any(root.Or, Matches)) || IsTooLong;
    }

    private JsonElement? Root(string name) => name switch
    {
        "subject" => Text(subject),
        "source" => Text(source),
        _ => data.ValueKind == JsonValueKind.Undefined ? null : data,
    };

    private static JsonElement? Text(string? text) => text is null ? null : JsonSerializer.SerializeToElement(text);

    private bool Matches(FilterNode node, JsonElement? value) =>
        node is FilterMembers members ? Matches(members, value) : Matches((FilterConditions)node, value);

    private bool Matches(FilterMembers members, JsonElement? value)
    {
        if (value is { ValueKind: JsonValueKind.Array } array && array.GetArrayLength() > 0)
            return AnyElement(array, element => Matches(members, element));
        var isObject = value is { ValueKind: JsonValueKind.Object };
        Step(isObject ? 1 + value!.Value.GetPropertyCount() / 8 : 1);
        var all = true;
        foreach (var (name, node) in members.All)
        {
            all &= Matches(node, isObject ? JsonText.MemberOf(value!.Value, name) : null);
            if (!all && Explained is null)
                return false;
        }
        return all & Any(members.Or, alternative => Matches(alternative, value));
    }

    private bool Any(IReadOnlyList<FilterMembers> alternatives, Func<FilterMembers, bool> matches)
    {
        var any = alternatives.Count == 0;
        foreach (var alternative in alternatives)
        {
            if (any && Explained is null)
                break;
            any |= matches(alternative);
        }
        return any;
    }

    private bool Matches(FilterConditions conditions, JsonElement? value)
    {
        var matches = value is { } there
            ? conditions.Exists || conditions.OfValues.Count > 0 && OfValue(conditions, there)
            : conditions.IsMissing;
        if (Explained is not null)
        {
            var before = Explained.GetValueOrDefault(conditions.Pointer);
            Explained[conditions.Pointer] = before is { Matches: true } ? before
                : new FilterCondition(conditions.Pointer, conditions.Json, Found(value), matches);
        }
        return matches;
    }

    private bool OfValue(FilterConditions conditions, JsonElement value)
    {
        Step(1);
        if (value.ValueKind == JsonValueKind.Array)
            return AnyElement(value, element => OfValue(conditions, element));
        return value.ValueKind != JsonValueKind.Object && conditions.OfValues.Any(condition => condition(value));
    }

    private bool AnyElement(JsonElement array, Func<JsonElement, bool> matches)
    {
        var any = false;
        foreach (var element in array.EnumerateArray())
        {
            if (any && Explained is null || IsTooLong)
                break;
            any |= matches(element);
        }
        return any;
    }

    private void Step(int steps) => _steps += steps;

    private static string? Found(JsonElement? value) =>
        value is { } there ? there.GetRawText() is var text && text.Length > 100 ? text[..100] + "…" : text : null;
}
