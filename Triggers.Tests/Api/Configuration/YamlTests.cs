using System.Text;
using System.Text.Json.Nodes;
using CsCheck;
using Triggers.Api.Errors;
using Triggers.Api.Http;

namespace Triggers.Tests.Api.Configuration;

public sealed class YamlTests
{
    // What looks like something else, what means something, and what is hard to write.
    private static readonly string[] s_hard =
    [
        "", "no", "Yes", "null", "~", "true", "1", "0x1f", "1e3", ".inf", "-", "- a", "a: b", "a:b", "# a", "a #b", "<<", "*a", "&a", "!a",
        "@a", "`", "'", "\"", "%a", "{a}", "[a]", ", ", " a", "a ", "a\nb", "a\nb\n", "\na", "a\n\n", "a\r\nb", "\t", "\u0085", "\u2028",
        "\u00fc", "\U0001F600", "2026-01-31", "12:30", "https://example.com/a?b=c#d", "---", "...", "? a", "|", ">", "=", "\0", "\uFEFF",
    ];

    private static readonly Gen<JsonNode?> s_json = Gen.Recursive<JsonNode?>((depth, inner) => depth > 3 ? Leaf : Gen.OneOf(
        Leaf,
        inner.Array[0, 4].Select(items => (JsonNode?)new JsonArray([.. items.Select(i => i?.DeepClone())])),
        Gen.Select(Texts.Array[0, 4], inner.Array[4]).Select((names, values) => (JsonNode?)new JsonObject(
            names.Distinct().Select((name, i) => KeyValuePair.Create(name, values[i]?.DeepClone()))))));

    private static Gen<string> Texts => Gen.OneOf(
        Gen.Int[0, s_hard.Length - 1].Select(i => s_hard[i]), Gen.Char[' ', '~'].Array[0, 12].Select(c => new string(c)),
        Gen.Char['a', 'z'].Array[100, 200].Select(c => string.Join(' ', c)));

    private static Gen<JsonNode?> Leaf => Gen.OneOf(
        Texts.Select(text => (JsonNode?)text), Gen.Int.Select(n => (JsonNode?)n), Gen.Bool.Select(b => (JsonNode?)b),
        Gen.Const((JsonNode?)null));

    [Theory]
    [InlineData("a: no", """{"a":"no"}""")]
    [InlineData("a: \"1\"\nb: '2'", """{"a":"1","b":"2"}""")]
    [InlineData("[true, False, TRUE, yes, on]", """[true,false,true,"yes","on"]""")]
    [InlineData("[1, -2, +3, 010, 0x1F, 0o17, 1.50, .5, -1., 1e3, -0]", "[1,-2,3,10,31,15,1.50,0.5,-1,1e3,-0]")]
    [InlineData("a:\nb: ~\nc: null\nd: ''", """{"a":null,"b":null,"c":null,"d":""}""")]
    [InlineData("[2026-01-31, 1_000, 12:30:00, 1.2.3]", """["2026-01-31","1_000","12:30:00","1.2.3"]""")]
    [InlineData("a: |\n  x\n  y\nb: >-\n  x\n  y", """{"a":"x\ny\n","b":"x y"}""")]
    [InlineData("<<: {a: 1}\n1: 2", """{"<<":{"a":1},"1":2}""")]
    [InlineData("%YAML 1.2\n---\n# a comment\na: [1, {b: c}] # another\n...\n", """{"a":[1,{"b":"c"}]}""")]
    [InlineData("""{"a": ["\u00fc", "\/"]}""", """{"a":["ü","/"]}""")]
    public void It_is_read_by_the_core_schema(string yaml, string json) =>
        Assert.Equal(json, Encoding.UTF8.GetString(Yaml.ToJson(Encoding.UTF8.GetBytes(yaml), 64).Span));

    [Theory]
    [InlineData("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "anchors")]
    [InlineData("a: *nobody", "anchors")]
    [InlineData("&name a: 1", "text")]
    [InlineData("a: !!binary aGk=", "tags")]
    [InlineData("!!System.Diagnostics.Process {a: 1}", "tags")]
    [InlineData("a: !include other.yaml", "tags")]
    [InlineData("a: 1\n---\nb: 2", "more than one")]
    [InlineData("? [a]\n: b", "text")]
    [InlineData("a: .inf", "not JSON")]
    [InlineData("a: [1, 2", "line")]
    [InlineData("a: 1\n b: 2", "line")]
    [InlineData("", "line")]
    [InlineData("a: \"\\uD800\"", "line")]
    [InlineData("a: \"\\UFFFFFFFF\"", "line")]
    public void What_is_not_taken_is_refused_with_where_it_is(string yaml, string why) =>
        Assert.Contains(why, Refusal(yaml), StringComparison.Ordinal);

    /// <summary>Four megabytes each: who reads them more than once, or deeper than may be, does not come back.</summary>
    [Theory]
    [InlineData("[")]
    [InlineData("{")]
    [InlineData("- ")]
    [InlineData("? ")]
    [InlineData("{? ")]
    [InlineData("\"")]
    [InlineData("9")]
    [InlineData("a: &a\n")]
    public void What_is_large_and_means_nothing_is_refused(string part) =>
        Refusal(string.Concat(Enumerable.Repeat(part, 4 * 1024 * 1024 / part.Length)));

    [Fact]
    public void What_is_written_is_read_as_it_was() => s_json.Sample(json =>
    {
        var yaml = Yaml.FromJson(json);
        var read = JsonNode.Parse(Yaml.ToJson(Encoding.UTF8.GetBytes(yaml), 64).Span);
        Assert.True(JsonNode.DeepEquals(json, read), $"{json?.ToJsonString()} became\n{yaml}\nand {read?.ToJsonString()}");
    }, iter: 2_000);

    [Fact]
    public void Whatever_comes_is_read_or_refused() =>
        Gen.OneOf(Gen.Char["-:?[]{},#&*!|>'\"%@` \t\nab1\\~<=."], Gen.Char['\u0001', '\u2030']).Array[0, 60].Sample(characters =>
        {
            try
            {
                JsonNode.Parse(Yaml.ToJson(Encoding.UTF8.GetBytes(new string(characters)), 64).Span);
            }
            catch (ApiException e)
            {
                Assert.Equal(ErrorCodes.MalformedYaml, e.Code);
            }
        }, iter: 20_000);

    private static string Refusal(string yaml)
    {
        var refused = Assert.Throws<ApiException>(() => Yaml.ToJson(Encoding.UTF8.GetBytes(yaml), 64));
        Assert.Equal(ErrorCodes.MalformedYaml, refused.Code);
        return refused.Message;
    }
}
