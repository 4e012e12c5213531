using System.Diagnostics;
using System.Text.RegularExpressions;
using Triggers.AppHost.Stores;

namespace Triggers.Tests.AppHost;

/// <summary>The real AppHost, started as a process on free ports and without the dashboard.</summary>
internal sealed class RunningAppHost : IAsyncDisposable
{
    /// <summary>Inherited by whatever a run starts, and by what that starts.</summary>
    private const string Mark = "TRIGGERS_TEST_RUN";

    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(3);

    private readonly Process _process;
    private readonly string _mark;
    private readonly List<string> _said = [];

    private RunningAppHost(Process process, string mark) => (_process, _mark) = (process, mark);

    public int Id => _process.Id;

    public string Said => string.Join(Environment.NewLine, _said);

    public static RunningAppHost Start(string directory, params string[] arguments)
    {
        var output = new DirectoryInfo(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        var assembly = Support.Repository.File("Triggers.AppHost", "bin", output.Parent!.Name, output.Name, "Triggers.AppHost.dll");
        var info = new ProcessStartInfo(Dotnet.Program,
        [
            assembly, $"--Data:Directory={directory}", "--Dashboard:Enabled=false", "--Stores=local",
            "--Ports:Api=0", "--Ports:Receiver=0", "--Ports:Kafka=0", "--Kafka:Home=", .. arguments,
        ])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        var mark = Guid.NewGuid().ToString("N");
        info.Environment[Mark] = mark;
        return new RunningAppHost(Process.Start(info)!, mark);
    }

    public static async Task<RunningAppHost> StartAndWaitAsync(string directory, params string[] arguments)
    {
        var host = Start(directory, arguments);
        await host.WaitForAsync("Ctrl-C stops everything.");
        return host;
    }

    /// <summary>As the table says, for <c>api</c> or <c>receiver</c>.</summary>
    public string UrlOf(string service) => Regex.Match(Said, $@"^ +{service} +(http://\S+)", RegexOptions.Multiline).Groups[1].Value;

    /// <summary>Reads what it says until a line holds the text.</summary>
    public async Task WaitForAsync(string text)
    {
        using var bound = new CancellationTokenSource(s_bound);
        while (await _process.StandardOutput.ReadLineAsync(bound.Token) is { } line)
        {
            _said.Add(line);
            if (line.Contains(text, StringComparison.Ordinal))
                return;
        }
        throw new InvalidOperationException($"The AppHost ended without '{text}':{Environment.NewLine}{Said}");
    }

    public Task TerminateAsync() => SignalAsync("TERM", Id);

    public Task KillAsync() => SignalAsync("KILL", Id);

    public static async Task SignalAsync(string signal, int process)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{process}"]);
        await kill.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    public async Task<int> ExitCodeAsync()
    {
        using var bound = new CancellationTokenSource(s_bound);
        while (await _process.StandardOutput.ReadLineAsync(bound.Token) is { } line)
            _said.Add(line);
        await _process.WaitForExitAsync(bound.Token);
        return _process.ExitCode;
    }

    /// <summary>Processes of this run that are alive, but for the AppHost: their ids, and how they were started.</summary>
    public IReadOnlyList<(int Id, string Command)> Processes()
    {
        var found = new List<(int, string)>();
        foreach (var directory in Directory.GetDirectories("/proc").Where(directory => int.TryParse(Path.GetFileName(directory), out _)))
        {
            try
            {
                var id = int.Parse(Path.GetFileName(directory));
                if (id != Id && File.ReadAllText(Path.Combine(directory, "environ")).Contains($"{Mark}={_mark}", StringComparison.Ordinal))
                    found.Add((id, File.ReadAllText(Path.Combine(directory, "cmdline")).Replace('\0', ' ')));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // It ended just now, or is somebody else's.
            }
        }
        return found;
    }

    /// <summary>One of <see cref="Processes"/>, by the end of its program's name.</summary>
    public int ProcessOf(string program) => Processes().First(process => process.Command.Split(' ').Any(word => word.EndsWith(program, StringComparison.Ordinal))).Id;

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            await TerminateAsync();
        await ExitCodeAsync();
        _process.Dispose();
    }
}
