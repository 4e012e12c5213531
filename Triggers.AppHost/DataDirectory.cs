using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Triggers.AppHost.Stores;

namespace Triggers.AppHost;

/// <summary>The data, and the ports, of one running system: only one at a time has them.</summary>
internal sealed class DataDirectory : IAsyncDisposable
{
    private static readonly TimeSpan s_end = TimeSpan.FromSeconds(20);
    private static readonly string[] s_data = ["postgres", "postgres.new", "kafka", "logs", "postgres-password", "admin-key"];

    private readonly Settings _settings;
    private readonly bool _containers;
    private readonly FileStream _lock;

    private DataDirectory(Settings settings, bool containers, FileStream ours) => (_settings, _containers, _lock) = (settings, containers, ours);

    /// <summary>The process id of the AppHost that runs on the data, or that was killed while it did.</summary>
    private string Owner => Path.Combine(_settings.DataDirectory, "apphost.pid");

    /// <summary>Takes it for this process, once what an earlier run left has ended.</summary>
    /// <exception cref="DistributedApplicationException">Another AppHost runs on it, or a port is in use.</exception>
    public static async Task<DataDirectory> TakeAsync(Settings settings, bool containers)
    {
        PackageCache.CreateReadable(settings.DataDirectory);
        var ours = FileLock.Try(Path.Combine(settings.DataDirectory, "lock"));
        var data = ours is null ? throw AlreadyRuns(settings) : new DataDirectory(settings, containers, ours);
        try
        {
            await data.TakeOverAsync();
            return data;
        }
        catch
        {
            await ours.DisposeAsync();
            throw;
        }
    }

    /// <summary>Waits for the last processes, so that nothing is left when the prompt is back.</summary>
    public async ValueTask DisposeAsync()
    {
        await WaitForTheEndAsync();
        if (_settings.TemporaryData)
            Directory.Delete(_settings.DataDirectory, recursive: true);
        else
            File.Delete(Owner);
        await _lock.DisposeAsync();
    }

    private async Task TakeOverAsync()
    {
        if (File.Exists(Owner) && Busy() is not null)
        {
            Console.WriteLine("Waiting for what is left of the previous run to end …");
            await WaitForTheEndAsync();
        }
        File.Delete(Owner);
        if (Busy() is { } busy)
            throw new DistributedApplicationException(busy);
        if (_settings.Reset)
            Drop();
        PrivateFile.Write(Owner, $"{Environment.ProcessId}");
    }

    private static DistributedApplicationException AlreadyRuns(Settings settings)
    {
        var owner = Path.Combine(settings.DataDirectory, "apphost.pid");
        var process = File.Exists(owner) ? $" (process {File.ReadAllText(owner)})" : "";
        return new($"Triggers already runs on {settings.DataDirectory}{process}. Another one needs its own --Data:Directory=….");
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
        foreach (var (part, port) in _settings.Ports)
        {
            var needed = part == "dashboard" ? _settings.DashboardEnabled && !_settings.StoresOnly
                : _settings.Stores.Contains(part) ? _settings.Text("ConnectionStrings:" + (part == "postgres" ? "triggersdb" : part)) is null && (part != "kafka" || _settings.KafkaHome is not null)
                : !_settings.StoresOnly && part is "api" or "delivery" or "receiver";
            if (needed && port is not null && !(IsFree(IPAddress.Loopback, port.Value) && IsFree(IPAddress.IPv6Loopback, port.Value)))
                return $"Port {port}, which {part} wants, is in use. Stop what listens there, or choose another port with --Ports:{part}={port + 1}.";
        }
        return LocalPostgres.RunningOn(_settings.DataDirectory) is { } process ? $"A PostgreSQL (process {process}) still runs on {_settings.DataDirectory}." : null;
    }

    private static bool IsFree(IPAddress address, int port)
    {
        try
        {
            using var listener = new TcpListener(address, port);
            listener.Start();
            return true;
        }
        catch (SocketException e)
        {
            // A machine without IPv6 has nobody listening on it.
            return e.SocketErrorCode is SocketError.AddressNotAvailable or SocketError.AddressFamilyNotSupported;
        }
    }

    private void Drop()
    {
        // By name: the directory may be one that holds other things too.
        foreach (var path in s_data.Select(name => Path.Combine(_settings.DataDirectory, name)))
            if (Directory.Exists(path))
                Directory.Delete(path, recursive: true);
            else
                File.Delete(path);
        Console.WriteLine($"The data in {_settings.DataDirectory} was dropped.");
    }
}
