using System.Diagnostics;

namespace Triggers.AppHost.Processes;

/// <summary>How to start something, and how it says that it is ready.</summary>
internal sealed class Launch
{
    public required string Name { get; init; }

    /// <summary>What it is one of, if of several: they are stopped together.</summary>
    public string Resource
    {
        get => field ?? Name;
        init;
    }

    public required string Program { get; init; }

    public required IReadOnlyList<string> Arguments { get; init; }

    public required string WorkingDirectory { get; init; }

    public required IReadOnlyDictionary<string, string> Environment { get; init; }

    public Func<CancellationToken, Task<bool>> IsReady { get; init; } = _ => Task.FromResult(false);

    /// <summary>Ending well is what it is there for, and then it is ready; ending badly, it is not tried again.</summary>
    public bool RunsToCompletion { get; init; }

    /// <summary>Lines to show on the screen; all of them are in its log.</summary>
    public Func<string, bool> IsWorthShowing { get; init; } = _ => false;

    /// <summary>What asks it to end.</summary>
    public int StopSignal { get; init; } = Unix.SIGTERM;

    /// <summary>Windows: asks it to end, where no signal can.</summary>
    public Func<Task>? StopCommand { get; init; }

    /// <summary>Windows: the program started ends at once, and this is the id of what it left running.</summary>
    public Func<int>? LeavesRunning { get; init; }

    public ProcessStartInfo ToStartInfo()
    {
        var info = new ProcessStartInfo(Program, Arguments)
        {
            WorkingDirectory = WorkingDirectory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        if (OperatingSystem.IsWindows())
            info.CreateNewProcessGroup = true;
        info.Environment.Clear();
        foreach (var (name, value) in Environment)
            info.Environment[name] = value;
        return info;
    }
}

/// <summary>A child that is started again whenever it ends by itself, later and later, with the reason shown.</summary>
internal sealed class SupervisedProcess(Launch launch, RunRecord record, Screen screen, string logs, TimeProvider time)
{
    private static readonly TimeSpan s_shortest = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(30);

    private CancellationTokenSource _stop = new();
    private Task _supervision = Task.CompletedTask;
    private TaskCompletionSource _ready = NewSignal();
    private TaskCompletionSource<AppHostException> _firstEnd = new();
    private volatile ProcessIdentity? _current;

    public string Name => launch.Name;

    /// <summary>What it is one of.</summary>
    public string Resource => launch.Resource;

    /// <summary>Ends at the first time it is ready.</summary>
    public Task Ready => _ready.Task;

    /// <summary>Ends when it is ready. At the first start, ending before that is a mistake to show and not to repeat.</summary>
    /// <exception cref="AppHostException">Says how it ended.</exception>
    public async Task ReadyAtOnceAsync(CancellationToken cancellationToken)
    {
        if (await Task.WhenAny(Ready, _firstEnd.Task).WaitAsync(cancellationToken) == _firstEnd.Task)
            throw await _firstEnd.Task;
    }

    public void Start()
    {
        _stop = new CancellationTokenSource();
        _ready = NewSignal();
        _firstEnd = new TaskCompletionSource<AppHostException>(TaskCreationOptions.RunContinuationsAsynchronously);
        _supervision = SuperviseAsync(_stop.Token);
    }

    /// <summary>Ends it for good: by its signal, and by force once <paramref name="grace"/>, which may shrink meanwhile, is over.</summary>
    public Task StopAsync(Func<TimeSpan> grace) => EndAsync(async process =>
    {
        if (OperatingSystem.IsWindows() && process.IsAlive)
            await (launch.StopCommand?.Invoke() ?? Windows.BreakAsync(process.Id));
        await process.EndAsync(launch.StopSignal, grace);
    });

    /// <summary>Ends it for good, by force and without a word before.</summary>
    public Task KillAsync() => EndAsync(process => process.EndAsync(Unix.SIGKILL, () => TimeSpan.FromSeconds(1)));

    private async Task EndAsync(Func<ProcessIdentity, Task> end)
    {
        await _stop.CancelAsync();
        // More than once: it may be starting just now.
        while (!_supervision.IsCompleted)
        {
            if (_current is { } process)
                await end(process);
            await Task.WhenAny(_supervision, Task.Delay(TimeSpan.FromMilliseconds(20), time));
        }
    }

