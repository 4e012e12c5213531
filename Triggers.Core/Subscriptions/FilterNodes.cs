using System.Text.Json;

namespace Triggers.Core.Subscriptions;

/// <summary>A part of a filter.</summary>
internal abstract record FilterNode;

/// <summary>All of these members, and at least one of the alternatives.</summary>
internal sealed record FilterMembers((string Name, FilterNode Node)[] All, FilterMembers[] Or) : FilterNode
{
    public bool Asks(string name) => All.Any(member => member.Name == name) || Or.Any(alternative => alternative.Asks(name));
}

/// <summary>Any of these conditions of a value.</summary>
/// <param name="Pointer">Where it is in the filter.</param>
/// <param name="Json">As it is written there.</param>
/// <param name="OfValues">Of a text, a number, true, false or null.</param>
/// <param name="Exists">Whether it is enough that there is anything.</param>
/// <param name="IsMissing">Whether it is enough that there is nothing.</param>
/// <param name="Count">How many there are, with each of those that one lists.</param>
internal sealed record FilterConditions(
    string Pointer, string Json, Func<FilterValue, bool>[] OfValues, bool Exists, bool IsMissing, int Count) : FilterNode
{
    public bool Hold(FilterValue value)
    {
        foreach (var condition in OfValues)
        {
            if (condition(value))
                return true;
        }
        return false;
    }
}

/// <summary>A value that is no object and no array, read once for all conditions of it.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Text">Of a text; null for half of a surrogate pair.</param>
/// <param name="Number">Of a number.</param>
internal readonly record struct FilterValue(JsonValueKind Kind, string? Text = null, FilterNumber Number = default)
{
    public static FilterValue Of(JsonElement json) => json.ValueKind switch
    {
        JsonValueKind.String => new(JsonValueKind.String, JsonText.Of(json)),
        JsonValueKind.Number => new(JsonValueKind.Number, Number: FilterNumber.Of(json)),
        var kind => new(kind),
    };
}

/// <summary>A number exactly, as far as that goes: 29 digits. Beyond it is a double, larger than those or next to zero.</summary>
internal readonly record struct FilterNumber(decimal? Exact, double Rough) : IComparable<FilterNumber>
{
    public static FilterNumber Of(JsonElement json) => json.TryGetDecimal(out var exact)
        ? new FilterNumber(exact, (double)exact)
        : new FilterNumber(null, json.TryGetDouble(out var rough) ? rough : double.NaN);

    public int CompareTo(FilterNumber other) =>
        Exact is { } mine && other.Exact is { } others ? mine.CompareTo(others) : Rough.CompareTo(other.Rough);
}
