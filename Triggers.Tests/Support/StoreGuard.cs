using Triggers.AppHost.Processes;

namespace Triggers.Tests.Support;

/// <summary>
/// Stores, provided and guarded as the AppHost's own: a killed test run leaves neither processes nor data behind. They start when
/// first asked for.
/// </summary>
/// <param name="resource">Which store.</param>
/// <param name="settings">The AppHost's.</param>
internal sealed class StoreGuard(string resource, params string[] settings) : IAsyncDisposable
{
    private static readonly TimeSpan s_bound = TimeSpan.FromMinutes(3);

    private readonly string _directory = TestDirectory.New();
    private readonly Lock _lock = new();
    private Task<GuardProcess>? _guard;

    public bool IsStarted => _guard is not null;

    /// <summary>Ends when the store is ready.</summary>
    public Task<GuardProcess> StartedAsync()
    {
        lock (_lock)
            return _guard ??= StartGuardAsync();
    }

    /// <param name="name">As in <c>ConnectionStrings:NAME</c>.</param>
    public async Task<string> ConnectionStringAsync(string name)
    {
        await StartedAsync();
        return RunRecord.Read(_directory)!.Addresses[name];
    }

    /// <summary>Kills it at once, as a crash of the machine would; it stays down until <see cref="StartAsync"/>.</summary>
    public Task KillAsync(string process) => TellAsync($"kill {process}");

    /// <summary>Starts it again on the same data and port, and waits until it has recovered.</summary>
    public Task StartAsync(string process) => TellAsync($"start {process}");

    /// <summary>Stops it and deletes its data.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_guard is null)
            return;
        using var guard = await _guard;
        guard.Tell("stop");
        _ = await guard.WaitAsync().WaitAsync(s_bound);
    }

    private async Task<GuardProcess> StartGuardAsync()
    {
        var guard = GuardProcess.Start(
            Clone.AssemblyOf("Triggers.AppHost"), [$"--Resources={resource}", $"--Data:Directory={_directory}", "--Data:Temporary=true", .. settings], captureOutput: true);
        await guard.ExpectAsync("ready", s_bound);
        return guard;
    }

    private async Task TellAsync(string command)
    {
        var guard = await StartedAsync();
        guard.Tell(command);
        await guard.ExpectAsync("done", s_bound);
    }
}

/// <summary>Directories of this test run, where the user that Postgres runs as can reach them.</summary>
internal static class TestDirectory
{
    public static string New() => Path.Combine(Unix.IsRoot ? "/var/lib/triggers/tests" : Path.GetTempPath(), "triggers-" + Guid.NewGuid().ToString("N"));
}

/// <summary>Waiting for a guard.</summary>
internal static class GuardExpectations
{
    /// <summary>Reads until the line; anything that means it will not come is an error with all that was said.</summary>
    public static async Task ExpectAsync(this GuardProcess guard, string expected, TimeSpan bound)
    {
        using var timeout = new CancellationTokenSource(bound);
        var said = new List<string>();
        while (await guard.Output.ReadLineAsync(timeout.Token) is { } line)
        {
            if (line == expected)
                return;
            said.Add(line);
        }
        throw new InvalidOperationException($"The guard ended without '{expected}':{Environment.NewLine}{string.Join(Environment.NewLine, said)}");
    }
}
