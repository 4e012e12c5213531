using System.Text.Json;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Triggers.AppHost.Stores;

/// <summary>
/// What all API processes count in together. As a process it is Garnet, which keeps nothing on disk: limits and what the API remembers of
/// keys may be lost.
/// </summary>
internal static class Redis
{
    internal const string Version = "2.2.8";
    private const string ContentHash = "0k148/62A0+edaY5XE9rptaxpTyot8tcASwwjjbh9o0NXdKIBKqwhYCspEmmh5BiSR9Tz4nfWLvqMRIx3TD51Q==";

    public static IResourceBuilder<IResourceWithConnectionString> AddContainer(IDistributedApplicationBuilder builder, Settings settings)
    {
        var redis = builder.AddRedis("redis", port: settings.PortOf("redis")).WithoutHttpsCertificate();
        // What is left of a day's quota is in it.
        return settings.Is("Data:Temporary") ? redis : redis.WithDataVolume("triggers-redis");
    }

    public static IResourceBuilder<IResourceWithConnectionString> AddLocal(IDistributedApplicationBuilder builder, Settings settings)
    {
        var package = Path.Combine(settings.CacheDirectory, "garnet-server@" + Version);
        var redis = new LocalStore("redis", "dotnet", settings.DataDirectory, LocalStore.Address);
        return builder.AddLocalStore(redis, settings.PortOf("redis"), icon: "Memory")
            // It asks for the collector of large servers, which takes memory per core.
            .WithEnvironment("DOTNET_gcServer", "0")
            // Without the transaction mode it runs scripts on one key at once, and the rate limits lose what they count. The sizes: as
            // large as log and index may grow; the defaults are for a machine of its own.
            .WithArgs("exec", Path.Combine(
                package, "GarnetServer.dll"), "--port", redis.Endpoint.Property(EndpointProperty.TargetPort), "--bind", "127.0.0.1",
                "--lua", "--lua-transaction-mode", "--memory", "128m", "--page", "1m", "--index", "4m")
            .WithPatientHealthCheck(async cancellation =>
            {
                var options = ConfigurationOptions.Parse((await redis.ConnectionStringExpression.GetValueAsync(cancellation))!);
                options.ConnectTimeout = 2000;
                await using var connection = await ConnectionMultiplexer.ConnectAsync(options);
                await connection.GetDatabase().PingAsync();
            })
            .PreparedBy((log, cancellation) =>
                PackageCache.ProvideAsync(package, "Garnet (116 MB)", work => InstallAsync(work, log, cancellation), cancellation));
    }

    /// <summary>
    /// By the SDK that is there anyway, so that feeds, proxies and checks of signatures are as configured; but run as a program from
    /// the cache, where it is whole or not there. Referenced by the project it would be 116 MB in every restore, tests or not.
    /// </summary>
    private static async Task<string> InstallAsync(string work, ILogger log, CancellationToken cancellation)
    {
        try
        {
            await Tool.RunAsync(
                "dotnet", ["tool", "install", "garnet-server", "--version", Version, "--tool-path", work], work, log, cancellation);
        }
        catch (DistributedApplicationException e)
        {
            throw new DistributedApplicationException(
                $"{e.Message}{Environment.NewLine}Or name a Redis of yours: ConnectionStrings__redis=\"localhost:6379\".");
        }
        var unpacked = Path.Combine(work, ".store", "garnet-server", Version, "garnet-server", Version);
        Verify(Path.Combine(unpacked, ".nupkg.metadata"), ContentHash);
        var programs = Directory.GetFiles(Path.Combine(unpacked, "tools"), "GarnetServer.runtimeconfig.json", SearchOption.AllDirectories);
        var program = Path.GetDirectoryName(programs.MinBy(path => path.Length)!)!;
        // Beside it are the same with a .NET of their own, for each kind of machine: most of the 450 MB.
        foreach (var directory in Directory.GetDirectories(program).Where(directory => Path.GetFileName(directory) != "runtimes"))
            Directory.Delete(directory, recursive: true);
        return program;
    }

    /// <param name="metadata">Has what NuGet has computed, as in <c>{"version": 2, "contentHash": "0k14…=="}</c>.</param>
    internal static void Verify(string metadata, string expected)
    {
        var found = JsonDocument.Parse(File.ReadAllBytes(metadata)).RootElement.GetProperty("contentHash").GetString();
        if (found != expected)
            throw new DistributedApplicationException(
                $"garnet-server {Version} is not what it should be: {found} instead of {expected}. It was not used.");
    }
}
