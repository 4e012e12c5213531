using System.Diagnostics;
using System.Net.NetworkInformation;
using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

/// <summary>The data, and the ports, of one running system: only one at a time has them.</summary>
internal sealed class DataDirectory(Settings settings, FileStream ours, string owner) : IAsyncDisposable
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(20);

    /// <summary>Takes it for this process, once what an earlier run left has ended.</summary>
    /// <exception cref="DistributedApplicationException">Another AppHost runs on it, or a port is in use.</exception>
    public static async Task<DataDirectory> TakeAsync(Settings settings)
    {
        PackageCache.CreateReadable(settings.DataDirectory);
        // The process id of the AppHost that runs on the data, or that was killed while it did.
        var owner = Path.Combine(settings.DataDirectory, "apphost.pid");
        var ours = FileLock.Try(Path.Combine(settings.DataDirectory, "lock"));
        if (ours is null)
        {
            var process = File.Exists(owner) ? $" (process {await File.ReadAllTextAsync(owner)})" : "";
            throw new DistributedApplicationException(
                $"Triggers already runs on {settings.DataDirectory}{process}. Another one needs its own --Data:Directory=….");
        }
        if (File.Exists(owner) && Busy(settings) is not null)
        {
            Console.WriteLine("Waiting for what is left of the previous run to end …");
            await WaitForTheEndAsync(settings);
        }
        File.Delete(owner);
        if (Busy(settings) is { } busy)
            throw new DistributedApplicationException(busy);
        if (settings.Is("reset"))
            Drop(settings.DataDirectory);
        await File.WriteAllTextAsync(owner, $"{Environment.ProcessId}");
        return new DataDirectory(settings, ours, owner);
    }

    /// <summary>Waits for the last processes, so that nothing is left when the prompt is back.</summary>
    public async ValueTask DisposeAsync()
    {
        await WaitForTheEndAsync(settings);
        File.Delete(owner);
        await ours.DisposeAsync();
    }

    private static async Task WaitForTheEndAsync(Settings settings)
    {
        for (var started = Stopwatch.GetTimestamp(); Busy(settings) is not null && Stopwatch.GetElapsedTime(started) < s_end;)
            await Task.Delay(100);
    }

    /// <summary>What is in use, and what to do about it; null: nothing.</summary>
    private static string? Busy(Settings settings)
    {
        var taken = IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Select(listener => listener.Port).ToHashSet();
        List<string> wanted = settings.StoresOnly ? ["postgres", "redis"] : ["postgres", "redis", "api", "receiver", "delivery"];
        if (!settings.StoresOnly && settings.Is("Dashboard:Enabled"))
            wanted.Add("dashboard");
        if (settings.KafkaHome is not null && settings["ConnectionStrings:kafka"] is null)
            wanted.Add("kafka");
        foreach (var part in wanted)
            if (settings.PortOf(part) is { } port && taken.Contains(port))
                return $"Port {port}, which {part} wants, is in use. Stop what listens there, or choose another port with "
                    + $"--Ports:{part}={port + 1}.";
        return Postgres.RunningOn(settings.DataDirectory) is { } process
            ? $"A PostgreSQL (process {process}) still runs on {settings.DataDirectory}." : null;
    }

    /// <summary>By name: the directory may be one that holds other things too.</summary>
    private static void Drop(string directory)
    {
        string[] names = ["postgres", "postgres.new", "kafka", "logs", "postgres-password", "admin-key"];
        foreach (var path in names.Select(name => Path.Combine(directory, name)))
            if (Directory.Exists(path))
                Directory.Delete(path, recursive: true);
            else
                File.Delete(path);
        Console.WriteLine($"The data in {directory} was dropped.");
    }
}
