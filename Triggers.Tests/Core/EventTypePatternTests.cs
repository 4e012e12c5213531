using System.Text.RegularExpressions;
using CsCheck;
using Triggers.Core;
using Triggers.Core.Subscriptions;

namespace Triggers.Tests.Core;

public class EventTypePatternTests
{
    private static readonly Gen<string> Segment = Gen.String[Gen.Char["abcXYZ019_-"], 1, 8];
    private static readonly Gen<string> Type = Segment.Array[1, 5].Select(segments => string.Join('.', segments));

    [Theory]
    [InlineData("*", "order.created", true)]
    [InlineData("order.created", "order.created", true)]
    [InlineData("order.created", "order.Created", false)]
    [InlineData("order.*", "order.created", true)]
    [InlineData("order.*", "order.item.added", true)]
    [InlineData("order.*", "order", false)]
    [InlineData("order.*", "order.", false)]
    [InlineData("order.*", "orders.created", false)]
    [InlineData("order", "order.created", false)]
    [InlineData("*", "triggers.test", false)]
    [InlineData("triggers.*", "triggers.test", false)]
    [InlineData("triggers.test", "triggers.test", false)]
    [InlineData("*", "triggers", true)]
    [InlineData("*", "triggersmith.made", true)]
    public void Patterns_match_what_they_say(string pattern, string type, bool matches) =>
        Assert.Equal(matches, EventTypePattern.Matches(pattern, type));

    [Fact]
    public void A_type_matches_itself_and_everything_it_is_below() =>
        Gen.Select(Type, Type).Sample((parent, child) =>
        {
            Assert.True(EventTypePattern.Matches(parent, parent));
            Assert.True(EventTypePattern.Matches("*", parent));
            Assert.True(EventTypePattern.Matches($"{parent}.*", $"{parent}.{child}"));
            Assert.False(EventTypePattern.Matches($"{parent}.*", parent));
            Assert.False(EventTypePattern.Matches($"{parent}.*", $"{parent}x.{child}"));
        });

    [Fact]
    public void Types_and_patterns_are_recognised() =>
        Type.Sample(type =>
        {
            Assert.True(EventTypePattern.IsType(type));
            Assert.True(EventTypePattern.IsPattern(type));
            Assert.True(EventTypePattern.IsPattern($"{type}.*"));
            Assert.False(EventTypePattern.IsType($"{type}.*"));
        });

    /// <summary>The contract shows the regular expressions; the code does not run them.</summary>
    [Fact]
    public void The_regular_expressions_say_the_same() =>
        Gen.Select(Gen.OneOf(Gen.Const(""), Gen.Const("triggers"), Gen.Const("triggers."), Gen.Const("triggers.subscription."),
            Gen.Const(OperationalEventTypes.Failing)),
            Gen.String[Gen.Char["aZ0._-* é"], 0, 6], (start, rest) => start + rest).Sample(text =>
        {
            Assert.Equal(Regex.IsMatch(text, EventTypePattern.OfPatterns), EventTypePattern.IsPattern(text));
            Assert.Equal(
                Regex.IsMatch(text, EventTypePattern.OfReplayed), EventTypePattern.IsPattern(text) && !EventTypePattern.IsSystem(text));
            Assert.Equal(
                Regex.IsMatch(text, EventTypePattern.OfSubscribed),
                EventTypePattern.IsPattern(text) && !EventTypePattern.IsSystem(text) || EventTypePattern.IsOperational(text));
            Assert.Equal(
                Regex.IsMatch(text, EventTypePattern.OfPublished), EventTypePattern.IsType(text) && !EventTypePattern.IsSystem(text));
        });

    [Theory]
    [InlineData("")]
    [InlineData(".*")]
    [InlineData("order.*.created")]
    [InlineData("*.created")]
    [InlineData("**")]
    [InlineData("order created")]
    [InlineData("ordre.créé")]
    public void What_is_no_pattern_is_refused(string text) => Assert.False(EventTypePattern.IsPattern(text));

    [Fact]
    public void A_type_has_256_characters_at_most()
    {
        Assert.True(EventTypePattern.IsType(new string('a', 256)));
        Assert.False(EventTypePattern.IsType(new string('a', 257)));
    }
}
