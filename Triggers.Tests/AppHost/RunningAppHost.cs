using System.Diagnostics;
using Triggers.AppHost.Processes;

namespace Triggers.Tests.AppHost;

/// <summary>The real AppHost, started as a process on free ports and without the dashboard.</summary>
internal sealed class RunningAppHost : IAsyncDisposable
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(2);

    private readonly Process _process;
    private readonly List<string> _said = [];

    private RunningAppHost(Process process, string directory) => (_process, Directory) = (process, directory);

    public string Directory { get; }

    public int Id => _process.Id;

    public string Said => string.Join(Environment.NewLine, _said);

    public RunRecord.Content Record => RunRecord.Read(Directory) ?? throw new InvalidOperationException($"Nothing runs:{Environment.NewLine}{Said}");

    public static RunningAppHost Start(string directory, params string[] arguments)
    {
        var info = new ProcessStartInfo(Clone.Dotnet,
        [
            Clone.AssemblyOf("Triggers.AppHost"), $"--Data:Directory={directory}", "--Dashboard:Enabled=false", "--Guard:EndsWithParent=true",
            "--Ports:Api=0", "--Ports:Receiver=0", "--Ports:Kafka=0", "--Kafka:Home=", .. arguments,
        ])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        return new RunningAppHost(Process.Start(info)!, directory);
    }

    public static async Task<RunningAppHost> StartAndWaitAsync(string directory, params string[] arguments)
    {
        var host = Start(directory, arguments);
        await host.WaitForAsync("Ctrl-C stops everything.");
        return host;
    }

    /// <summary>Reads what it says until a line holds the text.</summary>
    public async Task WaitForAsync(string text)
    {
        if (!await SaysAsync(line => line.Contains(text, StringComparison.Ordinal)))
            throw new InvalidOperationException($"The AppHost ended without '{text}':{Environment.NewLine}{Said}");
    }

    /// <summary>Reads what it says until the line.</summary>
    /// <returns>False: it ended without.</returns>
    public async Task<bool> SaysAsync(Func<string, bool> isIt)
    {
        using var bound = new CancellationTokenSource(s_bound);
        while (await _process.StandardOutput.ReadLineAsync(bound.Token) is { } line)
        {
            _said.Add(line);
            if (isIt(line))
                return true;
        }
        return false;
    }

    public void Terminate() => Unix.Signal(Id, Unix.SIGTERM);

    public void Kill() => Unix.Signal(Id, Unix.SIGKILL);

    public async Task<int> ExitCodeAsync()
    {
        using var bound = new CancellationTokenSource(s_bound);
        while (await _process.StandardOutput.ReadLineAsync(bound.Token) is { } line)
            _said.Add(line);
        await _process.WaitForExitAsync(bound.Token);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            Terminate();
        await ExitCodeAsync();
        _process.Dispose();
    }
}

/// <summary>Processes, seen from outside.</summary>
internal static class ProcessExpectations
{
    /// <summary>Waits until all are gone, the bound at most.</summary>
    /// <returns>Those that are left.</returns>
    public static async Task<IReadOnlyList<string>> LeftAfterAsync(this IReadOnlyDictionary<string, ProcessIdentity> processes, TimeSpan bound)
    {
        var started = Stopwatch.GetTimestamp();
        using var looks = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        while (true)
        {
            var left = processes.Where(p => p.Value.IsAlive).Select(p => p.Key).ToList();
            if (left.Count == 0 || Stopwatch.GetElapsedTime(started) > bound)
                return left;
            await looks.WaitForNextTickAsync(TestContext.Current.CancellationToken);
        }
    }
}
