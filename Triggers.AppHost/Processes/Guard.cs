namespace Triggers.AppHost.Processes;

/// <summary>
/// The process that owns everything that runs. It ends when its standard input does, which is when the AppHost ends, however that
/// came about; and it is out of reach of the terminal, so that a Ctrl-C can't end things in the wrong order.
/// Each line of its input is a command: <c>stop</c>, or <c>kill NAME</c> and <c>start NAME</c>, answered by <c>done</c>.
/// </summary>
internal sealed class Guard(Settings settings, Screen screen, TimeProvider time) : IDisposable
{
    private static readonly string[] s_dataDirectories = ["postgres", "postgres.new", "kafka", "kafka.new", "kafka-cluster", "kafka-cluster.new", "logs"];
    private static readonly string[] s_dataFiles = ["postgres-password", "admin-key"];

    private readonly CancellationTokenSource _stop = new();
    private readonly Children _children = new();

    public static async Task<int> RunAsync(Settings settings, TextReader input, Screen screen)
    {
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
            Programs.DeleteOthers(settings);
            if (settings.Reset)
                DropData();
            PackageCache.CreateReadable(settings.LogsDirectory);
            record = RunRecord.Create(settings.DataDirectory, ProcessIdentity.Of(settings.Owner));
            await new Startup(settings, screen, record, _children, time).RunAsync(_stop.Token);
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
        await _children.StopAsync();
        record?.Delete();
        Programs.DeleteOwn(settings);
        if (settings.TemporaryData && ours is not null)
            Directory.Delete(settings.DataDirectory, recursive: true);
        if (ours is not null)
            await ours.DisposeAsync();
        return exitCode;
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
                    await _children.Find(name).KillAsync();
                    screen.Say("done");
                    break;
                case ["start", var name]:
                    _children.Find(name).Start();
                    await _children.Find(name).Ready;
                    screen.Say("done");
                    break;
            }
        }
        _children.Hurry();
        await _stop.CancelAsync();
    }

    /// <summary>Makes this guard the only one on the data, and ends what an earlier one left running.</summary>
    private async Task<FileStream> TakeOverAsync()
    {
        var path = Path.Combine(settings.DataDirectory, "lock");
        var ours = FileLock.Try(path);
        if (ours is null)
        {
            RefuseIfAnotherRuns();
            // Its AppHost is dead, so it is about to end; or it started with this one, and is about to say that it runs.
            ours = await FileLock.WaitAsync(
                path, TimeSpan.FromSeconds(20), () => screen.Say("Waiting for the previous run to end …"), time, _stop.Token, RefuseIfAnotherRuns);
        }
        await Leftovers.EndAsync(settings.DataDirectory, screen);
        return ours;
    }

    private void RefuseIfAnotherRuns()
    {
        if (RunRecord.Read(settings.DataDirectory) is { AppHost.IsAlive: true } other)
            throw new AppHostException($"Triggers already runs on {settings.DataDirectory} (process {other.AppHost.Id}). Another one needs its own --Data:Directory=….");
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
