using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

namespace Triggers.Bench;

/// <summary>What was measured: a row for each figure, a column for each log.</summary>
internal sealed class Results(IReadOnlyList<string> logs)
{
    private readonly List<(string What, string Target)> _rows = [];
    private readonly Dictionary<(string What, string Log), string> _values = [];
    private readonly long[] _processor = Processor();
    private readonly string _commit = Commit();

    /// <summary>Notes a figure, and says it, so that somebody who waits sees how it goes.</summary>
    public void Add(string log, string what, string value, string target = "")
    {
        if (!_rows.Exists(row => row.What == what))
            _rows.Add((what, target));
        _values[(what, log)] = value;
        Console.Error.WriteLine($"{log,-9} {what}: {value}");
    }

    /// <summary>All of it in Markdown, with where and when.</summary>
    public string Table()
    {
        var table = new StringBuilder();
        table.AppendLine($"{TimeProvider.System.GetUtcNow():yyyy-MM-dd}, commit {_commit}; {Machine()}.").AppendLine();
        AppendRow(table, ["what", .. logs.Select(log => $"{char.ToUpperInvariant(log[0])}{log[1..]} log"), "target"]);
        AppendRow(table, [.. Enumerable.Repeat("---", logs.Count + 2)]);
        foreach (var (what, target) in _rows)
            AppendRow(table, [what, .. logs.Select(log => _values.GetValueOrDefault((what, log), "")), target]);
        return table.ToString();
    }

    private static void AppendRow(StringBuilder table, IReadOnlyList<string> cells) => table.AppendLine($"| {string.Join(" | ", cells)} |");

    /// <summary>What it ran on. On a machine that is shared, what others took from it meanwhile is part of that.</summary>
    private string Machine()
    {
        var spent = Processor().Zip(_processor, (now, before) => now - before).ToArray();
        var memory = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / Math.Pow(2, 30);
        return $"{Environment.ProcessorCount} cores, {memory:0} GB, {RuntimeInformation.OSArchitecture}, "
            + $".NET {Environment.Version}; {100.0 * spent[7] / Math.Max(1, spent.Take(8).Sum()):0.0} % of the processors stolen, "
            + $"load average at the end {File.ReadAllText("/proc/loadavg").Split(' ')[1]}";
    }

    /// <summary>Hundredths of a second since the machine's start: user, nice, system, idle, iowait, irq, softirq, steal, …</summary>
    private static long[] Processor() => [.. File.ReadLines("/proc/stat").First(line => line.StartsWith("cpu ", StringComparison.Ordinal))
        .Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(long.Parse)];

    private static string Commit()
    {
        var start = new ProcessStartInfo("git", "describe --always --dirty --exclude=*") { RedirectStandardOutput = true };
        using var git = Process.Start(start);
        return git?.StandardOutput.ReadToEnd().Trim() is { Length: > 0 } commit ? commit : "unknown";
    }
}
