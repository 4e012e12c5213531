using System.Text;
using System.Text.RegularExpressions;

namespace Triggers.Api.Schemas;

/// <summary>
/// Regular expressions of schemas, which are ECMAScript's, as ones of .NET that match in time linear in the text, whatever the pattern.
/// What needs to go back for it (lookaround, references to groups) is refused.
/// </summary>
internal static class SchemaPattern
{
    /// <summary>The longest pattern.</summary>
    public const int MaxLength = 512;

    /// <summary>The most characters a pattern may have with its counts written out: <c>(ab){3}</c> has 6.</summary>
    public const int MaxSize = 1_000;

    private const int MaxDepth = 50;

    /// <summary>Compiles a pattern.</summary>
    /// <param name="pattern">As the schema has it.</param>
    /// <param name="size">Its characters with its counts written out: what matching one character may cost.</param>
    /// <exception cref="FormatException">It is none, or none that is taken; the message says why.</exception>
    public static Regex Compile(string pattern, out int size)
    {
        if (pattern.Length > MaxLength)
            throw new FormatException($"Is longer than {MaxLength} characters.");
        var translation = new Translation(pattern);
        size = (int)Math.Min(translation.Run(), int.MaxValue);
        if (size > MaxSize)
            throw new FormatException($"Has more than {MaxSize} characters with its counts written out.");
        try
        {
            return new Regex(translation.Text, RegexOptions.NonBacktracking | RegexOptions.CultureInvariant);
        }
        catch (ArgumentException)
        {
            throw new FormatException("Is no regular expression of ECMAScript that is taken here.");
        }
        catch (NotSupportedException)
        {
            throw new FormatException("Looks around, refers to a group, or is too large; it has to match without going back.");
        }
    }

    /// <summary>One pass over the pattern, which writes what means something else in .NET, and counts.</summary>
    private sealed class Translation(string pattern)
    {
        private const string Digits = "0-9";
        // Ends with a range, so that a hyphen behind it begins none.
        private const string Words = "_a-zA-Z0-9";

        private readonly StringBuilder _text = new(pattern.Length + 16);
        private int _at;
        private int _depth;

        public string Text => _text.ToString();

        public long Run()
        {
            var size = Alternatives();
            return _at == pattern.Length ? Math.Max(1, size) : throw new FormatException("Closes a group that is not open.");
        }

        private long Alternatives()
        {
            long size = 0;
            while (_at < pattern.Length && pattern[_at] != ')')
            {
                if (pattern[_at] == '|')
                    _text.Append(pattern[_at++]);
                else
                    size = Math.Min(size + Counted(Atom()), int.MaxValue);
            }
            return size;
        }

        private long Atom()
        {
            switch (pattern[_at])
            {
                case '(':
                    return Group();
                case '[':
                    Class();
                    return 1;
                case '\\':
                    Escape(inClass: false);
                    return 1;
                case '$':
                    // .NET's also matches before a line feed at the end.
                    _text.Append(@"\z");
                    _at++;
                    return 1;
                case '.':
                    _text.Append(@"[^\n\r\u2028\u2029]");
                    _at++;
                    return 1;
                default:
                    _text.Append(pattern[_at++]);
                    return 1;
            }
        }

        private long Group()
        {
            if (++_depth > MaxDepth)
                throw new FormatException($"Has groups nested deeper than {MaxDepth}.");
            // A group that is named, or isn't captured, is a group; what else begins so looks around, and is refused.
            _at++;
            if (_at < pattern.Length && pattern[_at] == '?')
            {
                var isNamed = pattern.AsSpan(_at).StartsWith("?<") && !pattern.AsSpan(_at).StartsWith("?<=")
                    && !pattern.AsSpan(_at).StartsWith("?<!");
                if (!isNamed && !pattern.AsSpan(_at).StartsWith("?:"))
                    throw new FormatException("Looks around, which is not taken: it has to match without going back.");
                var end = isNamed ? pattern.IndexOf('>', _at) : _at + 1;
                _at = end >= 0 ? end + 1 : throw new FormatException("Has a group whose name does not end.");
            }
            _text.Append("(?:");
            var size = Alternatives();
            if (_at >= pattern.Length)
                throw new FormatException("Has a group that is not closed.");
            _text.Append(pattern[_at++]);
            _depth--;
            return size;
        }

