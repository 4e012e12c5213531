using System.Text;
using System.Text.Json;
using Triggers.Core.Subscriptions;

namespace Triggers.Tests.Core;

/// <summary>The table of docs/filters.md, row by row, and what nobody may write or be held up by.</summary>
public sealed class SubscriptionFilterTests
{
    // What a filter asks, of the event {"subject":"order-7","source":"/shop/eu","data":…}.
    [Theory]
    // Equality, any of several, and all members together.
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":"x"}""", true)]
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":"X"}""", false)]
    [InlineData("""{"data":{"a":["x","y"]}}""", """{"a":"y"}""", true)]
    [InlineData("""{"data":{"a":["x"],"b":[1]}}""", """{"a":"x","b":1}""", true)]
    [InlineData("""{"data":{"a":["x"],"b":[1]}}""", """{"a":"x","b":2}""", false)]
    [InlineData("""{"data":{"a":{"b":{"c":[true]}}}}""", """{"a":{"b":{"c":true}}}""", true)]
    [InlineData("""{"data":{"a":{"b":["x"]}}}""", """{"a":"x"}""", false)]
    [InlineData("""{"data":{"a":["1"]}}""", """{"a":1}""", false)]
    [InlineData("""{"data":{"a":[1]}}""", """{"a":1.00}""", true)]
    [InlineData("""{"data":{"a":[0.1]}}""", """{"a":1e-1}""", true)]
    [InlineData("""{"data":{"a":[12345678901234567890123]}}""", """{"a":12345678901234567890124}""", false)]
    [InlineData("""{"data":{"a":[null]}}""", """{"a":null}""", true)]
    [InlineData("""{"data":{"a":[null]}}""", """{}""", false)]
    [InlineData("""{"data":{"a":[false]}}""", """{"a":true}""", false)]
    [InlineData("""{"data":["x"]}""", "\"x\"", true)]
    [InlineData("""{"data":[{"numeric":[">",1]}]}""", "2", true)]
    [InlineData("""{"data":{"a":["b"]}}""", """{"\u0061":"\u0062"}""", true)]
    // Subject and source.
    [InlineData("""{"subject":["order-7"]}""", "null", true)]
    [InlineData("""{"subject":["order-8"]}""", "null", false)]
    [InlineData("""{"source":[{"prefix":"/shop/"}],"subject":[{"suffix":"-7"}]}""", "null", true)]
    [InlineData("""{"source":[{"prefix":"/shop/"}],"subject":[{"suffix":"-8"}]}""", "null", false)]
    // Texts.
    [InlineData("""{"data":{"a":[{"prefix":"ab"}]}}""", """{"a":"abc"}""", true)]
    [InlineData("""{"data":{"a":[{"prefix":"ab"}]}}""", """{"a":"Abc"}""", false)]
    [InlineData("""{"data":{"a":[{"prefix":"1"}]}}""", """{"a":12}""", false)]
    [InlineData("""{"data":{"a":[{"suffix":".eu"}]}}""", """{"a":"shop.eu"}""", true)]
    [InlineData("""{"data":{"a":[{"suffix":".eu"}]}}""", """{"a":"shop.eu."}""", false)]
    [InlineData("""{"data":{"a":[{"equals-ignore-case":"Abc"}]}}""", """{"a":"aBC"}""", true)]
    [InlineData("""{"data":{"a":[{"equals-ignore-case":"Abc"}]}}""", """{"a":"ab"}""", false)]
    // Ranges.
    [InlineData("""{"data":{"a":[{"numeric":["=",5]}]}}""", """{"a":5.0}""", true)]
    [InlineData("""{"data":{"a":[{"numeric":["<",5]}]}}""", """{"a":5}""", false)]
    [InlineData("""{"data":{"a":[{"numeric":["<=",5]}]}}""", """{"a":5}""", true)]
    [InlineData("""{"data":{"a":[{"numeric":[">",5]}]}}""", """{"a":5.0000000000000001}""", true)]
    [InlineData("""{"data":{"a":[{"numeric":[">=",5]}]}}""", """{"a":4.9}""", false)]
    [InlineData("""{"data":{"a":[{"numeric":[">",0,"<=",5]}]}}""", """{"a":5}""", true)]
    [InlineData("""{"data":{"a":[{"numeric":[">",0,"<=",5]}]}}""", """{"a":0}""", false)]
    [InlineData("""{"data":{"a":[{"numeric":[">",5]}]}}""", """{"a":1e300}""", true)]
    [InlineData("""{"data":{"a":[{"numeric":[">",5]}]}}""", """{"a":"6"}""", false)]
    // Anything but.
    [InlineData("""{"data":{"a":[{"anything-but":"x"}]}}""", """{"a":"y"}""", true)]
    [InlineData("""{"data":{"a":[{"anything-but":"x"}]}}""", """{"a":"x"}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":"x"}]}}""", """{}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":["x",1]}]}}""", """{"a":1.0}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":["x",1]}]}}""", """{"a":2}""", true)]
    [InlineData("""{"data":{"a":[{"anything-but":{"prefix":"x"}}]}}""", """{"a":"xy"}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":{"suffix":["x","y"]}}]}}""", """{"a":"ay"}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":{"equals-ignore-case":["X"]}}]}}""", """{"a":"y"}""", true)]
    // Exists.
    [InlineData("""{"data":{"a":[{"exists":true}]}}""", """{"a":null}""", true)]
    [InlineData("""{"data":{"a":[{"exists":true}]}}""", """{"a":{}}""", true)]
    [InlineData("""{"data":{"a":[{"exists":true}]}}""", """{"b":1}""", false)]
    [InlineData("""{"data":{"a":[{"exists":false}]}}""", """{"b":1}""", true)]
    [InlineData("""{"data":{"a":{"b":[{"exists":false}]}}}""", """{}""", true)]
    [InlineData("""{"data":{"a":[{"exists":false},"x"]}}""", """{"a":"x"}""", true)]
    [InlineData("""{"data":{"a":[{"exists":false},"x"]}}""", """{"a":"y"}""", false)]
    // Arrays: any element, and of objects all members in the same one.
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":["y","x"]}""", true)]
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":[]}""", false)]
    [InlineData("""{"data":{"a":[{"anything-but":"x"}]}}""", """{"a":["x","y"]}""", true)]
    [InlineData("""{"data":{"a":[{"anything-but":"x"}]}}""", """{"a":["x"]}""", false)]
    [InlineData("""{"data":{"a":{"b":[1],"c":[2]}}}""", """{"a":[{"b":1,"c":3},{"b":1,"c":2}]}""", true)]
    [InlineData("""{"data":{"a":{"b":[1],"c":[2]}}}""", """{"a":[{"b":1,"c":3},{"b":3,"c":2}]}""", false)]
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":[["y"],["x"]]}""", true)]
    // Alternatives.
    [InlineData("""{"$or":[{"subject":["x"]},{"data":{"a":[1]}}]}""", """{"a":1}""", true)]
    [InlineData("""{"$or":[{"subject":["x"]},{"data":{"a":[1]}}]}""", """{"a":2}""", false)]
    [InlineData("""{"data":{"k":["z"],"$or":[{"a":[1]},{"b":[1]}]}}""", """{"k":"z","b":1}""", true)]
    [InlineData("""{"data":{"k":["z"],"$or":[{"a":[1]},{"b":[1]}]}}""", """{"k":"y","b":1}""", false)]
    // What is no text at all can't be equal to one, and holds nothing up.
    [InlineData("""{"data":{"a":["x"]}}""", """{"a":"\ud800"}""", false)]
    [InlineData("""{"data":{"a":[{"exists":true}]}}""", """{"\ud800":1,"a":1}""", true)]
    [InlineData("""{"data":{"b":[{"exists":true}]}}""", """{"\ud800":1,"a":1}""", false)]
    public void An_event_matches_as_the_table_says(string filter, string data, bool matches)
    {
        var read = SubscriptionFilter.Parse(SubscriptionFilter.Parse(filter).Json);
        using var json = JsonDocument.Parse(data);

        Assert.Equal(matches, read.Matches("order-7", "/shop/eu", json.RootElement));
        Assert.Equal(matches, read.Explain("order-7", "/shop/eu", json.RootElement, out var conditions));
        Assert.NotEmpty(conditions);
    }

    [Theory]
    [InlineData("[]", "")]
    [InlineData("{}", "")]
    [InlineData("""{"type":["x"]}""", "/type")]
    [InlineData("""{"subject":"x"}""", "/subject")]
    [InlineData("""{"subject":{"a":["x"]}}""", "/subject")]
    [InlineData("""{"subject":[]}""", "/subject")]
    [InlineData("""{"data":{"a":{}}}""", "/data/a")]
    [InlineData("""{"data":{"a~b/c":"x"}}""", "/data/a~0b~1c")]
    [InlineData("""{"data":{"a":[["x"]]}}""", "/data/a/0")]
    [InlineData("""{"data":{"a":["x",{"prefix":1}]}}""", "/data/a/1/prefix")]
    [InlineData("""{"data":{"a":[{"prefix":""}]}}""", "/data/a/0/prefix")]
    [InlineData("""{"data":{"a":[{"wildcard":"*"}]}}""", "/data/a/0")]
    [InlineData("""{"data":{"a":[{"prefix":"x","suffix":"y"}]}}""", "/data/a/0")]
    [InlineData("""{"data":{"a":[{}]}}""", "/data/a/0")]
    [InlineData("""{"data":{"a":[{"exists":1}]}}""", "/data/a/0/exists")]
    [InlineData("""{"data":{"a":[{"numeric":["<"]}]}}""", "/data/a/0/numeric")]
    [InlineData("""{"data":{"a":[{"numeric":["~",1]}]}}""", "/data/a/0/numeric")]
    [InlineData("""{"data":{"a":[{"numeric":["<","1"]}]}}""", "/data/a/0/numeric")]
    [InlineData("""{"data":{"a":[{"anything-but":[]}]}}""", "/data/a/0/anything-but")]
    [InlineData("""{"data":{"a":[{"anything-but":[true]}]}}""", "/data/a/0/anything-but")]
    [InlineData("""{"data":{"a":[{"anything-but":{"numeric":["<",1]}}]}}""", "/data/a/0/anything-but")]
    [InlineData("""{"$or":[{"subject":["x"]}]}""", "/$or")]
    [InlineData("""{"$or":[{"subject":["x"]},{"id":["x"]}]}""", "/$or/1/id")]
    [InlineData("""{"data":{"a":["\ud800"]}}""", "/data/a/0")]
    [InlineData("""{"subject":["x"],"subject":["y"]}""", "/subject")]
    public void A_mistake_is_named_with_its_place(string filter, string place) => Assert.Equal(place, MistakeIn(filter));

    [Fact]
    public void Filters_are_bounded_in_conditions_depth_and_bytes()
    {
        static string Deep(int depth) => $"{{\"data\":{string.Concat(Enumerable.Repeat("{\"a\":", depth))}[1]{new string('}', depth)}}}";
        var most = string.Join(',', Enumerable.Repeat("1", SubscriptionFilter.MaxConditions));

        Assert.Null(MistakeIn($$$"""{"data":{"a":[{{{most}}}]}}"""));
        Assert.Equal($"/data/b/0", MistakeIn($$$"""{"data":{"a":[{{{most}}}],"b":[1]}}"""));
        Assert.Equal("/data/a/0/anything-but", MistakeIn($$$"""{"data":{"a":[{"anything-but":[{{{most}}},1]}]}}"""));
        Assert.Null(MistakeIn(Deep(SubscriptionFilter.MaxDepth - 1)));
        Assert.NotNull(MistakeIn(Deep(SubscriptionFilter.MaxDepth)));
        Assert.Equal("", MistakeIn($$"""{"subject":["{{new string('x', SubscriptionFilter.MaxBytes)}}"]}"""));
    }

    /// <summary>Beyond the steps there are, an event matches: what is sent in vain harms less than what is not sent.</summary>
    [Fact]
    public void What_is_not_decided_within_the_steps_there_are_matches()
    {
        var filter = SubscriptionFilter.Parse("""{"data":{"items":{"sku":["none"]}}}""");
        static string Items(int count) => $"{{\"items\":[{string.Join(',', Enumerable.Repeat("{\"sku\":\"x\"}", count))}]}}";
        using var few = JsonDocument.Parse(Items(1_000));
        using var many = JsonDocument.Parse(Items(SubscriptionFilter.MaxSteps));

        Assert.False(filter.Matches(null, null, few.RootElement));
        Assert.True(filter.Matches(null, null, many.RootElement));
    }

    /// <summary>Of each of these not more than 10,000 values are looked at, or lookups made, but a hundred times as much is done.</summary>
    [Fact]
    public void What_an_event_costs_is_counted_and_not_only_its_values()
    {
        static string Repeat(int count, Func<int, string> item) => string.Join(',', Enumerable.Range(0, count).Select(item));
        static string Suffix(int i) => $"{{\"suffix\":\"{i}\"}}";
        static string Missing(int i) => $"\"m{i}\":[{{\"exists\":false}}]";
        static string Texts(int count, string text) => $"{{\"s\":[{Repeat(count, _ => $"\"{text}\"")}]}}";
        static string Names(int count, string name) => $"{{{Repeat(count, i => $"\"{name}{i}\":0")},\"m99\":0}}";
        var equal = """{"data":{"s":["x"]}}""";
        var suffixes = $"{{\"data\":{{\"s\":[{Repeat(100, Suffix)}]}}}}";
        var missing = $"{{\"data\":{{{Repeat(100, Missing)}}}}}";
        var but = $"{{\"data\":{{\"s\":[{{\"anything-but\":[\"x\",{Repeat(99, i => $"{i}")}]}}]}}}}";
        var (noText, longText) = ("\\ud800", new string('y', 256 * 1024));
        foreach (var (what, filter, much, little) in new[]
        {
            ("conditions", suffixes, Texts(9_990, "x"), Texts(500, "x")),
            ("what one condition lists", but, Texts(9_990, "x"), Texts(500, "x")),
            ("names", missing, Names(79_000, "n"), Names(700, "n")),
            ("names that are no text", missing, Names(9_000, noText), Names(1, "n")),
            ("texts that are none", equal, Texts(9_000, noText), Texts(90, noText)),
            ("long texts", equal, Texts(10, longText), Texts(9, longText)),
        })
        {
            var read = SubscriptionFilter.Parse(filter);
            using var muchData = JsonDocument.Parse(much);
            using var littleData = JsonDocument.Parse(little);
            var steps = 2 * SubscriptionFilter.MaxSteps;

            Assert.True(read.Matches(null, null, muchData.RootElement, ref steps), $"Too many {what} are decided.");
            Assert.Equal(SubscriptionFilter.MaxSteps - 1, steps);
            Assert.False(read.Matches(null, null, littleData.RootElement), $"Not so many {what} are not decided.");
        }
    }

    /// <summary>Whichever of its members a filter names first, and however much there is in data.</summary>
    [Theory]
    [InlineData("""{"subject":["a"],"data":{"tags":["x"]}}""")]
    [InlineData("""{"data":{"tags":["x"]},"subject":["a"]}""")]
    [InlineData("""{"data":{"tags":["x"]},"source":["a"]}""")]
    [InlineData("""{"data":{"tags":["x"]},"$or":[{"subject":["a"]},{"source":["a"]}]}""")]
    public void What_subject_or_source_decides_against_is_not_sent_and_the_explanation_says_so(string json)
    {
        var filter = SubscriptionFilter.Parse(json);
        using var data = JsonDocument.Parse($"{{\"tags\":[{string.Join(',', Enumerable.Repeat('1', 10_001))}]}}");

        Assert.False(filter.Matches("b", "b", data.RootElement));
        Assert.False(filter.Explain("b", "b", data.RootElement, out var conditions));
        Assert.All(conditions, c => Assert.Equal(c.Path == "/data/tags", c.Matches));
        Assert.True(filter.Matches("a", "a", data.RootElement));
        Assert.True(filter.Explain("a", "a", data.RootElement, out conditions));
        Assert.All(conditions, c => Assert.True(c.Matches));
    }

    [Fact]
    public void Filters_that_have_steps_together_decide_as_far_as_they_go()
    {
        var filter = SubscriptionFilter.Parse("""{"subject":["a"],"data":{"n":[1,2],"m":[3]}}""");
        using var data = JsonDocument.Parse("""{"n":[0,1],"m":4}""");
        var steps = 20;

        // Subject; data; n and its two elements; m and its value.
        Assert.False(filter.Matches("a", null, data.RootElement, ref steps));
        Assert.Equal(20 - 8, steps);
        Assert.False(filter.Matches("a", null, data.RootElement, ref steps));
        Assert.Equal(20 - 16, steps);
        Assert.True(filter.Matches("a", null, data.RootElement, ref steps));
        Assert.True(steps < 0);
        Assert.True(filter.Matches("a", null, data.RootElement, ref steps));
        Assert.False(filter.Matches("b", null, data.RootElement, ref steps));
    }

    [Fact]
    public void An_explanation_says_what_was_found_and_which_condition_failed()
    {
        using var data = JsonDocument.Parse($$"""{"total":42,"lines":[{"sku":"a"},{"sku":"b"}],"long":"{{new string('x', 200)}}"}""");
        var filter = SubscriptionFilter.Parse(
            """{"subject":["s"],"data":{"total":[{"numeric":[">=",100]}],"lines":{"sku":["b"]},"long":["y"],"none":[{"exists":false}]}}""");

        Assert.False(filter.Explain("s", null, data.RootElement, out var conditions));
        Assert.Equal(
        [
            ("/subject", "\"s\"", true), ("/data/total", "42", false), ("/data/lines/sku", "\"b\"", true),
            ("/data/long", "\"" + new string('x', 99) + "…", false), ("/data/none", null, true),
        ], conditions.Select(c => (c.Path, c.Found, c.Matches)));
        Assert.Equal("""[{"numeric":[">=",100]}]""", conditions[1].Expected);
    }

    private static string? MistakeIn(string filter)
    {
        string? first = null;
        using var json = JsonDocument.Parse(Encoding.UTF8.GetBytes(filter));
        var read = SubscriptionFilter.Read(json.RootElement, (pointer, _) => first ??= pointer);
        Assert.Equal(first is null, read is not null);
        return first;
    }
}
