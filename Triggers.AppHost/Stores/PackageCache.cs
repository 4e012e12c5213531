using System.Text;
using CliWrap;
using Microsoft.Extensions.Logging;

namespace Triggers.AppHost.Stores;

/// <summary>
/// Unpacked packages, shared by all clones of a user. Everything in it can be deleted: it is downloaded again.
/// A package is in place as a whole or not at all.
/// </summary>
internal static class PackageCache
{
    private const UnixFileMode ReadableByAll = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    /// <summary>Makes the directory, if it is not there.</summary>
    /// <param name="directory">Named after package and version.</param>
    /// <param name="title">What it is called on the screen, with its size.</param>
    /// <param name="fetch">Makes it somewhere in the empty directory it is given, and says where.</param>
    /// <param name="cancellationToken">Leaves nothing half done.</param>
    /// <exception cref="DistributedApplicationException">It can't be had.</exception>
    public static async Task ProvideAsync(string directory, string title, Func<string, Task<string>> fetch, CancellationToken cancellationToken)
    {
        if (Directory.Exists(directory))
            return;
        CreateReadable(Path.GetDirectoryName(directory)!);
        await using var ours = await FileLock.WaitAsync(directory + ".lock", () => Console.WriteLine($"Waiting for another process that downloads {title} …"), cancellationToken);
        if (Directory.Exists(directory))
            return;

        var work = Path.Combine(Path.GetDirectoryName(directory)!, "new-" + Guid.NewGuid().ToString("N"));
        CreateReadable(work);
        try
        {
            Console.WriteLine($"Getting {title}, once …");
            var fetched = await fetch(work);
            MakeReadable(fetched);
            Directory.Move(fetched, directory);
            Console.WriteLine($"{title} is in {directory}");
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    /// <summary>Creates the directory, and those above it, so that everybody can look into it.</summary>
    public static void CreateReadable(string directory)
    {
        if (Directory.Exists(directory))
            return;
        if (Path.GetDirectoryName(directory) is { } above)
            CreateReadable(above);
        Directory.CreateDirectory(directory);
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(directory, ReadableByAll | Executable);
    }

    /// <summary>Whatever the user's umask is: as root, Postgres runs as somebody else.</summary>
    private static void MakeReadable(string directory)
    {
        if (OperatingSystem.IsWindows())
            return;
        File.SetUnixFileMode(directory, ReadableByAll | Executable);
        foreach (var entry in new DirectoryInfo(directory).EnumerateFileSystemInfos("*", SearchOption.AllDirectories).Where(entry => entry.LinkTarget is null))
        {
            var runs = entry is DirectoryInfo || (entry.UnixFileMode & UnixFileMode.UserExecute) != 0;
            entry.UnixFileMode = runs ? ReadableByAll | Executable : ReadableByAll;
        }
    }
}

/// <summary>A file that one process at a time holds open; its end, however it comes, lets go.</summary>
internal static class FileLock
{
    private static readonly TimeSpan s_longest = TimeSpan.FromMinutes(15);

    public static FileStream? Try(string path)
    {
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException) when (File.Exists(path))
        {
            return null;
        }
    }

    public static async Task<FileStream> WaitAsync(string path, Action onWait, CancellationToken cancellationToken)
    {
        using var bound = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        bound.CancelAfter(s_longest);
        for (var first = true; ; first = false)
        {
            if (Try(path) is { } held)
                return held;
            if (first)
                onWait();
            await Task.Delay(TimeSpan.FromMilliseconds(100), bound.Token);
        }
    }
}

/// <summary>Programs that prepare something and end.</summary>
internal static class Tool
{
    /// <summary>Runs it to its end, what it says in the resource's log.</summary>
    /// <exception cref="DistributedApplicationException">It can't be started, or ended with another code than 0: with all it said.</exception>
    public static async Task RunAsync(
        string program, IEnumerable<string> arguments, string directory, ILogger log, CancellationToken cancellationToken, params (string Name, string Value)[] environment)
    {
        var said = new StringBuilder();
        var everything = PipeTarget.Merge(PipeTarget.ToStringBuilder(said), PipeTarget.ToDelegate(line => Log.Said(log, line)));
        try
        {
            var result = await Cli.Wrap(program).WithArguments(arguments).WithWorkingDirectory(directory)
                .WithEnvironmentVariables(builder => Array.ForEach(environment, variable => builder.Set(variable.Name, variable.Value)))
                .WithStandardOutputPipe(everything).WithStandardErrorPipe(everything)
                .WithValidation(CommandResultValidation.None)
                .ExecuteAsync(cancellationToken);
            if (!result.IsSuccess)
                throw new DistributedApplicationException($"{program} ended with {result.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}");
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            throw new DistributedApplicationException($"{program} is needed, and could not be started: {e.Message}");
        }
    }
}

internal static partial class Log
{
    [Microsoft.Extensions.Logging.LoggerMessage(Level = LogLevel.Information, Message = "{Line}")]
    public static partial void Said(ILogger log, string line);
}
