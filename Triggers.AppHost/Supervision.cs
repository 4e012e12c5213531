using System.Text.RegularExpressions;
using Microsoft.Extensions.Hosting;

namespace Triggers.AppHost;

/// <summary>
/// Starts again what crashes, says what it said last, and ends a start that can't succeed. Aspire shows that a process has ended, and leaves it
/// at that.
/// </summary>
internal sealed partial class Supervision(
    IServiceProvider services,
    ResourceNotificationService notifications,
    ResourceCommandService commands,
    ResourceLoggerService logs,
    IHostApplicationLifetime lifetime,
    Settings settings,
    TimeProvider time)
{
    /// <summary>What the services say then, before they name each.</summary>
    private const string WrongSettings = "can't start with these settings";

    private bool _started;
    private string? _failure;

    /// <summary>Runs the application to its end.</summary>
    /// <returns>The exit code: 0 after an orderly end, 1 when the start failed.</returns>
    public async Task<int> RunAsync(DistributedApplication app)
    {
        try
        {
            await app.RunAsync();
        }
        catch (OperationCanceledException) when (_failure is not null)
        {
            // Told to stop while still starting.
        }
        return _failure is null ? 0 : 1;
    }

    /// <summary>Begins to watch all resources, which must be before any of them is started, and to wait for the table to show.</summary>
    public Task BeginAsync()
    {
        Observe(WatchAsync());
        if (!settings.StoresOnly)
            Observe(ShowTableAsync());
        return Task.CompletedTask;
    }

    /// <summary>Ends a start with the reason.</summary>
    public void Fail(string reason)
    {
        if (_started || lifetime.ApplicationStopping.IsCancellationRequested || Interlocked.CompareExchange(ref _failure, reason, null) is not null)
            return;
        Console.WriteLine(reason);
        lifetime.StopApplication();
    }

    private async Task ShowTableAsync()
    {
        await StartTable.ShowAsync(services, settings, lifetime.ApplicationStopping);
        _started = true;
    }

    private async Task WatchAsync()
    {
        // By instance.
        var backoffs = new Dictionary<string, Backoff>();
        var states = new Dictionary<string, string?>();
        await foreach (var e in notifications.WatchAsync(lifetime.ApplicationStopping))
        {
            if (e.Resource is not (ProjectResource or ExecutableResource or ContainerResource))
                continue;
            var (before, state) = (states.GetValueOrDefault(e.ResourceId), e.Snapshot.State?.Text);
            states[e.ResourceId] = state;
            if (state == before)
                continue;
            backoffs.TryAdd(e.ResourceId, new Backoff(time));
            if (state == KnownResourceStates.Running)
                backoffs[e.ResourceId].Started();
            else if (HasEnded(state) && before is not null && !HasEnded(before) && before != KnownResourceStates.Stopping)
                Observe(EndedAsync(e, backoffs[e.ResourceId]));
        }
    }

    private static bool HasEnded(string? state) => KnownResourceStates.TerminalStates.Contains(state);

    private async Task EndedAsync(ResourceEvent e, Backoff backoff)
    {
        var (name, exitCode) = (e.Resource.GetReplicaCount() > 1 ? e.ResourceId : e.Resource.Name, e.Snapshot.ExitCode);
        if (name == "migrations" && exitCode is 0)
            return;
        // The orchestrator has no code for what was killed; a shell has 128 and the signal's number.
        var killed = exitCode is null or < 0 or > 128;
        var reason = $"{name} | {(killed ? "was killed" : $"ended with exit code {exitCode}")}{await LastWordsAsync(e.ResourceId)}";
        // Trying again will not mend a wrong setting, a migration, or a store that ends by itself before everything was ready.
        if (!killed && (e.Resource is not ProjectResource || name == "migrations" || reason.Contains(WrongSettings, StringComparison.Ordinal)))
            Fail(reason);
        if (lifetime.ApplicationStopping.IsCancellationRequested)
            return;
        Console.WriteLine(reason);
        if (!settings.Is("Restarts") || name == "migrations")
            return;
        var pause = backoff.Next();
        Console.WriteLine($"{name} | starting again in {pause.TotalSeconds:0.#} s");
        await Task.Delay(pause, time, lifetime.ApplicationStopping);
        var started = await commands.ExecuteCommandAsync(e.ResourceId, KnownResourceCommands.StartCommand, lifetime.ApplicationStopping);
        Console.WriteLine($"{name} | {(started.Success ? "runs again" : $"could not be started: {started.Message}")}");
    }

    /// <summary>What it said on standard error, which is where programs say what they die of, or else at all.</summary>
    private async Task<string> LastWordsAsync(string resource)
    {
        var said = new List<LogLine>();
        await foreach (var lines in logs.GetAllAsync(resource).WithCancellation(lifetime.ApplicationStopping))
            said.AddRange(lines.Where(line => !line.Content.Contains("[sys]", StringComparison.Ordinal)));
        var shown = said.Exists(line => line.IsErrorMessage) ? said.Where(line => line.IsErrorMessage).TakeLast(20) : said.TakeLast(5);
        return said.Count == 0 ? "" : "; its last words:" + string.Concat(shown.Select(line => Environment.NewLine + "    " + Plain().Replace(line.Content, "") switch
        {
            { Length: > 240 } text => text[..240] + " …",
            var text => text,
        }));
    }

    /// <summary>The time that the orchestrator puts before a line, and colours.</summary>
    [GeneratedRegex(@"^\d{4}-\S+Z |\e\[[\d;]*m")]
    private static partial Regex Plain();

    /// <summary>Nobody waits for it, so it is said here what it died of.</summary>
    private async void Observe(Task task)
    {
        try
        {
            await task;
        }
        catch (Exception e)
        {
            if (!lifetime.ApplicationStopping.IsCancellationRequested)
                Console.WriteLine(e);
        }
    }
}

/// <summary>How long to wait before something is started again: twice as long each time, until it has run for a minute.</summary>
internal sealed class Backoff(TimeProvider time)
{
    private static readonly TimeSpan s_shortest = TimeSpan.FromSeconds(0.5);
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(30);

    private TimeSpan _next = s_shortest;
    private long _started = time.GetTimestamp();

    public void Started() => _started = time.GetTimestamp();

    public TimeSpan Next()
    {
        var pause = time.GetElapsedTime(_started) >= TimeSpan.FromMinutes(1) ? s_shortest : _next;
        _next = pause * 2 < s_longest ? pause * 2 : s_longest;
        return pause;
    }
}
