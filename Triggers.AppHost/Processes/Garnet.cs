using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using CliWrap;

namespace Triggers.AppHost.Processes;

/// <summary>
/// Garnet, as Redis. It keeps nothing on disk: limits and what the API remembers of keys may be lost.
/// </summary>
internal static class Garnet
{
    /// <summary>Gets the server, where it is not there yet.</summary>
    /// <exception cref="AppHostException">It can't be had.</exception>
    public static async Task<Launch> ProvideAsync(Settings settings, PackageCache cache, int port, CancellationToken cancellationToken)
    {
        var package = Packages.Garnet;
        string directory;
        try
        {
            directory = await cache.GetAsync(
                $"{package.Name}@{package.Version}", "Garnet (116 MB)", work => InstallAsync(package, work, cancellationToken), cancellationToken);
        }
        catch (AppHostException e)
        {
            throw new AppHostException($"{e.Message}{Environment.NewLine}Or name a Redis of yours: ConnectionStrings__{Topology.Redis}=\"localhost:6379\".");
        }
        var environment = ChildEnvironment.Inherited();
        // It asks for the collector of large servers, which takes memory per core.
        environment["DOTNET_gcServer"] = "0";
        return new Launch
        {
            Name = Topology.Redis,
            Program = Clone.Dotnet,
            Arguments =
            [
                Path.Combine(directory, "GarnetServer.dll"), "--port", $"{port}", "--bind", "127.0.0.1", "--lua",
                // As large as the log and its index may grow; the defaults are for a machine of its own.
                "--memory", "128m", "--page", "1m", "--index", "4m",
            ],
            WorkingDirectory = settings.DataDirectory,
            Environment = environment,
            IsReady = token => AnswersAsync(port, token),
        };
    }

    /// <summary>
    /// By the SDK that is there anyway, so that feeds, proxies and checks of signatures are as configured; but run as a program from
    /// the cache, where it is whole or not there. Referenced by the project it would be 116 MB in every restore, tests or not.
    /// </summary>
    private static async Task<string> InstallAsync(ToolPackage package, string work, CancellationToken cancellationToken)
    {
        var said = new StringBuilder();
        var result = await Cli.Wrap(Clone.Dotnet)
            .WithArguments(["tool", "install", package.Name, "--version", package.Version, "--tool-path", work])
            .WithWorkingDirectory(work)
            .WithStandardOutputPipe(PipeTarget.ToStringBuilder(said))
            .WithStandardErrorPipe(PipeTarget.ToStringBuilder(said))
            .WithValidation(CommandResultValidation.None)
            .ExecuteAsync(cancellationToken);
        if (!result.IsSuccess)
            throw new AppHostException($"dotnet tool install {package.Name} ended with {result.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}");
        var unpacked = Path.Combine(work, ".store", package.Name, package.Version, package.Name, package.Version);
        Verify(package, Path.Combine(unpacked, ".nupkg.metadata"));
        var program = Path.GetDirectoryName(Directory.GetFiles(Path.Combine(unpacked, "tools"), "GarnetServer.runtimeconfig.json", SearchOption.AllDirectories).MinBy(path => path.Length)!)!;
        // Beside it are the same with a .NET of their own, for each kind of machine: most of the 450 MB.
        foreach (var directory in Directory.GetDirectories(program).Where(directory => Path.GetFileName(directory) != "runtimes"))
            Directory.Delete(directory, recursive: true);
        return program;
    }

    /// <summary>As in <c>{"version": 2, "contentHash": "0k14…=="}</c>, which NuGet has computed.</summary>
    internal static void Verify(ToolPackage package, string metadata)
    {
        using var document = JsonDocument.Parse(File.ReadAllBytes(metadata));
        var found = document.RootElement.GetProperty("contentHash").GetString();
        if (found != package.ContentHash)
            throw new AppHostException($"{package.Name} {package.Version} is not what it should be: {found} instead of {package.ContentHash}. It was not used.");
    }

    private static async Task<bool> AnswersAsync(int port, CancellationToken cancellationToken)
    {
        try
        {
            using var client = new TcpClient();
            await client.ConnectAsync("127.0.0.1", port, cancellationToken);
            using var reader = new StreamReader(client.GetStream());
            await client.GetStream().WriteAsync("PING\r\n"u8.ToArray(), cancellationToken);
            return await reader.ReadLineAsync(cancellationToken) == "+PONG";
        }
        catch (Exception e) when (e is SocketException or IOException)
        {
            return false;
        }
    }
}
