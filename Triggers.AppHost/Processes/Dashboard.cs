using System.Text;
using CliWrap;

namespace Triggers.AppHost.Processes;

/// <summary>The Aspire dashboard, which is inside the Aspire command line tool.</summary>
internal static class Dashboard
{
    private static string ProgramName => OperatingSystem.IsWindows() ? "aspire-managed.exe" : "aspire-managed";

    /// <exception cref="AppHostException">It can't be had.</exception>
    public static async Task<Launch> ProvideAsync(PackageCache cache, int port, int telemetryPort, CancellationToken cancellationToken)
    {
        var package = Packages.Dashboard ?? throw new AppHostException("there is no verified package for this machine.");
        var directory = await cache.GetAsync(package, "the Aspire dashboard (127 MB)", unpacked => ExtractAsync(unpacked, cancellationToken), cancellationToken);
        var environment = ChildEnvironment.Inherited();
        environment["ASPNETCORE_URLS"] = $"http://localhost:{port}";
        environment["ASPIRE_DASHBOARD_OTLP_ENDPOINT_URL"] = $"http://localhost:{telemetryPort}";
        // Only this machine reaches it.
        environment["ASPIRE_DASHBOARD_UNSECURED_ALLOW_ANONYMOUS"] = "true";
        return new Launch
        {
            Name = Topology.Dashboard,
            Program = Path.Combine(directory, "managed", ProgramName),
            Arguments = ["dashboard"],
            WorkingDirectory = Path.Combine(directory, "managed"),
            Environment = environment,
            IsReady = token => HealthProbe.IsOkAsync($"http://localhost:{port}/health", token),
        };
    }

    /// <summary>
    /// The tool unpacks itself next to its directory: dashboard and orchestrator in <c>versions/…/{managed,dcp}</c>, and links with
    /// absolute paths. Only the dashboard is kept. Given another place to unpack to, it unpacks twice at once and gives up.
    /// </summary>
    private static async Task ExtractAsync(string package, CancellationToken cancellationToken)
    {
        var home = Path.Combine(package, "home");
        var tool = Path.Combine(package, "bin", OperatingSystem.IsWindows() ? "aspire.exe" : "aspire");
        var said = new StringBuilder();
        Directory.CreateDirectory(home);
        var result = await Cli.Wrap(tool)
            .WithArguments(["--nologo", "--non-interactive", "setup"])
            .WithWorkingDirectory(package)
            .WithEnvironmentVariables(builder => builder
                .Set("HOME", home).Set("USERPROFILE", home).Set("ASPIRE_HOME", home).Set("ASPIRE_CLI_TELEMETRY_OPTOUT", "true"))
            .WithStandardOutputPipe(PipeTarget.ToStringBuilder(said))
            .WithStandardErrorPipe(PipeTarget.ToStringBuilder(said))
            .WithValidation(CommandResultValidation.None)
            .ExecuteAsync(cancellationToken);
        var found = Directory.EnumerateFiles(package, ProgramName, SearchOption.AllDirectories).FirstOrDefault();
        if (!result.IsSuccess || found is null)
            throw new AppHostException($"aspire setup ended with {result.ExitCode}: {said.ToString().Trim()}");
        Directory.Move(Path.GetDirectoryName(found)!, Path.Combine(package, "managed"));
        foreach (var directory in Directory.GetDirectories(package).Where(d => Path.GetFileName(d) != "managed"))
            if (new DirectoryInfo(directory).LinkTarget is not null)
                Directory.Delete(directory);
            else
                Directory.Delete(directory, recursive: true);
    }
}

/// <summary>Asks whether something serves.</summary>
internal static class HealthProbe
{
    private static readonly HttpClient s_client = new(new SocketsHttpHandler { UseProxy = false, AllowAutoRedirect = false, PooledConnectionLifetime = TimeSpan.FromSeconds(30) })
    {
        Timeout = TimeSpan.FromSeconds(5),
    };

    public static async Task<bool> IsOkAsync(string url, CancellationToken cancellationToken)
    {
        try
        {
            using var response = await s_client.GetAsync(url, cancellationToken);
            return response.IsSuccessStatusCode;
        }
        catch (Exception e) when (e is HttpRequestException || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            return false;
        }
    }
}
