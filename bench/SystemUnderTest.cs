using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using Npgsql;

namespace Triggers.Bench;

/// <summary>
/// The whole system as the AppHost starts it, on data of its own that goes with it, and what the operating system charges to each of its
/// parts. Parts are found by a mark in their environment. Linux only.
/// </summary>
internal sealed partial class SystemUnderTest : IAsyncDisposable
{
    private const string Mark = "TRIGGERS_BENCH";
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    private readonly string _mark = Guid.NewGuid().ToString("N");
    private readonly string _directory = Path.Combine(Path.GetTempPath(), "triggers-bench-" + Guid.NewGuid().ToString("N")[..12]);
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource _started = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly int _port = FreePort();
    private readonly Process _appHost;
    private readonly IDisposable[] _signals;
    private readonly Lazy<Task> _end;
    private Dictionary<string, int>? _parts;
    private int _postmaster;

    private SystemUnderTest(IEnumerable<string> settings)
    {
        var output = new DirectoryInfo(AppContext.BaseDirectory);
        var root = output.Parent!.Parent!.Parent!.Parent!.FullName;
        var program = Path.Combine(root, "Triggers.AppHost", "bin", output.Parent.Name, output.Name, "Triggers.AppHost.dll");
        if (!File.Exists(program))
            throw new FileNotFoundException($"{program} is not built.");
        var start = new ProcessStartInfo("dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        string[] common =
        [
            program, $"--Data:Directory={_directory}", "--Data:Temporary=true", "--Stores=local", "--Dashboard:Enabled=false",
            "--Ports:Api=0", "--Ports:Receiver=0", "--Ports:Kafka=0", $"--Ports:Postgres={_port}", "--environment=Production",
        ];
        foreach (var argument in common.Concat(settings))
            start.ArgumentList.Add(argument);
        start.Environment[Mark] = _mark;
        _appHost = new Process { StartInfo = start, EnableRaisingEvents = true };
        _appHost.Exited += (_, _) => _started.TrySetException(new InvalidOperationException($"The start failed:\n{_output}"));
        _appHost.OutputDataReceived += (_, e) => Note(e.Data);
        _appHost.ErrorDataReceived += (_, e) => Note(e.Data);
        _end = new Lazy<Task>(EndAsync);
        // Whoever ends the benchmark ends what it started.
        _signals = [.. new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM }.Select(signal => PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            Task.Run(async () =>
            {
                await DisposeAsync();
                Environment.Exit(130);
            });
        }))];
    }

    /// <summary>The API, on 127.0.0.1.</summary>
    public string Api => Told("api").Replace("localhost", "127.0.0.1", StringComparison.Ordinal);

    public string AdminKey => Told("admin key");

    /// <summary>Of the superuser.</summary>
    public string ConnectionString =>
        $"Host=127.0.0.1;Port={_port};Username=postgres;Password={Password};Database=triggersdb;Command Timeout=600";

    public int PostgresPort => _port;

    public string Password => File.ReadAllText(Path.Combine(_directory, "postgres-password"));

    /// <summary>Starts everything, and answers at the moment at which all of it says that it is ready.</summary>
    /// <param name="kafkaHome">Where an Apache Kafka is, to log events there; null for the Postgres log.</param>
    /// <param name="limited">Whether tenants have their limits. Otherwise what is measured is not how it refuses.</param>
    /// <param name="replicas">Of each service; of several it is not told what they use.</param>
    public static Task<SystemUnderTest> StartAsync(string? kafkaHome, bool limited = false, int replicas = 1) =>
        StartAsync(system => system._started.Task,
    [
        $"--Kafka:Home={kafkaHome}", $"--replicas={replicas}",
        .. limited ? (string[])[] :
        [
            "--RateLimiting:RequestsPerSecond=1000000", "--RateLimiting:Burst=1000000", "--RateLimiting:EventsPerSecond=0",
            "--RateLimiting:BytesPerSecond=0",
        ],
    ]);

    /// <summary>Starts nothing but Postgres.</summary>
    public static Task<SystemUnderTest> StartPostgresAsync() =>
        StartAsync(async system => await Until.TrueAsync(system.IsPostgresUpAsync, s_patience), "--Resources=postgres", "--Kafka:Home=");

    private static async Task<SystemUnderTest> StartAsync(Func<SystemUnderTest, Task> ready, params string[] settings)
    {
        var system = new SystemUnderTest(settings);
        system._appHost.Start();
        system._appHost.BeginOutputReadLine();
        system._appHost.BeginErrorReadLine();
        try
        {
            await ready(system).WaitAsync(s_patience);
            return system;
        }
        catch
        {
            await system.DisposeAsync();
            throw;
        }
    }

    /// <summary>Has Postgres count its statements from now on, which takes a start of it; the AppHost gives it one.</summary>
    public async Task CountStatementsAsync()
    {
        await ExecuteAsync("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
        using (var kill = Process.Start("kill", ["-INT", $"{Parts()["postgres"]}"]))
            await kill.WaitForExitAsync();
        var before = _postmaster;
        await Until.TrueAsync(async () =>
        {
            _parts = null;
            return Parts().TryGetValue("postgres", out var now) && now != before && await IsPostgresUpAsync();
        }, s_patience);
        NpgsqlConnection.ClearAllPools();
        await ExecuteAsync("CREATE EXTENSION pg_stat_statements");

        async Task ExecuteAsync(string sql)
        {
            await using var connection = new NpgsqlConnection(ConnectionString + ";Pooling=false");
            await connection.OpenAsync();
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync();
        }
    }

    /// <summary>Seconds of processor time that each part has used so far, by its name.</summary>
    public Dictionary<string, double> Cpu()
    {
        var used = new Dictionary<string, double>();
        foreach (var (part, process) in Parts())
            used[part] = Ticks(process, withEndedChildren: part == "postgres");
        // Every backend is a child of the first process, which inherits what those have used that ended.
        foreach (var process in Processes().Where(p => ParentOf(p) == _postmaster))
            used["postgres"] += Ticks(process, withEndedChildren: false);
        return used.ToDictionary(u => u.Key, u => u.Value / 100);
    }

    /// <summary>
    /// Resident memory of a part, the most that it was since <see cref="ForgetPeaks"/>, and what of it are pages of files, which processes
    /// share: bytes.
    /// </summary>
    public (long Now, long Peak, long Files) Memory(string part)
    {
        var status = File.ReadAllText($"/proc/{Parts()[part]}/status");
        long Of(string name) => long.Parse(Regex.Match(status, name + @":\s+(\d+) kB").Groups[1].ValueSpan) * 1024;
        return (Of("VmRSS"), Of("VmHWM"), Of("RssFile"));
    }

    public void ForgetPeaks()
    {
        foreach (var process in Parts().Values)
            File.WriteAllText($"/proc/{process}/clear_refs", "5");
    }

    /// <summary>Kills a process of a part at once, the next one each time; the AppHost starts another.</summary>
    public async Task KillAsync(string part, int turn)
    {
        int[] processes = [.. ProcessesOf().Where(p => p.Part == part).Select(p => p.Process).Order()];
        using var kill = Process.Start("kill", ["-KILL", $"{processes[turn % processes.Length]}"]);
        await kill.WaitForExitAsync();
    }

    /// <summary>Stops everything and deletes its data, once, whoever asks.</summary>
    public ValueTask DisposeAsync() => new(_end.Value);

    private async Task EndAsync()
    {
        foreach (var signal in _signals)
            signal.Dispose();
        NpgsqlConnection.ClearAllPools();
        if (!_appHost.HasExited)
        {
            using var kill = Process.Start("kill", ["-TERM", $"{_appHost.Id}"]);
            using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(60));
            await _appHost.WaitForExitAsync(limit.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        _started.Task.Exception?.Handle(_ => true);
        _appHost.Dispose();
        if (Directory.Exists(_directory))
            Directory.Delete(_directory, recursive: true);
    }

    private Dictionary<string, int> Parts()
    {
        if (_parts is not null)
            return _parts;
        _parts = [];
        foreach (var (part, process) in ProcessesOf())
            _parts[part] = process;
        _postmaster = _parts.GetValueOrDefault("postgres");
        return _parts;
    }

    private IEnumerable<(string Part, int Process)> ProcessesOf()
    {
        foreach (var process in Processes())
        {
            var command = Read(process, "cmdline").Replace('\0', ' ');
            if (PartName().Match(command) is { Success: true } match
                && Read(process, "environ").Contains($"{Mark}={_mark}", StringComparison.Ordinal))
                yield return (match.Groups.Cast<Group>().Skip(1).First(g => g.Success).Name, process);
        }
    }

    /// <summary>The orchestrator's own processes name none of these; the local receiver has no work.</summary>
    [GeneratedRegex("^dotnet [^ ]*(?<api>Triggers.Api.dll)|^dotnet [^ ]*(?<delivery>Triggers.Delivery.dll)|(?<garnet>GarnetServer.dll)"
        + "|(?<kafka>kafka\\.Kafka )|^(?<postgres>[^ ]*/bin/postgres) ", RegexOptions.ExplicitCapture)]
    private static partial Regex PartName();

    private static IEnumerable<int> Processes() =>
        Directory.EnumerateDirectories("/proc").Select(Path.GetFileName).Where(name => char.IsAsciiDigit(name![0])).Select(int.Parse!);

    /// <returns>Nothing, where it has ended, or is somebody else's.</returns>
    private static string Read(int process, string file)
    {
        try
        {
            return File.ReadAllText($"/proc/{process}/{file}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    /// <summary>What follows its name, which may have anything in it: state, parent, …</summary>
    private static string[] Stat(int process) =>
        Read(process, "stat") is { Length: > 0 } stat ? stat[(stat.LastIndexOf(')') + 2)..].Split(' ') : [];

    private static int ParentOf(int process) => Stat(process) is { Length: > 1 } stat ? int.Parse(stat[1]) : 0;

    /// <summary>Of user and system, in hundredths of a second.</summary>
    public static long Ticks(int process, bool withEndedChildren) =>
        Stat(process) is { Length: > 14 } stat ? stat[11..(withEndedChildren ? 15 : 13)].Sum(long.Parse) : 0;

    private async Task<bool> IsPostgresUpAsync()
    {
        if (_appHost.HasExited)
            await _started.Task;
        if (!File.Exists(Path.Combine(_directory, "postgres-password")))
            return false;
        try
        {
            await using var connection = new NpgsqlConnection(ConnectionString + ";Database=postgres;Pooling=false");
            await connection.OpenAsync();
            return true;
        }
        catch (NpgsqlException)
        {
            return false;
        }
    }

    private void Note(string? line)
    {
        lock (_output)
            _output.AppendLine(line);
        if (line?.Contains("Ctrl-C stops", StringComparison.Ordinal) == true)
            _started.TrySetResult();
    }

    private string Told(string name)
    {
        lock (_output)
            return Regex.Match(_output.ToString(), $@"^\s*{name}\s+(\S+)", RegexOptions.Multiline).Groups[1].Value;
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
