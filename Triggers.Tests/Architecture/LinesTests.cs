using System.Text.RegularExpressions;
using Triggers.Tests.Support;

namespace Triggers.Tests.Architecture;

/// <summary>
/// Lines are short enough to be read side by side: <c>max_line_length</c> of <c>.editorconfig</c>, which the compiler doesn't hold.
/// </summary>
public sealed partial class LinesTests
{
    private static readonly string[] s_projects =
    [
        "Triggers.Api", "Triggers.AppHost", "Triggers.Core", "Triggers.Delivery", "Triggers.EventLog", "Triggers.Receiver",
        "Triggers.ServiceDefaults", "Triggers.Tests", "bench",
    ];

    private static int Longest =>
        int.Parse(MaxLineLength().Match(File.ReadAllText(Repository.File(".editorconfig"))).Groups[1].ValueSpan);

    [Fact]
    public void No_line_of_code_is_longer_than_the_editor_config_says()
    {
        var longest = Longest;
        var tooLong = s_projects
            .SelectMany(project => Directory.EnumerateFiles(Repository.File(project), "*.*", SearchOption.AllDirectories))
            .Where(file => Path.GetExtension(file) is ".cs" or ".sql" && !Generated().IsMatch(file))
            .SelectMany(file => TooLong(file, longest)).ToArray();

        Assert.Empty(tooLong);
    }

    [Fact]
    public void Nor_is_one_of_prose()
    {
        var longest = Longest;
        var tooLong = new[] { "README.md", "CHANGELOG.md", "AGENTS.md" }.Select(name => Repository.File(name))
            .Concat(Directory.EnumerateFiles(Repository.File("docs"), "*.md", SearchOption.AllDirectories))
            .SelectMany(file => Fenced().Replace(File.ReadAllText(file), "").Split('\n')
                .Where(line => line.Length > longest && !line.StartsWith('|')).Select(line => $"{file}: {line}"));

        Assert.Empty(tooLong);
    }

    /// <summary>Text between three quotes is as it is: a line break would be part of it.</summary>
    private static IEnumerable<string> TooLong(string file, int longest)
    {
        var isText = false;
        foreach (var (number, line) in File.ReadLines(file).Index())
        {
            var quotes = Quotes().Count(line);
            if (line.Length > longest && !isText && quotes == 0)
                yield return $"{file}:{number + 1} has {line.Length} columns";
            isText ^= quotes % 2 == 1;
        }
    }

    /// <summary>Code is as whoever copies it needs it.</summary>
    [GeneratedRegex("^ *```.*?^ *```", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Fenced();

    [GeneratedRegex("max_line_length = ([0-9]+)")]
    private static partial Regex MaxLineLength();

    [GeneratedRegex(@"[/\\](bin|obj|TestResults)[/\\]")]
    private static partial Regex Generated();

    [GeneratedRegex("\"\"\"")]
    private static partial Regex Quotes();
}
