using System.Security.Cryptography;
using System.Text;
using CliWrap;
using Npgsql;

namespace Triggers.AppHost.Processes;

/// <summary>A PostgreSQL of our own: binaries from the cache, data below the data directory, reachable from this machine only.</summary>
internal sealed class Postgres
{
    private const string User = "postgres";

    private readonly string _bin;
    private readonly string _data;
    private readonly int _port;
    private readonly string _password;
    private readonly int _replicas;

    private Postgres(string bin, string data, int port, string password, int replicas) =>
        (_bin, _data, _port, _password, _replicas) = (bin, data, port, password, replicas);

    public string ConnectionString(string database) => new NpgsqlConnectionStringBuilder
    {
        Host = "127.0.0.1",
        Port = _port,
        Username = User,
        Password = _password,
        Database = database,
    }.ConnectionString;

    /// <summary>Gets the binaries and makes the data directory, where they are not there yet.</summary>
    public static async Task<Postgres> ProvideAsync(Settings settings, PackageCache cache, Screen screen, CancellationToken cancellationToken)
    {
        var package = Packages.Postgres ?? throw new AppHostException($"There is no PostgreSQL package for this machine. {UseYourOwn}");
        string unpacked;
        try
        {
            unpacked = await cache.GetAsync(package, "PostgreSQL 18 (24 MB)", prepare: null, cancellationToken);
        }
        catch (AppHostException e)
        {
            throw new AppHostException($"{e.Message}{Environment.NewLine}{UseYourOwn}");
        }
        var password = PrivateFile.ReadOrCreate(
            Path.Combine(settings.DataDirectory, "postgres-password"), () => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16)));
        var postgres = new Postgres(
            Path.Combine(unpacked, "native", "bin"),
            Path.Combine(settings.DataDirectory, "postgres"),
            Ports.Claim(Topology.Postgres, settings.PortOf(Topology.Postgres, 0)),
            password,
            settings.Replicas);
        if (!Directory.Exists(postgres._data))
            await postgres.InitializeAsync(screen, cancellationToken);
        return postgres;
    }

    private static string UseYourOwn =>
        $"Or name a PostgreSQL (16 or newer) of yours: ConnectionStrings__{Topology.Database}=\"Host=…;Username=…;Password=…;Database={Topology.Database}\".";

    private async Task InitializeAsync(Screen screen, CancellationToken cancellationToken)
    {
        // Half made, it has another name, and is made anew by the next start.
        var unfinished = _data + ".new";
        var passwordFile = _data + ".initial-password";
        if (Directory.Exists(unfinished))
            Directory.Delete(unfinished, recursive: true);
        Directory.CreateDirectory(unfinished);
        PrivateFile.Write(passwordFile, _password);
        if (Unix.IsRoot)
        {
            Unix.GiveToNobody(unfinished);
            Unix.GiveToNobody(passwordFile);
        }
        var said = new StringBuilder();
        // The builtin locale sorts the same on every system, and for ever.
        var (program, arguments) = Command(
            "initdb", "-D", unfinished, "-U", User, "--pwfile", passwordFile, "--auth=scram-sha-256", "--encoding=UTF8",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions");
        var result = await Cli.Wrap(program)
            .WithArguments(arguments)
            .WithWorkingDirectory(Path.GetDirectoryName(_data)!)
            .WithEnvironmentVariables(builder => builder.Set("TZ", "UTC").Set("DOTNET_EnableDiagnostics", "0"))
            .WithStandardOutputPipe(PipeTarget.ToStringBuilder(said))
            .WithStandardErrorPipe(PipeTarget.ToStringBuilder(said))
            .WithValidation(CommandResultValidation.None)
            .ExecuteAsync(cancellationToken);
        File.Delete(passwordFile);
        if (!result.IsSuccess)
            throw new AppHostException($"initdb ended with {result.ExitCode}:{Environment.NewLine}{said.ToString().Trim()}{Environment.NewLine}{UseYourOwn}");
        Directory.Move(unfinished, _data);
        screen.Say($"A new database cluster is in {_data}");
    }

    public Launch ToLaunch(string logs)
    {
        string[] settings =
        [
            "-p", $"{_port}",
            "-c", "listen_addresses=127.0.0.1",
            "-c", "unix_socket_directories=",
            // Two services with a pool of 100 each, and room for tests and tools.
            "-c", $"max_connections={100 + (200 * _replicas)}",
            "-c", "shared_buffers=256MB",
            "-c", "max_wal_size=2GB",
            "-c", "random_page_cost=1.1",
            // Short queries only: compiling them costs more than it saves.
            "-c", "jit=off",
            "-c", "log_line_prefix=%m [%p] ",
            "-c", "log_timezone=UTC",
            "-c", "timezone=UTC",
        ];
        var environment = ChildEnvironment.Inherited();
        environment["DOTNET_EnableDiagnostics"] = "0";
        var (program, arguments) = OperatingSystem.IsWindows()
            ? Command("pg_ctl", "start", "-w", "-D", _data, "-l", Path.Combine(logs, "postgres.log"), "-o", string.Join(' ', settings.Select(Quoted)))
            : Command("postgres", ["-D", _data, .. settings]);
        return new Launch
        {
            Name = Topology.Postgres,
            Program = program,
            Arguments = arguments,
            WorkingDirectory = Path.GetDirectoryName(_data)!,
            Environment = environment,
            IsReady = cancellationToken => AnswersAsync(ConnectionString("postgres"), cancellationToken),
            IsWorthShowing = line => line.Contains(" PANIC: ", StringComparison.Ordinal),
            // "Fast": ends sessions, writes a checkpoint. SIGTERM would wait for every session to end by itself.
            StopSignal = Unix.SIGINT,
            StopCommand = OperatingSystem.IsWindows() ? () => StopByPgCtlAsync() : null,
            LeavesRunning = OperatingSystem.IsWindows() ? () => int.Parse(File.ReadLines(Path.Combine(_data, "postmaster.pid")).First()) : null,
        };
    }

    /// <summary>Whether a server takes a connection and a query.</summary>
    public static async Task<bool> AnswersAsync(string connectionString, CancellationToken cancellationToken)
    {
        try
        {
            await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(connectionString) { Pooling = false, Timeout = 5 }.ConnectionString);
            await connection.OpenAsync(cancellationToken);
            return true;
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException)
        {
            return false;
        }
    }

    /// <summary>Looks at a server that is not ours, so that a mistake is named before anything starts.</summary>
    /// <exception cref="AppHostException">It can't be used.</exception>
    public static async Task CheckExternalAsync(string connectionString, CancellationToken cancellationToken)
    {
        var setting = $"ConnectionStrings:{Topology.Database}";
        try
        {
            // The database itself may not exist yet: the migrations create it.
            var server = new NpgsqlConnectionStringBuilder(connectionString) { Database = "postgres", Pooling = false };
            await using var connection = new NpgsqlConnection(server.ConnectionString);
            await connection.OpenAsync(cancellationToken);
            if (connection.PostgreSqlVersion.Major < 16)
                throw new AppHostException($"{setting} names a PostgreSQL {connection.PostgreSqlVersion}; 16 or newer is needed.");
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException or ArgumentException)
        {
            throw new AppHostException($"{setting} was given and can't be used: {e.Message}");
        }
    }

    private Task StopByPgCtlAsync() =>
        Cli.Wrap(Path.Combine(_bin, "pg_ctl.exe")).WithArguments(["stop", "-W", "-m", "fast", "-D", _data])
            .WithValidation(CommandResultValidation.None).ExecuteAsync();

    /// <summary>Postgres refuses to run as root, so it runs as nobody then: this program changes the user and becomes it.</summary>
    private (string Program, string[] Arguments) Command(string name, params string[] arguments)
    {
        var program = Path.Combine(_bin, OperatingSystem.IsWindows() ? name + ".exe" : name);
        return Unix.IsRoot
            ? (Clone.Dotnet, [typeof(Postgres).Assembly.Location, "--as-nobody", program, .. arguments])
            : (program, arguments);
    }

    private static string Quoted(string argument) => argument.Contains(' ') ? $"\"{argument}\"" : argument;
}
