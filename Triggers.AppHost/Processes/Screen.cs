using System.Text.RegularExpressions;

namespace Triggers.AppHost.Processes;

/// <summary>What is said to the person at the terminal. Also from a guard whose terminal may be gone.</summary>
internal sealed partial class Screen(TextWriter writer)
{
    private readonly Lock _lock = new();

    public void Say(string text = "")
    {
        lock (_lock)
        {
            try
            {
                writer.WriteLine(text);
                writer.Flush();
            }
            catch (IOException)
            {
                // The terminal or the reader has gone; stopping in order matters more than saying so.
            }
        }
    }

    /// <summary>Something about a child.</summary>
    public void Say(string resource, string text) => Say($"{resource} | {text}");

    /// <summary>
    /// Something a child said: the beginning, since a stack trace can fill a screen and is in the log. So are the scopes between category
    /// and message, as in <c>Category[1] => TraceId:… => CorrelationId:… message</c>.
    /// </summary>
    public void Quote(string resource, string line)
    {
        line = Scopes().Replace(line, "] ");
        Say(resource, line.Length > 240 ? line[..240] + " …" : line);
    }

    [GeneratedRegex(@"\] => .*\bCorrelationId:\S+ ")]
    private static partial Regex Scopes();
}

/// <summary>Where a child's output goes: two files of bounded size, the newer one being written.</summary>
internal sealed class ChildLog(string directory, string name) : IDisposable
{
    private const long MaxLength = 10 * 1024 * 1024;

    private readonly Lock _lock = new();
    private readonly string _path = Path.Combine(directory, name + ".log");
    private StreamWriter? _writer;

    public void Write(string line)
    {
        lock (_lock)
        {
            if (_writer?.BaseStream.Length > MaxLength)
            {
                _writer.Dispose();
                _writer = null;
                File.Move(_path, Path.Combine(directory, name + ".1.log"), overwrite: true);
            }
            _writer ??= new StreamWriter(new FileStream(_path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)) { AutoFlush = true };
            _writer.WriteLine(line);
        }
    }

    public void Dispose()
    {
        lock (_lock)
            _writer?.Dispose();
    }
}
