using System.Security.Cryptography;
using Triggers.AppHost;
using Triggers.AppHost.Processes;
using Triggers.Tests.Support;

namespace Triggers.Tests.AppHost;

public sealed class PackageCacheTests : IDisposable
{
    private readonly string _directory = Directory.CreateDirectory(TestDirectory.New()).FullName;

    [Fact]
    public async Task A_file_with_another_checksum_is_refused()
    {
        var file = Path.Combine(_directory, "package.tgz");
        await File.WriteAllTextAsync(file, "content", TestContext.Current.CancellationToken);
        var good = new NpmPackage("name", "1.0.0", "sha512-" + Convert.ToBase64String(SHA512.HashData("content"u8)));

        await PackageCache.VerifyAsync(good, file, TestContext.Current.CancellationToken);
        await File.AppendAllTextAsync(file, "!", TestContext.Current.CancellationToken);
        var e = await Assert.ThrowsAsync<AppHostException>(() => PackageCache.VerifyAsync(good, file, TestContext.Current.CancellationToken));

        Assert.Contains("name@1.0.0 is not what it should be", e.Message);
    }

    [Fact]
    public async Task A_tool_with_another_content_is_refused()
    {
        var metadata = Path.Combine(_directory, ".nupkg.metadata");
        await File.WriteAllTextAsync(metadata, """{"version": 2, "contentHash": "good=="}""", TestContext.Current.CancellationToken);

        Garnet.Verify(new ToolPackage("tool", "1.0.0", "good=="), metadata);
        var e = Assert.Throws<AppHostException>(() => Garnet.Verify(new ToolPackage("tool", "1.0.0", "better=="), metadata));

        Assert.Contains("tool 1.0.0 is not what it should be", e.Message);
    }

    [Fact]
    public void Listed_links_are_made_and_stay_good_when_the_directory_moves()
    {
        var lib = Directory.CreateDirectory(Path.Combine(_directory, "package", "native", "lib", "deep")).Parent!.FullName;
        File.WriteAllText(Path.Combine(lib, "libz.so.1.2"), "library");
        File.WriteAllText(Path.Combine(_directory, "package", "native", "pg-symlinks.json"), """
            [{"source":"native/lib/libz.so.1.2","target":"native/lib/libz.so.1"},{"source":"native/lib/libz.so.1.2","target":"native/lib/deep/libz.so"}]
            """);

        PackageCache.LinkLibraries(Path.Combine(_directory, "package"));
        Directory.Move(Path.Combine(_directory, "package"), Path.Combine(_directory, "moved"));

        Assert.Equal("library", File.ReadAllText(Path.Combine(_directory, "moved", "native", "lib", "libz.so.1")));
        Assert.Equal("library", File.ReadAllText(Path.Combine(_directory, "moved", "native", "lib", "deep", "libz.so")));
    }

    [Fact]
    public async Task A_lock_is_held_by_one_and_let_go()
    {
        var path = Path.Combine(_directory, "lock");
        var first = FileLock.Try(path);
        Assert.NotNull(first);
        Assert.Null(FileLock.Try(path));
        var waited = new TaskCompletionSource();
        var second = FileLock.WaitAsync(path, TimeSpan.FromMinutes(1), waited.SetResult, TimeProvider.System, TestContext.Current.CancellationToken);
        await waited.Task;

        await first.DisposeAsync();

        await (await second).DisposeAsync();
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
