namespace Triggers.Core.Subscriptions;

/// <summary>
/// Event types and the patterns subscriptions name them by. A type is a dotted name, as in <c>order.created</c>. A pattern is
/// <c>*</c> (every type but the system's), a type (that one), or a type and <c>.*</c> (every type below it: <c>order.*</c> matches
/// <c>order.created</c> and <c>order.item.added</c>, not <c>order</c>).
/// </summary>
public static class EventTypePattern
{
    /// <summary>The longest type there is.</summary>
    public const int MaxLength = 256;

    /// <summary>The longest pattern there is.</summary>
    public const int MaxPatternLength = MaxLength + 2;

    /// <summary>What a type looks like that somebody may publish, as a regular expression.</summary>
    public const string OfPublished = @"^(?!triggers\.)[A-Za-z0-9._-]{1,256}$";

    /// <summary>What a pattern looks like, as a regular expression.</summary>
    public const string OfPatterns = @"^(\*|[A-Za-z0-9._-]{1,256}(\.\*)?)$";

    /// <summary>What a pattern of published types looks like, as a regular expression.</summary>
    public const string OfReplayed = @"^(\*|(?!triggers\.)[A-Za-z0-9._-]{1,256}(\.\*)?)$";

    /// <summary>What a pattern looks like that somebody may subscribe to, as a regular expression.</summary>
    public const string OfSubscribed =
        @"^(\*|triggers\.subscription\.(\*|failing|recovered|disabled|deleted|expired)|(?!triggers\.)[A-Za-z0-9._-]{1,256}(\.\*)?)$";

    /// <summary>All that a tenant is told of its own subscriptions, see <see cref="OperationalEventTypes"/>.</summary>
    public const string Operational = "triggers.subscription.*";

    private const string SystemPrefix = "triggers.";

    /// <summary>
    /// Whether a type, or a pattern of types, is the system's own, as <c>triggers.test</c> is. Nobody publishes such a type, and no
    /// pattern but <see cref="MatchesOperational"/> matches it.
    /// </summary>
    public static bool IsSystem(ReadOnlySpan<char> typeOrPattern) => typeOrPattern.StartsWith(SystemPrefix, StringComparison.Ordinal);

    /// <summary>Whether the text is a type: 1–256 letters, digits, <c>.</c>, <c>_</c>, <c>-</c>.</summary>
    public static bool IsType(ReadOnlySpan<char> text)
    {
        if (text.Length is 0 or > MaxLength)
            return false;
        foreach (var c in text)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('.' or '_' or '-'))
                return false;
        }
        return true;
    }

    /// <summary>Whether the text is a pattern.</summary>
    public static bool IsPattern(ReadOnlySpan<char> text) =>
        text is "*" || IsType(text.EndsWith(".*") ? text[..^2] : text);

    /// <summary>Whether a valid pattern matches a valid type. Letter case counts.</summary>
    public static bool Matches(ReadOnlySpan<char> pattern, ReadOnlySpan<char> type) =>
        !IsSystem(type)
        && (pattern is "*"
            || (pattern.EndsWith(".*")
                ? type.Length > pattern.Length - 1 && type.StartsWith(pattern[..^1], StringComparison.Ordinal)
                : pattern.SequenceEqual(type)));

    /// <summary>Whether a pattern asks for <see cref="OperationalEventTypes"/>.</summary>
    public static bool IsOperational(string pattern) =>
        pattern is Operational or OperationalEventTypes.Failing or OperationalEventTypes.Recovered or OperationalEventTypes.Disabled
            or OperationalEventTypes.Deleted or OperationalEventTypes.Expired;

    /// <summary>Whether the system's own events of a type, one of <see cref="OperationalEventTypes"/>, are asked for.</summary>
    public static bool MatchesOperational(string pattern, string type) => pattern == type || pattern == Operational;

    /// <summary>Whether any of the patterns matches.</summary>
    public static bool MatchesAny(IEnumerable<string> patterns, string type)
    {
        foreach (var pattern in patterns)
        {
            if (Matches(pattern, type))
                return true;
        }
        return false;
    }
}
