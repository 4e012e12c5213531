using System.Collections.Frozen;

namespace Triggers.Api.Schemas;

/// <summary>Where JSON Schema 2020-12 has schemas within schemas.</summary>
internal static class SchemaKeywords
{
    /// <summary>The only dialect that is taken.</summary>
    public const string Dialect = "https://json-schema.org/draft/2020-12/schema";

    /// <summary>What holds a schema that is about the same value.</summary>
    public static readonly FrozenSet<string> SameValue = Set("not", "if", "then", "else");

    /// <summary>What holds an array of schemas that are about the same value.</summary>
    public static readonly FrozenSet<string> ArraysOfSameValue = Set("allOf", "anyOf", "oneOf");

    /// <summary>What holds schemas by name that are about the same value.</summary>
    public static readonly FrozenSet<string> MapsOfSameValue = Set("dependentSchemas");

    /// <summary>What holds a schema that is about a part of the value.</summary>
    public static readonly FrozenSet<string> Part = Set(
        "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema");

    /// <summary>What holds an array of schemas that are about parts of the value.</summary>
    public static readonly FrozenSet<string> ArraysOfPart = Set("prefixItems");

    /// <summary>What holds schemas by name that are about parts of the value, or about nothing unless they are referred to.</summary>
    public static readonly FrozenSet<string> MapsOfPart = Set("properties", "patternProperties", "$defs", "definitions");

    /// <summary>What says nothing about which values are valid.</summary>
    public static readonly FrozenSet<string> Annotations = Set(
        "$schema", "$id", "$comment", "$anchor", "$dynamicAnchor", "$defs", "definitions", "title", "description", "default", "deprecated",
        "readOnly", "writeOnly", "examples", "format", "contentMediaType", "contentEncoding", "contentSchema");

    private static FrozenSet<string> Set(params string[] names) => names.ToFrozenSet(StringComparer.Ordinal);
}
