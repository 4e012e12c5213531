using System.ComponentModel;
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
    private static readonly TimeSpan s_longest = TimeSpan.FromMinutes(15);

    /// <summary>Makes the directory, named after package and version, if it is not there.</summary>
    /// <param name="directory">Where it is to be.</param>
    /// <param name="title">What it is called on the screen, with its size.</param>
    /// <param name="fetch">Makes it somewhere in the empty directory it is given, and says where.</param>
    /// <param name="cancellation">Leaves nothing half done.</param>
    public static async Task ProvideAsync(string directory, string title, Func<string, Task<string>> fetch, CancellationToken cancellation)
    {
        if (Directory.Exists(directory))
            return;
        CreateReadable(Path.GetDirectoryName(directory)!);
        using var bound = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        bound.CancelAfter(s_longest);
        FileStream? ours;
        while ((ours = FileLock.Try(directory + ".lock")) is null)
            await Task.Delay(TimeSpan.FromMilliseconds(100), bound.Token);
        await using var held = ours;
        if (Directory.Exists(directory))
            return;

        var work = Path.Combine(Path.GetDirectoryName(directory)!, "new-" + Guid.NewGuid().ToString("N"));
        CreateReadable(work);
        try
        {
            Console.WriteLine($"Getting {title}, once …");
            Directory.Move(await fetch(work), directory);
            Console.WriteLine($"{title} is in {directory}");
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    /// <summary>
    /// Creates the directory, and those above it, so that everybody can look into it: as root, Postgres runs as somebody else.
    /// </summary>
    public static void CreateReadable(string directory)
    {
        if (Directory.Exists(directory))
            return;
        CreateReadable(Path.GetDirectoryName(directory)!);
        Directory.CreateDirectory(directory);
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(directory, File.GetUnixFileMode(
                directory) | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
    }
}

/// <summary>A file that one process at a time holds open; its end, however it comes, lets go.</summary>
internal static class FileLock
{
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
}

/// <summary>Programs that prepare something and end.</summary>
internal static partial class Tool
{
    /// <summary>Runs it to its end, what it says in the resource's log.</summary>
    /// <exception cref="DistributedApplicationException">It can't be started, or ended with another code than 0: with all it
    /// said.</exception>
    public static async Task RunAsync(
        string program, IEnumerable<string> arguments, string directory, ILogger log,
        CancellationToken cancellation, params (string Name, string Value)[] environment)
    {
        var said = new StringBuilder();
        var everything = PipeTarget.Merge(PipeTarget.ToStringBuilder(said), PipeTarget.ToDelegate(line => Said(log, line)));
        try
        {
            var result = await Cli.Wrap(program).WithArguments(arguments).WithWorkingDirectory(directory)
                .WithEnvironmentVariables(builder => Array.ForEach(environment, variable => builder.Set(variable.Name, variable.Value)))
                .WithStandardOutputPipe(everything).WithStandardErrorPipe(everything)
                .WithValidation(CommandResultValidation.None)
                .ExecuteAsync(cancellation);
            if (!result.IsSuccess)
                throw new DistributedApplicationException(
                    $"{program} ended with {result.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}");
        }
        catch (Win32Exception e)
        {
            throw new DistributedApplicationException($"{program} is needed, and could not be started: {e.Message}");
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "{Line}")]
    private static partial void Said(ILogger log, string line);
}
