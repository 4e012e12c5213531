using System.Diagnostics;
using System.Net.NetworkInformation;
using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

/// <summary>The data, and the ports, of one running system: only one at a time has them.</summary>
internal sealed class DataDirectory : IAsyncDisposable
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(20);

    private static readonly string[] s_data = ["postgres", "postgres.new", "kafka", "logs", "postgres-password", "admin-key"];

    private readonly Settings _settings;
    private readonly FileStream _lock;

    private DataDirectory(Settings settings, FileStream ours) => (_settings, _lock) = (settings, ours);

    /// <summary>The process id of the AppHost that runs on the data, or that was killed while it did.</summary>
    private string Owner => Path.Combine(_settings.DataDirectory, "apphost.pid");

    /// <summary>Takes it for this process, once what an earlier run left has ended.</summary>
    /// <exception cref="DistributedApplicationException">Another AppHost runs on it, or a port is in use.</exception>
    public static async Task<DataDirectory> TakeAsync(Settings settings)
    {
        PackageCache.CreateReadable(settings.DataDirectory);
        var ours = FileLock.Try(Path.Combine(settings.DataDirectory, "lock"));
        var data = new DataDirectory(settings, ours!);
        if (ours is null)
        {
            var process = File.Exists(data.Owner) ? $" (process {await File.ReadAllTextAsync(data.Owner)})" : "";
            throw new DistributedApplicationException($"Triggers already runs on {settings.DataDirectory}{process}. Another one needs its own --Data:Directory=….");
        }
        if (File.Exists(data.Owner) && data.Busy() is not null)
        {
            Console.WriteLine("Waiting for what is left of the previous run to end …");
            await data.WaitForTheEndAsync();
        }
        File.Delete(data.Owner);
        if (data.Busy() is { } busy)
            throw new DistributedApplicationException(busy);
        if (settings.Is("reset"))
            data.Drop();
        await File.WriteAllTextAsync(data.Owner, $"{Environment.ProcessId}");
        return data;
    }

    /// <summary>Waits for the last processes, so that nothing is left when the prompt is back.</summary>
    public async ValueTask DisposeAsync()
    {
        await WaitForTheEndAsync();
        File.Delete(Owner);
        await _lock.DisposeAsync();
    }

    private async Task WaitForTheEndAsync()
    {
        var started = Stopwatch.GetTimestamp();
        while (Busy() is not null && Stopwatch.GetElapsedTime(started) < s_end)
            await Task.Delay(100);
    }

    /// <returns>What is in use, and what to do about it; null: nothing.</returns>
    private string? Busy()
    {
        var taken = IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Select(listener => listener.Port).ToHashSet();
        IEnumerable<string> parts = _settings.StoresOnly ? [] : ["api", "receiver", "delivery", .. _settings.Is("Dashboard:Enabled") ? ["dashboard"] : Array.Empty<string>()];
        if (_settings.KafkaHome is not null && _settings["ConnectionStrings:kafka"] is null)
            parts = parts.Append("kafka");
        foreach (var part in parts.Concat(["postgres", "redis"]))
            if (_settings.PortOf(part) is { } port && taken.Contains(port))
                return $"Port {port}, which {part} wants, is in use. Stop what listens there, or choose another port with --Ports:{part}={port + 1}.";
        return Postgres.RunningOn(_settings.DataDirectory) is { } process ? $"A PostgreSQL (process {process}) still runs on {_settings.DataDirectory}." : null;
    }

    /// <summary>By name: the directory may be one that holds other things too.</summary>
    private void Drop()
    {
        foreach (var path in s_data.Select(name => Path.Combine(_settings.DataDirectory, name)))
            if (Directory.Exists(path))
                Directory.Delete(path, recursive: true);
            else
                File.Delete(path);
        Console.WriteLine($"The data in {_settings.DataDirectory} was dropped.");
    }
}
