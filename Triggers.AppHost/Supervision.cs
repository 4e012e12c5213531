using System.Text.RegularExpressions;
using Microsoft.Extensions.Hosting;

namespace Triggers.AppHost;

/// <summary>
/// Starts again what crashes, says what it said last, and ends a start that can't succeed. Aspire shows that a process has ended, and
/// leaves it at that.
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
    /// <summary>
    /// What dies of something unforeseen looks as if it was killed. More often than this during a start, and it is taken for that.
    /// </summary>
    private const int ToleratedCrashes = 2;

    private bool _started;
    private bool _isDying;
    private string? _failure;

    private CancellationToken Stopping => lifetime.ApplicationStopping;

    /// <summary>The start failed, and has said why.</summary>
    public bool HasFailed => _failure is not null;

    /// <summary>Begins to watch all resources, which must be before any of them is started, and to wait for the table to show.</summary>
    public void Begin()
    {
        Observe(WatchAsync());
        if (!settings.StoresOnly)
            Observe(ShowTableAsync());
    }

    /// <summary>Ends a start with the reason.</summary>
    public void Fail(string reason)
    {
        if (_started || Stopping.IsCancellationRequested || Interlocked.CompareExchange(ref _failure, reason, null) is not null)
            return;
        Console.WriteLine(reason);
        lifetime.StopApplication();
    }

    private async Task ShowTableAsync()
    {
        await StartTable.ShowAsync(services, settings, Stopping);
        _started = true;
    }

    private async Task WatchAsync()
    {
        // By instance.
        var backoffs = new Dictionary<string, Backoff>();
        var states = new Dictionary<string, string?>();
        await foreach (var e in notifications.WatchAsync(Stopping))
        {
            var (before, state) = (states.GetValueOrDefault(e.ResourceId), e.Snapshot.State?.Text);
            states[e.ResourceId] = state;
            if (state == before || e.Resource is not (ProjectResource or ExecutableResource or ContainerResource))
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
        var isMigration = name == "migrations";
        if (isMigration && exitCode is 0)
            return;
        var couldNotStart = e.Snapshot.State?.Text == KnownResourceStates.FailedToStart;
        // The orchestrator has no code for what was killed.
        var wasKilled = !couldNotStart && exitCode is null or < 0;
        // What can't be started, or ends by itself before everything was ready, would do so again; and take others with it, which have
        // less to say.
        var isFatal = !_started && (!wasKilled || isMigration || backoff.Crashes == ToleratedCrashes);
        if (isFatal && _isDying)
            return;
        _isDying |= isFatal;
        var ended = couldNotStart ? "could not be started" : wasKilled ? "was killed" : $"ended with exit code {exitCode}";
        var reason = $"{name} | {ended}{await LastWordsAsync(e.ResourceId, couldNotStart)}";
        if (isFatal)
            Fail(reason);
        if (Stopping.IsCancellationRequested)
            return;
        Console.WriteLine(reason);
        if (isMigration || !settings.Is("Restarts"))
            return;
        var pause = backoff.Next();
        Console.WriteLine($"{name} | starting again in {pause.TotalSeconds:0.#} s");
        await Task.Delay(pause, time, Stopping);
        var started = await commands.ExecuteCommandAsync(e.ResourceId, KnownResourceCommands.StartCommand, Stopping);
        Console.WriteLine($"{name} | {(started.Success ? "runs again" : $"could not be started: {started.Message}")}");
    }

    /// <summary>What it said on standard error, which is where programs say what they die of, or else at all.</summary>
    /// <param name="resource">The instance.</param>
    /// <param name="all">What the orchestrator said of it too.</param>
    private async Task<string> LastWordsAsync(string resource, bool all)
    {
        var said = new List<LogLine>();
        await foreach (var lines in logs.GetAllAsync(resource).WithCancellation(Stopping))
            said.AddRange(lines.Where(line => all || !line.Content.Contains("[sys]", StringComparison.Ordinal)));
        var shown = said.Exists(line => line.IsErrorMessage) ? said.Where(line => line.IsErrorMessage).TakeLast(20) : said.TakeLast(5);
        return said.Count == 0 ? "" : "; its last words:" + string.Concat(shown.Select(line => Plain().Replace(line.Content, ""))
            .Select(text => $"{Environment.NewLine}    {(text.Length > 240 ? text[..240] + " …" : text)}"));
    }

    /// <summary>The time that the orchestrator puts before a line, and colours.</summary>
    [GeneratedRegex(@"^\d{4}-\S+Z |\e\[[\d;]*m")]
    private static partial Regex Plain();

    /// <summary>Nobody waits for it, so it is said here what it died of.</summary>
    private void Observe(Task task) => task.ContinueWith(
        died => Console.WriteLine(died.Exception!.InnerException), Stopping, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
}

/// <summary>How long to wait before something is started again: twice as long each time, until it has run for a minute.</summary>
internal sealed class Backoff(TimeProvider time)
{
    private long _started = time.GetTimestamp();

    public int Crashes { get; private set; }

    public void Started() => _started = time.GetTimestamp();

    public TimeSpan Next()
    {
        if (time.GetElapsedTime(_started) >= TimeSpan.FromMinutes(1))
            Crashes = 0;
        return TimeSpan.FromSeconds(Math.Min(30, 0.5 * Math.Pow(2, Crashes++)));
    }
}
