using System.Runtime.InteropServices;

namespace Triggers.AppHost.Processes;

/// <summary>Where things are in this clone of the repository.</summary>
internal static class Clone
{
    // As in …/Triggers.AppHost/bin/processes/Debug/net10.0/
    private static readonly DirectoryInfo s_output = new(Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory));

    public static string Root => FindRoot();

    /// <summary>The program that runs our assemblies: the one whose runtime runs this one.</summary>
    public static string Dotnet { get; } = FindDotnet();

    /// <summary>A program of this solution, in the configuration that this one was built in.</summary>
    public static string AssemblyOf(string project)
    {
        var configuration = s_output.Parent!.Name;
        var bin = Path.Combine(Root, project, "bin");
        // The AppHost keeps its output per engine.
        var engine = project == "Triggers.AppHost" ? "processes" : "";
        var assembly = Path.Combine(bin, engine, configuration, s_output.Name, project + ".dll");
        return File.Exists(assembly) ? assembly : throw new AppHostException($"{assembly} is not there: build the solution first.");
    }

    private static string FindRoot()
    {
        for (var directory = s_output; directory is not null; directory = directory.Parent)
            if (File.Exists(Path.Combine(directory.FullName, "Triggers.sln")))
                return directory.FullName;
        throw new AppHostException($"No Triggers.sln above {s_output.FullName}: the AppHost runs from a clone of the repository.");
    }

    private static string FindDotnet()
    {
        // …/dotnet/shared/Microsoft.NETCore.App/10.0.1/
        var program = OperatingSystem.IsWindows() ? "dotnet.exe" : "dotnet";
        var beside = Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", program));
        return File.Exists(beside) ? beside : Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";
    }
}
