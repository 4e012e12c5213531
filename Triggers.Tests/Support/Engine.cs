using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Mvc.Testing;
using Microsoft.AspNetCore.TestHost;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using Triggers.Core;
using Triggers.Core.Schema;
using Triggers.Core.State;
using Triggers.Core.Tables;
using Triggers.EventLog;
using Triggers.EventLog.Postgres;
using Triggers.Tests.Delivery.Attempts;

namespace Triggers.Tests.Support;

/// <summary>
/// The delivery service inside this process, on a database of its own, with the log it reads from. Real sockets, real Postgres.
/// </summary>
internal sealed class Engine : IAsyncDisposable
{
    private const string Secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    private readonly List<DeliveryHost> _hosts = [];
    private readonly List<IAsyncDisposable> _others = [];
    private readonly PostgresEventLog _log;
    private readonly (string Key, string Value)[] _kafka;

    private Engine(string connectionString, (string Key, string Value)[] kafka)
    {
        ConnectionString = connectionString;
        _kafka = kafka;
        DataSource = Storage.Builder(connectionString, "tests").Build();
        Rows = new Rows(DataSource);
        _log = new PostgresEventLog(DataSource, TimeProvider.System, NullLogger<PostgresEventLog>.Instance);
    }

    public string ConnectionString { get; }

    public NpgsqlDataSource DataSource { get; }

    public Rows Rows { get; }

    /// <summary>The log: Kafka where the engine was created with it.</summary>
    public IEventLog Log => Kafka?.Log ?? (IEventLog)_log;

    /// <summary>The Postgres log, which is there on both forms.</summary>
    public IEventLog PostgresLog => _log;

    public KafkaLog? Kafka { get; private set; }

    /// <summary>What makes a service one of this engine's.</summary>
    public (string Key, string Value)[] Settings => [("ConnectionStrings:triggersdb", ConnectionString), .. _kafka];

    public Guid Tenant { get; } = TypeId.NewGuid();

    /// <param name="postgres">Where its database is made.</param>
    /// <param name="kafka">The broker where it logs events; null for the Postgres log.</param>
    /// <param name="connectionSettings">Added to every connection string.</param>
    /// <param name="schema">The schema's version, if it is not the newest.</param>
    public static async Task<Engine> CreateAsync(
        PostgresServer postgres, string? kafka = null, string connectionSettings = "", string? schema = null)
    {
        var database = await (schema is null ? postgres.CreateMigratedDatabaseAsync() : postgres.CreateDatabaseAsync());
        var engine = new Engine(database + connectionSettings, kafka is null ? [] : KafkaLog.Settings(kafka));
        if (schema is not null)
            await engine.MigrateAsync(schema);
        await engine.ExecuteAsync($"INSERT INTO tenants (id, name) VALUES ('{engine.Tenant}', 'default')");
        await engine._log.StartAsync(TestContext.Current.CancellationToken);
        if (kafka is not null)
            engine.Kafka = await KafkaLog.StartAsync(engine.DataSource, engine._kafka);
        return engine;
    }

    /// <summary>
    /// Brings an empty database to an older version of the schema. EF goes to the newest only: it takes other names for targets.
    /// </summary>
    private async Task MigrateAsync(string schema)
    {
        await using var db = Db();
        var history = db.GetService<IHistoryRepository>();
        await ExecuteAsync(history.GetCreateScript());
        var assembly = typeof(TriggersDbContext).Assembly;
        foreach (var name in assembly.GetManifestResourceNames().Where(n => n.EndsWith(".sql", StringComparison.Ordinal))
            .Order(StringComparer.Ordinal))
        {
            var id = name[..^".sql".Length];
            if (string.CompareOrdinal(id, schema) > 0)
                break;
            using var script = new StreamReader(assembly.GetManifestResourceStream(name)!);
            await ExecuteAsync(await script.ReadToEndAsync(TestContext.Current.CancellationToken));
            await ExecuteAsync(history.GetInsertScript(new HistoryRow(id, "10")));
        }
    }

    /// <summary>Brings the schema to its newest version.</summary>
    public async Task MigrateAsync()
    {
        await using var db = Db();
        await SchemaVersion.MigrateAsync(db, TestContext.Current.CancellationToken);
    }

