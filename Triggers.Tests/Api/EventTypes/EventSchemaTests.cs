using System.Text;
using System.Text.Json;
using Triggers.Api.Errors;
using Triggers.Api.Schemas;

namespace Triggers.Tests.Api.EventTypes;

/// <summary>Schemas from outside, and data from outside, neither of which is to be trusted.</summary>
public sealed class EventSchemaTests
{
    [Theory]
    [InlineData("""{"a":1}""", """{"required":["b"]}""", "")]
    [InlineData("""{"a":"x"}""", """{"properties":{"a":{"type":"integer"}}}""", "/a")]
    [InlineData("""{"a":{"b":[1,"x"]}}""", """{"properties":{"a":{"properties":{"b":{"items":{"type":"integer"}}}}}}""", "/a/b/1")]
    [InlineData("""{"a/b":{"c~d":1}}""", """{"properties":{"a/b":{"properties":{"c~d":{"type":"string"}}}}}""", "/a~1b/c~0d")]
    [InlineData("""{"b":1}""", """{"properties":{"a":true},"additionalProperties":false}""", "/b")]
    [InlineData("""{"b1":"x","c":1}""", """{"patternProperties":{"^b":{"type":"string"}},"additionalProperties":false}""", "/c")]
    [InlineData("""{"b1":1}""", """{"patternProperties":{"^b":{"type":"string"}}}""", "/b1")]
    [InlineData("""{"a":1}""", """{"allOf":[{"properties":{"b":true}}],"unevaluatedProperties":false}""", "/a")]
    [InlineData("""{"next":{"next":{"v":"x"}}}""", """{"properties":{"v":{"type":"integer"},"next":{"$ref":"#"}}}""", "/next/next/v")]
    [InlineData("""{"k":"a","v":1}""",
        """{"if":{"properties":{"k":{"const":"a"}}},"then":{"properties":{"v":{"type":"string"}}},"else":{"required":["z"]}}""", "/v")]
    [InlineData("[1,1]", """{"uniqueItems":true}""", "")]
    [InlineData("\"abc\"", """{"pattern":"^[a-b]+$"}""", "")]
    [InlineData("0.3", """{"multipleOf":0.2}""", "")]
    [InlineData("null", "false", "")]
    public void A_violation_is_named_with_its_place(string data, string schema, string place) =>
        Assert.Equal([place], Judge(schema, data).Select(v => v.Pointer));

    [Fact]
    public void Alternatives_that_were_not_taken_and_what_was_only_asked_are_no_violations()
    {
        const string Schema = """
            {"properties":{"kind":{"anyOf":[{"const":"a"},{"const":"b"}]},"more":{"not":{"type":"string"}},
            "list":{"contains":{"const":1}}},"if":{"required":["total"]},"then":{"properties":{"total":{"minimum":0}}}}
            """;

        Assert.Empty(Judge(Schema, """{"kind":"b","more":1,"list":[3,1]}"""));
        Assert.Equal(["/total"], Judge(Schema, """{"kind":"b","total":-1,"list":[3,1]}""").Select(v => v.Pointer));
        Assert.Contains("/kind", Judge(Schema, """{"kind":"c"}""").Select(v => v.Pointer));
        Assert.Equal(["/list"], Judge(Schema, """{"list":[3,4]}""").Select(v => v.Pointer));
        Assert.Equal(["/more"], Judge(Schema, """{"more":"x"}""").Select(v => v.Pointer));
    }