    private async Task SuperviseAsync(CancellationToken stop)
    {
        using var log = new ChildLog(logs, launch.Name);
        var pause = s_shortest;
        var before = false;
        while (!stop.IsCancellationRequested)
        {
            var started = time.GetTimestamp();
            var (exitCode, reason) = await RunOnceAsync(log, before, stop);
            if (stop.IsCancellationRequested)
                return;
            if (launch.RunsToCompletion && exitCode == 0)
            {
                _ready.TrySetResult();
                return;
            }
            _firstEnd.TrySetResult(new AppHostException($"{launch.Name} {reason}"));
            if (launch.RunsToCompletion)
                return;
            before = true;
            if (time.GetElapsedTime(started) > TimeSpan.FromMinutes(1))
                pause = s_shortest;
            screen.Say(launch.Name, $"{reason}{Environment.NewLine}{launch.Name} | starting again in {pause.TotalSeconds} s");
            await Task.Delay(pause, time, stop).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            pause = pause * 2 < s_longest ? pause * 2 : s_longest;
        }
    }

    /// <returns>How it ended, and the same in words.</returns>
    private async Task<(int? ExitCode, string Reason)> RunOnceAsync(ChildLog log, bool before, CancellationToken stop)
    {
        var last = new LastLines(5);
        var errors = new LastLines(5);
        using var process = new Process { StartInfo = launch.ToStartInfo() };
        try
        {
            process.Start();
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            return (null, $"could not be started: {e.Message}");
        }
        Running(ProcessIdentity.Of(process.Id));
        process.StandardInput.Close();
        var output = Task.WhenAll(PumpAsync(process.StandardOutput, last), PumpAsync(process.StandardError, errors));
        using var ended = new CancellationTokenSource();
        var watching = WatchReadinessAsync(before, ended.Token);
        // Not the caller's token: a stop ends the process, and then this wait. What was started is always seen to its end.
        await process.WaitForExitAsync(CancellationToken.None);
        if (launch.LeavesRunning is not null && process.ExitCode == 0)
            await FollowAsync(launch.LeavesRunning());
        await ended.CancelAsync();
        // A grandchild may keep the pipes open.
        await Task.WhenAny(output, Task.Delay(TimeSpan.FromSeconds(1), time, CancellationToken.None));
        await watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        record.Ended(launch.Name);
        _current = null;
        return (process.ExitCode, Ending.Describe(process.ExitCode, errors.Any ? errors : last));

        async Task PumpAsync(StreamReader reader, LastLines lines)
        {
            while (await reader.ReadLineAsync(CancellationToken.None) is { } line)
            {
                log.Write(line);
                lines.Add(line);
                if (!stop.IsCancellationRequested && launch.IsWorthShowing(line))
                    screen.Quote(launch.Name, line);
            }
        }
    }

    private async Task FollowAsync(int id)
    {
        Running(ProcessIdentity.Of(id));
        using var process = Process.GetProcessById(id);
        await process.WaitForExitAsync(CancellationToken.None);
    }

    private void Running(ProcessIdentity? process)
    {
        _current = process;
        if (process is not null)
            record.Started(launch.Name, process);
    }

    private async Task WatchReadinessAsync(bool before, CancellationToken ended)
    {
        while (!await launch.IsReady(ended))
            await Task.Delay(TimeSpan.FromMilliseconds(50), time, ended);
        _ready.TrySetResult();
        if (before)
            screen.Say(launch.Name, "is back");
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}

/// <summary>How a process ended, in words.</summary>
internal static class Ending
{
    public static string Describe(int exitCode, LastLines lines)
    {
        // Unix: a signal counts as 128 and its number.
        var code = exitCode is > 128 and < 160 && !OperatingSystem.IsWindows() ? $"by signal {exitCode - 128}" : $"with exit code {exitCode}";
        return lines.Any ? $"ended {code}; its last words:{Environment.NewLine}{lines}" : $"ended {code}";
    }
}

/// <summary>The end of what somebody said.</summary>
internal sealed class LastLines(int count)
{
    private readonly Queue<string> _lines = [];

    public bool Any
    {
        get
        {
            lock (_lines)
                return _lines.Count > 0;
        }
    }

    public void Add(string line)
    {
        lock (_lines)
        {
            if (_lines.Count == count)
                _lines.Dequeue();
            _lines.Enqueue(line);
        }
    }

    public override string ToString()
    {
        lock (_lines)
            return string.Join(Environment.NewLine, _lines.Select(l => "    " + (l.Length > 240 ? l[..240] + " …" : l)));
    }
}
