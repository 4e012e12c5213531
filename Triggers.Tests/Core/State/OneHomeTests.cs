using System.Text.RegularExpressions;

namespace Triggers.Tests.Core.State;

/// <summary>Every statement that changes where an event stands is in Triggers.Core/State, and so is every rule of where it does.</summary>
public sealed partial class OneHomeTests
{
    private const string Home = "Triggers.Core/State/";

    /// <summary>
    /// Tests and measurements that write what no statement of ours would: what constraints refuse, an older schema, many rows at once,
    /// another process' claim.
    /// </summary>
    private static readonly string[] s_own =
    [
        "Triggers.Tests/Core/State/HistoryTests.cs", "Triggers.Tests/Core/Schema/QueueMigrationTests.cs",
        "Triggers.Tests/Core/Schema/LargeDataMigrationTests.cs",
        "Triggers.Tests/Core/State/RetentionTests.cs", "Triggers.Tests/Core/State/PlansTests.cs",
        "Triggers.Tests/Api/Lists/LongHistoryTests.cs", "Triggers.Tests/Api/Deliveries/DeliveriesTests.cs",
        "Triggers.Tests/Delivery/KafkaProjectionTests.cs", "Triggers.Tests/EventLog/KafkaEventSourceTests.cs",
        "Triggers.Tests/Delivery/BatchesTests.cs", "Triggers.Tests/Delivery/WorkersTests.cs", "Triggers.Tests/Core/State/OneHomeTests.cs",
        "bench/Measurements.cs",
    ];

    [Fact]
    public void Events_and_deliveries_are_written_by_its_statements_alone()
    {
        var elsewhere = Sources().Where(s => !s.Path.StartsWith(Home, StringComparison.Ordinal) && !s_own.Contains(s.Path))
            .SelectMany(s => Writes().Matches(s.Text).Select(m => $"{s.Path}: {m.Value}"));

        Assert.Empty(elsewhere);
        // The pattern finds what it is there for.
        Assert.True(Sources().Where(s => s.Path.StartsWith(Home, StringComparison.Ordinal)).Sum(s => Writes().Count(s.Text)) > 15);
    }

    [Fact]
    public void Rules_are_written_once()
    {
        foreach (var rule in new[] { "state IN ('open', 'replaying')",
            "log = 'postgres' AND partition = 0 FOR UPDATE", "seq >= (SELECT next", "NOT q.is_replay" })
        {
            Assert.DoesNotContain(Sources(), s =>
                !s.Path.StartsWith(Home, StringComparison.Ordinal) && !s_own.Contains(s.Path)
                    && s.Text.Contains(rule, StringComparison.Ordinal));
        }
    }

    [GeneratedRegex(
        @"\b(INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE|COPY)\s+"
        + @"(events|deliveries|delivery_queue|fan_outs|inbox|acknowledgements|attempts|dead_letters)\b")]
    private static partial Regex Writes();

    private static IEnumerable<(string Path, string Text)> Sources()
    {
        var root = Path.GetFullPath(Path.Combine(Here(), "..", "..", ".."));
        return Directory.EnumerateFiles(root, "*.cs", SearchOption.AllDirectories)
            .Select(file => (Path: Path.GetRelativePath(root, file).Replace('\\', '/'), File: file))
            .Where(s => !s.Path.Split('/').Any(part => part is "bin" or "obj" or ".data"))
            .Select(s => (s.Path, File.ReadAllText(s.File)));
    }

    private static string Here([System.Runtime.CompilerServices.CallerFilePath] string path = "") => Path.GetDirectoryName(path)!;
}