        private void Class()
        {
            _text.Append(pattern[_at++]);
            if (_at < pattern.Length && pattern[_at] == '^')
                _text.Append(pattern[_at++]);
            if (_at < pattern.Length && pattern[_at] == ']')
                throw new FormatException("Has a class of no characters.");
            while (_at < pattern.Length && pattern[_at] != ']')
            {
                if (pattern[_at] == '\\')
                {
                    Escape(inClass: true);
                }
                else
                {
                    // In .NET it would begin a class to subtract.
                    if (pattern[_at] == '[')
                        _text.Append('\\');
                    _text.Append(pattern[_at++]);
                }
            }
            if (_at >= pattern.Length)
                throw new FormatException("Has a class that is not closed.");
            _text.Append(pattern[_at++]);
        }

        private void Escape(bool inClass)
        {
            if (_at + 1 >= pattern.Length)
                throw new FormatException("Ends with a backslash.");
            var c = pattern[_at + 1];
            switch (c)
            {
                case 'd' or 'w':
                    var set = c == 'd' ? Digits : Words;
                    _text.Append(inClass ? set : $"[{set}]");
                    break;
                case ('D' or 'W') when !inClass:
                    _text.Append($"[^{(c == 'D' ? Digits : Words)}]");
                    break;
                case 's' or 'S' when !inClass || c == 's':
                    const string Spaces = @"\t\n\v\f\r \u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff\u2000-\u200a";
                    _text.Append(inClass ? Spaces : c == 's' ? $"[{Spaces}]" : $"[^{Spaces}]");
                    break;
                case 'D' or 'W' or 'S':
                    throw new FormatException($"Has \\{c} in a class, which is not taken.");
                case 'b' or 'B' when !inClass:
                    throw new FormatException($"Has \\{c}, which is not taken.");
                case >= '1' and <= '9' or 'k' when !inClass:
                    throw new FormatException("Refers to a group, which is not taken: it has to match without going back.");
                case 'a' or 'e' or 'A' or 'z' or 'Z' or 'G':
                    // ECMAScript: the letter itself.
                    _text.Append(c);
                    break;
                case 'p' or 'P':
                    var end = pattern.IndexOf('}', _at);
                    if (end < 0 || pattern[_at + 2] != '{')
                        throw new FormatException($"Has \\{c} without the name of what it stands for, as in \\p{{L}}.");
                    _text.Append(pattern, _at, end + 1 - _at);
                    _at = end + 1;
                    return;
                case 'c' or 'x' or 'u' or 'n' or 'r' or 't' or 'v' or 'f' or 'b' or '0':
                    _text.Append('\\').Append(c);
                    break;
                default:
                    _text.Append(char.IsAsciiLetterOrDigit(c) ? c.ToString() : "\\" + c);
                    break;
            }
            _at += 2;
        }

        /// <summary>What an atom counts with the quantifier behind it.</summary>
        private long Counted(long size)
        {
            if (_at >= pattern.Length)
                return size;
            if (pattern[_at] is '*' or '+' or '?')
            {
                _text.Append(pattern[_at++]);
                Lazy();
                return size;
            }
            if (pattern[_at] != '{')
                return size;
            var end = pattern.IndexOf('}', _at);
            var counts = end < 0 ? [] : pattern[(_at + 1)..end].Split(',');
            if (counts.Length is 0 or > 2 || !counts.All(c => c.Length < 10 && c.All(char.IsAsciiDigit)) || counts[0].Length == 0)
                throw new FormatException("Has a brace that counts nothing; write \\{ for the character.");
            _text.Append(pattern, _at, end + 1 - _at);
            _at = end + 1;
            Lazy();
            return Math.Min(size * Math.Max(1, counts.Max(c => c.Length == 0 ? 0 : long.Parse(c))), int.MaxValue);
        }

        private void Lazy()
        {
            // Whether it takes more or less makes no difference to whether it matches.
            if (_at < pattern.Length && pattern[_at] == '?')
                _at++;
            if (_at < pattern.Length && pattern[_at] is '*' or '+' or '?' or '{')
                throw new FormatException("Has a quantifier of a quantifier.");
        }
    }
}
