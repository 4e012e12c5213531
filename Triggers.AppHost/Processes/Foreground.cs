using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Triggers.AppHost.Processes;

/// <summary>The process at the terminal: it starts the guard, passes on the wish to stop, and is otherwise idle.</summary>
internal static class Foreground
{
    public const string Help = """
        dotnet run --project Triggers.AppHost -- [--reset] [--replicas N] [--Setting:Name=value …]

          --reset                    drops the data first
          --replicas 2               starts so many API and Delivery processes; the first API has the port below
          --Ports:Api=8080           also Ports:Receiver, Ports:Delivery, Ports:Postgres, Ports:Redis, Ports:Kafka, Ports:Dashboard;
                                     0 takes a free one
          --Kafka:Home=DIR           an Apache Kafka, unpacked, that logs the events (default: the environment's KAFKA_HOME); empty: Postgres does
          --Kafka:Brokers=3          a cluster of so many brokers, for drills
          --Data:Directory=DIR       where the data is kept
          --Cache:Directory=DIR      where downloads are kept
          --Dashboard:Enabled=false  runs without the dashboard
          ConnectionStrings__triggersdb=…   (environment) uses a PostgreSQL of yours, 16 or newer
          ConnectionStrings__redis=…, ConnectionStrings__kafka=…   the same for Redis and Kafka

        Any other setting, and the whole environment, goes to the services.
        """;

    private static readonly PosixSignal[] s_stopSignals = [PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP];
    private static readonly List<PosixSignalRegistration> s_registrations = [];

    public static async Task<int> RunAsync(Settings settings, string[] arguments, Screen screen)
    {
        var where = settings.ExternalDatabase is null ? $"in {settings.DataDirectory}" : "in your PostgreSQL";
        screen.Say(Engine.Introduction($"{where} (Data:Directory, or ConnectionStrings:{Topology.Database})"));
        using var guard = GuardProcess.Start(
            Programs.Copy(settings.DataDirectory), [.. arguments, $"--Data:Directory={settings.DataDirectory}"]);
        long asked = 0;
        // Kept to the end of the process: the same wish may come once more while it is ending.
        foreach (var signal in s_stopSignals)
            s_registrations.Add(PosixSignalRegistration.Create(signal, Stop));
        WatchParent(settings, guard);
        var exitCode = await guard.WaitAsync();
        if (exitCode is not (0 or 1))
        {
            screen.Say($"The guard ended unexpectedly (exit code {exitCode}); ending what it ran.");
            // Not if another AppHost has the data.
            if (RunRecord.Read(settings.DataDirectory)?.AppHost == ProcessIdentity.Self)
                await Leftovers.EndAsync(settings.DataDirectory, screen);
        }
        return exitCode;

        void Stop(PosixSignalContext context)
        {
            context.Cancel = true;
            // One Ctrl-C may arrive twice, from the terminal and through `dotnet run`; whoever asks again later is in a hurry.
            if (Interlocked.CompareExchange(ref asked, Stopwatch.GetTimestamp(), 0) is var first and not 0)
            {
                if (Stopwatch.GetElapsedTime(first) > TimeSpan.FromSeconds(1))
                    guard.Abandon();
                return;
            }
            screen.Say("Stopping …");
            guard.Tell("stop");
        }
    }

    /// <summary>
    /// A killed `dotnet run` can't pass on a signal. Shells are another matter: they may well leave us running. On a thread of its
    /// own, since this is the last resort.
    /// </summary>
    private static void WatchParent(Settings settings, GuardProcess guard)
    {
        if (OperatingSystem.IsWindows())
            return;
        var parent = Unix.Parent;
        if (!settings.EndsWithParent && NameOf(parent) != "dotnet")
            return;
        new Thread(() =>
        {
            using var never = new ManualResetEvent(false);
            while (!never.WaitOne(TimeSpan.FromMilliseconds(500)))
            {
                if (Unix.Parent == parent)
                    continue;
                guard.Abandon();
                return;
            }
        })
        { IsBackground = true, Name = "parent" }.Start();
    }

    private static string? NameOf(int id)
    {
        try
        {
            using var process = Process.GetProcessById(id);
            return process.ProcessName;
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            return null;
        }
    }
}
