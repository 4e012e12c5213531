using System.Diagnostics;
using System.Text.Json.Serialization;

namespace Triggers.AppHost.Processes;

/// <summary>A process and when it started: a number alone may have gone to another process since.</summary>
/// <param name="Id">The process id.</param>
/// <param name="Started">On Linux clock ticks since boot, elsewhere Unix seconds.</param>
internal sealed record ProcessIdentity(int Id, long Started)
{
    [JsonIgnore]
    public bool IsAlive => Of(Id) is { } now && Math.Abs(now.Started - Started) <= (OperatingSystem.IsLinux() ? 0 : 2);

    public static ProcessIdentity Self { get; } = Of(Environment.ProcessId)!;

    /// <summary>Null when there is none, or when it has ended and waits only to be noticed by its parent.</summary>
    public static ProcessIdentity? Of(int id)
    {
        try
        {
            if (OperatingSystem.IsLinux())
            {
                // 1234 (a name) S 1 …; the state is the 3rd field, the start the 22nd, and the name may hold anything.
                var stat = File.ReadAllText($"/proc/{id}/stat");
                var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
                return fields[0] is "Z" or "X" ? null : new ProcessIdentity(id, long.Parse(fields[19]));
            }
            using var process = Process.GetProcessById(id);
            return process.HasExited ? null : new ProcessIdentity(id, new DateTimeOffset(process.StartTime).ToUnixTimeSeconds());
        }
        catch (Exception e) when (e is IOException or ArgumentException or InvalidOperationException or UnauthorizedAccessException or System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }

    /// <summary>Asks it to end, waits, and ends it.</summary>
    public async Task EndAsync(int signal, Func<TimeSpan> grace)
    {
        if (IsAlive && !OperatingSystem.IsWindows())
            Unix.Signal(Id, signal);
        for (var started = Stopwatch.GetTimestamp(); IsAlive && Stopwatch.GetElapsedTime(started) < grace();)
            await Task.Delay(20);
        if (!IsAlive)
            return;
        try
        {
            using var process = Process.GetProcessById(Id);
            // On Windows it may be the script that started the program; elsewhere scripts become it.
            process.Kill(entireProcessTree: OperatingSystem.IsWindows());
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            // Gone in between.
        }
        for (var started = Stopwatch.GetTimestamp(); IsAlive && Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(2);)
            await Task.Delay(10);
    }
}
