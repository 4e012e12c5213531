using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Triggers.AppHost.Stores;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

/// <summary>The real AppHost, started as a process on free ports and without the dashboard.</summary>
internal sealed class RunningAppHost : IAsyncDisposable
{
    /// <summary>Inherited by whatever a run starts, and by what that starts.</summary>
    private const string Mark = "TRIGGERS_TEST_RUN";

    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(3);

    private readonly Process _process;
    private readonly string _mark;
    private readonly StringBuilder _said = new();
    private readonly Task _reading;
    private int _seen;

    private RunningAppHost(Process process, string mark)
    {
        (_process, _mark) = (process, mark);
        _reading = ReadAsync();
    }

    public int Id => _process.Id;

    public string Said
    {
        get
        {
            lock (_said)
                return _said.ToString();
        }
    }

    public static RunningAppHost Start(string directory, params string[] arguments) => Start(directory, [], arguments);

    /// <param name="directory">Of the data.</param>
    /// <param name="environment">What is different in it.</param>
    /// <param name="arguments">Beside those that every test has.</param>
    public static RunningAppHost Start(string directory, Dictionary<string, string> environment, params string[] arguments)
    {
        var output = new DirectoryInfo(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));
        var assembly = Repository.File("Triggers.AppHost", "bin", output.Parent!.Name, output.Name, "Triggers.AppHost.dll");
        var info = new ProcessStartInfo("dotnet",
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
        foreach (var (name, value) in environment)
            info.Environment[name] = value;
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

    /// <summary>Waits until it says so, after what was waited for before.</summary>
    public async Task WaitForAsync(string text)
    {
        if (!await SaysAsync(text))
            throw new InvalidOperationException($"The AppHost did not say '{text}':{Environment.NewLine}{Said}");
    }

    /// <returns>False: it ended without.</returns>
    public async Task<bool> SaysAsync(string text)
    {
        var ended = false;
        int at;
        await Wait.UntilAsync($"the AppHost says '{text}', or ends", () =>
        {
            ended = _reading.IsCompleted;
            at = Said.IndexOf(text, _seen, StringComparison.Ordinal);
            if (at >= 0)
                _seen = at + text.Length;
            return at >= 0 || ended;
        }, s_bound);
        return Said.AsSpan(0, _seen).EndsWith(text);
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
        await _reading.WaitAsync(s_bound);
        await _process.WaitForExitAsync().WaitAsync(s_bound);
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
    public int ProcessOf(string program) =>
        Processes().First(process => process.Command.Split(' ').Any(word => word.EndsWith(program, StringComparison.Ordinal))).Id;

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            await TerminateAsync();
        await ExitCodeAsync();
        _process.Dispose();
    }

    private async Task ReadAsync()
    {
        while (await _process.StandardOutput.ReadLineAsync() is { } line)
            lock (_said)
                _said.AppendLine(line);
    }
}