    /// <summary>The same log, as another API process has it.</summary>
    public async Task<IEventLog> AnotherLogAsync()
    {
        if (_kafka.Length > 0)
        {
            var kafka = await KafkaLog.StartAsync(DataSource, _kafka);
            _others.Add(kafka);
            return kafka.Log;
        }
        var postgres = new PostgresEventLog(DataSource, TimeProvider.System, NullLogger<PostgresEventLog>.Instance);
        _others.Add(new Stopping(postgres));
        await postgres.StartAsync(TestContext.Current.CancellationToken);
        return postgres;
    }

    public TriggersDbContext Db()
    {
        var options = new DbContextOptionsBuilder<TriggersDbContext>();
        options.UseTriggers(DataSource);
        return new TriggersDbContext(options.Options);
    }

    /// <summary>Starts a delivery service; retries come a tenth of a second apart unless the settings say otherwise.</summary>
    public Task<DeliveryHost> StartDeliveryAsync(params (string Key, string Value)[] settings) => StartDeliveryAsync(null, settings);

    /// <summary>The same, with somebody who reads the logs.</summary>
    public Task<DeliveryHost> StartDeliveryAsync(ILoggerProvider? logs, params (string Key, string Value)[] settings) =>
        StartDeliveryAsync(logs, null, settings);

    /// <summary>The same, where receivers may have certificates from a root of the tests.</summary>
    public async Task<DeliveryHost> StartDeliveryAsync(
        ILoggerProvider? logs, X509Certificate2? trusted, params (string Key, string Value)[] settings)
    {
        var host = new DeliveryHost(
        [
            .. Settings, ("Delivery:AllowedNetworks", "127.0.0.0/8"), ("Delivery:Retry:BaseDelay", "00:00:00.1"),
            ("Delivery:Retry:Factor", "1"), ("Delivery:Retry:Jitter", "0"), ("Shutdown:Delay", "00:00:00"),
            // Where it is not about that, receivers may fail as often as they like.
            ("Delivery:Circuit:ConsecutiveFailures", "1000"), ("Delivery:Circuit:MinimumThroughput", "100000"), .. settings,
        ], logs, trusted);
        _hosts.Add(host);
        await Wait.UntilAsync("a delivery service is registered", async () =>
            await ScalarAsync<long>($"SELECT count(*) FROM workers") >= _hosts.Count(h => h.Running));
        return host;
    }

    public async Task<Guid> SubscribeAsync(string url, params string[] eventTypes)
    {
        var id = TypeId.NewGuid();
        // Not by EF, which knows only the newest schema.
        await using var command = DataSource.CreateCommand(
            "INSERT INTO subscriptions (id, tenant_id, url, event_types, secrets) VALUES ($1, $2, $3, $4, $5::jsonb)");
        foreach (var value in new object[]
        {
            id, Tenant, url, eventTypes.Length == 0 ? new[] { "*" } : eventTypes,
            JsonSerializer.Serialize<SigningSecret[]>([new SigningSecret { Secret = Secret }]),
        })
            command.Parameters.AddWithValue(value);
        await command.ExecuteNonQueryAsync();
        return id;
    }

    /// <summary>Appends events to the log, as one request, and answers their ids.</summary>
    public async Task<Guid[]> AppendAsync(
        string type, int count = 1, string data = """{"n":1}""", IEventLog? log = null, Guid? tenant = null,
        string? subject = null)
    {
        var first = TypeId.NewGuid();
        var events = Enumerable.Range(0, count)
            .Select(i => new NewEvent(TypeId.Add(first, i), type, null, null, null, subject, null, Encoding.UTF8.GetBytes(data)))
            .ToArray();
        var result = await (log ?? Log)
            .AppendAsync(new AppendRequest(tenant ?? Tenant, first, "test", null, null, events), TestContext.Current.CancellationToken);
        return [.. result.Events.Select(e => e.Id)];
    }

