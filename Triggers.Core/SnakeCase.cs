using System.Text.Json;

namespace Triggers.Core;

/// <summary>The text of an enum as the database and the wire have it: <c>DeadLettered</c> is <c>dead_lettered</c>.</summary>
public static class SnakeCase<T> where T : struct, Enum
{
    private static readonly Dictionary<T, string> Texts =
        Enum.GetValues<T>().ToDictionary(value => value, value => JsonNamingPolicy.SnakeCaseLower.ConvertName(value.ToString()));

    private static readonly Dictionary<string, T> Values = Texts.ToDictionary(pair => pair.Value, pair => pair.Key);

    /// <summary>Every text there is, in the order of the enum.</summary>
    public static IReadOnlyCollection<string> All => Texts.Values;

    /// <summary>The text of a value.</summary>
    public static string Of(T value) => Texts[value];

    /// <summary>The value of a text.</summary>
    /// <exception cref="KeyNotFoundException">No value has this text.</exception>
    public static T Parse(string text) => Values[text];

    /// <summary>The value of a text; false when there is none.</summary>
    public static bool TryParse(string? text, out T value)
    {
        value = default;
        return text is not null && Values.TryGetValue(text, out value);
    }
}
