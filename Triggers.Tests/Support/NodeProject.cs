using System.Diagnostics;

namespace Triggers.Tests.Support;

/// <summary>A directory with npm packages in it, for what is to be held against an implementation that is not ours.</summary>
internal sealed class NodeProject : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("triggers-node-").FullName;

    /// <summary>Installs packages, each as <c>name@version</c>.</summary>
    public static async Task<NodeProject> CreateAsync(params string[] packages)
    {
        var project = new NodeProject();
        await project.RunAsync("npm", ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", .. packages]);
        return project;
    }

    /// <summary>Writes a file that scripts find beside them.</summary>
    public Task WriteAsync(string name, string text) =>
        File.WriteAllTextAsync(Path.Combine(_directory, name), text, TestContext.Current.CancellationToken);

    /// <summary>Runs a script, and answers what it writes.</summary>
    public async Task<string> RunAsync(string script)
    {
        await WriteAsync("script.js", script);
        return await RunAsync("node", ["script.js"]);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private async Task<string> RunAsync(string command, string[] arguments)
    {
        var info = new ProcessStartInfo(OperatingSystem.IsWindows() && command == "npm" ? "npm.cmd" : command, arguments)
        {
            WorkingDirectory = _directory,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(info)!;
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(process.ExitCode == 0, $"{command} ended with {process.ExitCode}: {error}");
        return (await output).Trim();
    }
}
