using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.Extensions.Hosting;

namespace Triggers.AppHost;

/// <summary>
/// Starts again what crashes, says what it said last, and ends a start that can't succeed. Aspire shows that a process has ended, and leaves it
/// at that.
/// </summary>
internal sealed class Supervision(
    IServiceProvider services,
    ResourceNotificationService notifications,
    ResourceCommandService commands,
    ResourceLoggerService logs,
    IHostApplicationLifetime lifetime,
    Settings settings,
    TimeProvider time)
{
    private const int LinesShown = 20;

    private readonly ConcurrentDictionary<string, Watched> _watched = [];
    private string? _failure;

    /// <summary>Everything was ready once: from now on what ends is started again.</summary>
    public bool Started { get; set; }

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

    private async Task ShowTableAsync()
    {
        await StartTable.ShowAsync(services, settings, lifetime.ApplicationStopping);
        Started = true;
    }

    private async Task WatchAsync()
    {
        await foreach (var e in notifications.WatchAsync(lifetime.ApplicationStopping))
            if (e.Resource is ProjectResource or ExecutableResource or ContainerResource)
                See(e);
    }

    /// <summary>Ends the AppHost with the reason.</summary>
    public void Fail(string reason)
    {
        if (Started || lifetime.ApplicationStopping.IsCancellationRequested || Interlocked.CompareExchange(ref _failure, reason, null) is not null)
            return;
        Console.WriteLine(reason);
        lifetime.StopApplication();
    }

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

    private void See(ResourceEvent e)
    {
        var watched = _watched.GetOrAdd(e.ResourceId, _ => new Watched(new Backoff(time)));
        var state = e.Snapshot.State?.Text;
        if (state == watched.State)
            return;
        var before = watched.State;
        watched.State = state;
        if (state == KnownResourceStates.Running)
        {
            watched.Backoff.Started();
            if (watched.Crashed)
                Console.WriteLine($"{NameOf(e)} | runs again");
            (watched.Crashed, watched.ToldToStop) = (false, false);
        }
        else if (state == KnownResourceStates.Stopping)
        {
            watched.ToldToStop = true;
        }
        else if (KnownResourceStates.TerminalStates.Contains(state) && before is not null && !KnownResourceStates.TerminalStates.Contains(before) && !watched.ToldToStop)
        {
            Observe(EndedAsync(e, watched));
        }
    }

    private async Task EndedAsync(ResourceEvent e, Watched watched)
    {
        var runsToCompletion = e.Resource.Name == "migrations";
        var exitCode = e.Snapshot.ExitCode;
        if (runsToCompletion && exitCode is 0)
            return;
        // The orchestrator has no code for what was killed; a shell has 128 and the signal's number.
        var killed = exitCode is null or < 0 or > 128;
        var reason = $"{NameOf(e)} | {(killed ? "was killed" : $"ended with exit code {exitCode}")}{await LastLinesAsync(e.ResourceId)}";
        // What ends by itself before it was ever ready has been told something wrong: trying again will not mend it.
        if (!Started && !killed && e.Resource.Name != "aspire-dashboard")
            Fail(reason);
        if (lifetime.ApplicationStopping.IsCancellationRequested)
            return;
        Console.WriteLine(reason);
        if (settings.Restarts && !runsToCompletion)
            await StartAgainAsync(e, watched);
    }

    private async Task StartAgainAsync(ResourceEvent e, Watched watched)
    {
        watched.Crashed = true;
        ExecuteCommandResult result;
        do
        {
            var pause = watched.Backoff.Next();
            Console.WriteLine($"{NameOf(e)} | starting again in {pause.TotalSeconds.ToString(CultureInfo.InvariantCulture)} s");
            await Task.Delay(pause, time, lifetime.ApplicationStopping);
            result = await commands.ExecuteCommandAsync(e.ResourceId, KnownResourceCommands.StartCommand, lifetime.ApplicationStopping);
        }
        while (!result.Success && KnownResourceStates.TerminalStates.Contains(watched.State));
    }

    private async Task<string> LastLinesAsync(string resource)
    {
        var last = new Queue<LogLine>();
        await foreach (var lines in logs.GetAllAsync(resource).WithCancellation(lifetime.ApplicationStopping))
            foreach (var line in lines)
            {
                last.Enqueue(line);
                if (last.Count > LinesShown)
                    last.Dequeue();
            }
        // What a program says of its own end is on standard error.
        var shown = last.Any(line => line.IsErrorMessage) ? last.Where(line => line.IsErrorMessage) : last.TakeLast(5);
        return last.Count == 0 ? "" : "; its last words:" + string.Concat(shown.Select(line => $"{Environment.NewLine}    {WithoutTime(line.Content)}"));
    }

    /// <summary>As in <c>2026-11-27T12:00:00.0000000Z text</c>.</summary>
    private static string WithoutTime(string line) =>
        line.IndexOf(' ') is > 0 and var space && DateTimeOffset.TryParse(line[..space], CultureInfo.InvariantCulture, out _) ? line[(space + 1)..] : line;

    /// <summary>Of several instances each has its own.</summary>
    private static string NameOf(ResourceEvent e) => e.Resource.GetReplicaCount() > 1 ? e.ResourceId : e.Resource.Name;

    private sealed class Watched(Backoff backoff)
    {
        public Backoff Backoff { get; } = backoff;

        public string? State { get; set; }

        public bool ToldToStop { get; set; }

        public bool Crashed { get; set; }
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
        if (time.GetElapsedTime(_started) >= TimeSpan.FromMinutes(1))
            _next = s_shortest;
        var pause = _next;
        _next = pause * 2 < s_longest ? pause * 2 : s_longest;
        return pause;
    }
}
