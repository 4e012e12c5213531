using System.Collections.Concurrent;
using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Triggers.Core;

namespace Triggers.Api.Requests;

/// <summary>The texts of an array: how long each may be, and what it looks like.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal class ItemsAttribute(int maxLength) : Attribute
{
    public int MaxLength { get; } = maxLength;

    /// <summary>A regular expression, as JSON Schema has them.</summary>
    public string? Pattern { get; init; }

    /// <summary>The texts there are; null where they are not few.</summary>
    public virtual IReadOnlyCollection<string>? Values => null;
}

/// <summary>The texts of an object: how many there may be, and how long each.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class MapAttribute(int maxCount, int maxLength) : Attribute
{
    public int MaxCount { get; } = maxCount;

    public int MaxLength { get; } = maxLength;

    /// <summary>A regular expression for the values, as JSON Schema has them.</summary>
    public string? Pattern { get; init; }

    /// <summary>Whether a null stands for a text that is to be removed (RFC 7396).</summary>
    public bool IsPatch { get; init; }
}

/// <summary>A duration from nothing to so many whole days (at most 9), as in <c>01:30:00</c> or <c>1.12:00:00</c>.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class DurationAttribute(int maxDays) : Attribute
{
    private readonly Regex _shape = new(PatternOf(maxDays), RegexOptions.CultureInvariant);

    public int MaxDays { get; } = maxDays;

    /// <summary>A regular expression, as JSON Schema has them.</summary>
    public string Pattern => PatternOf(MaxDays);

    public bool IsMatch(string text) => _shape.IsMatch(text) && !text.EndsWith('\n');

    private static string PatternOf(int maxDays) =>
        $@"^(([0-{maxDays - 1}]\.)?([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{{1,7}})?|{maxDays}\.00:00:00)$";
}

/// <summary>An id with this prefix, or an array of them. See <see cref="TypeId"/>.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class IdAttribute(string prefix) : Attribute
{
    public string Prefix { get; } = prefix;
}

/// <summary>May be left out of a merge patch, but not removed: null is refused.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class NotRemovableAttribute : Attribute;

/// <summary>
/// What the attributes of a body's record say of one of its members. They are all there is to say: <see cref="Fields"/> holds requests to
/// them, and the OpenAPI document shows them.
/// </summary>
internal sealed class MemberLimits(PropertyInfo property)
{
    private static readonly ConcurrentDictionary<Type, Dictionary<string, MemberLimits>> OfTypes = new();

    public bool IsRequired { get; } = property.IsDefined(typeof(RequiredMemberAttribute));

    public bool IsRemovable { get; } = !property.IsDefined(typeof(NotRemovableAttribute));

    /// <summary>Characters of a text, entries of an array.</summary>
    public (int Min, int Max) Length { get; } =
        property.GetCustomAttribute<LengthAttribute>() is { } length ? (length.MinimumLength, length.MaximumLength) : (0, int.MaxValue);

    public (int Min, int Max) Range { get; } =
        property.GetCustomAttribute<RangeAttribute>() is { Minimum: int min, Maximum: int max } ? (min, max)
            : (int.MinValue, int.MaxValue);

    /// <summary>Of a number with a fraction.</summary>
    public (double Min, double Max) RealRange { get; } =
        property.GetCustomAttribute<RangeAttribute>() is { Minimum: double min, Maximum: double max } ? (min, max)
            : (double.MinValue, double.MaxValue);

    public ItemsAttribute? Items { get; } = property.GetCustomAttribute<ItemsAttribute>();

    public MapAttribute? Map { get; } = property.GetCustomAttribute<MapAttribute>();

    public DurationAttribute? Duration { get; } = property.GetCustomAttribute<DurationAttribute>();

    public string? IdPrefix { get; } = property.GetCustomAttribute<IdAttribute>()?.Prefix;

    /// <summary>Those of a member, by its name in JSON.</summary>
    public static MemberLimits Of(Type body, string member) => OfTypes.GetOrAdd(body, type => type
        .GetProperties(BindingFlags.Instance | BindingFlags.Public)
        .ToDictionary(p => JsonNamingPolicy.CamelCase.ConvertName(p.Name), p => new MemberLimits(p)))[member];
}
