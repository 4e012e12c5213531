using System.Text.Json;
using System.Text.Json.Nodes;
using CsCheck;
using Triggers.Api.Schemas;

namespace Triggers.Tests.Api.EventTypes;

/// <summary>Whether a schema lets in all that another does.</summary>
public sealed class SchemaComparisonTests
{
    [Theory]
    [InlineData("true", """{"type":"object"}""")]
    [InlineData("""{"type":"object"}""", "false")]
    [InlineData("""{"type":["string","null"]}""", """{"type":"string"}""")]
    [InlineData("""{"type":"number"}""", """{"type":"integer"}""")]
    [InlineData("""{"title":"new","type":"string"}""", """{"type":"string","maxLength":5}""")]
    [InlineData("""{"enum":["a","b","c"]}""", """{"enum":["a","b"]}""")]
    [InlineData("""{"enum":["a","b"]}""", """{"const":"a"}""")]
    [InlineData("""{"type":"string"}""", """{"enum":["a","b"]}""")]
    [InlineData("""{"minimum":0}""", """{"minimum":1}""")]
    [InlineData("""{"minimum":0}""", """{"exclusiveMinimum":0}""")]
    [InlineData("""{"minimum":5}""", """{"type":"string"}""")]
    [InlineData("""{"multipleOf":2}""", """{"multipleOf":4}""")]
    [InlineData("""{"maxLength":9}""", """{"maxLength":8}""")]
    [InlineData("""{"pattern":"^a"}""", """{"pattern":"^a"}""")]
    [InlineData("""{"required":["a"]}""", """{"required":["b","a"]}""")]
    [InlineData("""{"minProperties":1}""", """{"required":["a"]}""")]
    [InlineData("""{"properties":{"a":{"type":"string"},"b":{"type":"integer"}}}""", """{"properties":{"a":{"type":"string"}}}""")]
    [InlineData("""{"properties":{"a":{}},"additionalProperties":false}""", """{"properties":{"a":{"type":"null"}},"additionalProperties":false}""")]
    [InlineData("""{"additionalProperties":{"type":"number"}}""", """{"properties":{"a":{"type":"integer"}},"additionalProperties":false}""")]
    [InlineData("""{"items":{"type":"number"}}""", """{"items":{"type":"integer"}}""")]
    [InlineData("""{"anyOf":[{"const":1},{"const":2},{"const":3}]}""", """{"anyOf":[{"const":3},{"const":1}]}""")]
    [InlineData("""{"oneOf":[{"const":1},{"const":2}]}""", """{"oneOf":[{"const":1},{"const":2}],"type":"integer"}""")]
    [InlineData("""{"$ref":"#/$defs/a","$defs":{"a":{"type":"number"}}}""", """{"$ref":"#/$defs/b","$defs":{"b":{"type":"integer"}}}""")]
    [InlineData("""{"properties":{"next":{"$ref":"#"},"v":{"type":"number"}}}""", """{"properties":{"next":{"$ref":"#"},"v":{"type":"integer"}}}""")]
    [InlineData("""{"properties":{"next":{"$ref":"#"}},"allOf":[{"properties":{"v":{"type":"number"}}}]}""",
        """{"properties":{"next":{"$ref":"#"}},"allOf":[{"properties":{"v":{"type":"integer"}}}]}""")]
    [InlineData("""{"allOf":[{"$ref":"#/$defs/b"},{"properties":{"a":{"const":"x"}}}],"$defs":{"b":{"properties":{"a":{"type":"string"},"c":{}}}}}""",
        """{"allOf":[{"$ref":"#/$defs/b"},{"properties":{"a":{"const":"x"}}}],"$defs":{"b":{"properties":{"a":{"type":"string"}}}}}""")]
    [InlineData("""{"properties":{"a":{"items":{"$ref":"#/$defs/b"}}},"$defs":{"b":{"type":"number"}}}""",
        """{"properties":{"a":{"$ref":"#/$defs/c","maxItems":1}},"$defs":{"c":{"items":{"type":"integer"}}}}""")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"allOf":[{"additionalProperties":false}],"anyOf":[{"required":["a"]},{"type":"object"}]}""")]
    [InlineData("""{"properties":{"c":{"type":"string"}}}""", """{"anyOf":[{"properties":{"a":{}}},{"properties":{"b":{}},"additionalProperties":false}]}""")]
    public void What_follows_is_found(string wide, string narrow) => Assert.Empty(WhyNotAll(wide, narrow));

    [Theory]
    [InlineData("""{"type":"string"}""", """{"type":["string","null"]}""", "/type")]
    [InlineData("""{"type":"integer"}""", """{"type":"number"}""", "/type")]
    [InlineData("""{"type":"string"}""", "true", "/type")]
    [InlineData("false", """{"type":"string"}""", "")]
    [InlineData("""{"enum":["a"]}""", """{"enum":["a","b"]}""", "/enum")]
    [InlineData("""{"enum":["a"]}""", """{"type":"string"}""", "/enum")]
    [InlineData("""{"exclusiveMinimum":0}""", """{"minimum":0}""", "/exclusiveMinimum")]
    [InlineData("""{"maximum":5}""", "{}", "/maximum")]
    [InlineData("""{"maxLength":5}""", """{"maxLength":6}""", "/maxLength")]
    [InlineData("""{"pattern":"^a"}""", "{}", "/pattern")]
    [InlineData("""{"uniqueItems":true}""", "{}", "/uniqueItems")]
    [InlineData("""{"required":["a","b"]}""", """{"required":["a"]}""", "/required")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"properties":{"a":{"type":"integer"}}}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"required":["a"]}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"additionalProperties":{"type":"integer"}}""", "/properties/a/type")]
    [InlineData("""{"additionalProperties":false}""", """{"properties":{"a":{}}}""", "/additionalProperties")]
    [InlineData("""{"properties":{"a":{}},"additionalProperties":false}""", """{"properties":{"a":{}}}""", "/additionalProperties")]
    [InlineData("""{"items":{"type":"string"}}""", "{}", "/items/type")]
    [InlineData("""{"anyOf":[{"const":1}]}""", """{"anyOf":[{"const":1},{"const":2}]}""", "/anyOf")]
    [InlineData("""{"properties":{"v":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"integer"}}}""",
        """{"properties":{"v":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"number"}}}""", "/$defs/n/type")]
    [InlineData("""{"allOf":[{"$ref":"#/$defs/b"}],"properties":{"n":{}},"$defs":{"b":{"properties":{"a":{"type":"integer"}}}}}""",
        """{"allOf":[{"$ref":"#/$defs/b"}],"properties":{"n":{}},"$defs":{"b":{"properties":{"a":{"type":"string"}}}}}""", "/$defs/b/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""",
        """{"$ref":"#/$defs/b","minProperties":1,"$defs":{"b":{"properties":{"a":{"type":"integer"}}}}}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"$ref":"#b","$defs":{"b":{"$anchor":"b","properties":{"a":{}}}}}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"oneOf":[{"properties":{"a":{"type":"integer"}}},{"required":["b"]}]}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"if":{"required":["b"]},"then":{"required":["a"]}}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"dependentSchemas":{"b":{"properties":{"a":{}}}}}""", "/properties/a/type")]
    [InlineData("""{"properties":{"a":{"type":"string"}}}""", """{"unevaluatedProperties":{"type":"integer"}}""", "/properties/a/type")]
    [InlineData("""{"anyOf":[{"properties":{"a":{"type":"string"}}}]}""", """{"properties":{"a":{"type":"integer"}},"anyOf":[{"required":["b"]}]}""", "/anyOf")]
    [InlineData("""{"properties":{"a":{"properties":{"b":{"type":"string"}}}}}""",
        """{"properties":{"a":{"type":"object"}},"anyOf":[{"properties":{"a":{"properties":{"b":{}}}}}]}""", "/properties/a/properties/b/type")]
    [InlineData("""{"additionalProperties":{"properties":{"b":{"type":"string"}}}}""", """{"allOf":[{"properties":{"a":{"properties":{"b":{}}}}}]}""",
        "/additionalProperties/properties/b/type")]
    [InlineData("""{"items":{"properties":{"a":{"type":"string"}}}}""",
        """{"$ref":"#/$defs/b","maxItems":1,"$defs":{"b":{"items":{"properties":{"a":{}}}}}}""", "/items/properties/a/type")]
    public void What_does_not_follow_is_named_with_its_place(string wide, string narrow, string place) =>
        Assert.Contains(place, WhyNotAll(wide, narrow).Select(m => m.Pointer));

    [Theory]
    [InlineData("""{"oneOf":[{"const":1},{"const":2}]}""", """{"oneOf":[{"const":1}]}""", "/oneOf")]
    [InlineData("""{"not":{"const":1}}""", "{}", "/not")]
    [InlineData("""{"pattern":"^a"}""", """{"pattern":"^ab"}""", "/pattern")]
    [InlineData("""{"if":{"const":1},"then":false}""", """{"if":{"const":1},"then":true}""", "/if")]
    [InlineData("""{"patternProperties":{"^a":{"type":"string"}}}""", """{"patternProperties":{"^a":{"type":"number"}}}""", "/patternProperties")]
    [InlineData("""{"contains":{"const":1},"maxContains":1}""", """{"contains":{"const":1}}""", "/contains")]
    [InlineData("""{"unevaluatedProperties":false}""", """{"unevaluatedProperties":false,"properties":{"a":true}}""", "/unevaluatedProperties")]
    [InlineData("""{"oneOf":[{"$ref":"#/$defs/n"}],"$defs":{"n":{"type":"integer"}}}""",
        """{"oneOf":[{"$ref":"#/$defs/n"}],"$defs":{"n":{"type":"number"}}}""", "/oneOf")]
    public void What_can_not_be_judged_is_said_so(string wide, string narrow, string place) => Assert.Contains(
        WhyNotAll(wide, narrow), m => m.Pointer == place && m.Detail.StartsWith("Can't be judged", StringComparison.Ordinal));

    [Fact]
    public void Schemas_that_are_too_entangled_come_to_an_end()
    {
        static string Entangled(string last) => "{\"anyOf\":[" + string.Join(',', Enumerable.Range(0, 12).Select(i =>
            $$$"""
            {"properties":{"a{{{i}}}":{"$ref":"#"},"b":{"$ref":"#"}},"required":["x{{{i}}}","{{{last}}}"]}
            """)) + "]}";

        Assert.NotEmpty(WhyNotAll(Entangled("p"), Entangled("q")));
    }

    /// <summary>Where all are said to match, each value that matches the one matches the other.</summary>
    [Fact]
    public void No_value_shows_a_verdict_to_be_wrong()
    {
        string[] leaves =
        [
            "true", """{"type":"string"}""", """{"type":"integer"}""", """{"type":["string","null"]}""",
            """{"type":"number","minimum":1}""", """{"exclusiveMinimum":1}""", """{"maximum":2,"minimum":0}""", """{"enum":["a","bb",1]}""",
            """{"const":"a"}""", """{"maxLength":1}""", """{"minLength":2,"type":"string"}""", """{"multipleOf":2}""", "false",
            """{"pattern":"^a"}""", """{"not":{"type":"string"}}""",
        ];
        var leaf = Gen.Int[0, leaves.Length - 1].Select(i => leaves[i]);
        var part = Gen.Recursive<string>((depth, inner) => depth >= 3 ? leaf : Gen.OneOf(
            leaf,
            Gen.Select(inner, inner, Gen.Int[0, 7], (a, b, bits) =>
                "{\"properties\":{\"a\":" + a + ((bits & 1) > 0 ? $",\"b\":{b}" : "") + "}"
                    + ((bits & 2) > 0 ? ",\"required\":[\"a\"]" : "")
                    + ((bits & 4) > 0 ? ",\"additionalProperties\":false" : "") + "}"),
            Gen.Select(inner, Gen.Bool, (a, typed) => "{\"items\":" + a + (typed ? ",\"type\":\"array\",\"maxItems\":2}" : "}")),
            Gen.Select(inner, inner, (a, b) => $$"""{"anyOf":[{{a}},{{b}}]}"""),
            Gen.Select(inner, inner, (a, b) => $$"""{"allOf":[{{a}},{{b}}]}"""),
            Gen.Select(inner, inner, inner, (a, b, c) => $$"""{"properties":{"a":{{a}}},"anyOf":[{{b}},{{c}}]}"""),
            Gen.Select(inner, inner, (a, b) => $$"""{"properties":{"a":{{a}}},"allOf":[{{b}}]}"""),
            Gen.Select(inner, inner, (a, b) => $$"""{"items":{{a}},"allOf":[{{b}}]}"""),
            Gen.Select(inner, a => $$"""{"additionalProperties":{{a}},"type":"object"}""")));
        var schema = Gen.OneOf(part, Gen.Select(part, part, part, (a, b, c) =>
            $$$"""{"$ref":"#/$defs/a","properties":{"a":{{{b}}},"b":{"$ref":"#/$defs/b","not":false} },"$defs":{"a":{{{a}}},"b":{{{c}}} } }"""));
        // Two that have nothing in common say little; most differ in a part.
        var pair = Gen.OneOf(
            Gen.Select(schema, schema), Gen.Select(schema, leaf, leaf, (narrow, a, b) => (narrow.Replace(a, b), narrow)),
            Gen.Select(schema, part, leaf, (narrow, a, b) => (narrow.Replace(b, a), narrow)));
        string[] simple = ["null", "true", "0", "1", "2", "3", "1.5", "\"\"", "\"a\"", "\"ab\"", "\"bb\""];
        string[] values =
        [
            .. simple, "[]", "{}", "[[1]]", "[{}]", "{\"a\":[]}", .. simple.Select(v => $"[{v}]"), .. simple.Select(v => $"[\"a\",{v},1]"),
            .. simple.Select(v => $$"""{"a":{{v}}}"""), .. simple.Select(v => $$"""{"b":{{v}}}"""), .. simple.Select(v => $$"""{"a":1,"b":{{v}}}"""),
            .. simple.Select(v => "{\"a\":{\"a\":" + v + "}}"), .. simple.Select(v => $$"""{"a":[{{v}}],"b":"a"}"""),
            .. simple.Select(v => "{\"a\":{\"b\":" + v + "}}"), .. simple.Select(v => "{\"b\":{\"a\":" + v + "}}"),
            .. simple.Select(v => $$"""[{"a":{{v}}},{"b":{{v}}}]"""),
        ];
        var found = 0;

        pair.Sample((wide, narrow) =>
        {
            if (WhyNotAll(wide, narrow).Count > 0)
                return;
            var (one, other) = (EventSchema.Compile(wide), EventSchema.Compile(narrow));
            foreach (var value in values)
            {
                var json = System.Text.Encoding.UTF8.GetBytes(value);
                if (other.Judge(json, new Steps(), 1).Count > 0 || HasUnnamed([JsonNode.Parse(narrow)], JsonNode.Parse(value)))
                    continue;
                Interlocked.Increment(ref found);
                Assert.True(one.Judge(json, new Steps(), 1).Count == 0, $"{value} matches {narrow} and not {wide}");
            }
        }, iter: 3_000);

        Assert.True(found > 1_000, $"only {found} values were compared");
    }

    /// <summary>
    /// What is taken for granted: whether the value has a property somewhere that the schemas which speak of it say nothing of there.
    /// </summary>
    private static bool HasUnnamed(IEnumerable<JsonNode?> schemas, JsonNode? value)
    {
        var about = schemas.SelectMany(AboutSame).ToList();
        if (value is JsonArray items)
            return items.Any(item => HasUnnamed(about.Select(s => s["items"]), item));
        return value is JsonObject members && members.Any(m =>
            about.Select(s => s["properties"]?[m.Key] ?? s["additionalProperties"] as JsonObject).Where(s => s is not null).ToArray()
                is not { Length: > 0 } said || HasUnnamed(said, m.Value));
    }

    private static IEnumerable<JsonObject> AboutSame(JsonNode? schema)
    {
        if (schema is not JsonObject of)
            return [];
        var within = new[] { "allOf", "anyOf" }.SelectMany(k => of[k]?.AsArray() ?? []);
        // "#/$defs/…", as all references here.
        var referred = of["$ref"] is { } reference ? schema.Root["$defs"]![reference.ToString()["#/$defs/".Length..]] : null;
        return within.Append(referred).SelectMany(AboutSame).Prepend(of);
    }

    private static IReadOnlyList<Triggers.Api.Errors.FieldError> WhyNotAll(string wide, string narrow)
    {
        using var one = JsonDocument.Parse(wide);
        using var other = JsonDocument.Parse(narrow);
        return SchemaComparison.WhyNotAll(one.RootElement, other.RootElement);
    }
}
