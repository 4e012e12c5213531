using System.Text;
using Triggers.Core;
using Triggers.Core.State;
using Triggers.Core.Subscriptions;
using Triggers.Core.Tables;
using Triggers.Core.Transformations;

namespace Triggers.Tests.Core;

/// <summary>What templates make of events, and what hostile ones are stopped by.</summary>
public sealed class TransformationsTests
{
    private const string Data =
        """{"name":"A \"q\" \\ <ü>","n":3,"tags":["a","b\""],"o":{ "x" : 1.50 },"big":1e400,"rows":[{"k":"b","v":2},{"k":"a","v":1}]}""";

    [Theory]
    [InlineData("""{"a":"{{ event.data.name }}"}""", """{"a":"A \"q\" \\ <ü>"}""")]
    [InlineData("{{ event.data.name | json }}", """ "A \"q\" \\ <ü>" """)]
    [InlineData("{{ event.data.o | json }}", """{ "x" : 1.50 }""")]
    [InlineData("\"{{ event.data.tags }}\"", """ "[\"a\",\"b\\\"\"]" """)]
    [InlineData("{{ event.data.tags | json }}", """["a","b\""]""")]
    [InlineData("{{ event.data.nothing.there | json }}", "null")]
    [InlineData("{{ event.data.big | json }}", "\"1e400\"")]
    [InlineData("[\"{{ event.type }}\",\"{{ event.subject }}\",\"{{ event.timestamp | date: '%d.%m.%Y' }}\"]", """["order.created","s","31.01.2026"]""")]
    [InlineData("{{ event.data.n | plus: 1 | times: 2 }}", "8")]
    [InlineData("[{% for t in event.data.tags %}{{ t | json }}{% unless forloop.last %},{% endunless %}{% endfor %}]", """["a","b\""]""")]
    [InlineData("\"{% for p in event.data.o %}{{ p[0] }}={{ p[1] }}{% endfor %}\"", "\"x=1.5\"")]
    [InlineData("{{ event.data.rows | sort: 'k' | map: 'v' | json }}", "[1,2]")]
    [InlineData("{% if event.data.name contains 'q' and event.data.n > 2 %}1{% else %}0{% endif %}", "1")]
    [InlineData("{% case event.data.n %}{% when 3 %}3{% endcase %}", "3")]
    [InlineData("{% capture c %}{{ event.data.name }}{% endcapture %}\"{{ c }}\"", """ "A \"q\" \\ <ü>" """)]
    [InlineData("{% raw %}\"{{ event }}\"{% endraw %}", "\"{{ event }}\"")]
    [InlineData("{% for i in (1..3) %}{{ i }}{% endfor %}", "123")]
    public void What_is_written_is_json_whatever_the_event_has(string template, string body) =>
        Assert.Equal(body.Trim(), Text(Make(new() { Template = template })));

    [Theory]
    [InlineData("application/xml", "A &quot;q&quot; \\ &lt;&#xFC;&gt;")]
    [InlineData("application/x-www-form-urlencoded", "A%20%22q%22%20%5C%20%3C%C3%BC%3E")]
    [InlineData("text/plain; charset=utf-8", "A \"q\" \\ <ü>")]
    public void What_is_written_is_escaped_for_its_type(string contentType, string written)
    {
        var message = Make(new() { Template = "{{ event.data.name }}", ContentType = contentType });

        Assert.Equal(written, Text(message));
        Assert.Equal(contentType, message.ContentType!.ToString());
    }

