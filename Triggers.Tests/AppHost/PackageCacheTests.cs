using System.Text.Json;
using Aspire.Hosting;
using Triggers.AppHost.Stores;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

public sealed class PackageCacheTests : IDisposable
{
    private readonly string _directory = Directory.CreateDirectory(TestDirectory.New()).FullName;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_package_is_fetched_once_and_used_from_then_on()
    {
        var package = Path.Combine(_directory, "tool@1.0");
        var fetched = 0;
        Task<string> FetchAsync(string work)
        {
            fetched++;
            File.WriteAllText(Path.Combine(Directory.CreateDirectory(Path.Combine(work, "unpacked")).FullName, "program"), "");
            return Task.FromResult(Path.Combine(work, "unpacked"));
        }

        await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => PackageCache.ProvideAsync(package, "a tool", FetchAsync, Cancellation)));

        Assert.Equal(1, fetched);
        Assert.True(File.Exists(Path.Combine(package, "program")));
        Assert.Equal(["tool@1.0", "tool@1.0.lock"], Directory.GetFileSystemEntries(_directory).Select(Path.GetFileName).Order());
    }

    [Fact]
    public async Task Half_a_package_is_none()
    {
        var package = Path.Combine(_directory, "tool@1.0");

        await Assert.ThrowsAsync<IOException>(() => PackageCache.ProvideAsync(package, "a tool", work =>
        {
            File.WriteAllText(Path.Combine(work, "part"), "");
            throw new IOException("The line is dead.");
        }, Cancellation));

        Assert.Equal(["tool@1.0.lock"], Directory.GetFileSystemEntries(_directory).Select(Path.GetFileName));
    }

    [Fact]
    public void PostgreSQL_is_pinned_for_every_system_with_the_checksum_that_npm_holds_it_to()
    {
        using var locked = JsonDocument.Parse(File.ReadAllText(Repository.File("Triggers.AppHost", "Stores", "npm", "package-lock.json")));
        var packages = locked.RootElement.GetProperty("packages").EnumerateObject().Where(package => package.Name.Length > 0).ToList();

        Assert.Equal(
            ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64", "windows-x64"],
            packages.Select(package => package.Name.Split('/')[^1]).Order());
        Assert.All(packages, package =>
        {
            Assert.Equal(Postgres.Version, package.Value.GetProperty("version").GetString());
            Assert.StartsWith("sha512-", package.Value.GetProperty("integrity").GetString());
        });
    }

    [Fact]
    public async Task A_Garnet_with_another_content_is_refused()
    {
        var metadata = Path.Combine(_directory, ".nupkg.metadata");
        await File.WriteAllTextAsync(metadata, """{"version": 2, "contentHash": "good=="}""", Cancellation);

        Redis.Verify(metadata, "good==");
        var e = Assert.Throws<DistributedApplicationException>(() => Redis.Verify(metadata, "better=="));

        Assert.Contains("is not what it should be", e.Message);
    }

    [Fact]
    public async Task A_lock_is_held_by_one_and_let_go()
    {
        var path = Path.Combine(_directory, "one");
        var first = FileLock.Try(path);
        Assert.NotNull(first);
        Assert.Null(FileLock.Try(path));

        await first.DisposeAsync();

        await using var second = FileLock.Try(path);
        Assert.NotNull(second);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
