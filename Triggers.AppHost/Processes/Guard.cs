namespace Triggers.AppHost.Processes;

/// <summary>
/// The process that owns everything that runs. It ends when its standard input does, which is when the AppHost ends, however that
/// came about; and it is out of reach of the terminal, so that a Ctrl-C can't end things in the wrong order.
/// Each line of its input is a command: <c>stop</c>, or <c>kill NAME</c> and <c>start NAME</c>, answered by <c>done</c>.
/// </summary>
internal sealed class Guard(Settings settings, Screen screen, TimeProvider time) : IDisposable
{
    private static readonly string[] s_dataDirectories = ["postgres", "postgres.new", "logs"];
    private static readonly string[] s_dataFiles = ["postgres-password", "admin-key"];

    private readonly CancellationTokenSource _stop = new();
    private readonly List<SupervisedProcess> _running = [];
    private volatile bool _hurry;

    public static async Task<int> RunAsync(Settings settings, TextReader input, Screen screen)
    {
        if (OperatingSystem.IsWindows())
            Windows.EndChildrenWithThisProcess();
        else
            Unix.StartSession();
        using var guard = new Guard(settings, screen, TimeProvider.System);
        return await guard.RunAsync(input);
    }

    public void Dispose() => _stop.Dispose();

    private async Task<int> RunAsync(TextReader input)
    {
        // Its last read ends with the process.
        _ = ListenAsync(input);
        RunRecord? record = null;
        FileStream? ours = null;
        var exitCode = 0;
        try
        {
            PackageCache.CreateReadable(settings.DataDirectory);
            ours = await TakeOverAsync();
            if (settings.Reset)
                DropData();
            PackageCache.CreateReadable(settings.LogsDirectory);
            record = RunRecord.Create(settings.DataDirectory, ProcessIdentity.Of(settings.Owner));
            await StartAsync(record, _stop.Token);
            await Task.Delay(Timeout.Infinite, _stop.Token);
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // Told to stop while still starting.
        }
        catch (AppHostException e)
        {
            screen.Say(e.Message);
            exitCode = 1;
        }
        await StopAllAsync();
        record?.Delete();
        if (settings.TemporaryData && ours is not null)
            Directory.Delete(settings.DataDirectory, recursive: true);
        if (ours is not null)
            await ours.DisposeAsync();
        return exitCode;
    }

    private async Task StartAsync(RunRecord record, CancellationToken stop)
    {
        var cache = new PackageCache(settings.CacheDirectory, screen, time);
        if (settings.ExternalDatabase is null)
        {
            var postgres = await Postgres.ProvideAsync(settings, cache, screen, stop);
            await StartFirstAsync(Add(postgres.ToLaunch(settings.LogsDirectory), record), stop);
            record.Address(Topology.Database, postgres.ConnectionString(Topology.Database));
        }
        screen.Say("ready");
    }

    private SupervisedProcess Add(Launch launch, RunRecord record)
    {
        var process = new SupervisedProcess(launch, record, screen, settings.LogsDirectory, time);
        lock (_running)
            _running.Add(process);
        process.Start();
        return process;
    }

    /// <summary>Waits until it is ready; ending before that, at the first start, is a mistake to show and not to repeat.</summary>
    private static async Task StartFirstAsync(SupervisedProcess process, CancellationToken stop)
    {
        if (await Task.WhenAny(process.Ready, process.FirstEnd).WaitAsync(stop) == process.FirstEnd)
            throw await process.FirstEnd;
    }

    private async Task ListenAsync(TextReader input)
    {
        // The console's reader blocks its thread.
        await Task.Yield();
        while (await Task.Run(input.ReadLine) is { } line)
        {
            switch (line.Split(' '))
            {
                case ["stop"]:
                    await _stop.CancelAsync();
                    break;
                case ["kill", var name]:
                    await Find(name).KillAsync();
                    screen.Say("done");
                    break;
                case ["start", var name]:
                    Find(name).Start();
                    await Find(name).Ready;
                    screen.Say("done");
                    break;
            }
        }
        _hurry = true;
        await _stop.CancelAsync();
    }

    private SupervisedProcess Find(string name)
    {
        lock (_running)
            return _running.Single(p => p.Name == name);
    }

    /// <summary>Makes this guard the only one on the data, and ends what an earlier one left running.</summary>
    private async Task<FileStream> TakeOverAsync()
    {
        var path = Path.Combine(settings.DataDirectory, "lock");
        var ours = FileLock.Try(path);
        if (ours is null)
        {
            if (RunRecord.Read(settings.DataDirectory) is { AppHost.IsAlive: true } other)
                throw new AppHostException($"Triggers already runs on {settings.DataDirectory} (process {other.AppHost.Id}). Another one needs its own --Data:Directory=….");
            // Its AppHost is dead, so it is about to end.
            ours = await FileLock.WaitAsync(path, TimeSpan.FromSeconds(20), () => screen.Say("Waiting for the previous run to end …"), time, _stop.Token);
        }
        await Leftovers.EndAsync(settings.DataDirectory, screen);
        return ours;
    }

    private void DropData()
    {
        // By name: the directory may be one that holds other things too.
        foreach (var directory in s_dataDirectories.Select(name => Path.Combine(settings.DataDirectory, name)).Where(Directory.Exists))
            Directory.Delete(directory, recursive: true);
        foreach (var file in s_dataFiles)
            File.Delete(Path.Combine(settings.DataDirectory, file));
        screen.Say($"The data in {settings.DataDirectory} was dropped.");
    }

    /// <summary>
    /// What was started last stops first. Told to stop, everything gets its time; with the AppHost dead, all of it together must
    /// be gone within 5 s, and what was cut short is done again at the next start.
    /// </summary>
    private async Task StopAllAsync()
    {
        List<SupervisedProcess> running;
        lock (_running)
            running = [.. Enumerable.Reverse(_running)];
        foreach (var process in running)
            await process.StopAsync(() => GraceOf(process.Name));
    }

    private TimeSpan GraceOf(string name) => TimeSpan.FromSeconds(name switch
    {
        Topology.Postgres => _hurry ? 1.5 : 20,
        Topology.Delivery or Topology.Api => _hurry ? 1 : 25,
        _ => _hurry ? 0.3 : 5,
    });
}

/// <summary>What a guard that was itself killed has left running.</summary>
internal static class Leftovers
{
    public static async Task EndAsync(string dataDirectory, Screen screen)
    {
        if (RunRecord.Read(dataDirectory) is not { } record)
            return;
        // Postgres last, so that nothing is cut off in the middle of a write.
        foreach (var (name, process) in record.Processes.Where(p => p.Value.IsAlive).OrderBy(p => p.Key == Topology.Postgres))
        {
            screen.Say($"Ending {name} (process {process.Id}), left over from a run that was killed.");
            await process.EndAsync(name == Topology.Postgres ? Unix.SIGINT : Unix.SIGTERM, () => TimeSpan.FromSeconds(3));
        }
    }
}
