using System.Diagnostics;

namespace Triggers.AppHost.Processes;

/// <summary>The guard, seen by whoever started it. It lives as long as its input is open.</summary>
internal sealed class GuardProcess : IDisposable
{
    // Signals come on threads of their own, two at once if need be; a pipe written and closed at the same time can hang for ever.
    private readonly Lock _lock = new();
    private readonly Process _process;

    private GuardProcess(Process process) => _process = process;

    /// <summary>What it says, when that was asked for.</summary>
    public StreamReader Output => _process.StandardOutput;

    public int Id => _process.Id;

    /// <param name="assembly">The AppHost's, or a copy of it.</param>
    /// <param name="arguments">Settings, and <c>--reset</c>.</param>
    /// <param name="captureOutput">For <see cref="Output"/>; else what it says appears where this process writes.</param>
    public static GuardProcess Start(string assembly, IEnumerable<string> arguments, bool captureOutput = false)
    {
        var info = new ProcessStartInfo(Clone.Dotnet, [assembly, "--guard", $"--Guard:Owner={Environment.ProcessId}", .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = captureOutput,
            UseShellExecute = false,
        };
        return new GuardProcess(Process.Start(info)!);
    }

    public void Tell(string command)
    {
        try
        {
            lock (_lock)
                _process.StandardInput.WriteLine(command);
        }
        catch (Exception e) when (e is IOException or InvalidOperationException)
        {
            // It has ended, or was abandoned.
        }
    }

    /// <summary>Lets it see what it would see if this process died: it stops everything, in a hurry.</summary>
    public void Abandon()
    {
        try
        {
            lock (_lock)
                _process.StandardInput.Close();
        }
        catch (Exception e) when (e is IOException or InvalidOperationException)
        {
            // It has ended.
        }
    }

    public async Task<int> WaitAsync()
    {
        await _process.WaitForExitAsync();
        return _process.ExitCode;
    }

    public void Dispose() => _process.Dispose();
}