    public Task WaitForStatusAsync(Guid eventId, DeliveryStatus status, int count = 1) =>
        Wait.UntilAsync($"{count} deliveries of the event are {status}", async () =>
            await ScalarAsync<long>(
                $"SELECT count(*) FROM all_deliveries WHERE event_id = '{eventId}' AND status = "
                    + $"'{SnakeCase<DeliveryStatus>.Of(status)}'") == count);

    /// <summary>Waits until every event that the log has is projected and settled, as the inbox and the status of events see it.</summary>
    public Task WaitUntilSettledAsync() =>
        Wait.UntilAsync("every event is settled", async () => await UnsettledAsync() == 0, TimeSpan.FromMinutes(1));

    /// <summary>How many of the stored events are not delivered or acknowledged.</summary>
    public Task<long> UnsettledAsync() => ScalarAsync<long>($"SELECT count(*) FROM events e WHERE {EventState.Status} <> 'delivered'");

    /// <summary>Where an event stands.</summary>
    public Task<string> StatusAsync(Guid eventId) =>
        ScalarAsync<string>($"SELECT {EventState.Status} FROM events e WHERE e.id = '{eventId}'");

    /// <summary>What the delivery service and the API write, as one transaction.</summary>
    public Task ExecuteAsync(params IEnumerable<NpgsqlBatchCommand> commands) => Rows.ExecuteAsync(commands);

    public async Task<T> ScalarAsync<T>(string sql)
    {
        await using var command = DataSource.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync())!;
    }

    public async Task<int> ExecuteAsync(string sql)
    {
        await using var command = DataSource.CreateCommand(sql);
        return await command.ExecuteNonQueryAsync();
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var host in _hosts)
            await host.DisposeAsync();
        foreach (var other in _others)
            await other.DisposeAsync();
        if (Kafka is not null)
            await Kafka.DisposeAsync();
        await _log.StopAsync(CancellationToken.None);
        _log.Dispose();
        await DataSource.DisposeAsync();
    }

    private sealed class Stopping(PostgresEventLog log) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            await log.StopAsync(CancellationToken.None);
            log.Dispose();
        }
    }
}

/// <summary>Triggers.Delivery inside this process.</summary>
internal sealed class DeliveryHost : WebApplicationFactory<DeliveryMarker>
{
    private readonly (string Key, string Value)[] _settings;
    private readonly ILoggerProvider? _logs;
    private readonly X509Certificate2? _trusted;

    /// <param name="settings">Of the service.</param>
    /// <param name="logs">Who reads what it logs.</param>
    /// <param name="trusted">A root from which receivers may have certificates.</param>
    /// <param name="listens">Whether it listens on a socket.</param>
    public DeliveryHost(
        (string Key, string Value)[] settings, ILoggerProvider? logs, X509Certificate2? trusted = null, bool listens = false)
    {
        _settings = settings;
        _trusted = trusted;
        _logs = logs;
        if (listens)
            UseKestrel(0);
        _ = Services;
    }

    public bool Running { get; private set; } = true;

    protected override void ConfigureWebHost(IWebHostBuilder builder)
    {
        foreach (var (key, value) in _settings)
            builder.UseSetting(key, value);
        if (_logs is not null)
            builder.ConfigureLogging(logging => logging.AddProvider(_logs));
        if (_trusted is not null)
            builder.ConfigureTestServices(services => Certificates.Trust(services, _trusted));
    }

    public override ValueTask DisposeAsync()
    {
        Running = false;
        return base.DisposeAsync();
    }
}

/// <summary>A log as a request uses it that has all its time ahead of it.</summary>
internal static class WholeRequests
{
    private static TimeLimit Limit => new(TimeProvider.System, RequestBudget.Request);

    public static Task<AppendResult> AppendAsync(this IEventLog log, AppendRequest request, CancellationToken cancellationToken) =>
        log.AppendAsync(request, Limit, cancellationToken);

    public static Task<AppendResult?> FindRepeatedAsync(this IEventLog log, AppendRequest request, CancellationToken cancellationToken) =>
        log.FindRepeatedAsync(request, Limit, cancellationToken);

    public static Task<IReadOnlySet<Guid>> FindAcceptedAsync(
        this IEventLog log, AppendRequest request, CancellationToken cancellationToken) =>
        log.FindAcceptedAsync(request, Limit, cancellationToken);
}
