using System.Text.Json;
using CsCheck;
using Triggers.Api.Schemas;

namespace Triggers.Tests.Api.EventTypes;

/// <summary>What is quickly seen to match matches, and what usual schemas say is quickly seen.</summary>
public sealed class PlainSchemaTests
{
    private static readonly Gen<string> s_texts = One(
        "\"\"", "\"a\"", "\"ab\"", "\"é\"", "\"\\u00e9b\"", "\"\\ud83d\\ude00\"", "\"a\\\"b\"", "\"2026-11-30\"");

    private static readonly Gen<string> s_numbers = One(
        "0", "-0", "1", "1.0", "2", "1.5", "0.1", "1e0", "1E2", "1e-400", "1e400", "100", "0.10000000000000000000000000000000000001",
        "12345678901234567890123456789012345678901234567890");

    private static readonly Gen<string> s_simple = Gen.OneOf(s_texts, s_numbers, One("true", "false", "null"));

    private static readonly Gen<string> s_names = One("\"a\"", "\"b\"", "\"é\"", "\"a\\\"b\"", "\"\"");

    private static readonly Gen<string> s_values = Values(3);

    private static readonly Gen<string> s_schemas = Schemas(3);

    [Fact]
    public void What_it_sees_to_match_matches()
    {
        var (seen, matching) = (0, 0);
        Gen.Select(s_schemas, s_values).Sample((schema, value) =>
        {
            using var document = JsonDocument.Parse(schema);
            using var data = JsonDocument.Parse(value);
            var matches = Matches(document.RootElement, data.RootElement);
            var holds = PlainSchema.Of(document.RootElement)!.Holds(data.RootElement);
            Interlocked.Add(ref seen, holds ? 1 : 0);
            Interlocked.Add(ref matching, matches ? 1 : 0);
            return !holds || matches;
        }, iter: 5_000, threads: 1, print: pair => $"{pair.Item1} with {pair.Item2}");

        Assert.True(seen > matching / 2, $"{seen} of {matching} were seen");
    }

    [Theory]
    [InlineData("""{"$id":"https://example.com/order","title":"Order","type":"object","format":"x","default":{}}""", "{}")]
    [InlineData("""{"type":["integer","null"],"minimum":1,"maximum":9,"exclusiveMinimum":0,"exclusiveMaximum":10}""", "9")]
    [InlineData("""{"enum":["a",true,null]}""", "\"a\"")]
    [InlineData("""{"const":"a","minLength":1,"maxLength":1,"pattern":"^[a-z]+$"}""", "\"a\"")]
    [InlineData("""{"items":{"$ref":"#/$defs/line"},"minItems":1,"maxItems":2,"$defs":{"line":{"type":"string"}}}""", """["a","b"]""")]
    [InlineData("""{"required":["b","c"],"properties":{"a":true,"b":{"type":"number"}},"additionalProperties":{"type":"string"}}""",
        """{"c":"x","b":1.5}""")]
    [InlineData("""{"$ref":"#/$defs/tree","$defs":{"tree":{"properties":{"next":{"$ref":"#/$defs/tree"}}}}}""", """{"next":{"next":{}}}""")]
    public void Usual_schemas_are_plain(string schema, string value)
    {
        using var document = JsonDocument.Parse(schema);
        using var data = JsonDocument.Parse(value);

        Assert.True(PlainSchema.Of(document.RootElement)!.Holds(data.RootElement));
    }

    [Theory]
    [InlineData("""{"oneOf":[{"type":"string"}]}""")]
    [InlineData("""{"properties":{"a":{"uniqueItems":true}}}""")]
    [InlineData("""{"required":["a"],"patternProperties":{"b":true}}""")]
    // Time would not be in proportion to the value.
    [InlineData("""{"$ref":"#/$defs/a","pattern":"a","$defs":{"a":true}}""")]
    [InlineData("""{"pattern":"(a|b)*a(a|b){80}"}""")]
    public void What_it_does_not_know_it_does_not_judge(string schema)
    {
        using var document = JsonDocument.Parse(schema);

        Assert.Null(PlainSchema.Of(document.RootElement));
    }

    private static bool Matches(JsonElement schema, JsonElement value)
    {
        try
        {
            return BoundedDialect.Compile(SchemaOutline.Of(schema).Written)
                .Evaluate(value, new StepOptions(new Steps(), isDetailed: false)).IsValid;
        }
        // What can't be judged does not match.
        catch (Exception e) when (e is FormatException or OverflowException)
        {
            return false;
        }
    }

    private static Gen<string> One(params string[] of) => Gen.Int[0, of.Length - 1].Select(i => of[i]);

    private static Gen<string> Values(int depth) => depth == 0 ? s_simple : Gen.OneOf(
        s_simple,
        Values(depth - 1).Array[0, 3].Select(items => $"[{string.Join(',', items)}]"),
        Gen.Select(s_names, Values(depth - 1)).Array[0, 3].Select(members =>
            $"{{{string.Join(',', members.DistinctBy(m => m.Item1).Select(m => $"{m.Item1}:{m.Item2}"))}}}"));

    private static Gen<string> Schemas(int depth)
    {
        Gen<string>[] own =
        [
            One("string", "number", "integer", "boolean", "null", "object", "array").Array[1, 5]
                .Select(types => $"\"type\":[{string.Join(',', types.Distinct().Select(type => $"\"{type}\""))}]"),
            s_simple.Array[1, 6].Select(values => $"\"enum\":[{string.Join(',', values.Distinct())}]"),
            s_simple.Select(value => $"\"const\":{value}"),
            Gen.Select(One("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
                One("0", "1", "1.0", "0.1", "-1", "2")).Select(pair => $"\"{pair.Item1}\":{pair.Item2}"),
            Gen.Select(One("minLength", "maxLength", "minItems", "maxItems"), Gen.Int[0, 3])
                .Select(pair => $"\"{pair.Item1}\":{pair.Item2}"),
            One("^a", "b$", "^[0-9-]*$", "é").Select(pattern => $"\"pattern\":\"{pattern}\""),
        ];
        var keywords = depth == 0 ? Gen.OneOf(own) : Gen.OneOf(
        [
            .. own,
            Schemas(depth - 1).Select(schema => $"\"items\":{schema}"),
            Schemas(depth - 1).Select(schema => $"\"additionalProperties\":{schema}"),
            s_names.Array[0, 2].Select(names => $"\"required\":[{string.Join(',', names.Distinct())}]"),
            Gen.Select(s_names, Schemas(depth - 1)).Array[0, 3].Select(members => "\"properties\":{"
                + string.Join(',', members.DistinctBy(m => m.Item1).Select(m => $"{m.Item1}:{m.Item2}")) + "}"),
        ]);
        return Gen.Frequency((1, One("true", "false")), (6, keywords.Array[0, 3].Select(list =>
            $"{{{string.Join(',', list.DistinctBy(keyword => keyword[..keyword.IndexOf(':', StringComparison.Ordinal)]))}}}")));
    }
}