    [Fact]
    public void Method_and_headers_are_the_transformations()
    {
        var message = Make(new()
        {
            Template = "{}",
            Method = "PUT",
            Headers = new() { ["x-n"] = "{{ event.data.n }}", ["x-s"] = "{{ subscription.id }}" },
        });

        Assert.Equal(HttpMethod.Put, message.Method);
        Assert.Equal("3", message.Headers[0].Value);
        Assert.StartsWith("sub_", message.Headers[1].Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a\n  {{ event.data.n | }}", 2, "identifier")]
    [InlineData("a\n\n{{ event.data.n | nothing }}", 3, "no filter \"nothing\"")]
    [InlineData("{% include 'x' %}", 1, "include")]
    [InlineData("{% if event %}\nx", 2, "endif")]
    [InlineData("{{ event.data.n | remove_first: 'x' }}", 1, "no filter")]
    public void A_mistake_is_found_before_there_is_an_event(string template, int line, string says)
    {
        var (_, mistake) = Assert.Single(RoomyThread.Run(() =>
            TransformationFormat.MistakesOf(new() { Template = template }).ToArray()));

        Assert.Equal(line, mistake.Line);
        Assert.Contains(says, mistake.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{}\n {{ event.data.n | divided_by: 0 }}", "Line 2, column ")]
    [InlineData("{% if event.data.n %}\n{% assign z = event.data.n | divided_by: 0 %}{% endif %}", "Line 2, column ")]
    [InlineData("{\"a\":\n{{ event.data.name }}}", "no JSON, from line 2")]
    [InlineData("", "no JSON")]
    // Endless, as far as anybody would wait.
    [InlineData("{% for i in (1..40000) %}{% for j in (1..40000) %}{% endfor %}{% endfor %}", "more than 50000 statements")]
    [InlineData("{% assign n = 2000000000 %}{% for i in (1..n) %}{% endfor %}", "A range has at most")]
    // Much of little.
    [InlineData("{% for i in (1..40000) %}{{ event.data }}{% endfor %}", "Writes more than")]
    [InlineData("{% assign s = 'aaaaaaaaaa' %}{% for i in (1..60) %}{% assign s = s | append: s %}{% endfor %}", "longer than")]
    [InlineData("{% assign s = 'a' %}{% for i in (1..60) %}{% capture s %}{{ s }}{{ s }}{% endcapture %}{% endfor %}", "Writes more than")]
    [InlineData("{% assign s = 'a,b' | split: ',' %}{% for i in (1..60) %}{% assign s = s | concat: s %}{% endfor %}", "longer than")]
    [InlineData(Long + "{{ s | replace: 'a', s | size }}", "longer than")]
    [InlineData(Long + "{{ s | split: '' | join: s | size }}", "longer than")]
    [InlineData(Long + "{{ event.data.name | split: s }}", "at most 1000 characters")]
    [InlineData(Long + "{% if event.data.name contains s %}{% endif %}", "at most 1000 characters")]
    [InlineData(Long + "{% for i in (1..40000) %}{% assign t = s | upcase %}{% endfor %}", "Reads and makes more than")]
    [InlineData(Long + "{% for i in (1..40000) %}{% if s == s %}{% endif %}{% endfor %}", "Reads and makes more than")]
    [InlineData("{{ event.timestamp | date: '%999999999n' }}", "A date's format")]
    [InlineData("{{ 79228162514264337593543950335 | times: 10 }}", "Decimal")]
    public void What_goes_wrong_or_too_far_is_said_and_nothing_is_sent(string template, string says)
    {
        var message = Make(new() { Template = template });

        Assert.Empty(message.Body);
        Assert.Contains(says, message.Problem!, StringComparison.Ordinal);
    }

    [Fact]
    public void A_header_that_can_not_be_sent_is_said()
    {
        var message = Make(new() { Template = "{}", Headers = new() { ["x-name"] = "{{ event.data.name }}" } });

        Assert.Contains("Header x-name", message.Problem!, StringComparison.Ordinal);
    }

    /// <summary>As deep as a template of the greatest length can be: on a common stack the process would end.</summary>
    [Theory]
    [InlineData("{{ ", "a[", 200, "1", "]", " }}")]
    [InlineData("", "{% if event %}", 200, "1", "{% endif %}", "")]
    [InlineData("", "{% for a in event %}", 200, "1", "{% endfor %}", "")]
    [InlineData("{% if x", " or x", 6_000, "", "", " %}{% endif %}1")]
    [InlineData("{{ 1", "|abs", 8_000, "", "", " }}")]
    [InlineData("{{ ", "a[", 5_000, "1", "]", " }}")]
    [InlineData("", "{% case a %}{% when 1 %}", 1_300, "1", "", "")]
    public void Nesting_ends_no_process(string before, string open, int times, string within, string close, string after)
    {
        var template = before + string.Concat(Enumerable.Repeat(open, times)) + within
            + string.Concat(Enumerable.Repeat(close, times)) + after;

        var message = Make(new() { Template = template, ContentType = "text/plain" });

        Assert.True(message.Problem is not null || Text(message) is "" or "1", Text(message));
    }

    private const string Long = "{% assign s = 'aaaaaaaaaa' %}{% for i in (1..12) %}{% assign s = s | append: s %}{% endfor %}";

    [Theory]
    [InlineData("{% for i in (1..200) %}{% assign a = 1 %}{% endfor %}", "Runs more than 200 statements.")]
    [InlineData("{% for i in (1..201) %}{% endfor %}", "A range has at most 200 numbers.")]
    [InlineData("{% for i in (1..90) %}aaaaaaaaaaaa{% endfor %}", "Writes more than 1024 characters.")]
    [InlineData("{% for i in (1..90) %}{% assign a = event.data | json | upcase %}{% endfor %}", "Reads and makes more than 16384")]
    [InlineData("{{ 'a' | split: '123456' }}", "at most 5 characters")]
    public void How_far_a_template_may_go_is_a_setting(string template, string says)
    {
        var limits = new TransformationOptions { Statements = 200, TextLength = 1024, Work = 16 * 1024, SoughtLength = 5 };

        Assert.Contains(says, Make(new() { Template = template }, limits).Problem!, StringComparison.Ordinal);
    }

    private static WebhookMessage Make(Transformation transformation, TransformationOptions? limits = null)
    {
        var e = new StoredEvent(
            TypeId.NewGuid(), "order.created", null, null, "s", new DateTimeOffset(2026, 1, 31, 9, 30, 0, TimeSpan.Zero), "c", null,
            Encoding.UTF8.GetBytes(Data));
        return RoomyThread.Run(() =>
            new TransformationFormat(TypeId.NewGuid(), transformation, limits ?? new()).Make(TypeId.NewGuid(), e));
    }

    private static string Text(WebhookMessage message) => message.Problem ?? Encoding.UTF8.GetString(message.Body);
}
