namespace Triggers.AppHost.Processes;

/// <summary>
/// The programs of one run, copied from their output: a build writes into the files there as they are, under the feet of whatever
/// has them mapped (and on Windows can't write at all). A run's copies are in a directory of their own below the data.
/// </summary>
internal static class Programs
{
    private const string Parent = "programs";

    /// <summary>Copies the AppHost, which becomes the guard, and all services.</summary>
    /// <returns>The guard's assembly.</returns>
    public static string Copy(string dataDirectory)
    {
        // Whose they are is in the name: another AppHost may be starting at this same moment.
        var directory = Path.Combine(dataDirectory, Parent, $"{ProcessIdentity.Self.Id}-{ProcessIdentity.Self.Started}-{Guid.NewGuid():N}");
        foreach (var project in Topology.Services.Select(service => service.Project).Append("Triggers.AppHost").Distinct())
            CopyDirectory(Path.GetDirectoryName(Clone.AssemblyOf(project))!, Path.Combine(directory, project));
        return Path.Combine(directory, "Triggers.AppHost", "Triggers.AppHost.dll");
    }

    /// <summary>As the guard sees it: beside itself.</summary>
    public static string AssemblyOf(Settings settings, string project) => Path.Combine(settings.ProgramsDirectory, project, project + ".dll");

    /// <summary>Deletes the copies of other runs, which are over.</summary>
    public static void DeleteOthers(Settings settings)
    {
        var parent = Path.Combine(settings.DataDirectory, Parent);
        if (Directory.Exists(parent))
            foreach (var directory in Directory.GetDirectories(parent).Where(d => d != settings.ProgramsDirectory && !IsInUse(Path.GetFileName(d))))
                Directory.Delete(directory, recursive: true);
    }

    private static bool IsInUse(string name) =>
        name.Split('-') is [var id, var started, _] && int.TryParse(id, out var process) && long.TryParse(started, out var when)
        && new ProcessIdentity(process, when).IsAlive;

    /// <summary>Deletes the copies of this run. Windows does not let go of what runs: there, the next start does it.</summary>
    public static void DeleteOwn(Settings settings)
    {
        if (!OperatingSystem.IsWindows() && Path.GetDirectoryName(settings.ProgramsDirectory) == Path.Combine(settings.DataDirectory, Parent))
            Directory.Delete(settings.ProgramsDirectory, recursive: true);
    }

    private static void CopyDirectory(string from, string to)
    {
        PackageCache.CreateReadable(to);
        foreach (var file in Directory.GetFiles(from))
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        foreach (var directory in Directory.GetDirectories(from))
            CopyDirectory(directory, Path.Combine(to, Path.GetFileName(directory)));
    }
}