    [Fact]
    public void No_more_violations_are_named_than_asked_for_and_none_at_length()
    {
        var schema = EventSchema.Compile("""{"items":{"enum":["short"]}}""");
        var data = Encoding.UTF8.GetBytes($"[{string.Join(',', Enumerable.Repeat($"\"{new string('x', 500)}\"", 300))}]");

        var violations = schema.Judge(data, new Steps(), 7);

        Assert.Equal(7, violations.Count);
        Assert.All(violations, v => Assert.InRange(v.Detail.Length, 1, 220));
    }

    public static TheoryData<string, string> Hostile => new()
    {
        { """{"$ref":"https://example.com/schema.json"}""", "/$ref" },
        { """{"$ref":"file:///etc/passwd"}""", "/$ref" },
        { """{"$ref":"other.json#/a"}""", "/$ref" },
        { """{"$id":"https://example.com/a","$ref":"b"}""", "/$ref" },
        { """{"$dynamicRef":"https://example.com/#a"}""", "/$dynamicRef" },
        { """{"$ref":"#/$defs/missing"}""", "/$ref" },
        { """{"default":{"type":"string"},"$ref":"#/default"}""", "/$ref" },
        { """{"$schema":"https://example.com/meta"}""", "/$schema" },
        { """{"$schema":"http://json-schema.org/draft-07/schema#"}""", "/$schema" },
        { """{"properties":{"a":{"$id":"https://json-schema.org/draft/2020-12/schema"}}}""", "/properties/a/$id" },
        // Endless: no part of the value is come to in between.
        { """{"$ref":"#"}""", "" },
        { """{"allOf":[{"$ref":"#"}]}""", "" },
        { """{"anyOf":[{"not":{"$ref":"#/anyOf/0"}}]}""", "" },
        { """{"$dynamicAnchor":"a","if":{"$dynamicRef":"#a"}}""", "" },
        { """{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"oneOf":[{"$ref":"#/$defs/a"}]}},"items":{"$ref":"#/$defs/a"}}""", "/$defs/a" },
        // 2^40 schemas about one value.
        { Doubling(40), "" },
        { """{"pattern":"(a+)\\1"}""", "/pattern" },
        { """{"pattern":"^(?=.*a)(?!b)"}""", "/pattern" },
        { """{"pattern":"(?<=a)b"}""", "/pattern" },
        { """{"pattern":"((a{100}){100}){100}"}""", "/pattern" },
        { """{"pattern":"a{1000000000}"}""", "/pattern" },
        { """{"pattern":"["}""", "/pattern" },
        { $$"""{"pattern":"{{new string('a', 600)}}"}""", "/pattern" },
        { $$"""{"pattern":"{{new string('(', 200)}}{{new string(')', 200)}}"}""", "/pattern" },
        { """{"patternProperties":{"(x+x+)+\\1":true}}""", "/patternProperties/(x+x+)+\\1" },
        {
            "{\"patternProperties\":{" + string.Join(',', Enumerable.Range(0, 101).Select(i => $"\"a{i}\":true")) + "}}",
            "/patternProperties/a100"
        },
        { Nested(41), Pointer(41) },
        { $$"""{"allOf":[{{string.Join(',', Enumerable.Repeat("{}", 2_001))}}]}""", "" },
        { $$"""{"enum":["{{new string('x', 70_000)}}"]}""", "" },
        { $$"""{"allOf":[{{string.Join(',', Enumerable.Repeat("""{"unevaluatedProperties":true}""", 51))}}]}""", "/allOf/50/unevaluatedProperties" },
        { """{"type":"text"}""", "/type" },
        { """{"minLength":"x"}""", "/minLength" },
        { """{"required":"a"}""", "/required" },
        { """{"properties":{"a":1}}""", "/properties/a" },
        { """{"items":[{}]}""", "/items" },
        { """{"allOf":[]}""", "/allOf" },
        { """{"multipleOf":0}""", "/multipleOf" },
        { """{"type":"string","type":"number"}""", "/type" },
        { """{"properties":{"a":true,"a":false}}""", "/properties/a" },
        { """{"title":"\ud800","type":"\ud800"}""", "" },
        { """{"$triggers:steps":[0,0,0]}""", "/$triggers:steps" },
        { "1", "" },
        { "[]", "" },
    };

    [Theory]
    [MemberData(nameof(Hostile))]
    public void A_hostile_schema_is_refused_with_the_place(string schema, string place)
    {
        var refused = Assert.Throws<SchemaRefusedException>(() => EventSchema.Compile(schema));

        Assert.Equal(place, refused.Mistakes[0].Pointer);
    }

    public static TheoryData<string, string> TooMuch => new()
    {
        { """{"pattern":"^(ab?|[ac]{900})+$"}""", Text(1_000_000) },
        { "{\"items\":{\"enum\":[" + string.Join(',', Enumerable.Range(0, 1_000)) + "]}}", Array(100_000, "1001") },
        { """{"uniqueItems":true}""", Array(100_000, "1") },
        { """{"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"}},"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}""",
            Deep(60) },
        { """{"items":{"allOf":[true,{"type":"integer"},{"type":"number"},{"minimum":0},{"maximum":1}]}}""", Array(200_000, "1") },
        { """{"propertyNames":{"pattern":"^[a-z]+$"}}""", "{" + string.Join(',', Enumerable.Range(0, 60_000).Select(i => $"\"n{i}\":1")) + "}" },
    };

    [Theory]
    [MemberData(nameof(TooMuch))]
    public void What_takes_too_many_steps_is_not_judged(string schema, string data) =>
        Assert.Contains("steps", Assert.Single(Judge(schema, data)).Detail);

    [Theory]
    // Would go back 2^n times where that is how patterns are matched.
    [InlineData("""{"pattern":"^(a+)+$"}""", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\"")]
    [InlineData("""{"patternProperties":{"^(\\w|\\d)*$":false},"additionalProperties":false}""",
        "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\":1}")]
    // The library would write all digits on the stack.
    [InlineData("""{"multipleOf":3}""", "1e400000000")]
    [InlineData("""{"multipleOf":1e-300}""", "1e400000000")]
    [InlineData("""{"items":{"multipleOf":7},"minItems":9}""", "[1e100000000]")]
    [InlineData("""{"uniqueItems":true,"maxItems":1}""", "[1e400,1e400]")]
    [InlineData("""{"maxLength":1}""", "\"\\ud800\\ud800\"")]
    [InlineData("""{"additionalProperties":false}""", "{\"\\ud800\":1}")]
    [InlineData("""{"const":1}""", "1e-400000000")]
    public void Hostile_data_is_a_violation_like_any_other(string schema, string data) => Assert.NotEmpty(Judge(schema, data));

    [Theory]
    [InlineData("""{"type":"integer"}""", "1e400000000")]
    [InlineData("""{"minimum":0}""", "1e400000000")]
    [InlineData("""{"exclusiveMaximum":5,"enum":[1]}""", "1e999999999999999999")]
    [InlineData("""{"const":{"a":[1]}}""", "{\"a\":1,\"a\":[1]}")]
    [InlineData("""{"uniqueItems":true}""", "[1e400,{\"a\":1e400}]")]
    public void Numbers_beyond_all_bounds_and_doubled_names_are_judged_somehow(string schema, string data) =>
        Assert.NotNull(Judge(schema, data));

    [Fact]
    public void The_events_of_a_request_share_its_steps()
    {
        var schema = EventSchema.Compile("""{"items":{"multipleOf":1}}""");
        var data = Encoding.UTF8.GetBytes(Array(50_000, "1"));
        var steps = new Steps();

        var judged = Enumerable.Range(0, 50).TakeWhile(_ => schema.Judge(data, steps, 1).Count == 0).Count();

        Assert.InRange(judged, 1, 49);
        Assert.Single(schema.Judge("[]"u8.ToArray(), steps, 1));
    }

    [Fact]
    public async Task A_schema_judges_for_many_at_once()
    {
        var schema = EventSchema.Compile("""{"properties":{"a":{"$ref":"#/$defs/i"},"b":{"items":{"$ref":"#"}}},"$defs":{"i":{"type":"integer"}}}""");

        await Task.WhenAll(Enumerable.Range(0, 8).Select(t => Task.Run(() =>
        {
            for (var i = 0; i < 200; i++)
            {
                Assert.Empty(schema.Judge(Encoding.UTF8.GetBytes($$"""{"a":{{i}},"b":[{"a":{{t}}}]}"""), new Steps(), 5));
                Assert.Equal(
                    "/b/0/a", Assert.Single(schema.Judge(Encoding.UTF8.GetBytes("""{"a":1,"b":[{"a":"x"}]}"""), new Steps(), 5)).Pointer);
            }
        }, TestContext.Current.CancellationToken)));
    }

    [Theory]
    [InlineData("^[a-z]{2,3}$", "abc", true)]
    [InlineData("^[a-z]{2,3}$", "abc\n", false)]
    [InlineData(@"^\d+$", "১", false)]
    [InlineData(@"^\w+$", "é", false)]
    [InlineData(@"^[\w.-]+@[\w-]+$", "a.b-c@d-e", true)]
    [InlineData(@"^\s$", "\u00a0", true)]
    [InlineData("^.$", "\n", false)]
    [InlineData(@"^\p{Lu}", "Ä", true)]
    [InlineData("a|b", "xbx", true)]
    [InlineData(@"^\.[\]\\]\/$", ".]/", true)]
    [InlineData("^(?:a|(?<name>b))+?$", "abab", true)]
    [InlineData("^[[]$", "[", true)]
    [InlineData("^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$", "123e4567-e89b-12d3-a456-426614174000", true)]
    public void Patterns_are_those_of_ECMAScript(string pattern, string text, bool matches) =>
        Assert.Equal(matches, SchemaPattern.Compile(pattern, out _).IsMatch(text));

    private static IReadOnlyList<FieldError> Judge(string schema, string data) =>
        EventSchema.Compile(schema).Judge(Encoding.UTF8.GetBytes(data), new Steps(), 10);

    private static string Doubling(int levels) =>
        "{\"$ref\":\"#/$defs/d0\",\"$defs\":{" + string.Concat(Enumerable.Range(0, levels).Select(i =>
            $$"""
            "d{{i}}":{"allOf":[{"$ref":"#/$defs/d{{i + 1}}"},{"$ref":"#/$defs/d{{i + 1}}"}]},
            """)) + $"\"d{levels}\":true}}}}";

    private static string Nested(int depth) =>
        depth == 0 ? "{}" : "{\"not\":" + Nested(depth - 1) + "}";

    private static string Pointer(int depth) => string.Concat(Enumerable.Repeat("/not", depth));

    private static string Text(int length) => JsonSerializer.Serialize(new string('a', length));

    private static string Array(int length, string item) => $"[{string.Join(',', Enumerable.Repeat(item, length))}]";

    private static string Deep(int levels) => levels == 0 ? "1" : "{\"a\":" + Deep(levels - 1) + "}";
}
